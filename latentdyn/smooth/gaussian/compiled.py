"""Which programs the compiled bootstrap filter can run, and what it is given."""

from __future__ import annotations

from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from latentdyn import emissions, initials, transitions
from latentdyn.conditional import Conditional
from latentdyn.distributions.smoothed import Moments
from latentdyn.kernels import particles_fast as fast
from latentdyn.nn import matvec
from latentdyn.smooth.particles.cloud import Cloud
from latentdyn.smooth.particles.moves import root
from latentdyn.smooth.particles.steps import Steps

__all__ = ["fits", "run"]

EMISSIONS: dict[Any, int] = {
    emissions.Gaussian: fast.GAUSSIAN,
    emissions.Poisson: fast.POISSON,
    emissions.Volatility: fast.VOLATILITY,
}
INITIALS = (initials.Gaussian, initials.Learned, initials.Stationary)


def fits(steps: Steps) -> bool:
    """Whether states are of this kind: a Gaussian start, then an affine transition or a PLRNN
    that is not centred, constant but for inputs."""
    transition = steps.model.transition
    if steps.y[0].device.type != "cpu" or type(steps.first) not in INITIALS:
        return False
    if type(transition) is transitions.PLRNN:
        return not (transition.time_varying or transition.centred)
    affine = steps.linear_gaussian()
    return affine is not None and affine.weight.shape[-3] == affine.covariance.shape[-3] == 1


def _knows(emission: Conditional) -> bool:
    """A compiled emission: Gaussian with independent noise, Poisson or `Volatility`, constant."""
    known = type(emission) in EMISSIONS and emission.noise == "diagonal"
    return known and not emission.time_varying


@torch.no_grad()
def run(cloud: Cloud, threshold: float) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Increments and effective sample sizes (..., N, T), and (trial, step) if it failed there.

    An emission that has not been compiled is called at every step.
    """
    steps = cloud.steps
    lead, dtype = steps.lead, steps.y[0].dtype
    seed = int(torch.randint(2**62, ()))
    y, seen = _data(steps) if _knows(steps.model.emission) else (_Emission(steps), None)
    T, P = len(steps), cloud.shape[0]
    found = fast.bootstrap(_model(steps), y, seen, T, P, threshold, seed, cloud.keep)

    def tensor(x: Any) -> Tensor:
        return torch.from_numpy(x).to(dtype if x.dtype.kind == "f" else None).unflatten(0, lead)

    before = Moments(tensor(found.predicted), tensor(found.predicted_covariance))
    after = Moments(tensor(found.filtered), tensor(found.filtered_covariance))
    z, weights, ancestors = tensor(found.z), tensor(found.weights), tensor(found.ancestors)
    n = len(lead)  # (..., N, T, K, P) -> (T, P, ..., N, K)
    cloud.fill(
        z.movedim((n, n + 2), (0, 1)).unsqueeze(-2),
        weights.movedim((n, n + 1), (0, 1)).unsqueeze(-1),
        ancestors.movedim((n, n + 1), (0, 1)).unsqueeze(-1),
        (before, after),
    )
    filter_, step = found.failed
    return tensor(found.increments), tensor(found.ess), (filter_ % lead[-1], step)


def _data(steps: Steps) -> Any:
    """Observations and which of them are there, (M, T, D)."""
    shape = (len(steps), steps.model.obs_dim)
    y, mask = torch.cat(steps.y, -2).double(), torch.ones(shape, dtype=torch.bool)
    mask = mask if steps.mask is None else torch.cat(steps.mask, -2)
    return (x.expand(*steps.lead, *shape).reshape(-1, *shape).numpy() for x in (y, mask))


class _Emission:
    """Adds log p(y_t | z_t) to log weights (M, P), given particles (M, K, P): always the same
    arrays."""

    def __init__(self, steps: Steps):
        self.steps, self.dtype = steps, steps.y[0].dtype

    def __call__(self, t: int, z: ndarray, lw: ndarray) -> None:
        if t == 0:
            self.z, self.lw = self._view(z).unsqueeze(-2), self._view(lw).unsqueeze(-1)
        seen = self.steps[t].likelihood(self.z.to(self.dtype))
        if seen is not None:
            self.lw.add_(seen)

    def _view(self, x: ndarray) -> Tensor:
        return torch.from_numpy(x).unflatten(0, self.steps.lead).movedim(-1, 0)


def _model(steps: Steps) -> fast.Model:
    m, V = steps.first.moments()
    A, W, b, Q = _transition(steps)
    F, A, W, G = (_flat(steps, x, 2)[:, 0] for x in (root(V), A, W, root(Q)))
    m, b = _flat(steps, m, 1)[:, 0], _flat(steps, b, 1)
    emission = steps.model.emission
    if not _knows(emission):
        none = m[:, None, :0]
        return fast.Model(m, F, A, W, G, b, none, none, none[:, 0], fast.OTHER)
    d, gaussian = emission.timed("d"), type(emission) is emissions.Gaussian
    R = emission.timed("R") if gaussian else torch.ones_like(d)
    C, R = _flat(steps, emission.timed("C"), 2)[:, 0], _flat(steps, R, 1)[:, 0]
    d = _flat(steps, _plus_inputs(d, emission, "D", steps), 1)
    return fast.Model(m, F, A, W, G, b, C, d, R, EMISSIONS[type(emission)])


def _transition(steps: Steps) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A, W, b and Q of A z + W relu(z) + b + N(0, Q)."""
    transition, affine = steps.model.transition, steps.linear_gaussian()
    if affine is not None:
        return affine.weight, torch.zeros_like(affine.weight), affine.offset, affine.covariance
    b = _plus_inputs(transition.timed("h"), transition, "B", steps)
    Q = transition.timed("Q")
    Q = torch.diag_embed(Q) if transition.noise == "diagonal" else Q
    return torch.diag_embed(transition.timed("a")), transition.timed("W"), b, Q


def _plus_inputs(offset: Tensor, part: Conditional, weight: str, steps: Steps) -> Tensor:
    """A vector (..., 1, J), plus what inputs add (..., T, J)."""
    if not part.input_dim or steps.u is None:
        return offset
    return offset + matvec(part.timed(weight), steps.u)


def _flat(steps: Steps, x: Tensor, event: int) -> Any:
    """(..., T or 1, ...) of each filter: (M, T or 1, ...), float64."""
    x = x if x.dim() > event else x[None]
    own = x.shape[-event - 1 :]
    return x.expand(*steps.lead, *own).reshape(-1, *own).double().contiguous().numpy()
