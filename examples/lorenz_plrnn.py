"""A recurrent network learns the Lorenz system from noisy data and says how sure it is.

python examples/lorenz_plrnn.py            # two minutes
python examples/lorenz_plrnn.py --quick    # seconds, not converged
"""

import sys
from pathlib import Path

import numpy as np
import torch

import latentdyn as ld

QUICK = "--quick" in sys.argv
TRIALS, LENGTH, STEPS = (4, 60, 30) if QUICK else (16, 150, 2000)
FOLDER = Path("runs/lorenz_plrnn")

# ---- data: trials from the attractor, with noise of a tenth of its spread
ds = ld.data.systems.lorenz63(TRIALS, LENGTH, dt=0.02, obs_noise=0.8)
y = (ds["y"] - ds["y"].mean()) / ds["y"].std()  # (trial, time, unit=3)
past, future = ld.data.train_test_split(y, test=0.2, by="time")

# ---- model: eight units, the first four of which tend to keep their state
torch.manual_seed(0)
model = ld.StateSpace(
    ld.transitions.PLRNN(state_dim=8),  # p(z_t | z_{t-1})
    ld.emissions.Gaussian(state_dim=8, obs_dim=3),  # p(y_t | z_t)
    prior=ld.priors.ManifoldAttractor(regularised=4),  # p(a, W, h)
)

# ---- fit
post = ld.fit.svi(
    model,
    past,
    states=ld.encoders.BiGRU(obs_dim=3, state_dim=8),
    steps=STEPS,
    batch_size=8,
    validation=0.05,
)
print(post)
print(ld.diagnostics.held_out(post, seed=0).to_dataframe().round(3))

# ---- does it forecast?
forecast = post.forecast(future.sizes["time"], draws=400, seed=0)  # y, z (draw, trial, time, ...)
draws = forecast["y"]  # (draw, trial, time, unit)
low, high = draws.quantile([0.05, 0.95], "draw")  # (trial, time, unit)
inside = ((future["y"] >= low) & (future["y"] <= high)).mean(("trial", "unit"))  # (time,)
for horizon in (1, 10, future.sizes["time"]):
    error = (draws.mean("draw") - future["y"])[:, :horizon]
    print(
        f"next {horizon:3d} steps: error {float(np.sqrt((error**2).mean())):.2f} sd, "
        f"90% band holds {float(inside[:horizon].mean()):.0%}"
    )

# ---- does it live on its own? A harder test: stay bounded, and range as far as the data
alone = post.simulate(trials=1, steps=300, draws=50, seed=0)["y"]  # (draw, trial, time, unit)
bounded = (abs(alone) < 10).all(("trial", "time", "unit"))  # (draw,)
print(f"left alone, {float(bounded.mean()):.0%} of the draws stay bounded")
low, high = y.quantile([0.05, 0.95], ("trial", "time"))  # (unit,)
print(f"90% range of the data : {(high - low).values.round(2)}")
low, high = alone.clip(-10, 10).quantile([0.05, 0.95], ("trial", "time"))  # (draw, unit)
print(f"90% range of the model: {(high - low).median('draw').values.round(2)} (median draw)")

# ---- keep
post.save(FOLDER)
fan = ld.plots.forecast(forecast, y, history=100)  # axes (unit,)
fan[0].figure.savefig(FOLDER / "forecast.png")
ld.plots.matrix(post, "transition.W")[0].figure.savefig(FOLDER / "connectivity.png")
ld.plots.loss(post)[0].figure.savefig(FOLDER / "bound.png")
print(f"written to {FOLDER}; read again with latentdyn.load")
