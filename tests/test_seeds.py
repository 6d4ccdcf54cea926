"""Every public call with ``seed``: the same twice, and the caller's generators are left alone."""

from __future__ import annotations

import inspect
import random
from dataclasses import is_dataclass
from functools import cache
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from pyro.infer.autoguide import AutoIAFNormal

import latentdyn as ld
from latentdyn import data, diagnostics, plots, programs, report, smooth
from latentdyn.fit import Training
from tests import fitted

ROOMS = {
    "ld": ld,
    "data": data,
    "systems": data.systems,
    "diagnostics": diagnostics,
    "dynamics": diagnostics.dynamics,
    "fit": ld.fit,
    "plots": plots,
    "programs": programs,
    "report": report,
    "smooth": smooth,
}
QUIET = Training(progress=False)


def takes_seed(call: Any) -> bool:
    try:
        return "seed" in inspect.signature(call).parameters
    except (TypeError, ValueError):
        return False


def public() -> set[str]:
    """Names of all that takes a seed: functions, classes, and methods of classes."""
    found, known = set(), set()
    for room, module in ROOMS.items():
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.ismodule(thing) or id(thing) in known:
                continue
            known.add(id(thing))
            if takes_seed(thing):
                found.add(f"{room}.{name}")
            if inspect.isclass(thing):
                methods = inspect.getmembers(thing, inspect.isfunction)
                found |= {f.__qualname__ for k, f in methods if k[0] != "_" and takes_seed(f)}
    return found


@cache
def y() -> Any:
    return np.random.default_rng(0).normal(size=(2, 25, 1)).cumsum(1)


@cache
def space() -> Any:
    """More states than units: the data leave some loadings open."""
    prior = ld.priors.Independent({"transition.a": dist.Normal(0.8, 0.1)})
    return ld.StateSpace(ld.transitions.PLRNN(2), ld.emissions.Gaussian(2, 1), prior=prior)


@cache
def linear(*, prior: bool) -> Any:
    p = ld.priors.Independent({"emission.R": dist.LogNormal(0.0, 1.0)}) if prior else None
    return ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 1), prior=p)


@cache
def loadings() -> Any:
    """Loadings and noise are random, all else is known; no rotation of the states is the same."""
    prior = {"emission.C": dist.Normal(0.0, 1.0), "emission.R": dist.LogNormal(0.0, 1.0)}
    emission = ld.emissions.Gaussian(2, 1)
    transition = ld.transitions.Linear.of(A=np.diag([0.5, 0.9]), Q=np.ones(2))
    first = ld.initials.Gaussian.of(mean=np.zeros(2), covariance=np.ones(2))
    model = ld.StateSpace(transition, emission, first, ld.priors.Independent(prior))
    return model.collapse(smooth.kalman)


@cache
def sampled() -> Any:
    model = linear(prior=True).collapse(smooth.kalman)
    return ld.fit.mcmc(model, y(), draws=30, warmup=50, chains=2, progress=False)


@cache
def dynamics() -> Any:
    """A network's fit, and the series that it was fitted to."""
    model = ld.StateSpace(ld.transitions.PLRNN(2), ld.emissions.Identity(2, 2))
    series = np.sin(np.arange(200)[:, None] / 4 + np.array([0.0, 1.0]))
    return ld.fit.teacher_forcing(model, series, steps=3, training=QUIET), series


@cache
def hmm() -> Any:
    prior = ld.priors.Independent({"emission.means": dist.Normal(0.0, 1.0)})
    return programs.HMM(2, ld.emissions.StateGaussian(2, 1), prior=prior)


@cache
def switching() -> Any:
    prior = ld.priors.Independent({"emission.d": dist.Normal(0.0, 1.0)})
    return programs.SwitchingLinear(2, 1, 1, prior=prior)


@cache
def regression() -> Any:
    return programs.PoissonAutoregression.of(d=[0.0], w=[[0.1]])


def compared(scheme: Any) -> Any:
    first = ld.fit.em(linear(prior=False), y()[:, :20], steps=2, progress=False)
    return diagnostics.compare({"a": first}, y(), scheme=scheme)


