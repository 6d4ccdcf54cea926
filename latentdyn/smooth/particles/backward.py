"""Smoothed paths from the particles of a filter.

A smoother is called with a `Cloud` and a number of paths M, and returns paths (M, ..., N, T, K).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentdyn.errors import InputError, NonFiniteError
from latentdyn.smooth.particles.cloud import Cloud
from latentdyn.values import Shape, whole

__all__ = ["backward", "backward_mcmc", "default", "fixed_lag", "genealogy"]

CHUNK = 2**21  # transition densities at a time

Kernel = Callable[[int, Tensor, Tensor], Tensor]


def backward(cloud: Cloud, paths: int) -> Tensor:
    r"""Exact draws: z_t = z_t^i with probability ~ w_t^i p(z_{t+1} | z_t^i), from T to 1.

    Costs O(P M) a step. Raises: InputError if the transition has no density.
    Source: Godsill, Doucet & West (2004), algorithm 1.
    """

    def kernel(t: int, after: Tensor, start: Tensor) -> Tensor:
        size = max(1, CHUNK // cloud.shape.numel())
        chosen = [_one_backward(cloud, t, z) for z in after.split(size)]
        return torch.cat(chosen)

    return _walk(cloud, paths, kernel)


def backward_mcmc(moves: int = 1) -> Callable[[Cloud, int], Tensor]:
    r"""Backward draws by Metropolis-Hastings, O(M) a step whatever the number of particles.

    Each starts at the ancestor of z_{t+1} and makes ``moves`` independent proposals from the
    weights w_t, accepted with probability min(1, p(z_{t+1} | new) / p(z_{t+1} | old)).

    Source: Dau & Chopin (2022), algorithm 4 (intermediate: the hybrid of section 3).
    """
    moves = whole("moves", moves)

    def smoother(cloud: Cloud, paths: int) -> Tensor:
        def kernel(t: int, after: Tensor, start: Tensor) -> Tensor:
            for _ in range(moves):
                new = _pick(cloud.weights[t][:, None], start.shape)
                both = torch.stack([_at(cloud.z[t], start), _at(cloud.z[t], new)])
                old, proposed = _density(cloud, t + 1, both, after)
                accept = torch.rand_like(old).log() < proposed - old
                start = torch.where(accept, new, start)
            return start

        return _walk(cloud, paths, kernel)

    return smoother


def genealogy(cloud: Cloud, paths: int) -> Tensor:
    """The ancestors of particles at T: no density is needed, but early states coalesce.

    Source: Kitagawa (1996), section 3.
    """
    return _walk(cloud, paths, lambda t, after, start: start)


def fixed_lag(lag: int) -> Callable[[Cloud, int], Tensor]:
    r"""Draws of each z_t given y_{1:t+lag}: ancestors of particles at t + lag.

    Marginals of steps far apart do not belong together: use it for means and variances.
    Source: Kitagawa & Sato (2001).
    """
    lag = whole("lag", lag, 0)

    def smoother(cloud: Cloud, paths: int) -> Tensor:
        T = len(cloud.z)
        shape = torch.Size((paths, *cloud.shape[1:]))
        places = torch.arange(cloud.shape[0], device=cloud.z[0].device)
        same = places.view(-1, *(1,) * (len(shape) - 1)).expand(cloud.shape)
        back = [same if a is None else a for a in cloud.ancestors]
        ends = [_pick(cloud.weights[t][:, None], shape) for t in range(T)]
        found = []
        for t in range(T):
            index = ends[min(t + lag, T - 1)]
            for s in range(min(t + lag, T - 1), t, -1):
                index = back[s].gather(0, index)
            found.append(_at(cloud.z[t], index))
        return torch.cat(found, -2)

    return smoother


def default(cloud: Cloud, paths: int) -> Tensor:
    """`backward` where the transition has a density, else `genealogy`."""
    try:
        return backward(cloud, paths)
    except _NoDensity:
        return genealogy(cloud, paths)


class _NoDensity(InputError):
    pass


def _walk(cloud: Cloud, paths: int, kernel: Kernel) -> Tensor:
    """From T to 1; past the end of a trial, and where all come from themselves, by ancestors."""
    idle = cloud.steps.batch.idle
    index = _pick(cloud.weights[-1][:, None], torch.Size((paths, *cloud.shape[1:])))
    found = [_at(cloud.z[-1], index)]
    for t in range(len(cloud.z) - 2, -1, -1):
        ancestors = cloud.ancestors[t + 1]
        start = index if ancestors is None else ancestors.gather(0, index)
        index = kernel(t, found[-1], start)
        if idle is not None:
            index = torch.where(idle[:, t + 1, None], start, index)
        found.append(_at(cloud.z[t], index))
    return torch.cat(found[::-1], -2)


def _one_backward(cloud: Cloud, t: int, after: Tensor) -> Tensor:
    log_w = _density(cloud, t + 1, cloud.z[t][:, None], after)
    log_w = log_w + cloud.weights[t].log()[:, None]  # (P, M, ..., N, 1)
    weights = (log_w - log_w.amax(0)).exp_()
    return _pick(weights, log_w.shape[1:])


def _density(cloud: Cloud, t: int, before: Tensor, after: Tensor) -> Tensor:
    """Log p(z_t | z_{t-1}) with the inputs and the parameters of step t."""
    try:
        return cloud.steps[t].prior(before).log_prob(after)
    except NotImplementedError as error:
        fix = "use smooth.genealogy or smooth.fixed_lag(20), which need none"
        raise _NoDensity(
            "smoother", "a transition with a density", "singular noise", fix
        ) from error


def _pick(weights: Tensor, shape: Shape) -> Tensor:
    """Indices (M, ...) with probabilities ~ weights (P, M or 1, ...)."""
    c = weights.cumsum(0)
    if not bool(torch.isfinite(c[-1]).all() & (c[-1] > 0).all()):
        raise NonFiniteError(
            "z", "no particle can be continued: the transition gives NaN densities"
        )
    u = torch.rand(shape, dtype=c.dtype, device=c.device) * c[-1]
    if c.shape[1] == shape[0]:
        return (c[:-1] <= u).sum(0)
    flat = c[:, 0].movedim(0, -1).contiguous()  # one set of weights, many draws
    where = torch.searchsorted(flat, u.movedim(0, -1).contiguous(), right=True)
    return where.clamp_(max=len(c) - 1).movedim(-1, 0)


def _at(z: Tensor, index: Tensor) -> Tensor:
    """Particles ``z`` (P, ..., 1, K) at indices (M, ..., 1)."""
    return z.gather(0, index[..., None].expand(*index.shape, z.shape[-1]))
