"""Deep Kalman filter on spikes: gated nonlinear dynamics behind Poisson counts.

python examples/spikes_dkf.py            # a few minutes
python examples/spikes_dkf.py --quick    # seconds, not converged
"""

import sys
from pathlib import Path

import numpy as np
import torch

import latentdyn as ld

QUICK = "--quick" in sys.argv
TRIALS, LENGTH, STEPS = (6, 40, 20) if QUICK else (40, 150, 1500)
FOLDER = Path("runs/spikes_dkf")

# ---- data: spike times -> counts. Replace these lines with your own spike times and events
rng = np.random.default_rng(0)
known = ld.data.systems.plrnn_spikes(TRIALS, LENGTH, neurons=20)  # counts with known rates
trial, step, unit = (
    np.repeat(i, known["y"].values.ravel()) for i in np.indices(known["y"].shape).reshape(3, -1)
)  # one entry for each spike
events = 10.0 * np.arange(TRIALS)  # a trial every 10 s
times = events[trial] + 0.01 * (step + rng.random(len(step)))  # 10 ms to a step
spike_times = {f"n{k:02d}": times[unit == k] for k in range(20)}

counts = ld.data.bin_spikes(spike_times, 0.01, start=0, stop=0.01 * LENGTH, events=events)
assert (counts["y"].values == known["y"].values).all()  # (trial, time, unit)
train, test = ld.data.train_test_split(counts, test=0.2)

# ---- model and encoder: the deep Kalman smoother of Krishnan et al. (2017)
torch.manual_seed(0)
model = ld.StateSpace(
    ld.transitions.Gated(state_dim=8),  # p(z_t | z_{t-1})
    ld.emissions.Poisson(state_dim=8, obs_dim=20),  # p(y_t | z_t)
)
encoder = ld.encoders.Structured(obs_dim=20, state_dim=8)  # q(z_t | z_{t-1}, y_{t:T})

# ---- fit; a tenth of the counts is held out, and the fit stops when they are predicted no better
post = ld.fit.svi(
    model,
    train,
    states=encoder,
    steps=STEPS,
    batch_size=16,
    validation=0.1,
    training=ld.fit.Training(patience=8),
)
print(post)

# ---- how well are the held-out counts predicted, on a scale set by the true rates?
score = ld.diagnostics.held_out(post, seed=0)["bits_per_spike"]  # (predictor,)
held_out = train["y"].where(post.held_out.numpy())  # NaN where it was seen
rates = known["rate"].isel(trial=train["trial"].values)  # (trial, time, unit)
best = ld.diagnostics.bits_per_spike(held_out, rates)
print(f"bits per held-out spike: {float(score.sel(predictor='model')):.3f}, true rates {best:.3f}")

# ---- new trials need no fit: the encoder reads them
new = post.expected(test, draws=100, seed=0)["y"].values  # (trial, time, unit)
truth = known["rate"].isel(trial=test["trial"].values).values
print(
    f"rates of new trials, correlation with the truth: "
    f"{np.corrcoef(new.ravel(), truth.ravel())[0, 1]:.2f}"
)

# ---- keep
post.save(FOLDER)
ld.plots.raster_and_rates(post)[0].figure.savefig(FOLDER / "rates.png")
ld.plots.latents(post)[0].figure.savefig(FOLDER / "latents.png")
print(f"written to {FOLDER}; read again with latentdyn.load")
