"""Iterated extended Kalman smoother: Gauss-Newton on the whole path."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from latentdyn.distributions.smoothed import Moments, SmoothedPath
from latentdyn.kernels.evidence import Route
from latentdyn.programs import StateSpace
from latentdyn.smooth.gaussian.ekf import Linearised, filtered
from latentdyn.smooth.gaussian.linearise import taylor
from latentdyn.smooth.gaussian.observe import observe
from latentdyn.smooth.gaussian.search import (
    NoModeError,
    Patience,
    Secant,
    best_step,
    log_joint,
    polished,
    still,
)
from latentdyn.smooth.gaussian.solution import SiteSolution
from latentdyn.smooth.particles.step_mode import amended, kinds, observed_term
from latentdyn.smooth.ready import ready
from latentdyn.smoother import smoother
from latentdyn.values import whole

__all__ = ["iekf"]


@smoother(batched=True, warm=True, filters=True)
def iekf(
    model: StateSpace,
    y: object,
    u: object = None,
    *,
    sweeps: int | None = None,
    start: Tensor | None = None,
    route: Route | None = None,
) -> SmoothedPath:
    r"""Iterated extended Kalman smoother: all conditionals linearised along the smoothed path.

    Each sweep is one Kalman smoother of the chain that is linearised at the present path: a
    Gauss-Newton step on log p(z, y) (Fisher scoring if counts are observed), shortened wherever it
    would not raise log p(z, y). On a linear model every number of sweeps gives the Kalman smoother;
    where the conditionals are smooth it converges to a mode. Piecewise-linear ones can lead it onto
    a kink where no such step is better, which is the best path found but need not be a mode.
    Time-parallel.

    Args:
        model: a program whose conditionals have moments.
        y: data, whatever `as_dataset` takes, or a `Batch`.
        u: inputs (N, T, U), if the model has any.
        sweeps: exactly so many at most; None: until the path stands still, and an error if it has
            not after 100.
        start: (N, T, K) path to start from, by default the extended Kalman smoother's.
        route: how the recursions run (`latentdyn.kernels.routes`).

    The evidence is that of the chain linearised at the last path; of counts to which that would
    give a probability above one it is Laplace's, with the information of the linearised chain.
    Its gradient holds that path fixed: exact where the conditionals are affine or piecewise
    linear, else of Gauss-Newton type
    (`laplace` has the exact one). Programs with singular noise take full steps.
    Raises: InputError if the path does not stand still.
    Source: Bell (1994); Yaghoobi et al. (2021).
    """
    (model, batch, data), dtype = ready(model, y, u), model.dtype
    chain = Linearised(model, batch, taylor)
    limit = 100 if sweeps is None else whole("sweeps", sweeps)
    with torch.no_grad():
        z = filtered(chain, route)[0].mean() if start is None else start.to(batch.y)
        patience, secant = Patience(), Secant()
        for _ in range(limit):
            step = _solution(chain, z, route).mean() - z
            share = secant.along(step) if sweeps is None else torch.ones_like(step[..., 0, 0])
            new, gain = best_step(model, batch, z, z + share[..., None, None] * step)
            change = new - z
            secant.took(step, change)
            done = patience.ends(gain, change) or still(change, z, 1e-9)
            z = new
            if done:
                break
        else:
            if sweeps is None and not patience.rests:
                got = f"a change of {float(change.abs().amax()):.2g} after 100"
                fix = "start elsewhere, or use smooth.laplace or smooth.particle"
                raise NoModeError("sweeps", "a path that stands still", got, fix)
        if sweeps is None:
            z = _polished(chain, z, route)
    solution = _solution(chain, z, route)
    log_evidence = solution.log_evidence + _possible(chain, solution, z)
    shape = (*log_evidence.shape, batch.steps, model.state_dim)
    around: Any = _Around(z, solution)
    path = SmoothedPath(shape, around, log_evidence, batch.length, data, batch.valid)
    return path.to(dtype)


class _Around:
    """The linearised chain, centred on the path itself: on a kink its own mean is elsewhere."""

    def __init__(self, z: Tensor, solution: SiteSolution):
        self.z, self.solution = z, solution

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["solution"], name)

    def mean(self) -> Tensor:
        """The path."""
        return self.z


def _possible(chain: Linearised, solution: SiteSolution, z: Tensor) -> Tensor:
    """What makes a log-probability of counts that is above zero Laplace's; else nothing."""
    emission, u, batch = chain.model.emission, chain.emission_u, chain.batch
    none = torch.zeros_like(solution.log_evidence)
    above = solution.log_evidence.detach() > 0
    if not bool(above.any()) or emission.noise == "singular" or not kinds(emission(z, u))[1]:
        return none
    term = observed_term(emission, u, batch.y, batch.usable)
    seen = observe(solution.emission, batch.y, batch.usable)
    return torch.where(above, amended(term, seen, z).sum(-1), none)


def _polished(chain: Linearised, z: Tensor, route: Route | None) -> Tensor:
    """`polished`, if there is a density that says where not to go."""
    model, batch = chain.model, chain.batch
    if model.emission.noise == "singular":
        return z
    newton, value = lambda x: _solution(chain, x, route).mean(), partial(log_joint, model, batch)
    try:
        return polished(newton, value, z)
    except NotImplementedError:
        return z


def _solution(chain: Linearised, z: Tensor, route: Route | None) -> SiteSolution:
    none = z.new_zeros(()).expand(*z.shape, z.shape[-1])
    before = Moments(torch.cat([z[..., :1, :], z[..., :-1, :]], -2), none)
    return chain.solve(before, Moments(z, none), route)
