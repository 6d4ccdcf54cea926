"""Fits that cannot go on say why and keep what they have; chains in other processes; own data."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import re
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from torch.distributions import constraints

import latentdyn as ld
from latentdyn.fit import Training, mcmc
from latentdyn.fit.sampling.density import LogDensity, start_values
from latentdyn.fit.sampling.nuts import Job, run
from latentdyn.fit.sampling.sampled import hold_free, started

QUIET = Training(progress=False)


def series(outlier=None):
    y = np.random.default_rng(0).normal(size=(60, 2)).cumsum(0) * 0.3
    if outlier is not None:
        y[30, 0] = outlier
    return y


def space(noise="diagonal", prior=None):
    torch.manual_seed(0)
    emission = ld.emissions.Gaussian(2, 2, noise=noise)
    return ld.StateSpace(ld.transitions.PLRNN(2), emission, prior=prior)


def assert_kept(error, model):
    """A posterior of finite parameters, from which everything can be asked."""
    post = error.posterior
    assert isinstance(post, ld.Posterior)
    assert type(post.model) is type(model)
    assert all(bool(torch.isfinite(p).all()) for p in post.model.parameters())


@pytest.mark.parametrize("noise", ["diagonal", "full"])
@pytest.mark.parametrize("collapse", [False, True])
def test_one_outlier_is_named(noise, collapse):
    """Its square is infinite: in single precision, or in the double of collapsed programs."""
    model = space(noise)
    model = model.collapse(ld.smooth.ekf) if collapse else model
    outlier = "1e+160" if collapse else "1e+20"
    where = f"{re.escape(outlier)} at trial 0, time 30, unit 0"
    with pytest.raises(ld.NonFiniteError, match=where) as caught:
        ld.fit.svi(model, series(float(outlier)), steps=20, training=QUIET)
    assert_kept(caught.value, model)


def test_an_outlier_that_double_precision_holds_does_not_end_a_collapsed_fit():
    post = ld.fit.svi(space().collapse(ld.smooth.ekf), series(1e20), steps=5, training=QUIET)
    assert np.isfinite(post.history["elbo"]).all()
    assert all(bool(torch.isfinite(p).all()) for p in post.model.parameters())


@pytest.mark.parametrize("noise", ["diagonal", "full"])
@pytest.mark.parametrize("method", ["em", "laplace", "mcmc"])
def test_every_fit_names_an_outlier_without_finite_square(method, noise):
    prior = ld.priors.Independent({"transition.a": dist.Normal(0.8, 0.1)})
    model = space(noise, prior if method == "mcmc" else None)
    model = model if method == "em" else model.collapse(ld.smooth.ekf)
    where = "1e\\+160 at trial 0, time 30, unit 0"
    with pytest.raises(ld.NonFiniteError, match=where) as caught:
        getattr(ld.fit, method)(model, series(1e160))
    if method == "em":
        assert_kept(caught.value, model.collapse(ld.smooth.ekf))


@pytest.mark.parametrize("level", [0.0, 1e6])
def test_an_outlier_is_named_as_it_was_given_also_half_way(level):
    """A fit that starts at the model's own values breaks later, without the levels of the data."""
    model, own = space(), Training(progress=False, initialise=False)
    with pytest.raises(ld.NonFiniteError, match="1e\\+38 at trial 0, time 30, unit 0") as caught:
        ld.fit.svi(model, series(1e38) + level, steps=20, training=own)
    assert_kept(caught.value, model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_learning_rate_that_is_too_high(dtype):
    model = space().to(dtype)
    with pytest.raises(ld.NonFiniteError, match="lower 'learning_rate'") as caught:
        ld.fit.svi(model, series(), steps=300, learning_rate=1.0, training=QUIET)
    assert_kept(caught.value, model)
    assert np.isfinite(caught.value.posterior.smooth().mean.numpy(force=True)).all()


class Brittle(torch.autograd.Function):
    """The identity, whose backward pass cannot be done above 0.5: it raises what torch raises."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        if float(ctx.saved_tensors[0]) > 0.5:
            torch.linalg.cholesky(-torch.eye(2))
        return grad


def brittle(model, batch):
    """A standard normal of the level's noise, on the scale of its logarithm."""

    class Found:
        log_evidence = -0.5 * Brittle.apply(model.transition.Q.log().sum()).square().expand(1)

    return Found()


def test_a_backward_pass_that_fails_is_a_divergence():
    prior = ld.priors.Independent({"transition.Q": dist.LogNormal(0.0, 1.0)})
    model = ld.StateSpace(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 1), prior=prior)
    post = mcmc(
        model.collapse(brittle), series()[:, :1], draws=40, warmup=40, chains=1, progress=False
    )
    drawn = post.fits[0][1].parameters_guide
    assert bool(drawn.stats["diverging"].any())
    assert bool((drawn.draws["transition.Q"].log() <= 0.5).all())


