"""What a smoother of a switching system finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentdyn.distributions import Path
from latentdyn.smooth.gaussian.observe import Observed
from latentdyn.values import Shape

__all__ = ["Mixture", "SwitchingStates", "site", "stack"]


class Mixture(NamedTuple):
    """Discrete and continuous marginals of each step.

    Shapes: ``probabilities`` (..., N, T, S), ``mean`` (..., N, T, K), ``covariance``
    (..., N, T, K, K).
    """

    probabilities: Tensor
    mean: Tensor
    covariance: Tensor

    @property
    def variance(self) -> Tensor:
        """(..., N, T, K)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)


@dataclass(eq=False, repr=False)
class SwitchingStates(Path):
    """States of a switching linear system, given all observations.

    Args:
        log_evidence: (..., N), log p(y).
        filtered: given y_{1:t}.
        smooth: computes the marginals given all of y, when they are first asked for.
        length: (N,) steps of each trial.
        ess: (..., N, T) effective number of particles, None without particles.
        draw: computes so many paths s (M, ..., N, T) and z (M, ..., N, T, K); None: M as kept.
        source: the data, of whose coordinates `to_dataset` makes use.

    Shapes: batch (..., N), event (T, K), that of z; there is no density of whole paths.
    """

    has_rsample = False

    log_evidence: Tensor
    filtered: Mixture
    smooth: Callable[[], Mixture]
    draw: Callable[[int | None], tuple[Tensor, Tensor]]
    length: Tensor
    ess: Tensor | None = None
    source: Any = None

    def __post_init__(self) -> None:
        """The shapes of a path z."""
        super().__init__(self.log_evidence.shape, self.filtered.mean.shape[-2:])

    def to(self, dtype: torch.dtype) -> SwitchingStates:
        """The same in another precision."""
        if self.log_evidence.dtype == dtype:
            return self

        def cast(x: Any) -> Any:
            return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

        smooth, draw = self.smooth, self.draw
        return replace(
            self,
            log_evidence=cast(self.log_evidence),
            filtered=Mixture(*map(cast, self.filtered)),
            smooth=lambda: Mixture(*map(cast, smooth())),
            ess=cast(self.ess),
            draw=lambda number: tuple(map(cast, draw(number))),  # type: ignore
        )

    @cached_property
    def smoothed(self) -> Mixture:
        """Marginals given all of y."""
        return self.smooth()

    @property
    def probabilities(self) -> Tensor:
        """p(s_t | y): (..., N, T, S)."""
        return self.smoothed.probabilities

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        """E[z_t | y]: (..., N, T, K)."""
        return self.smoothed.mean

    @property
    def covariance(self) -> Tensor:
        """Of z_t given y: (..., N, T, K, K)."""
        return self.smoothed.covariance

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """(..., N, T, K)."""
        return self.smoothed.variance

    @cached_property
    def paths(self) -> tuple[Tensor, Tensor]:
        """Draws of s (M, ..., N, T) and of z (M, ..., N, T, K) given y, those that are kept."""
        return self.draw(None)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Paths z (sample_shape, ..., N, T, K)."""
        shape = torch.Size(sample_shape)
        return self.draw(shape.numel())[1].reshape(shape + self.batch_shape + self.event_shape)

    def terms(self, z: Tensor) -> Tensor:
        """There are none."""
        raise NotImplementedError("assumed densities and particles have no density of paths")

    def to_dataset(self) -> Any:
        """Dataset with ``mean``, ``variance`` (trial, time, state) and ``log_evidence``.

        The discrete states are the dim ``regime`` of ``probabilities`` (trial, time, regime).
        """
        from latentdyn.data.outputs import smoothed

        found = {"mean": self.mean, "variance": self.variance, "log_evidence": self.log_evidence}
        if self.ess is not None:
            found["ess"] = self.ess
        ds = smoothed(found, self.length, self.source)
        of = smoothed({"probabilities": self.probabilities}, self.length, self.source)
        return ds.assign(probabilities=of["probabilities"].rename(state="regime"))


def site(seen: Observed, t: int, dims: int) -> tuple[Tensor, Tensor, Tensor]:
    """The observation of step t, with so many axes of size one after those of trials."""
    J = seen.J[..., 0 if seen.J.shape[-3] == 1 else t, :, :]
    new = (None,) * dims
    J = J[(..., *new, slice(None), slice(None))]
    return J, seen.g[(..., t, *new, slice(None))], seen.constants[(..., t, *new)]


def stack(each: list[Tensor], event: int) -> Tensor:
    """Steps along a time axis before the last ``event`` dimensions."""
    return torch.stack(torch.broadcast_tensors(*each), -event - 1)
