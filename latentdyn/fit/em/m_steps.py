"""M steps of a state-space program: those registered in `m_step`, else `climb`."""

from __future__ import annotations

from typing import Any

import numpy as np

from latentdyn import emissions, initials, transitions
from latentdyn.conditional import Conditional
from latentdyn.fit.em.climb import climb, expected_emission, expected_first, expected_steps
from latentdyn.fit.em.expectations import Expectations
from latentdyn.fit.em.m_step import closed_form, m_step
from latentdyn.fit.em.piecewise import piecewise_steps
from latentdyn.fit.em.poisson_readout import poisson_readout
from latentdyn.fit.em.readout import gaussian_readout
from latentdyn.fit.em.regression import covariance_of, regress, spread, steps_about
from latentdyn.fit.engine.parameters import array, free_of, is_known, learns, write
from latentdyn.programs import Program

__all__ = ["maximise"]


def maximise(program: Program, e: Expectations) -> None:
    """Move the free parameters to where E log p(y, z) is highest, or at least higher."""
    if learns(program.emission):
        _emission(program, e)
    if learns(program.transition) and bool(e.inside[:, 1:].any()):
        _transition(program, e)
    if learns(program.initial):
        _initial(program, e)


def _emission(program: Program, e: Expectations) -> None:
    if m_step(program.emission, e) is NotImplemented:
        climb(program, free_of(program, "emission."), expected_emission(e))


def _transition(program: Program, e: Expectations) -> None:
    starts = isinstance(program.initial, initials.Stationary)  # what it maximises is more then
    if starts or m_step(program.transition, e) is NotImplemented:
        climb(program, free_of(program, "transition."), expected_steps(e))


def _initial(program: Program, e: Expectations) -> None:
    if m_step(program.initial, e) is NotImplemented:
        climb(program, free_of(program, "initial."), expected_first(e))


@closed_form(m_step, emissions.Gaussian)
def _gaussian(part: Conditional, e: Expectations) -> Any:
    return gaussian_readout(part, e)


@closed_form(m_step, emissions.Poisson)
def _poisson(part: Conditional, e: Expectations) -> Any:
    return NotImplemented if e.drawn else poisson_readout(part, e)


@closed_form(m_step, transitions.PLRNN)
def _plrnn(part: Conditional, e: Expectations) -> Any:
    return NotImplemented if part.centred or part.bounded else piecewise_steps(part, e)


@closed_form(m_step, transitions.Linear)
def _linear(part: Any, e: Expectations) -> None:
    """A, b, B by regression of z_t on z_{t-1}, 1 and u_t; Q from what is left."""
    K, U = part.state_dim, part.input_dim
    theta = np.concatenate([array(part.A), array(part.b)[:, None], array(part.B)], 1)
    free = np.repeat([not is_known(part, n) for n in ("A", "b", "B")], [K, 1, U])
    about, of = steps_about(e, theta, free)
    change = regress(of, 0 * theta, free)
    theta = about.moved(change)
    Q = covariance_of(spread(of, change), part.noise, array(part.floor))
    write(part, A=theta[:, :K], b=theta[:, K], B=theta[:, K + 1 :], Q=Q)


@closed_form(m_step, initials.Gaussian)
def _gaussian_start(part: Any, e: Expectations) -> None:
    """Over trials: the average first state, and its spread around that."""
    mean, S = e.first
    centre = array(part.mean) if is_known(part, "mean") else mean.mean(0)
    r = mean - centre
    V = S.mean(0) + r.T @ r / len(r)
    write(part, mean=centre, covariance=covariance_of(V, part.noise, array(part.floor)))


@closed_form(m_step, initials.Learned)
def _learned_start(part: Conditional, e: Expectations) -> None:
    write(part, mean=e.first[0].mean(0))