def picture(draw: Any) -> Any:
    """All that is drawn, as numbers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    found = draw()
    ax = getattr(found, "axes", found)
    ax = np.ravel(ax)[0]
    lines = [np.asarray(line.get_xydata()) for line in ax.get_lines()]
    points = [np.asarray(c.get_offsets()) for c in ax.collections]
    plt.close("all")
    return lines + points


def rao_blackwell(seed: int) -> Any:
    found = smooth.switching(switching(), y(), method=smooth.RaoBlackwell(10, seed=seed))
    return found.mean


def sweep(seed: int) -> Any:
    path = torch.zeros(1, 2, 25, 2)
    return smooth.conditional_particles(space(), y(), path, particles=5, seed=seed)


def of_dynamics(call: Any, *args: Any, **named: Any) -> Any:
    return lambda s: call(dynamics()[0], *args, draws=3, seed=s, **named)


MCMC: dict[str, Any] = {"draws": 3, "warmup": 3, "chains": 2, "progress": False}
FLOWS = ("bursting_neuron", "lorenz63", "lorenz96", "rossler", "van_der_pol")
CALLS: dict[str, Any] = {
    "PoissonAutoregression.forecast": lambda s: regression().forecast(
        np.ones((9, 1), int), 4, seed=s
    ),
    "Posterior.expected": lambda s: fitted.counts().expected(draws=3, seed=s),
    "Posterior.forecast": lambda s: fitted.counts().forecast(3, draws=3, seed=s),
    "Posterior.impute": lambda s: fitted.counts().impute(draws=3, seed=s),
    "Posterior.log_likelihood": lambda s: fitted.counts().log_likelihood(draws=3, seed=s),
    "Posterior.sample": lambda s: fitted.counts().sample(3, seed=s),
    "Posterior.simulate": lambda s: fitted.counts().simulate(2, 5, 3, seed=s),
    "Posterior.smooth": lambda s: sampled().smooth(draws=3, seed=s).mean,
    "Posterior.to_arviz": lambda s: fitted.counts().to_arviz(5, seed=s),
    "Posterior.to_datatree": lambda s: sampled().to_datatree(5, seed=s),
    "Simulated.prior_predictive": lambda s: [
        m().prior_predictive(3, 2, 5, seed=s)["y"].values for m in (hmm, space, switching)
    ],
    "Simulated.simulate": lambda s: [
        m().simulate(2, 5, seed=s)["y"].values for m in (hmm, regression, space, switching)
    ],
    "data.train_test_split": lambda s: data.train_test_split(fitted.counts().data, seed=s),
    "diagnostics.HeldOut": lambda s: compared(diagnostics.HeldOut(seed=s)),
    "diagnostics.LeaveFutureOut": lambda s: diagnostics.compare(
        {"a": sampled()}, scheme=diagnostics.LeaveFutureOut(start=20, seed=s)
    ),
    "diagnostics.PSISLOO": lambda s: diagnostics.compare(
        {"a": sampled()}, scheme=diagnostics.PSISLOO(seed=s)
    ),
    "diagnostics.basins": of_dynamics(diagnostics.basins, steps=20, tail=10),
    "diagnostics.cycles": of_dynamics(diagnostics.cycles, 2),
    "diagnostics.ess": lambda s: diagnostics.ess(fitted.counts(), 100, seed=s),
    "diagnostics.fixed_points": of_dynamics(diagnostics.fixed_points),
    "diagnostics.floors": lambda s: diagnostics.floors(dynamics()[1], seed=s),
    "diagnostics.flow_field": of_dynamics(diagnostics.flow_field, points=3),
    "diagnostics.free_run": of_dynamics(diagnostics.free_run, 5, noise=True),
    "diagnostics.held_out": lambda s: diagnostics.held_out(fitted.counts(), 5, seed=s),
    "diagnostics.khat": lambda s: diagnostics.khat(fitted.counts(), 100, seed=s),
    "diagnostics.log_weights": lambda s: diagnostics.log_weights(fitted.counts(), 5, seed=s),
    "diagnostics.lyapunov_spectrum": of_dynamics(diagnostics.lyapunov_spectrum, 50, burn_in=5),
    "diagnostics.prediction_error": lambda s: diagnostics.prediction_error(
        *dynamics(), 3, draws=3, seed=s
    ),
    "diagnostics.scores": lambda s: diagnostics.scores(*dynamics(), steps=5, draws=3, seed=s),
    "diagnostics.state_space_divergence": lambda s: diagnostics.state_space_divergence(
        dynamics()[1], dynamics()[1] + 0.1, method="mixture", points=50, samples=20, seed=s
    ),
    "Baseline.free_run": lambda s: diagnostics.dynamics.FixedPoint.of(y()).free_run(5, seed=s),
    "fit.Expectations": lambda s: ld.fit.Expectations(
        smooth.kalman(linear(prior=False), y()), ld.data.Batch.of(y()), s
    ).points(),
    "fit.em": lambda s: ld.fit.em(linear(prior=False), y(), steps=2, seed=s, progress=False),
    "fit.with_uncertainty": lambda s: ld.fit.with_uncertainty(
        ld.fit.em(linear(prior=False), y(), steps=2, progress=False), draws=3, seed=s
    ),
    "fit.laplace": lambda s: ld.fit.laplace(loadings(), y(), seed=s),
    "fit.mcmc": lambda s: ld.fit.mcmc(
        linear(prior=True).collapse(smooth.kalman), y(), seed=s, **MCMC
    ),
    "fit.particle_gibbs": lambda s: ld.fit.particle_gibbs(space(), y(), seed=s, **MCMC),
    "fit.particle_mcmc": lambda s: ld.fit.particle_mcmc(space(), y(), particles=20, seed=s, **MCMC),
    "fit.svi": lambda s: ld.fit.svi(space(), y(), steps=3, seed=s, training=QUIET),
    "fit.teacher_forcing": lambda s: ld.fit.teacher_forcing(
        linear(prior=False), y(), steps=3, seed=s, training=QUIET
    ),
    "plots.attractor": lambda s: picture(lambda: plots.attractor(*dynamics(), seed=s)),
    "plots.bifurcation": lambda s: picture(
        lambda: plots.bifurcation(
            dynamics()[0], "transition.h[0]", [0.0, 0.1], steps=5, burn_in=5, seed=s
        )
    ),
    "plots.power_spectra": lambda s: picture(lambda: plots.power_spectra(*dynamics(), seed=s)),
    "plots.return_map": lambda s: picture(lambda: plots.return_map(*dynamics(), seed=s)),
    "report.readings": lambda s: report.readings(sampled(), seed=s),
    "smooth.RaoBlackwell": rao_blackwell,
    "smooth.conditional_particles": sweep,
    "smooth.particle": lambda s: smooth.particle(space(), y(), particles=10, seed=s).mean,
    "systems.plrnn_spikes": lambda s: data.systems.plrnn_spikes(2, 5, neurons=3, seed=s),
} | {
    f"systems.{name}": lambda s, name=name: getattr(data.systems, name)(1, 9, obs_noise=0.1, seed=s)
    for name in FLOWS
}


def numbers(found: Any) -> list[Any]:
    """Everything in a result that is a number or a text."""
    if isinstance(found, ld.Posterior):
        weights = [p.detach() for program, _ in found.fits for p in program.parameters()]
        return numbers([weights, found.sample(3, seed=0), found.history])
    if isinstance(found, torch.Tensor):
        return [found.detach().numpy()]
    if isinstance(found, xr.DataTree):
        return numbers([node.to_dataset() for node in found.subtree])
    if isinstance(found, (xr.Dataset, dict)):
        return numbers(list(found.values()))
    if isinstance(found, (list, tuple)):
        return [x for part in found for x in numbers(part)]
    if hasattr(found, "groups"):
        return numbers([getattr(found, group) for group in found.groups()])
    return numbers(vars(found)) if is_dataclass(found) else [np.asarray(found)]


def generators() -> list[Any]:
    """The caller's."""
    state = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state().numpy(), np.asarray(state[1]), state[2], *random.getstate()[1]]


