"""What states are pulled towards while they are learned, how often and how strongly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from latentdyn.data import Batch
from latentdyn.distributions.point import PointPath
from latentdyn.encoders import Encoder
from latentdyn.errors import InputError
from latentdyn.kernels.rollout import Pull
from latentdyn.programs import StateSpace
from latentdyn.smooth.forced import pulled, schedule, towards_readback

__all__ = ["Adaptive", "Forcer", "forcing_interval"]

PART, TRIALS = 20_000, 20  # steps and trials from which memory is judged


@dataclass(frozen=True)
class Adaptive:
    """Strength of forcing that follows the Jacobians along the data: 1 - 1 / their largest gain.

    It starts at ``start``, rises at once and falls slowly,

    alpha <- max(now, slow alpha + (1 - slow) now).

    Args:
        start: the first strength.
        slow: how slowly it falls.
        every: minibatches between two looks at the Jacobians.

    The defaults are the published ones. Source: Hess et al. (2023), section 3.3.
    """

    start: float = 1.0
    slow: float = 0.999
    every: int = 5


class Forcer(nn.Module):
    """The smoother of a model while it is learned by teacher forcing.

    Args:
        towards: "readback"; an encoder; or "states", those of the batch.
        interval: steps from one pull to the next.
        alpha: strength, or `Adaptive`, found while learning (`strength`).
        temperature: weight of the likelihood.
        prediction: weight of log p(y_t | z_t), if there is an encoder.

    Towards "readback" the evidence is sum_t log p(y_t | z_t). Towards given states s it is
    sum_t log p(s_t | f_{t-1}) + log p(y_t | s_t); an encoder q draws them, which adds the entropy
    of q: with a pull at every step that is the evidence lower bound, otherwise its transitions run
    over several steps.
    """

    def __init__(
        self,
        towards: Callable[..., Any] | str,
        interval: int,
        alpha: float | Adaptive,
        temperature: float,
        prediction: float = 1.0,
    ):
        super().__init__()
        self._towards = (towards,)  # not a part: an encoder belongs to what is learned
        self.interval, self.temperature = interval, temperature
        self.prediction = prediction
        self.adaptive = alpha if isinstance(alpha, Adaptive) else None
        start = alpha.start if isinstance(alpha, Adaptive) else alpha
        self.last: Tensor | None = None  # where the last path ended
        self.state: Tensor
        self.register_buffer("state", torch.tensor([start, 0.0], dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        if isinstance(self.towards, nn.Module):
            self.towards._apply(fn, recurse)  # its precision and device are the program's
        return super()._apply(fn, recurse)

    @property
    def towards(self) -> Any:
        """What states are pulled towards."""
        return self._towards[0]

    @property
    def alpha(self) -> float:
        """The strength now."""
        return float(self.state[0])

    def forward(self, model: StateSpace, batch: Batch) -> PointPath:
        """The pulled path of a batch and its evidence."""
        path = self._path(model, batch)
        self.last = path.z[..., -1, :].detach()
        return path

    def _path(self, model: StateSpace, batch: Batch) -> PointPath:
        weight = schedule(batch, self.interval, self.alpha)
        if isinstance(self.towards, Encoder):
            return self._encoded(model, batch, weight)
        if self.towards == "readback":
            pull = towards_readback(model, batch, weight)
        else:
            if batch.states is None:
                fix = "pass Batch.replace(states=...)"
                raise InputError("batch", "states to be pulled towards", "none", fix)
            pull = _everywhere(batch.states, weight)
        if self.adaptive is not None and torch.is_grad_enabled():
            self._adapt(self.adaptive, model, batch, pull)
        path = pulled(model, batch, pull, self.temperature)
        return path if self.towards == "readback" else self._of_states(model, batch, path)

    def predictions(self, model: StateSpace, batch: Batch) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Mean and variance of what is predicted, what of it counts, and whether it is Gaussian.

        Shapes: (..., N, T, D) of the observations, (..., N, T, K) where states are given.
        """
        path = self(model, batch)
        counts = path.counted[..., None]
        if self.towards == "states":
            u = None if batch.u is None or not model.transition.input_dim else batch.u[..., 1:, :]
            child = model.transition.at(slice(1, None))(path.mean[..., :-1, :], u)
            variance = child.variance[..., :1, :]
            return path.predicted.mean, variance, counts.expand(path.z.shape), True
        y = model.observations(path.predicted.mean, batch)
        normal = isinstance(y.steps, Independent) and isinstance(y.steps.base_dist, Normal)
        return y.mean, y.variance, batch.mask & counts, normal

    @torch.no_grad()
    def error(self, model: StateSpace, batch: Batch) -> Tensor:
        """Mean square of what predictions of each unit miss, (D,); infinite where they diverge."""
        mean, _, seen, _ = self.predictions(model, batch)
        square = (batch.y - mean).square().nan_to_num(torch.inf).where(seen, 0)
        return square.sum((0, 1)) / seen.sum((0, 1)).clamp(min=1)

    def _of_states(self, model: StateSpace, batch: Batch, path: PointPath) -> PointPath:
        """Scored by p(state_t | f_{t-1}) with the process noise, and p(y_t | state_t)."""
        states: Any = batch.states
        u = None if batch.u is None or not model.transition.input_dim else batch.u[..., 1:, :]
        child = model.transition.at(slice(1, None))(path.mean[..., :-1, :], u)
        z = path.predicted.mean[..., 1:, :]  # through all of time, as child.mean is not
        each = child.log_prob(states[..., 1:, :] - z + child.mean)
        each = torch.cat([torch.zeros_like(each[..., :1]), each], -1)
        scored = torch.arange(batch.steps, device=each.device) > 0
        scored = scored if batch.valid is None else scored & batch.valid
        read = model.observations(states, batch).log_prob(batch.y)
        each = self.temperature * each
        new = PointPath(path.z, path.predicted.mean, each, batch.length, counted=scored)
        new.log_evidence = new.log_evidence + self.temperature * read
        return new

    def _encoded(self, model: StateSpace, batch: Batch, weight: Tensor) -> PointPath:
        """The bound of a drawn path, with what is predicted of the data from where it pulls."""
        q = self.towards.encode(batch)
        drawn = q.rsample()
        path = pulled(model, batch, _everywhere(drawn, weight), self.temperature)
        found = self._of_states(model, batch.replace(states=drawn), path)
        log_p = found.log_evidence + self.prediction * path.log_evidence
        found.log_evidence = log_p - q.score(drawn)
        return found

    @torch.no_grad()
    def _adapt(self, how: Adaptive, model: Any, batch: Batch, pull: Pull) -> None:
        self.state[1] += 1
        if how.every > 1 and int(self.state[1]) % how.every != 1:
            return
        u = None if batch.u is None or not model.transition.input_dim else batch.u[..., 1:, :]
        now = strength(model.transition, pull.target[..., :-1, :].detach(), u)
        slow = how.slow * self.alpha + (1 - how.slow) * now
        self.state[0] = max(now, slow, 1e-3)


