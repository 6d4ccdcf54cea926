"""Draw docs/_static/forecast.png, the picture of the README: `python docs/make_picture.py`."""

from pathlib import Path

import numpy as np
import torch

import latentdyn as ld
from latentdyn import plots
from latentdyn.fit import Training

torch.manual_seed(0)
y = np.sqrt(ld.data.sunspots()["y"])
y.attrs["units"] = "square root of the number"
past, future = ld.data.train_test_split(y, test=30 / 309, by="time")

prior = ld.priors.ManifoldAttractor(regularised=2)
model = ld.StateSpace(ld.transitions.PLRNN(4), ld.emissions.Gaussian(4, 1), prior=prior)
post = ld.fit.svi(model, past, states=ld.encoders.Chain(1, 4), steps=1500, learning_rate=0.02,
                  training=Training(progress=False))

ax = plots.forecast(post.forecast(30, draws=1000, seed=0), y, history=150)
ax.figure.savefig(Path(__file__).parent / "_static" / "forecast.png", dpi=110)