def unchanged(call: Any) -> Any:
    before = generators()
    found = call()
    for a, b in zip(before, generators(), strict=True):
        np.testing.assert_array_equal(a, b)
    return found


def test_no_public_call_is_left_out():
    assert public() == set(CALLS)


@pytest.fixture(scope="module", autouse=True)
def made() -> None:
    """Models draw starting values when they are built: before the calls."""
    torch.manual_seed(0)
    linear(prior=True), linear(prior=False)
    for build in (space, hmm, switching, regression, loadings, sampled, dynamics, fitted.counts):
        build()


@pytest.mark.parametrize("name", sorted(CALLS))
def test_the_same_seed_gives_the_same_and_moves_nothing(name: str) -> None:
    torch.manual_seed(1)
    first = numbers(unchanged(lambda: CALLS[name](3)))
    torch.manual_seed(2)
    again = numbers(unchanged(lambda: CALLS[name](3)))
    assert len(first) == len(again) > 0
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("guide", [None, AutoIAFNormal])
def test_saving_and_loading_move_nothing(tmp_path: Any, guide: Any) -> None:
    """Also of a guide that is kept as draws."""
    post = ld.fit.svi(space(), y(), steps=2, parameters=guide, training=QUIET)
    unchanged(lambda: post.save(tmp_path))
    unchanged(lambda: ld.load(tmp_path))
