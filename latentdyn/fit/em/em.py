"""Expectation maximisation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from latentdyn.data import Batch
from latentdyn.data.kept import kept
from latentdyn.emissions import Categorical
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.fit.em.em_loop import EMRun
from latentdyn.fit.engine.entry import Level
from latentdyn.fit.engine.failures import LINALG, name_entry, need_finite_start, not_definite
from latentdyn.fit.engine.training import Progress
from latentdyn.fit.engine.validation import check_support
from latentdyn.fit.uncertainty import with_uncertainty
from latentdyn.guide import Guide
from latentdyn.posterior import Posterior
from latentdyn.programs.program import Program, need_no_feedback
from latentdyn.rng import seeded
from latentdyn.smooth.discrete.hmm import hmm
from latentdyn.smooth.gaussian.iekf import iekf
from latentdyn.smooth.gaussian.kalman import kalman
from latentdyn.smooth.gaussian.laplace import laplace
from latentdyn.smoother import Smoother, as_smoother
from latentdyn.values import whole

__all__ = ["em"]

SWEEPS = 10


def em(
    model: Any,
    y: Any,
    steps: int = 50,
    *,
    smoother: Callable[[Any, Batch], Any] | None = None,
    tolerance: float = 1e-8,
    initialise: bool = True,
    seed: int = 0,
    draws: int = 0,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    progress: bool = True,
) -> Posterior:
    r"""Maximise p(y | theta): theta <- argmax E[log p(y, z | theta')], z ~ p(z | y, theta).

    Exact for linear-Gaussian programs and hidden Markov models: every step raises the evidence, and
    all M steps are in closed form, missing entries, inputs and trials of unequal length included.
    Other programs take an approximate E step; their evidence is then an approximation as well, and
    need not rise at every step. M steps in closed form: `transitions.Linear`, `transitions.PLRNN`
    (moments of rectified Gaussians), `emissions.Gaussian`, `emissions.Poisson` (Newton),
    `initials.Gaussian`, `initials.Learned`, `emissions.StateGaussian` and read-outs of one-hot
    states, and those of `latentdyn.fit.m_step.register`; any other conditional climbs E log p by
    quasi-Newton steps at points that have the moments of the states.

    Args:
        model: a `StateSpace` program or `programs.HMM`; known parameters stay. It is not changed;
            the copy that is fitted has double precision, and keeps it where the data are so far
            from zero that single precision would lose them.
        y: whatever `latentdyn.data.as_dataset` takes.
        steps: E steps, at most; a longer step that was taken back counts as one.
        smoother: the E step, one of `latentdyn.smooth`; by default `kalman` or `hmm` where they
            are exact, `laplace` where the transition is affine, else ten sweeps of `iekf`, which
            go on from the last path and, unlike `laplace`, need not come to rest (a mode may lie
            on a kink of a ReLU). With `particle` the E step is random: in the first half of the
            steps each M step is taken whole, then a share 1, 1/2, 1/3, ... of it in unconstrained
            coordinates (stochastic approximation, after Delyon et al. 1999), and all steps are
            done.
        tolerance: it ends where a step raises the evidence by less than this per observed entry.
        initialise: start free parameters from the data.
        seed: of everything random in the fit.
        draws: of the parameters around the maximum, so that intervals include what is not known
            about them (`latentdyn.fit.with_uncertainty`); with 0 there is only the point, and
            intervals of forecasts and states are those of known parameters: too narrow.
        callbacks: called with a `Progress` after every step; returning "stop" stops.
        progress: show a progress bar.

    Where gains shrink slowly, from the tenth step on, steps are extrapolated from up to ten before
    (Anderson's method), unless that would lower the evidence.

    Returns: a `Posterior` of the collapsed program at the point estimate; its ``history`` has
    ``step`` and ``log_evidence``, beginning with that of the starting values. Its ``attrs``:
    ``converged``, whether ``tolerance`` ended it, and ``left``, an estimate of the nats still to be
    gained if gains go on shrinking as in the last half of the run (infinity if they do not shrink),
    which the progress bar shows too.
    The basis of the states is not identified where A, C, Q and the first state are all learned
    (z -> M z changes no prediction): compare evidence, predictions and eigenvalues of A, not
    entries. The first covariance is not either with a single trial: it shrinks towards its floor.
    Learned noise stays above its floor, full covariances in every direction; where it ends there
    ``attrs["at_floor"]`` names it.

    Raises:
        InputError: if an argument does not fit; if the program has a prior (EM maximises the
            likelihood); or if a learned transition has no density. Errors on the way have an
            attribute ``posterior``, the fit at the last good step.
        NonFiniteError: if the evidence stops being finite; likewise.
    Source: Dempster et al. (1977); Shumway & Stoffer (1982); Ghahramani & Hinton (1996); Walker
    & Ni (2011).

    Example:
        >>> from latentdyn import StateSpace, emissions, initials, transitions
        >>> start = initials.Gaussian.of(mean=[0.0], covariance=[1e7])
        >>> model = StateSpace(transitions.Linear(1), emissions.Gaussian(1, 1), start)
        >>> flow = [[1120.0], [1160.0], [963.0], [1210.0], [1160.0], [1160.0], [813.0], [1230.0]]
        >>> post = em(model, flow, steps=5, progress=False)
        >>> up = post.history["log_evidence"]
        >>> len(up), up == sorted(up)
        (6, True)
    """
    steps, draws = whole("steps", steps), whole("draws", draws, 0)
    _check(model, tolerance)
    dataset = kept(y)
    level = Level(model, dataset, able=False)
    program = copy.deepcopy(model).double()
    batch = program.fit_batch(Batch.of(dataset, torch.float64))
    check_support(program, batch)
    smoother = _default(program) if smoother is None else as_smoother(smoother)
    with seeded(seed):
        program, error = _started(program, batch) if initialise else (program, None)
        run = EMRun(program, batch, smoother, seed)
        if error is None:
            error = _attempt(run, steps, tolerance, callbacks, progress)
    if level.digits:
        program, batch = program.to(model.dtype), batch.to(model.dtype)
    collapsed = program.collapse(smoother)
    attrs = {"inference_method": "em", "converged": run.converged, "left": run.left} | level.attrs
    attrs |= run.progress.said
    fits = [(collapsed, Guide(None, None))]
    posterior = Posterior(fits, dataset, batch, [run.progress.history], None, attrs)
    if error is not None:
        error.posterior = posterior  # type: ignore[attr-defined]
        raise error
    return with_uncertainty(posterior, draws=draws, seed=seed) if draws else posterior


def _started(program: Program, batch: Batch) -> tuple[Any, Exception | None]:
    """A copy started from the data; where they give no finite start, the program, and why."""
    started = copy.deepcopy(program)
    started.initialise(batch)
    try:
        need_finite_start(started, batch)
    except NonFiniteError as error:
        return program, error
    return started, None


def _attempt(run: EMRun, *settings: Any) -> Exception | None:
    """Run to the end; what stopped it, if anything did."""
    try:
        run.go(*settings)
    except LINALG:
        return not_definite(run.batch, "")
    except NonFiniteError as error:
        name_entry(error, run.batch)
        return error
    except InputError as error:
        return error
    return None


def _check(model: Any, tolerance: float) -> None:
    if not isinstance(model, Program) or model.form not in ("StateSpace", "HMM"):
        kind = type(model).__name__
        fix = "use fit.svi or fit.mcmc; of a collapsed program pass the inner one and smoother="
        raise InputError("model", "a StateSpace or an HMM", kind, fix)
    if model.form == "StateSpace":
        need_no_feedback(model)
    if model.by_session:
        fix = "use fit.svi, fit.laplace or fit.mcmc of the collapsed program"
        raise InputError("model", "one that is alike in all sessions", "a PerSession part", fix)
    if model.prior.random:
        fix = "leave the prior out, or use fit.laplace or fit.svi of the collapsed program"
        raise InputError("model", "a program without prior", type(model.prior).__name__, fix)
    if not any(t.value.requires_grad for t in model.templates.values()):
        fix = "build a part without .of, or use a smoother: nothing is left to learn"
        raise InputError("model", "a parameter to learn", "known ones only", fix)
    if not tolerance >= 0:
        raise InputError("tolerance", "a number >= 0", tolerance, "use tolerance=0 for all steps")


def _default(program: Any) -> Smoother[..., Any]:
    if program.form == "HMM":
        return hmm
    parts = (program.first(), program.transition, program.emission)
    if all(p.linear_gaussian() is not None for p in parts):
        return kalman
    labels = isinstance(program.emission, Categorical)  # they have no moments
    if labels or parts[1].linear_gaussian() is not None:
        return laplace
    return iekf.with_(sweeps=SWEEPS)
