"""Wrong inputs: each error names the argument, what was expected, what came, and what to do."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

import latentdyn as ld
from latentdyn.data import Batch
from latentdyn.errors import NonFiniteError
from latentdyn.fit import Training

FOUR_PARTS = re.compile(r"^'[\w\.\[\]\" -]+': expected .+, got .+; .+", re.DOTALL)
RNG = np.random.default_rng(0)
Y = RNG.normal(size=(3, 10, 4))
COUNTS = RNG.poisson(1.0, size=(3, 10, 4))
EYE = np.eye(2)
QUIET = Training(progress=False)


def gaussian(**k):
    return ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 4), **k)


def poisson():
    return ld.StateSpace(ld.transitions.PLRNN(2), ld.emissions.Poisson(2, 4))


def fit(model=None, y=Y, **k):
    model = gaussian() if model is None else model
    return ld.fit.svi(model, y, **({"steps": 1, "training": QUIET} | k))


def with_value(value):
    y = COUNTS.astype(float)
    y[1, 2, 3] = value
    return y


def series(times):
    return xr.DataArray(np.zeros((len(times), 2)), dims=("time", "unit"), coords={"time": times})


def prior(**k):
    return gaussian(prior=ld.priors.Independent(k or {"transition.Z": dist.Normal(0.0, 1.0)}))


WRONG = {
    # data
    "infinity": lambda: ld.data.as_dataset(np.array([[1.0, np.inf], [0.0, 1.0]])),
    "four dimensions": lambda: ld.data.as_dataset(np.zeros((2, 3, 4, 5))),
    "empty": lambda: ld.data.as_dataset(np.zeros((0, 3))),
    "text": lambda: ld.data.as_dataset(np.array([["a", "b"]])),
    "complex numbers": lambda: ld.data.as_dataset(np.zeros((4, 2), dtype=complex)),
    "not data": lambda: ld.data.as_dataset(object()),
    "irregular clock": lambda: ld.data.as_dataset(series([0.0, 1.0, 2.5, 3.0])),
    "clock runs backwards": lambda: ld.data.as_dataset(series([3.0, 2.0, 1.0])),
    "repeated time": lambda: ld.data.as_dataset(series([0.0, 1.0, 1.0, 2.0])),
    "unit that is all missing": lambda: ld.data.as_dataset(np.array([[1.0, np.nan]] * 5)),
    "unknown time_dim": lambda: ld.data.as_dataset(series([0.0, 1.0]), time_dim="seconds"),
    "trials with other units": lambda: ld.data.as_dataset([np.zeros((5, 2)), np.zeros((5, 3))]),
    "several variables": lambda: ld.data.as_dataset(
        xr.Dataset({"a": ("time", [1.0, 2.0]), "b": ("time", [1.0, 2.0])})
    ),
    "inputs of another length": lambda: ld.data.as_dataset(Y, inputs=np.zeros((9, 1))),
    "inputs with holes": lambda: ld.data.as_dataset(Y, inputs=np.full((10, 1), np.nan)),
    "spike times without bin_size": lambda: ld.data.as_dataset({"a": np.array([0.1, 0.2])}),
    "bin_size zero": lambda: ld.data.bin_spikes({"a": [0.1]}, 0.0),
    "stop before start": lambda: ld.data.bin_spikes({"a": [0.1]}, 0.1, start=1.0, stop=0.0),
    "spike at NaN": lambda: ld.data.bin_spikes({"a": [0.1, np.nan]}, 0.1),
    "events without window": lambda: ld.data.bin_spikes({"a": [0.1]}, 0.1, events=[0.0]),
    "test share above one": lambda: ld.data.train_test_split(ld.data.as_dataset(Y), test=1.5),
    "split by unit": lambda: ld.data.train_test_split(ld.data.as_dataset(Y), by="unit"),
    "frame with text": lambda: ld.data.as_dataset(pd.DataFrame({"a": ["x", "y"]})),
    # counts
    "negative count": lambda: fit(poisson(), with_value(-1.0)),
    "fractional count": lambda: fit(poisson(), with_value(0.5)),
    "counts beyond Bernoulli": lambda: fit(
        ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Bernoulli(2, 4)), with_value(2.0)
    ),
    "label beyond categories": lambda: fit(
        ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Categorical(2, 4, 3)), with_value(7.0)
    ),
    # conditionals and programs
    "W with a diagonal": lambda: ld.transitions.PLRNN.of(a=[1, 1], W=EYE, h=[0, 0], Q=[1, 1]),
    "A that is not square": lambda: ld.transitions.Linear.of(A=np.zeros((3, 2)), Q=[1, 1]),
    "A with NaN": lambda: ld.transitions.Linear.of(A=EYE * np.nan, Q=[1, 1]),
    "Q of another size": lambda: ld.transitions.Linear.of(A=EYE, Q=[1, 1, 1]),
    "negative variance": lambda: ld.transitions.Linear.of(A=EYE, Q=[1.0, -1.0]),
    "asymmetric covariance": lambda: ld.transitions.Linear.of(A=EYE, Q=[[1.0, 0.5], [0.0, 1.0]]),
    "indefinite covariance": lambda: ld.transitions.Linear.of(A=EYE, Q=[[1.0, 2.0], [2.0, 1.0]]),
    "offset of another size": lambda: ld.emissions.Gaussian.of(C=EYE, R=[1, 1], d=[0, 0, 0]),
    "no states": lambda: ld.transitions.PLRNN(0),
    "states as text": lambda: ld.transitions.Linear("3"),
    "negative inputs": lambda: ld.transitions.Linear(2, -1),
    "no units": lambda: ld.emissions.Poisson(2, 0),
    "fractional states": lambda: ld.encoders.BiGRU(4, 2.5),
    "unknown noise": lambda: ld.transitions.Linear(2, noise="spherical"),
    "emission of other states": lambda: ld.StateSpace(
        ld.transitions.Linear(3), ld.emissions.Gaussian(2, 4)
    ),
    "initial of other states": lambda: gaussian(initial=ld.initials.Gaussian(5)),
    "smoother by name": lambda: ld.fit.em(gaussian(), Y, smoother="kalman"),
    "transition by name": lambda: ld.StateSpace("plrnn", ld.emissions.Gaussian(2, 4)),
    "transition class, not object": lambda: ld.StateSpace(
        ld.transitions.Linear, ld.emissions.Gaussian(2, 4)
    ),
    "prior by name": lambda: gaussian(prior="ard"),
    "simulate no trials": lambda: gaussian().simulate(trials=0),
    "simulate without inputs": lambda: ld.StateSpace(
        ld.transitions.Linear(2, 1), ld.emissions.Gaussian(2, 4)
    ).simulate(steps=5),
    "bind an unknown name": lambda: gaussian().bind({"transition.Z": torch.zeros(2)}),
    "bind a wrong shape": lambda: gaussian().bind({"transition.A": torch.zeros(3, 3)}),
    "batch of other units": lambda: gaussian()(Batch.of(np.zeros((2, 5, 7)))),
    # priors
    "prior on an unknown name": lambda: prior().draw(),
    "more regularised than states": lambda: gaussian_attractor(9).draw(),
    # fits
    "data of other units": lambda: fit(y=np.zeros((2, 5, 7))),
    "model wants inputs": lambda: fit(
        ld.StateSpace(ld.transitions.Linear(2, 3), ld.emissions.Gaussian(2, 4))
    ),
    "no steps": lambda: fit(steps=0),
    "no restarts": lambda: fit(restarts=0),
    "batch_size zero": lambda: fit(batch_size=0),
    "window zero": lambda: fit(window=0),
    "negative learning rate": lambda: fit(learning_rate=-1.0),
    "all held out": lambda: fit(validation=1.0),
    "encoder of other units": lambda: fit(states=ld.encoders.BiGRU(7, 2)),
    "encoder of other states": lambda: fit(states=ld.encoders.Chain(4, 5)),
    "encoder class, not object": lambda: fit(states=ld.encoders.BiGRU),
    "guide without prior": lambda: fit(parameters=torch.nn.Linear(1, 1)),
    "model by name": lambda: fit("plrnn"),
    "ramp beyond the end": lambda: Training(ramp=1.0),
    "no particles": lambda: Training(particles=0),
    "resume from nowhere": lambda: fit(resume_from="/nowhere"),
    # posterior
    "forecast no steps": lambda: fit().forecast(0),
    "forecast without inputs": lambda: fit_with_inputs().forecast(3),
    "smooth other units": lambda: fit().smooth(np.zeros((2, 5, 7))),
    "no draws": lambda: fit().sample(0),
    "load from nowhere": lambda: ld.load("/nowhere"),
}


def gaussian_attractor(m):
    return ld.StateSpace(
        ld.transitions.PLRNN(2),
        ld.emissions.Gaussian(2, 4),
        prior=ld.priors.ManifoldAttractor(regularised=m),
    )


def fit_with_inputs():
    model = ld.StateSpace(ld.transitions.Linear(2, 1), ld.emissions.Gaussian(2, 4))
    return fit(model, ld.data.as_dataset(Y, inputs=np.zeros((10, 1))))


@pytest.mark.parametrize("name", WRONG)
def test_error_has_four_parts(name):
    with pytest.raises(ld.InputError) as caught:
        WRONG[name]()
    assert FOUR_PARTS.match(str(caught.value)), str(caught.value)


def test_the_list_is_long_enough():
    assert len(WRONG) >= 40


def test_errors_survive_pickling():
    """Process pools send them back to whoever asked."""
    error = pickle.loads(pickle.dumps(NonFiniteError("transition.W", "it is not finite")))
    assert error.site == "transition.W"
    assert str(error) == "it is not finite"
