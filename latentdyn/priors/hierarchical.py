"""Parameters of several sessions (animals, days, subjects) that resemble each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
from pyro.distributions import HalfNormal
from pyro.poutine.messenger import Messenger
from torch import Tensor

from latentdyn.conditional import Template
from latentdyn.errors import InputError
from latentdyn.priors.checks import count, positive, unbounded
from latentdyn.priors.independent import Independent
from latentdyn.priors.normal import normal
from latentdyn.priors.prior import Prior

__all__ = ["Hierarchical"]


class Hierarchical(Prior):
    r"""theta_g = m + s e_g,  m ~ population,  s ~ HalfNormal(spread),  e_g ~ N(0, 1) entrywise.

    Each session g = 1..G has its own value of each parameter, theta_g ~ N(m, s^2), so what one
    session cannot tell is borrowed from the others. The parametrisation is non-centred.

    Args:
        population: of the means m: name -> distribution, as in `Independent`; or any prior.
        sessions: G.
        spread: of the standard deviation s between sessions, one s for each parameter; a number,
            or name -> number.

    Sites for each parameter: ``"prior.<name>.mean"`` m, ``"prior.<name>.spread"`` s,
    ``"prior.<name>.raw"`` e, and ``"<name>"`` itself (G, \*shape), computed from them.

    The data say which trial is of which session by a coordinate ``session`` along ``trial``; its
    labels in sorted order are sessions 1..G. Whatever is asked about these data (forecasts,
    expected values, imputation) uses each trial's session. What belongs to no session
    (`Posterior.simulate`) uses the population means m. `StateSpace.simulate` uses the model's
    current values, as always.

    Raises:
        InputError: for data without sessions, or with more than G of them.

    Source: Gelman et al. (2013), section 5.4; non-centring: Betancourt & Girolami (2015).

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from latentdyn import transitions
        >>> from latentdyn.conditional import templates_of
        >>> prior = Hierarchical({"W": dist.Normal(0, 0.3), "a": dist.Normal(0.9, 0.1)}, sessions=3)
        >>> templates = templates_of(transitions.PLRNN(2))
        >>> theta = prior(templates)
        >>> theta["a"].shape
        torch.Size([3, 2])
        >>> prior.assign(theta, torch.tensor([0, 0, 2, 1]), templates)["a"].shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        population: Mapping[str, Any] | Prior,
        sessions: int,
        spread: float | Mapping[str, float] = 0.1,
    ):
        super().__init__()
        self.population: Prior = (
            population if isinstance(population, Prior) else Independent(population)
        )
        self.made_of = (self.population,)
        self.sessions: int = count("sessions", sessions)
        self.spread = dict(spread) if isinstance(spread, Mapping) else spread
        self._check()

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the population."""
        return self.population.names

    @property
    def by_session(self) -> tuple[str, ...]:
        """All that it draws."""
        return self.names

    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Sample population and sessions."""
        with _Means(self.names):
            means = self.population(templates)
        return {n: self._vary(n, m, unbounded(templates, n)) for n, m in means.items()}

    def _vary(self, name: str, mean: Tensor, template: Template) -> Tensor:
        rank = len(template.shape)
        size = template.value.new_tensor(self._sizes()[name])
        s = pyro.sample(f"prior.{name}.spread", HalfNormal(size))
        zeros = template.value.new_zeros(self.sessions, *template.shape)
        e = pyro.sample(f"prior.{name}.raw", normal(template, zeros, zeros + 1).to_event(1))
        theta = mean.unsqueeze(-rank - 1) + s.reshape(s.shape + (1,) * (rank + 1)) * e
        return pyro.deterministic(name, theta, event_dim=rank + 1)

    def assign(
        self, theta: dict[str, Tensor], session: Tensor | None, templates: Mapping[str, Template]
    ) -> dict[str, Tensor]:
        """Each trial gets the value of its session: (..., 1, G, *p) or (G, *p) -> (..., N, *p)."""
        codes = self._codes(session)
        mine = {n: _at(theta[n], codes, len(templates[n].shape)) for n in self.names if n in theta}
        return theta | mine

    def shared(self, theta: dict[str, Tensor], sites: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The population means."""
        return theta | {name: sites[_mean(name)] for name in self.names if name in theta}

    def start(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """All sessions at the parameter's current value."""
        mine = {_mean(n): values[n] for n in self.names if n in values}
        raw = {
            f"prior.{n}.raw": values[n].new_zeros(self.sessions, *values[n].shape)
            for n in self.names
            if n in values
        }
        return values | mine | raw

    def _codes(self, session: Tensor | None) -> Tensor:
        if session is None:
            raise InputError(
                "y",
                "a session for each trial",
                "no coordinate 'session'",
                "use ds.assign_coords(session=('trial', labels))",
            )
        if bool((session < 0).any()):
            raise InputError(
                "y", "the sessions that were fitted", "others", "fit with them as well"
            )
        highest = int(session.max()) + 1
        if highest > self.sessions:
            raise InputError(
                "sessions",
                f"the {highest} sessions of the data",
                self.sessions,
                f"use sessions={highest}",
            )
        return session

    def _check(self) -> None:
        if self.population.sessions is not None or not self.names:
            raise InputError(
                "population",
                "a prior with 'names' and without sessions",
                type(self.population).__name__,
                "use priors.Independent, say",
            )
        sizes = self._sizes()
        if set(sizes) != set(self.names):
            raise InputError(
                "spread",
                f"a number for each of {list(self.names)}",
                list(sizes),
                "name these, or give one number for all",
            )
        for size in sizes.values():
            positive("spread", size)

    def _sizes(self) -> dict[str, float]:
        spread = self.spread
        return spread if isinstance(spread, dict) else dict.fromkeys(self.names, spread)


class _Means(Messenger):
    """Sites that bear the names of parameters become those of their means."""

    def __init__(self, names: tuple[str, ...]):
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            msg["name"] = _mean(msg["name"])


def _mean(name: str) -> str:
    return f"prior.{name}.mean"


def _at(theta: Tensor, codes: Tensor, rank: int) -> Tensor:
    """The session axis becomes that of the trials, of which ``theta`` has none or one of size 1."""
    axis = theta.dim() - rank - 1
    each = theta.index_select(axis, codes.to(theta.device))
    return each.squeeze(axis - 1) if axis > 0 else each
