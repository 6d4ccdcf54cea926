"""Draw docs/_static/forecast.png, the picture of the README: `python docs/make_picture.py`."""

from pathlib import Path

import numpy as np
import torch

import latentdyn as ld

torch.manual_seed(0)
y = np.sqrt(ld.data.sunspots()["y"])
y.attrs["units"] = "square root of the number"
past, future = ld.data.train_test_split(y, test=30 / 309, by="time")

prior = ld.priors.ManifoldAttractor(regularised=1)
model = ld.StateSpace(ld.transitions.PLRNN(3), ld.emissions.Gaussian(3, 1), prior=prior)
post = ld.fit.svi(model, past, states=ld.encoders.Chain(1, 3), steps=1000, learning_rate=0.02)

ax = ld.plots.forecast(post.forecast(30, draws=1000, seed=0), y, history=150)
ax.figure.savefig(Path(__file__).parent / "_static" / "forecast.png", dpi=110)
