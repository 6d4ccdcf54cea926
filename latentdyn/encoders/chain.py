"""Gaussian-chain encoder: linear dynamics of its own, corrected by what each step saw."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.distributions import GaussianChain
from latentdyn.encoders.encoder import Encoder, perceptron, within
from latentdyn.encoders.features import Features
from latentdyn.encoders.linear_chain import LinearChain, Sites, linear_chain, unit_factor
from latentdyn.nn import matvec

__all__ = ["Chain"]

RIDGE = 1e-3  # per step, of features of size one
TINY = 1e-8  # precision of what shows nothing, in units of the data's variance


class Chain(Encoder):
    r"""Linear-Gaussian dynamics of its own times a Gaussian pseudo-observation of every unit.

    q(z) is proportional to  N(z_1; m, S_1) prod_t N(z_t; F z_{t-1} + g + G u_t, S)
    prod_{t,d} exp(-w_td (x_td - p_d'z_t)^2 / 2),  of the standardised y_td, and with w > 0 and a
    shift of x given by the features of step t; nothing where y_td is missing. This is one Gaussian
    over the whole path with a block-tridiagonal precision: no loop over time but the banded solve,
    and exact entropy. Of a linear-Gaussian program with constant parameters it contains the exact
    posterior, missing data included (where noise is correlated between units, with ``mixed`` and
    whole steps), and `follow` starts there.

    Shapes: ``y`` (N, T, D) -> batch (N,), event (T, K). ``mixed``: what one unit shows about the
    state is corrected by the units before it, as correlated noise asks for.
    Source: Johnson et al. (2016), eq. 5, for dynamics times sites; Archer et al. (2015) for the
    chain.
    """

    def __init__(
        self,
        obs_dim: int,
        state_dim: int,
        input_dim: int = 0,
        *,
        hidden: int = 32,
        mixed: bool = False,
    ):
        super().__init__()
        self.obs_dim, self.state_dim, self.input_dim = obs_dim, state_dim, input_dim
        self.hidden, self.mixed = hidden, mixed
        D, K, U = obs_dim, state_dim, input_dim
        self.features = Features(D, U)
        self.body = perceptron(self.features.size, hidden)
        self.head = nn.Linear(hidden, 2 * D)
        self.P = nn.Parameter(torch.empty(D, K))
        self.M = nn.Parameter(torch.zeros(D, D if mixed else 0))
        self.gain = nn.Parameter(torch.empty(D))
        self.bias = nn.Parameter(torch.zeros(D))
        self.E = nn.Parameter(torch.zeros(D, U))
        self.log_w = nn.Parameter(torch.empty(D))
        self.F = nn.Parameter(torch.empty(K, K))
        self.g = nn.Parameter(torch.zeros(K))
        self.G = nn.Parameter(torch.zeros(K, U))
        self.log_S = nn.Parameter(torch.empty(K))
        self.off_S = nn.Parameter(torch.zeros(K, K))
        self.m = nn.Parameter(torch.zeros(K))
        self.log_S1 = nn.Parameter(torch.zeros(K))
        self.off_S1 = nn.Parameter(torch.zeros(K, K))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Slow dynamics, weak pseudo-observations."""
        K = self.state_dim
        self.P.normal_(std=0.5 / K**0.5)
        self.gain.fill_(1.0)
        self.log_w.zero_()
        self.F.copy_(0.95 * torch.eye(K))
        self.log_S.fill_(-2.3)
        self.head.weight.mul_(0.1)
        self.head.bias.zero_()
        for p in (self.M, self.bias, self.E, self.off_S, self.off_S1):
            p.zero_()

    def initialise(self, batch: Batch, emission: Conditional | None = None) -> None:
        """Standardise, and point P where the emission's standardised mean moves with z."""
        super().initialise(batch, emission)
        if emission is None or emission.input_dim:
            return
        origin = torch.zeros(self.state_dim, dtype=self.P.dtype, device=self.P.device)
        slope = torch.func.jacrev(lambda z: emission(z).mean)(origin)
        with torch.no_grad():
            self.P.copy_(slope / self.features.scale[:, None])

    @torch.no_grad()
    def follow(
        self, program: nn.Module, batch: Batch, path: Callable[[], Tensor | None] | None = None
    ) -> bool:
        """The smoother of the program, linearised where it is not linear: exact where it is.

        Not where the program has inputs that the encoder was built without.
        """
        chain = linear_chain(program, batch, path)
        if chain is None or max(chain.G.shape[-1], chain.E.shape[-1]) > self.input_dim:
            return False
        self._take(chain)
        if chain.sites is not None and not self.mixed:
            self._vary(batch, chain.sites)
        return True

    def _take(self, chain: LinearChain) -> None:
        """The parameters that say the same as a linear-Gaussian chain."""
        center, scale = (x.double() for x in (self.features.center, self.features.scale))
        for mine, value in ((self.F, chain.F), (self.g, chain.g), (self.m, chain.m)):
            mine.copy_(value)
        G, E = (pad(B, (0, self.input_dim - B.shape[-1])) for B in (chain.G, chain.E))
        self.G.copy_(G)
        for off, log, V in ((self.off_S, self.log_S, chain.S), (self.off_S1, self.log_S1, chain.V)):
            below, variance = unit_factor(V)
            off.copy_(below)
            log.copy_(variance.log())
        R = chain.R / scale / scale[:, None]
        M, variance = unit_factor(R if self.mixed else torch.diag(R.diagonal()))
        self.M.copy_(M[:, : self.M.shape[1]])
        own = M + torch.eye(self.obs_dim).to(M)
        self.P.copy_(own @ (chain.C / scale[:, None]))
        self.E.copy_(-own @ (E / scale[:, None]))
        self.gain.copy_(chain.gain)
        self.bias.copy_(own @ ((chain.gain * center - chain.d) / scale))
        self.log_w.copy_(-variance.log())
        self.head.weight.zero_()
        self.head.bias.zero_()

    def _vary(self, batch: Batch, sites: Sites) -> None:
        """Let the features say, by ridge regression, what differs from step to step."""
        x = self.features(batch.y, batch.u, batch.mask)[sites.rows].double()
        hidden = copy.deepcopy(self.body).double()(x)
        hidden = torch.cat([hidden, torch.ones_like(hidden[:, :1])], -1)
        mask = batch.mask[sites.rows]
        scale = self.features.scale.double()
        log_w = (sites.w * scale.square()).clamp(min=TINY).log()
        found = _ridge(hidden, log_w - self.log_w, mask)
        u = None if batch.u is None else batch.u[sites.rows].double()
        shown = self._shown(x[:, : self.obs_dim], u)
        root = (0.5 * (self.log_w + hidden @ found)).exp()
        shift = _ridge(hidden, root * (sites.seen / scale - shown), mask)
        both = torch.cat([shift, found], -1).mT
        self.head.weight.copy_(both[:, :-1])
        self.head.bias.copy_(both[:, -1])

    def forward(self, batch: Batch, program: nn.Module | None = None) -> GaussianChain:
        """The posterior over paths."""
        y, u, mask, length = self.seen(batch)
        x = self.features(y, u, mask)
        seen = torch.ones_like(y) if mask is None else mask.to(y.dtype)
        shift, log_w = self.head(self.body(x)).chunk(2, -1)
        root = seen * (0.5 * (self.log_w + log_w)).exp()
        v = root * (root * self._shown(x[..., : self.obs_dim], u) + shift)  # (N, T, D)
        w = root.square()  # (N, T, D)
        outer = self.P[:, :, None] * self.P[:, None, :]  # (D, K, K)
        J = (w @ outer.flatten(1)).unflatten(-1, outer.shape[1:])
        valid = within(length, y.shape[-2])
        diag, off, h = self._dynamics(y.shape[-2], u, valid)
        return GaussianChain(diag + J, off, h + v @ self.P, valid)

    def _shown(self, x: Tensor, u: Tensor | None) -> Tensor:
        """What standardised units (N, T, D) say about P z."""
        x = self.gain * x
        x = (x + x @ self.M.tril(-1).mT if self.mixed else x) + self.bias
        return x if u is None or not self.input_dim else x + matvec(self.E, u)

    def _dynamics(
        self, steps: int, u: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Precision blocks and linear term of the chain, (..., T, ...) as far as trials differ.

        Past the end of a trial each step stands alone, so that it integrates to one.
        """
        joined = self.F.new_ones(steps - 1) if valid is None else valid[..., 1:].to(self.F.dtype)
        first, later = _precision(self.log_S1, self.off_S1), _precision(self.log_S, self.off_S)
        drive = self.g.expand(steps - 1, -1)
        drive = drive if u is None or not self.input_dim else drive + matvec(self.G, u[..., 1:, :])
        SF = later @ self.F
        link = joined[..., None, None] * (self.F.mT @ SF)
        K = self.state_dim
        own = torch.cat([first[None], later.expand(steps - 1, K, K)])
        diag = own + pad(link, (0, 0, 0, 0, 0, 1))
        back = pad(joined[..., None] * matvec(SF.mT, drive), (0, 0, 0, 1))
        start = matvec(first, self.m).expand(*drive.shape[:-2], 1, K)
        h = torch.cat([start, matvec(later, drive)], -2) - back
        return diag, -joined[..., None, None] * SF, h


def _ridge(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Each column of y (n, D) regressed on x (n, p) where it was observed: (p, D)."""
    seen = mask.to(x.dtype)
    G = torch.einsum("np,nd,nq->dpq", x, seen, x)
    G = G + RIDGE * len(x) * torch.eye(x.shape[-1]).to(x)
    return torch.linalg.solve(G, torch.einsum("np,nd->dp", x, seen * y)).mT


def _precision(log_variance: Tensor, off: Tensor) -> Tensor:
    """U' diag(1 / v) U, U = I + the part of ``off`` below its diagonal."""
    U = torch.eye(len(off), dtype=off.dtype, device=off.device) + off.tril(-1)
    return U.mT @ ((-log_variance).exp()[:, None] * U)
