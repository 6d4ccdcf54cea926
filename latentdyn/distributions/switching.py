"""Continuous paths whose linear dynamics switch between discrete states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentdyn.distributions.discrete import DiscretePath
from latentdyn.distributions.gaussian import gaussian
from latentdyn.distributions.path import Path
from latentdyn.kernels.switching import take
from latentdyn.nn import broadcast_shapes, matvec
from latentdyn.values import Shape

__all__ = ["Regimes", "SwitchingPath"]


@dataclass(frozen=True)
class Regimes:
    """Parameters of switching dynamics, with dimensions of draws and trials before their own.

    ``log_initial`` (..., S), ``log_transition`` (..., S, S), ``A`` (..., S, K, K), ``b``
    (..., T or 1, S, K) with inputs inside, ``Q`` (..., S, K, K), ``mean`` (..., K), ``covariance``
    (..., K, K), and of recurrent ones ``G`` (..., S, K), else None.
    """

    log_initial: Tensor
    log_transition: Tensor
    A: Tensor
    b: Tensor
    Q: Tensor
    mean: Tensor
    covariance: Tensor
    G: Tensor | None = None

    def log_next(self, z: Tensor) -> Tensor:
        """Log p(s_t = j | s_{t-1} = i, z_{t-1}): z (..., K) -> (..., S, S)."""
        if self.G is None:
            return self.log_transition
        return (self.log_transition + matvec(self.G, z)[..., None, :]).log_softmax(-1)

    def offset(self, t: int) -> Tensor:
        """b at step t: (..., S, K)."""
        return self.b[..., 0 if self.b.shape[-3] == 1 else t, :, :]

    def unsqueeze(self, dims: int) -> Regimes:
        """With axes of size one between trials and the parameters' own dimensions (of b: times)."""

        def wide(x: Tensor, rank: int) -> Tensor:
            lead = x.dim() - rank
            return x.reshape(*x.shape[:lead], *(1,) * dims, *x.shape[lead:])

        first, later = wide(self.log_initial, 1), wide(self.log_transition, 2)
        A, b, Q = (wide(x, 3) for x in (self.A, self.b, self.Q))
        G = None if self.G is None else wide(self.G, 2)
        return Regimes(first, later, A, b, Q, wide(self.mean, 1), wide(self.covariance, 2), G)


class SwitchingPath(Path):
    r"""p(z_{1:T}) = sum_s p(s_1) p(z_1) prod_t p(s_t | s_{t-1}, z_{t-1}) N(z_t; A_s z + b_s, Q_s).

    The discrete states are summed out exactly: given z they are a hidden Markov model, `states`.

    Args:
        regimes: the parameters.
        steps: T.
        valid: (..., T), the steps that count.
        idle: (..., T), steps past the end of a trial.
        batch_shape: number of independent paths, before draws add theirs.

    Shapes: event (T, K). Source: Linderman et al. (2017), eq. 1-5; the sum: Dong et al. (2020).
    """

    has_rsample = False

    def __init__(
        self,
        regimes: Regimes,
        steps: int,
        valid: Tensor | None = None,
        idle: Tensor | None = None,
        batch_shape: Shape = (),
    ):
        self.regimes, self.steps, self.idle = regimes, steps, idle
        super().__init__(batch_shape, (steps, regimes.mean.shape[-1]), valid)

    def states(self, z: Tensor) -> DiscretePath:
        """p(s_{1:T} | z_{1:T}), exactly, with ``log_evidence`` log p(z): z (..., T, K)."""
        of = self.regimes
        first = gaussian(of.mean, of.covariance, "full").log_prob(z[..., 0, :])
        first = first[..., None, None].expand(*first.shape, 1, of.A.shape[-3])
        loc = matvec(of.A[..., None, :, :, :], z[..., :-1, None, :])
        loc = loc + (of.b if of.b.shape[-3] == 1 else of.b[..., 1:, :, :])
        later = gaussian(loc, of.Q[..., None, :, :, :], "full").log_prob(z[..., 1:, None, :])
        lead = broadcast_shapes(first.shape[:-2], later.shape[:-2])
        ll = torch.cat([first.expand(*lead, -1, -1), later.expand(*lead, -1, -1)], -2)
        ll = ll if self.valid is None else ll.where(self.valid[..., None], 0)
        if of.G is None:
            A = of.log_transition[..., None, :, :]
        else:  # the entry at t leads into step t
            before = torch.cat([z[..., :1, :], z[..., :-1, :]], -2)
            A = of.unsqueeze(1).log_next(before)
        return DiscretePath(of.log_initial, A, ll, self.idle)

    def score(self, z: Tensor) -> Tensor:
        """Log p(z) over the steps that count: (..., T, K) -> (...)."""
        return self.states(z).log_evidence

    def terms(self, z: Tensor) -> Tensor:
        """There are none: the sum over discrete states does not split into steps."""
        raise NotImplementedError("the density of a switching path does not split into steps")

    def draw(
        self, sample_shape: Shape = torch.Size(), before: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Discrete and continuous states, (sample_shape, ..., T) and (sample_shape, ..., T, K).

        ``before`` are those, (...) and (..., K), that the first ones follow.
        """
        of, shape = self.regimes, torch.Size(sample_shape) + self.batch_shape
        L = torch.linalg.cholesky(of.Q)
        s: list[Tensor] = []
        z: list[Tensor] = []
        if before is None:
            s.append(_categorical(of.log_initial, shape))
            z.append(gaussian(of.mean, of.covariance, "full").expand(shape).sample())
        for t in range(len(s), self.steps):
            now, at = (s[-1], z[-1]) if s else before  # type: ignore[misc]
            s.append(_categorical(_chosen(of.log_next(at), now.long(), 1), shape))
            A, b, root = (_chosen(x, s[-1], n) for x, n in ((of.A, 2), (of.offset(t), 1), (L, 2)))
            z.append(matvec(A, at) + b + matvec(root, torch.randn_like(at)))
        return torch.stack(s, -1), torch.stack(z, -2)

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Continuous states: (sample_shape, ..., T, K)."""
        with torch.no_grad():
            return self.draw(sample_shape)[1]

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """A draw without gradient, because the discrete states have none."""
        return self.sample(sample_shape)


def _categorical(log_p: Tensor, shape: torch.Size) -> Tensor:
    noise = torch.empty((*shape, log_p.shape[-1]), dtype=log_p.dtype, device=log_p.device)
    return (log_p - noise.exponential_().log_()).argmax(-1)


def _chosen(x: Tensor, s: Tensor, rank: int) -> Tensor:
    """Entry s (...) of the dimension before the last ``rank`` ones: (..., S, *) -> (..., *)."""
    return take(x, s[..., None], rank).squeeze(-rank - 1)
