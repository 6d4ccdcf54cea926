"""Fits and forecasts in Python threads give what they give alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

import latentdyn as ld

QUIET = ld.fit.Training(progress=False)
SERIES = [np.random.default_rng(s).normal(size=40).cumsum() for s in range(6)]


def learn(y):
    model = ld.StateSpace(ld.transitions.Linear.of(A=[[0.9]], Q=[1.0]), ld.emissions.Gaussian(1, 1))
    post = ld.fit.svi(model.collapse(ld.smooth.kalman), y, steps=20, seed=0, training=QUIET)
    ahead = post.forecast(3, draws=5, seed=1)["y"].values
    found = ld.smooth.particle(post.model.model, y, particles=50, seed=2).log_evidence
    return [post.history["elbo"][-1], *ahead.ravel().tolist(), *found.tolist()]


def test_threads_give_the_same_numbers():
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(learn, SERIES)) == [learn(y) for y in SERIES]
