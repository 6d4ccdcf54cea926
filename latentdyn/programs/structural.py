"""Structural time series: a series as the sum of a level or trend, seasons and the rest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import ArrayLike

from latentdyn import emissions, initials, transitions
from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.priors import Prior
from latentdyn.programs.arma import ARMA
from latentdyn.programs.state_space import StateSpace
from latentdyn.transitions.components import roughness

__all__ = ["LocalLevel", "LocalLinearTrend", "Seasonal", "Structural"]


class Structural(StateSpace):
    r"""y_t = component_1 + component_2 + ... + eps_t,  eps_t ~ N(0, irregular).

    ``LocalLevel() + Seasonal(12) + ARMA(1)`` makes one: components move independently, y shows
    their sum, and there is one observation noise, named "emission.R". Parameters are named
    "transition.level.variance", "transition.trend.level_variance",
    "transition.trend.slope_variance", "transition.seasonal.variance", "transition.arma.ar", ...;
    a second component of a kind is "seasonal_2". Levels, trends and seasons start diffuse, an ARMA
    component (without its constant) stationary: the evidence of ``model.collapse(smooth.kalman)``
    is the exact diffuse one. To simulate, pass an ``initial``.

    Args:
        components: programs to be added, or their transitions.
        irregular: known variance of the observation noise; None: that of the component which has
            a known one, or else it is learned.
        initial: distribution of the first states, all components' one after the other.
        prior: of the sum; components may have none of their own.

    Shapes: one unit, D = 1; K is the sum of those of the components.
    Source: Harvey (1989), section 2.3; Durbin & Koopman (2012), section 3.2.

    Example:
        >>> model = LocalLevel() + Seasonal(4) + ARMA(1)
        >>> [name for name, t in model.templates.items() if t.value.requires_grad][:3]
        ['transition.level.variance', 'transition.seasonal.variance', 'transition.arma.ar']
        >>> model.state_dim
        5
    """

    transition: transitions.Blocks
    irregular: float | None

    def __init__(
        self,
        *components: Structural | ARMA | Conditional,
        irregular: float | None = None,
        initial: Conditional | None = None,
        prior: Prior | Callable[..., Any] | None = None,
    ):
        if not components:
            raise InputError("components", "at least one", "none", "use LocalLevel(), say")
        known = [irregular, *[c.irregular for c in components if isinstance(c, Structural)]]
        said = [float(v) for v in known if v is not None]
        if len(said) > 1:
            fix = "there is one observation noise: name it once"
            raise InputError("irregular", "one variance", said, fix)
        parts = [part for c in components for part in _transitions(c)]
        blocks = transitions.Blocks(_named(parts))
        known_variance = said[0] if said else None
        if initial is None:
            flat = [root for part in parts for root in part.unit_roots]
            initial = initials.Stationary(blocks.state_dim, flat)
        emission = _read_out(parts, known_variance)
        super().__init__(blocks, emission, initial, prior)
        self.irregular = known_variance

    @property
    def components(self) -> tuple[Conditional, ...]:
        """Transitions of the components."""
        return tuple(self.transition.parts.values())

    def __add__(self, other: Structural | ARMA | Conditional) -> Structural:
        """The sum of the components of both."""
        return Structural(self, other)

    def __radd__(self, other: Structural | ARMA | Conditional) -> Structural:
        """The sum of the components of both."""
        return Structural(other, self)

    def initialise(self, batch: Batch) -> None:
        """Variances from how rough the data are."""
        batch = self.fit_batch(batch)
        self.initial.initialise(batch)
        self.transition.initialise(batch)
        self.emission.start(R=0.5 * roughness(batch)[None])


class LocalLevel(Structural):
    r"""y_t = mu_t + eps_t,  mu_{t+1} = mu_t + eta_t: a random walk seen in noise.

    eps ~ N(0, "emission.R"), eta ~ N(0, "transition.level.variance"). ``LocalLevel.of(variance=,
    irregular=)`` builds it from known values; without ``irregular`` that is learned. Add other
    components with ``+``. Source: Durbin & Koopman (2012), eq. 2.3.
    """

    def __init__(
        self, *, initial: Conditional | None = None, prior: Prior | Callable[..., Any] | None = None
    ):
        super().__init__(transitions.Level(), initial=initial, prior=prior)

    @staticmethod
    def of(
        variance: ArrayLike, irregular: float | None = None, initial: Conditional | None = None
    ) -> Structural:
        """Known variances of the level and of the observation noise."""
        return Structural(transitions.Level.of(variance), irregular=irregular, initial=initial)


class LocalLinearTrend(Structural):
    r"""y_t = mu_t + eps_t,  mu_{t+1} = mu_t + nu_t + eta_t,  nu_{t+1} = nu_t + zeta_t.

    eta ~ N(0, "transition.trend.level_variance"), zeta ~ N(0, "transition.trend.slope_variance").
    ``LocalLinearTrend.of(level_variance=, slope_variance=, irregular=)`` builds it from known
    values. States: level, slope. Source: Durbin & Koopman (2012), eq. 3.2.
    """

    def __init__(
        self, *, initial: Conditional | None = None, prior: Prior | Callable[..., Any] | None = None
    ):
        super().__init__(transitions.Trend(), initial=initial, prior=prior)

    @staticmethod
    def of(
        level_variance: ArrayLike,
        slope_variance: ArrayLike,
        irregular: float | None = None,
        initial: Conditional | None = None,
    ) -> Structural:
        """Known variances of level, slope and observation noise."""
        trend = transitions.Trend.of(level_variance, slope_variance)
        return Structural(trend, irregular=irregular, initial=initial)


class Seasonal(Structural):
    r"""y_t = s_t + eps_t,  s_t a pattern of ``period`` steps that changes slowly.

    Its variance is "transition.seasonal.variance". See `transitions.Seasonal` for the dummy form
    (the default) and the trigonometric one, both with K = period - 1. ``Seasonal.of(period,
    variance=)`` builds it from a known value. Raises: InputError if the period is below 2.
    Source: Durbin & Koopman (2012), section 3.2.2.
    """

    def __init__(
        self,
        period: int,
        *,
        trigonometric: bool = False,
        initial: Conditional | None = None,
        prior: Prior | Callable[..., Any] | None = None,
    ):
        part = transitions.Seasonal(period, trigonometric=trigonometric)
        super().__init__(part, initial=initial, prior=prior)
        self.period, self.trigonometric = part.period, trigonometric

    @staticmethod
    def of(
        period: int,
        variance: ArrayLike,
        irregular: float | None = None,
        *,
        trigonometric: bool = False,
        initial: Conditional | None = None,
    ) -> Structural:
        """Known variances of the pattern and of the observation noise."""
        part = transitions.Seasonal.of(period, variance, trigonometric=trigonometric)
        return Structural(part, irregular=irregular, initial=initial)


def _transitions(component: Structural | ARMA | Conditional) -> list[Any]:
    """Copies of the transitions of a program, or of a transition."""
    if isinstance(component, Structural | ARMA):
        if component.prior.random:
            fix = "give the prior to the sum: programs.Structural(a, b, prior=...)"
            raise InputError("components", "programs without prior", "one with a prior", fix)
        if isinstance(component, Structural):
            return [copy.deepcopy(part) for part in component.components]
        return [_without_constant(component.transition)]
    if isinstance(component, Conditional) and component.unit_roots is not None:
        return [copy.deepcopy(component)]
    kind = type(component).__name__
    fix = "use LocalLevel(), LocalLinearTrend(), Seasonal(period) or ARMA(p, q)"
    raise InputError("components", "structural components", kind, fix)


def _without_constant(arma: Any) -> Any:
    """A process around zero: the level has the mean."""
    known = arma.known_values
    if known and bool((known.pop("constant") != 0).any()):
        fix = "leave the mean to the level, or to the data"
        raise InputError("components", "an ARMA without constant", "one with a constant", fix)
    new = transitions.ARMA(arma.p, arma.q, intercept=False)
    if known:
        return new.fix(**known, constant=0.0)
    new.load_state_dict(arma.state_dict())
    with torch.no_grad():
        new.constant.zero_()
    return new.to(arma.variance.dtype)


def _named(parts: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        name = getattr(part, "name", type(part).__name__.lower())
        same = sum(other.partition("_")[0] == name for other in found)
        found[f"{name}_{same + 1}" if same else name] = part
    return found


def _read_out(parts: list[Any], irregular: float | None) -> emissions.Gaussian:
    """The sum of what the parts show, with one noise."""
    C = torch.tensor([[c for part in parts for c in part.loadings]])
    if irregular is not None:
        return emissions.Gaussian.of(C=C, R=[irregular])
    emission = emissions.Gaussian(C.shape[1], 1, noise_floor=0.0).fix(C=C)
    emission.R.requires_grad_(True)
    return emission
