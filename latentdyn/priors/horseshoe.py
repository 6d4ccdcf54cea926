"""Few strong entries among many that are nearly zero."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import torch
from pyro.distributions import HalfCauchy, InverseGamma, Normal
from torch import Tensor

from latentdyn.conditional import Template
from latentdyn.distributions import hollow
from latentdyn.distributions.hollow import HollowTransform
from latentdyn.errors import InputError
from latentdyn.priors.checks import positive, unbounded
from latentdyn.priors.prior import Prior

__all__ = ["Horseshoe"]


class Horseshoe(Prior):
    r"""theta_i = e_i tau l_i c / sqrt(c^2 + tau^2 l_i^2): the regularised horseshoe.

    e_i ~ N(0, 1),  l_i ~ HalfCauchy(1),  tau ~ HalfCauchy(tau_0),
    c^2 ~ InverseGamma(nu/2, nu slab^2/2),  tau_0 = error p_0 / (P - p_0).

    Given its scales an entry is Gaussian with mean zero; most are shrunk to nearly nothing by the
    global tau, a few escape through the heavy tail of their own l_i, and these see a Student-t slab
    with nu degrees of freedom. The parametrisation is non-centred: given the data the factors are
    less entangled than theta and its scales are, which suits mean-field guides and NUTS.

    Args:
        name: the parameter, with P entries (a zero diagonal does not count).
        expected: p_0, how many entries are expected to differ from zero, 0 < p_0 < P.
        slab: size that an entry may reach.
        slab_df: nu.
        error: standard error with which the data alone would give one entry, about
            sigma / sqrt(n) for n steps with noise sigma and states of unit variance.

    Sites: ``"prior.<name>.raw"`` e and ``".local"`` l of shape (P,), ``".global"`` tau, ``".slab"``
    c^2; and ``"<name>"`` itself, computed from them.
    Source: Piironen & Vehtari (2017), eqs. 2.8, 2.11 and 3.12.

    Example:
        >>> from latentdyn import transitions
        >>> from latentdyn.conditional import templates_of
        >>> prior = Horseshoe("W", expected=4)
        >>> prior(templates_of(transitions.PLRNN(5)))["W"].diagonal()
        tensor([0., 0., 0., 0., 0.])
    """

    def __init__(
        self,
        name: str,
        expected: float,
        slab: float = 1.0,
        slab_df: float = 4.0,
        error: float = 0.1,
    ):
        super().__init__()
        self.name, self.expected = name, positive("expected", expected)
        self.slab, self.slab_df = positive("slab", slab), positive("slab_df", slab_df)
        self.error = positive("error", error)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameter."""
        return (self.name,)

    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Sample the factors and compute the parameter."""
        template = unbounded(templates, self.name)
        P = template.value.numel() - (template.shape[-1] if template.support is hollow else 0)
        zeros = template.value.new_zeros(P)
        raw = self._site("raw", Normal(zeros, 1.0).to_event(1))
        local = self._site("local", HalfCauchy(zeros + 1).to_event(1))
        tau = self._site("global", HalfCauchy(template.value.new_tensor(self._tau0(P))))
        c = self._site("slab", self._slab(template.value)).sqrt()
        entries = raw * shrunk(tau[..., None] * local, c[..., None])
        theta = placed(entries, template)
        return {self.name: pyro.deterministic(self.name, theta, event_dim=len(template.shape))}

    def _site(self, what: str, distribution: pyro.distributions.TorchDistribution) -> Tensor:
        return pyro.sample(f"prior.{self.name}.{what}", distribution)

    def _tau0(self, P: int) -> float:
        if self.expected >= P:
            raise InputError(
                "expected",
                f"fewer than the {P} entries of '{self.name}'",
                self.expected,
                f"use expected={max(P // 5, 1)}, or priors.Independent",
            )
        return self.error * self.expected / (P - self.expected)

    def _slab(self, like: Tensor) -> InverseGamma:
        half = like.new_tensor(self.slab_df / 2)
        return InverseGamma(half, half * self.slab**2)


def shrunk(scale: Tensor, slab: Tensor) -> Tensor:
    """Scale c / sqrt(c^2 + scale^2): the scale where it is small, the slab c where it is large."""
    return scale * (slab / torch.hypot(slab, scale))


def placed(entries: Tensor, template: Template) -> Tensor:
    """Entries (..., P) in the shape of the parameter, around a zero diagonal if it has one."""
    if template.support is hollow:
        return HollowTransform()(entries)
    return entries.reshape(entries.shape[:-1] + template.shape)