def strength(transition: Any, z: Tensor, u: Tensor | None = None) -> float:
    r"""max(0, 1 - 1 / g), with g the largest over paths of the geometric mean of |J(z_t)|_2.

    Pulled so strongly, gradients neither explode nor vanish by more than the Jacobians' mean gain.
    Source: Hess et al. (2023), section 3.3.
    """
    norm = torch.linalg.matrix_norm(transition.jacobian(z, u), 2)  # (..., N, T-1)
    gain = float(norm.log().mean(-1).exp().max())
    return max(0.0, 1 - 1 / gain) if gain > 0 else 0.0


def _everywhere(target: Any, weight: Tensor) -> Pull:
    at = weight.flatten(0, -2).any(0).tolist()
    return Pull(target, weight[..., None].expand(*weight.shape, target.shape[-1]), None, at)


def forcing_interval(batch: Batch, most: int = 100, bins: int = 64) -> int:
    r"""Steps over which data remember: between two pulls, so that errors can be seen but not run.

    The smaller of two times: the median over units of the first lag at which the autocorrelation
    has a minimum or falls below 1/e, and of that at which the mutual information of y_t and y_{t+l}
    has its first minimum, over the first 20,000 steps of the first 20 trials. Lags at which no two
    entries are seen are left out. Source: Brenner et al. (2022), supplement; Fraser & Swinney
    (1986).

    Raises: InputError if no unit varies.
    """
    found = []
    for d in range(batch.y.shape[-1]):
        for n in range(min(batch.trials, TRIALS)):
            x = batch.y[n, : min(int(batch.length[n]), PART), d].double().cpu().numpy()
            seen = batch.mask[n, : len(x), d].cpu().numpy()
            if seen.sum() > 10 and x[seen].std() > 0:
                found.append((_decay(x, seen, most), _information(x, seen, most, bins)))
    if not found:
        raise InputError("y", "units that vary", "constant ones", "give Forcing(interval=...)")
    return max(1, int(min(np.median(np.array(found), 0))))


def _decay(x: ndarray, seen: ndarray, most: int) -> int:
    x = np.where(seen, x - x[seen].mean(), 0.0)
    last, variance = np.inf, (x * x).sum() / seen.sum()
    for lag in range(1, min(most, len(x) - 1) + 1):
        pairs = (seen[lag:] & seen[:-lag]).sum()
        if not pairs:
            continue
        r = (x[lag:] * x[:-lag]).sum() / pairs / variance
        if r < np.exp(-1):
            return lag
        if r > last:
            return lag - 1
        last = r
    return min(most, len(x) - 1)


def _information(x: ndarray, seen: ndarray, most: int, bins: int) -> int:
    last = np.inf
    for lag in range(1, min(most, len(x) - 1) + 1):
        both = seen[lag:] & seen[:-lag]
        if not both.any():
            continue
        joint = np.histogram2d(x[:-lag][both], x[lag:][both], bins)[0]
        p = joint / joint.sum()
        outer = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
        some = p > 0
        information = (p[some] * np.log(p[some] / outer[some])).sum()
        if information > last:
            return lag - 1
        last = information
    return min(most, len(x) - 1)
