"""Where particles are proposed: distributions of z_t that may know y_t.

A proposal is called with ``z`` (P, ..., N, 1, K), the particles at t-1 (None at the first step),
``y`` (N, 1, D), ``u`` (N, 1, U) or None, ``mask`` (N, 1, D) or None if all is observed, and the
`Step`, the model at t; it returns the distribution of z_t, event (K,). Any function will do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import MultivariateNormal, Normal
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.data import Batch
from latentdyn.distributions import GaussianChain, MarkovPath, Path
from latentdyn.encoders import Encoder
from latentdyn.errors import InputError
from latentdyn.smooth.particles.step_mode import kinds, observed_term, step_mode
from latentdyn.smooth.particles.steps import Step

__all__ = ["Auxiliary", "Bootstrap", "FromEncoder", "Optimal", "Proposal", "as_proposal"]

Function = Callable[[Tensor | None, Tensor, Tensor | None, Tensor | None, Step], Distribution]


class Proposal:
    """Moves particles by a function; the base of those below.

    ``blind``: it proposes from the transition itself.
    """

    blind = False

    def __init__(self, function: Function):
        self.function = function

    def begin(self, batch: Batch) -> Proposal:
        """The proposal for these data."""
        return self

    def look(self, z: Tensor, step: Step) -> Tensor | None:
        """Log weights (P, ..., N, 1) by which survivors are chosen in advance, or None."""
        return None

    def __call__(self, z: Tensor | None, step: Step) -> Distribution:
        """The distribution of z_t."""
        return self.function(z, step.y, step.u, step.mask, step)


class Bootstrap(Proposal):
    """q(z_t | z_{t-1}) = p(z_t | z_{t-1}): needs no density of the transition.

    Source: Gordon, Salmond & Smith (1993).
    """

    blind = True

    def __init__(self) -> None:
        super().__init__(lambda z, y, u, mask, step: step.prior(z))


class Optimal(Proposal):
    r"""p(z_t | z_{t-1}, y_t) with the emission linearised at the mean of the transition.

    One step of the extended Kalman filter for each particle; exact for linear-Gaussian models,
    where the weights then do not depend on z_t. Of counts and classes it is a Gaussian at the mode
    of p(y_t | z_t) p(z_t | z_{t-1}), with the curvature there: for a count far above the expected
    one the linearised filter proposes states that are impossible.
    Source: Doucet, Godsill & Andrieu (2000), eq. 12.
    """

    def __init__(self) -> None:
        super().__init__(_optimal)


class FromEncoder(Proposal):
    """The conditionals q(z_t | z_{t-1}, y) of an encoder, or its marginals where it has none.

    Source: Maddison et al. (2017), section 4, for encoders that look ahead.
    """

    def __init__(self, encoder: Encoder, path: Path | None = None):
        super().__init__(self._conditional)
        self.encoder, self.path = encoder, path

    def begin(self, batch: Batch) -> FromEncoder:
        """Encode the data once."""
        with torch.no_grad():
            return FromEncoder(self.encoder, self.encoder.encode(batch))

    def _conditional(
        self, z: Tensor | None, y: Tensor, u: Tensor | None, mask: Tensor | None, step: Step
    ) -> Distribution:
        path: Any = self.path
        now = slice(step.t, step.t + 1)
        if isinstance(path, MarkovPath):
            return path.initial() if z is None else path._at(now)(z, path._inputs(now))
        if isinstance(path, GaussianChain):
            covariance = path.covariance[..., now, :, :]
            return MultivariateNormal(path.mean[..., now, :], covariance, validate_args=False)
        sd = path.variance[..., now, :].sqrt()
        return Normal(path.mean[..., now, :], sd, validate_args=False).to_event(1)


class Auxiliary(Proposal):
    r"""Choose survivors by w_{t-1} p(y_t | E[z_t | z_{t-1}]), then move them by ``proposal``.

    The evidence stays unbiased. Source: Pitt & Shephard (1999), section 3.2.
    """

    def __init__(self, proposal: Proposal | Function | None = None):
        self.proposal = as_proposal(proposal)
        self.blind = self.proposal.blind

    def begin(self, batch: Batch) -> Auxiliary:
        """That of the proposal."""
        return Auxiliary(self.proposal.begin(batch))

    def look(self, z: Tensor, step: Step) -> Tensor | None:
        """Likelihood at the mean of the transition."""
        return step.likelihood(step.prior(z).mean.expand_as(z))

    def __call__(self, z: Tensor | None, step: Step) -> Distribution:
        """That of the proposal."""
        return self.proposal(z, step)


def as_proposal(proposal: Proposal | Callable[..., Distribution] | None) -> Proposal:
    """A `Proposal` from one, from a function, or from None (the transition)."""
    if proposal is None:
        return Bootstrap()
    if isinstance(proposal, Proposal):
        return proposal
    if not callable(proposal) or isinstance(proposal, type):
        fix = "use smooth.proposals.Optimal(), or a function (z, y, u, mask, step) -> Distribution"
        raise InputError("proposal", "a proposal", repr(proposal), fix)
    return Proposal(proposal)


def _optimal(
    z: Tensor | None, y: Tensor, u: Tensor | None, mask: Tensor | None, step: Step
) -> Distribution:
    mean, V = step.prior_moments(z)
    emission = step.emission
    u = step.inputs(emission)
    if emission.linear_gaussian(u) is None and kinds(emission(mean, u))[0]:
        return _at_mode(mean, V, observed_term(emission, u, step.y, step.mask))
    expected, H, R = step.linearised(mean)
    residual = y - expected
    if mask is not None:
        seen = mask.to(y.dtype)
        H, residual = H * seen[..., None], residual * seen
        R = R * seen[..., :, None] * seen[..., None, :] + torch.diag_embed(1 - seen)
    S = H @ V @ H.mT + R
    gain = torch.linalg.solve(S, H @ V).mT
    kept = torch.eye(V.shape[-1], dtype=V.dtype, device=V.device) - gain @ H
    posterior = kept @ V @ kept.mT + gain @ R @ gain.mT
    loc = mean + (gain @ residual[..., None]).squeeze(-1)
    return MultivariateNormal(loc, (posterior + posterior.mT) / 2, validate_args=False)


@torch.no_grad()
def _at_mode(mean: Tensor, V: Tensor, term: Any) -> Distribution:
    """Laplace's approximation of p(y_t | z_t) N(z_t; mean, V)."""
    V = V.expand(*mean.shape, mean.shape[-1])
    loc, J = step_mode(term, mean, V)
    eye = torch.eye(V.shape[-1], dtype=V.dtype, device=V.device)
    posterior = torch.linalg.solve(eye + V @ J, V)
    return MultivariateNormal(loc, (posterior + posterior.mT) / 2, validate_args=False)


def __dir__() -> list[str]:
    return __all__