def test_a_start_that_fails_is_explained():
    def never(model, batch):
        torch.linalg.cholesky(-torch.eye(2))

    prior = ld.priors.Independent({"transition.a": dist.Normal(0.8, 0.1)})
    for fit in (mcmc, ld.fit.laplace):
        with pytest.raises(ld.InputError, match="'model': expected a finite density at the start"):
            fit(space(prior=prior).collapse(never), series())


def constraints_of_ours():
    """Every constraint of which a module of the library has one object."""
    found = {}
    for module in pkgutil.iter_modules(ld.distributions.__path__, "latentdyn.distributions."):
        for name, thing in vars(importlib.import_module(module.name)).items():
            if isinstance(thing, constraints.Constraint) and "latentdyn" in type(thing).__module__:
                found[name] = thing
    return found


def test_a_constraint_is_the_same_object_in_another_process():
    ours = constraints_of_ours()
    assert {"hollow", "orthogonal", "reflection", "stationary", "invertible"} <= set(ours)
    for thing in ours.values():
        copy = pickle.loads(pickle.dumps(thing))
        assert copy is thing or (type(copy) is type(thing) and repr(copy) == repr(thing))


@pytest.mark.parametrize(
    "prior",
    [
        ld.priors.ManifoldAttractor(1),
        ld.priors.ARD("transition.W"),
        ld.priors.Horseshoe("transition.W", 1),
        ld.priors.LowRank("transition.W", 1),
    ],
    ids=lambda p: type(p).__name__,
)
def test_a_chain_can_be_sent_to_another_process(prior):
    """What `processes=2` does, without the seconds that a process takes to start."""
    program, _, batch = started(space(prior=prior).collapse(ld.smooth.ekf), series()[:20])
    hold_free(program)
    start = start_values(program)
    size = LogDensity(program, batch, start).size
    job = Job(program, batch, start, 2, 2, 1, size <= 30, 0.8, 4, 0.5, False, False)
    here, there = run(job), run(pickle.loads(bytes(ForkingPickler.dumps(job))))
    assert torch.equal(here.x, there.x)


@pytest.mark.parametrize("kind", ["array", "tensor", "DataArray", "Dataset", "frame", "list"])
def test_a_fit_keeps_its_data_when_the_callers_change(kind):
    values = series()
    y = {
        "array": lambda: values,
        "tensor": lambda: torch.from_numpy(values),
        "DataArray": lambda: xr.DataArray(values, dims=("time", "unit")),
        "Dataset": lambda: ld.data.as_dataset(values),
        "frame": lambda: pd.DataFrame(values, copy=False),
        "list": lambda: [values, values[:20]],
    }[kind]()
    model = ld.StateSpace(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 2))
    fits = [
        ld.fit.svi(model, y, steps=2, training=QUIET),
        ld.fit.em(model, y, steps=1, progress=False),
    ]
    before = [post.data.copy(deep=True) for post in fits]
    tree = fits[0].to_datatree(draws=2)
    values[:] = 0
    if kind == "Dataset":
        y["y"][:] = 0
    tree["observed_data"]["y"][:] = 0
    for post, data in zip(fits, before, strict=True):
        xr.testing.assert_identical(post.data, data)
        assert float(abs(post.batch.y).max()) > 0
