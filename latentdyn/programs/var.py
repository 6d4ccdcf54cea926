"""Vector autoregressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn import initials, transitions
from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.distributions.gaussian import gaussian
from latentdyn.distributions.point import PointPath
from latentdyn.distributions.stationary_matrices import side_by_side, stationary_matrices
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.nn.companion import companion
from latentdyn.priors import Prior
from latentdyn.programs.arma import first_states
from latentdyn.programs.state_space import StateSpace

__all__ = ["VAR", "given_first_steps"]


class VAR(StateSpace):
    r"""y_t = constant + A_1 y_{t-1} + ... + A_p y_{t-p} + e_t,  e_t ~ N(0, covariance).

    The state holds the last p observations, K = p D, and y is the first of them, without noise of
    its own: use it with the states integrated out. ``model.collapse(smooth.kalman)`` is the exact
    likelihood with a stationary start, missing values included, and learning stays among
    stationary coefficients. With another ``initial`` (`initials.Diffuse` for unit roots) A is
    free. ``model.collapse(programs.given_first_steps)`` conditions on the first p observations.

    Args:
        p: order.
        obs_dim: D.
        prior: of "transition.A" (p, D, D), "transition.covariance" (D, D) and
            "transition.constant" (D,).
        initial: distribution of the first K states.

    ``VAR.of(A=, covariance=, constant=)`` builds it from known values. Raises: InputError for
    p < 1, and for a known A that is not stationary without ``initial``.
    Source: Luetkepohl (2005), section 2.1.

    Example:
        >>> known = VAR.of(A=[[[0.5, 0.2], [0.0, 0.4]]], covariance=[1.0, 2.0])
        >>> known.simulate(trials=3, steps=20, seed=0)["y"].shape
        (3, 20, 2)
    """

    transition: transitions.VAR

    def __init__(
        self,
        p: int,
        obs_dim: int,
        prior: Prior | Callable[..., Any] | None = None,
        *,
        initial: Any = None,
    ):
        stationary_start = initial is None or isinstance(initial, initials.Stationary)
        transition = transitions.VAR(p, obs_dim, free=not stationary_start)
        K = transition.state_dim
        super().__init__(
            transition, first_states(K, obs_dim), initial or initials.Stationary(K), prior
        )
        self.p = transition.p

    @classmethod
    def of(
        cls,
        A: ArrayLike,
        covariance: ArrayLike,
        constant: ArrayLike | None = None,
        *,
        initial: Conditional | None = None,
    ) -> Self:
        """Known coefficients (p, D, D), covariance (D, D) or variances (D,), constant (D,)."""
        known = transitions.VAR.of(A, covariance, constant)
        model = cls(known.p, known.units, initial=initial)
        model.fix(**known.known_values)
        if isinstance(model.initial, initials.Stationary):
            _need_stationary(model.A)
        return model

    def fix(self, **values: ArrayLike | None) -> Self:
        """Give coefficients, covariance and constant known values, in place."""
        self.to(self.transition.fix(**values).A.dtype)
        return self

    @property
    def known(self) -> tuple[str, ...]:
        """Names of known values."""
        return self.transition.known

    @property
    def A(self) -> Tensor:
        """Coefficients (p, D, D)."""
        return self.transition.A

    @property
    def covariance(self) -> Tensor:
        """Covariance of the noise (D, D)."""
        return self.transition.covariance

    @property
    def constant(self) -> Tensor:
        """Constant (D,)."""
        return self.transition.constant

    def initialise(self, batch: Batch) -> None:
        """Least squares, given the first p steps; shrunk if that is not stationary."""
        batch = self.fit_batch(batch)
        past, y, whole = lagged(batch, self.p)
        D, rows = self.obs_dim, past[whole]
        if len(rows) <= rows.shape[-1] + D:
            return  # too few complete steps: start from white noise
        X = torch.cat([rows, rows.new_ones(len(rows), 1)], -1)
        beta = torch.linalg.lstsq(X, y[whole]).solution  # (p D + 1, D)
        residual = y[whole] - X @ beta
        A = beta[:-1].reshape(self.p, D, D).mT
        if not self.transition.free:
            A = _shrunk(A)
        V = residual.mT @ residual / len(rows)
        scale = torch.diag(V.diagonal().clamp(min=torch.finfo(V.dtype).tiny))
        self.transition.start(A=A, constant=beta[-1], covariance=0.99 * V + 0.01 * scale)


def given_first_steps(model: Any, batch: Batch) -> PointPath:
    r"""log p(y_{p+1:T} | y_{1:p}) of each trial under a `VAR`, for ``model.collapse``.

    Its maximum over A and constant is least squares, and it needs no stationary start. The states
    are the last p observations, as they were seen; values before the first one are zero in them.
    Raises: InputError if a value is missing; the Kalman filter integrates such values out.
    """
    inside = torch.arange(batch.steps, device=batch.y.device) < batch.length[:, None]
    if not bool((batch.mask.all(-1) | ~inside).all()):
        fix = "use model.collapse(smooth.kalman), with initials.Diffuse if there are unit roots"
        raise InputError("y", "no missing values", "some", fix)
    past, y, whole = lagged(batch, model.p)
    covariance, A = model.transition.timed("covariance"), model.transition.timed("A")
    loc = matvec(side_by_side(A), past) + model.transition.timed("constant")
    terms = gaussian(loc, covariance, "full").log_prob(y)
    first = terms.new_zeros(*terms.shape[:-1], model.p)
    early = [
        torch.nn.functional.pad(batch.y, (0, 0, i, 0))[:, : batch.steps] for i in range(model.p)
    ]
    z = torch.cat(early, -1).expand(*terms.shape[:-1], batch.steps, -1)
    counted = torch.cat([torch.zeros_like(whole[:, : model.p]), whole], -1)[:, : batch.steps]
    each = torch.cat([first, terms.where(whole, 0)], -1)
    return PointPath(z, z, each, batch.length, counted=counted.expand(each.shape))


def lagged(batch: Batch, p: int) -> tuple[Tensor, Tensor, Tensor]:
    """Past (N, T-p, p D), newest first, y (N, T-p, D), and which of these steps are complete."""
    steps = batch.steps - p
    if steps < 1:
        raise InputError("y", f"more than {p} steps", batch.steps, "use a lower order p")
    cuts = [slice(p - i, p - i + steps) for i in range(1, p + 1)]
    past = torch.cat([batch.y[:, cut] for cut in cuts], -1)
    seen = batch.mask.all(-1)
    seen = seen if batch.valid is None else seen & batch.valid
    earlier = batch.mask.all(-1)
    whole = torch.stack([seen[:, p:], *[earlier[:, cut] for cut in cuts]]).all(0)
    return past, batch.y[:, p:], whole


def _shrunk(A: Tensor) -> Tensor:
    """Coefficients whose companion matrix has no eigenvalue beyond 0.98."""
    radius = torch.linalg.eigvals(companion(side_by_side(A))).abs().max()
    powers = torch.arange(1, A.shape[0] + 1, dtype=A.dtype, device=A.device)
    return A * ((0.98 / radius).clamp(max=1) ** powers)[:, None, None]


def _need_stationary(A: Tensor) -> None:
    if not bool(stationary_matrices.check(A).all()):
        raise InputError(
            "A",
            "coefficients of a stationary process (companion eigenvalues inside the circle)",
            "others",
            "pass initial=initials.Diffuse(p * D), or a Gaussian for the first p steps",
        )
