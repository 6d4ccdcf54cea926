"""Ways to run both filters of a chain with sites; they agree up to rounding and differ in speed.

A route is called with `Sites` and returns a `Run`: the forward filter at once, the backward one
when it is asked for.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from latentdyn.errors import InputError
from latentdyn.kernels import riccati_fast
from latentdyn.kernels.banded import BandedRun
from latentdyn.kernels.definite import inverse
from latentdyn.kernels.doubling import steady_riccati
from latentdyn.kernels.jit import available
from latentdyn.kernels.layout import Layout
from latentdyn.kernels.recursion import riccati_backward, riccati_forward
from latentdyn.kernels.run import Run
from latentdyn.kernels.shrink import shrink
from latentdyn.kernels.two_filter import Backward, Forward, Sites, means_backward, means_forward

__all__ = ["banded", "constant", "cyclic", "fastest", "stepwise"]

MANY = 500
DIGITS = 1e6  # what may be lost of 1e16 by the subtractions of the banded route


def fastest(x: Sites) -> Run:
    """Doubling if no matrix varies in time; else banded factors if the noise is well-conditioned.

    The rest (singular or nearly singular noise) goes step by step.
    """
    if all(M.shape[1] == 1 for M in (x.A, x.Q, x.J)):
        return constant(x)
    return BandedRun(x) if _regular(x) else stepwise(x)


def _regular(x: Sites) -> bool:
    """Whether Q^{-1} and P^{-1} exist and cost few digits."""
    Q = x.Q if x.Q.shape[1] == 1 else x.Q[:, 1:]
    if not Q.size:
        return False
    (least_Q, _), (least_P, _) = inverse(Q), inverse(x.P)
    with np.errstate(invalid="ignore"):  # what cannot be inverted is infinite or NaN
        firm = _largest(least_P, 1) * _largest(x.P, 1) < DIGITS
        scale = np.maximum(_largest(Q, 2), _largest(x.P, 1))
        return bool((firm & (_largest(least_Q, 2) * scale < DIGITS)).all())


def _largest(x: ndarray, axes: int) -> ndarray:
    """The largest diagonal entry of each problem, NaN if any is."""
    return x.diagonal(axis1=-2, axis2=-1).max(tuple(range(-axes, 0)))


def banded(x: Sites) -> Run:
    """Any chain whose noise covariances are invertible, by banded Cholesky factors."""
    if not bool((np.linalg.eigvalsh(x.P) > 0).all()):
        got = "a singular or flat start"
        raise InputError("route", "an invertible first covariance", got, "use routes.stepwise")
    return BandedRun(x)


def cyclic(x: Sites) -> Run:
    """The name of the route in torch (`precision_log_z`): any device, twice differentiable.

    Its moments are those of the fastest route in numpy.
    """
    return fastest(x)


def stepwise(x: Sites) -> Run:
    """Any chain: one step after another, all problems at once; compiled if the extra is there."""
    steps = x.g.shape[2]
    fast = _compiles(x)
    forward = riccati_fast.forward if fast else riccati_forward
    backward = riccati_fast.backward if fast else riccati_backward
    P, Pf, det = forward(x.P, x.A, x.Q, x.J, steps)
    layout = Layout(steps)

    def turn(x: Sites, ahead: Forward) -> tuple[Forward, Backward]:
        L, W = backward(x.A, x.Q, x.J, steps)
        return ahead, means_backward(x, layout, L, W)

    return Run(x, means_forward(x, layout, P, Pf, det), turn)


def _compiles(x: Sites) -> bool:
    """Whether a compiled loop pays: many steps of small matrices."""
    return len(x.g) * x.g.shape[2] >= MANY and x.P.shape[-1] <= 12 and available()


def constant(x: Sites) -> Run:
    """A, Q and J the same at every step: covariances by doubling until they are steady."""
    steps = x.g.shape[2]
    A, Q, J = x.A[:, 0], x.Q[:, 0], x.J[:, 0]
    P, _ = steady_riccati(x.P, A, Q, J, steps)
    layout = Layout(P.shape[1], steps - P.shape[1])
    P = P if not layout.middle else np.concatenate([P, P[:, -1:]], 1)
    Pf, grown = shrink(P, J[:, None])
    return Run(x, means_forward(x, layout, P, Pf, np.linalg.slogdet(grown)[1]), _turn)


def _turn(x: Sites, ahead: Forward) -> tuple[Forward, Backward]:
    A, Q, J = x.A[:, 0], x.Q[:, 0], x.J[:, 0]
    steps, head = ahead.layout.steps, ahead.layout.head
    L, _ = steady_riccati(J, A.swapaxes(-1, -2), J, Q, steps)
    tail = L.shape[1]
    layout = Layout(head, steps - head - tail, tail) if head + tail < steps else Layout(steps)
    L = np.concatenate([np.repeat(L[:, -1:], layout.rows - tail, 1), L[:, ::-1]], 1)
    W, _ = shrink(L, Q[:, None])
    ahead = ahead._replace(layout=layout, P=_rows(ahead.P, layout), Pf=_rows(ahead.Pf, layout))
    return ahead, means_backward(x, layout, L, W)


def _rows(found: ndarray, layout: Layout) -> ndarray:
    """Forward matrices in another layout: the last one goes on."""
    lacking = layout.rows - found.shape[1]
    return np.concatenate([found, np.repeat(found[:, -1:], lacking, 1)], 1) if lacking else found
