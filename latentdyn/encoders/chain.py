"""Gaussian-chain encoder: linear dynamics of its own, corrected by what each step saw."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.distributions import GaussianChain
from latentdyn.encoders.encoder import Encoder, perceptron, within
from latentdyn.encoders.features import Features
from latentdyn.nn import matvec

__all__ = ["Chain"]


class Chain(Encoder):
    r"""Linear-Gaussian dynamics of its own times a Gaussian pseudo-observation of every unit.

    q(z) is proportional to  N(z_1; m, S_1) prod_t N(z_t; F z_{t-1} + g + G u_t, S)
    prod_{t,d} exp(v_td p_d'z_t - w_td (p_d'z_t)^2 / 2),  with w >= 0 and v given by the features of
    step t, zero where y_td is missing. This is one Gaussian over the whole path with a block-
    tridiagonal precision: no loop over time but the banded solve, and exact entropy. For a
    linear-Gaussian model it contains the exact posterior, missing data included.

    Shapes: ``y`` (N, T, D) -> batch (N,), event (T, K). Source: Johnson et al. (2016), eq. 5, for
    dynamics times sites; Archer et al. (2015) for the chain.
    """

    def __init__(self, obs_dim: int, state_dim: int, input_dim: int = 0, *, hidden: int = 32):
        super().__init__()
        self.obs_dim, self.state_dim, self.input_dim = obs_dim, state_dim, input_dim
        self.hidden = hidden
        D, K = obs_dim, state_dim
        self.features = Features(D, input_dim)
        self.body = perceptron(self.features.size, hidden)
        self.head = nn.Linear(hidden, 2 * D)
        self.P = nn.Parameter(torch.empty(D, K))
        self.gain = nn.Parameter(torch.empty(D))
        self.log_w = nn.Parameter(torch.empty(D))
        self.F = nn.Parameter(torch.empty(K, K))
        self.g = nn.Parameter(torch.zeros(K))
        self.G = nn.Parameter(torch.zeros(K, input_dim))
        self.log_S = nn.Parameter(torch.empty(K))
        self.m = nn.Parameter(torch.zeros(K))
        self.log_S1 = nn.Parameter(torch.zeros(K))
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

    def initialise(self, batch: Batch, emission: Conditional | None = None) -> None:
        """Standardise, and point P where the emission's standardised mean moves with z."""
        super().initialise(batch, emission)
        if emission is None or emission.input_dim:
            return
        origin = torch.zeros(self.state_dim, dtype=self.P.dtype, device=self.P.device)
        slope = torch.func.jacrev(lambda z: emission(z).mean)(origin)
        with torch.no_grad():
            self.P.copy_(slope / self.features.scale[:, None])

    def forward(
        self,
        y: Tensor,
        u: Tensor | None = None,
        mask: Tensor | None = None,
        length: Tensor | None = None,
    ) -> GaussianChain:
        """The posterior over paths."""
        x = self.features(y, u, mask)
        seen = torch.ones_like(y) if mask is None else mask.to(y.dtype)
        shift, log_w = self.head(self.body(x)).chunk(2, -1)
        v = seen * (self.gain * x[..., : self.obs_dim] + shift)  # (N, T, D)
        w = seen * (self.log_w + log_w).exp()  # (N, T, D)
        outer = self.P[:, :, None] * self.P[:, None, :]  # (D, K, K)
        J = (w @ outer.flatten(1)).unflatten(-1, outer.shape[1:])
        valid = within(length, y.shape[-2])
        diag, off, h = self._dynamics(y.shape[-2], u, valid)
        return GaussianChain(diag + J, off, h + v @ self.P, valid)

    def _dynamics(
        self, steps: int, u: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Precision blocks and linear term of the chain, (..., T, ...) as far as trials differ.

        Past the end of a trial each step stands alone, so that it integrates to one.
        """
        joined = self.F.new_ones(steps - 1) if valid is None else valid[..., 1:].to(self.F.dtype)
        inverse = (-self.log_S).exp()  # S^{-1}
        precision = torch.cat([(-self.log_S1).exp()[None], inverse.expand(steps - 1, -1)])
        drive = self.g.expand(steps - 1, -1)
        drive = drive if u is None or not self.input_dim else drive + matvec(self.G, u[..., 1:, :])
        mean = torch.cat([self.m.expand(*drive.shape[:-2], 1, -1), drive], -2)
        SF = inverse[:, None] * self.F
        link = joined[..., None, None] * (self.F.mT @ SF)
        diag = torch.diag_embed(precision) + pad(link, (0, 0, 0, 0, 0, 1))
        back = joined[..., None] * matvec(SF.mT, mean[..., 1:, :])
        h = precision * mean - pad(back, (0, 0, 0, 1))
        return diag, -joined[..., None, None] * SF, h
