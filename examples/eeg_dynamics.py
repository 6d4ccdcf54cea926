"""Is resting EEG a chaotic system, or noise that a damped one filters?

Data: 64 channels, eyes open, 160 Hz, smoothed and standardised; 70% of 40 s to learn from, the rest
to score. A piecewise-linear network runs over four principal components and their last steps;
what a step leaves unexplained is noise that drives it. Teacher forcing gives a posterior of it.

What to look for: this network calls it chaos in every draw, yet 20 steps ahead it predicts worse
than persistence does, and in D_stsp and D_H it is about as good as autoregressions, which cannot be
chaotic. So the exponents say what was learned, not what the brain does. White noise does best in
D_stsp, which does not see time.

    python examples/eeg_dynamics.py            # a minute or two
    python examples/eeg_dynamics.py --quick    # seconds, less data and fewer states
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from scipy.signal import welch

import latentdyn as ld

QUICK = "--quick" in sys.argv
DATA = Path(__file__).parents[1] / "../shared/data/eeg64_rest.nc"
FOLDER = Path("runs/eeg_dynamics")
PARTS, LAGS, HIDDEN, DRAWS, LENGTH = (3, 2, 10, 4, 500) if QUICK else (4, 4, 40, 10, 3000)
HZ = 160
K = PARTS * LAGS

# ---- data
y = xr.open_dataset(DATA, engine="h5netcdf")["eeg"].values.astype(float)  # (time, 64)
y = y[:1500] if QUICK else y
train, test = np.split(y, [int(0.7 * len(y))])

# ---- states: components x_t of all channels and the steps before, uncorrelated, variance 1
mean = train.mean(0)
C = np.linalg.svd(train - mean, full_matrices=False)[2][:PARTS].T  # (64, PARTS)


def embedded(y: np.ndarray) -> np.ndarray:
    """(time, K); before the first step all is as at the first."""
    x = (y - mean) @ C
    x = np.concatenate([np.repeat(x[:1], LAGS - 1, 0), x])
    return np.concatenate([x[LAGS - 1 - i : len(x) - i] for i in range(LAGS)], 1)


_, s, V = np.linalg.svd(embedded(train), full_matrices=False)
sd = s / len(train) ** 0.5
z = embedded(train) @ V.T / sd

# ---- dynamics: z' = a * z + W1 [relu(W2 z + h2) - relu(W2 z)] + h1
torch.manual_seed(0)
model = ld.StateSpace(
    ld.transitions.ShallowPLRNN(K, HIDDEN, clipped=True, noise_floor=1e-9),
    ld.emissions.Identity(K, K),
).double()
post = ld.fit.teacher_forcing(
    model,
    z,
    forcing=ld.fit.Forcing(interval=1, warm_start_iterations=10 if QUICK else 50, window=100),
    steps=0,  # least squares is all that forcing at every step needs
    parameters=ld.fit.LastLayer(draws=DRAWS),
    batch_size=2,
)
theta = post.sample(DRAWS, seed=0)
theta = {n: v.double() for n, v in theta.items() if n.startswith("transition")}

# ---- as a model of the channels, with the noise that one step leaves unexplained
F = ld.transitions.ShallowPLRNN(K, HIDDEN, clipped=True).double()
F.start(**{n.split(".")[1]: v.mean(0) for n, v in theta.items()})
with torch.no_grad():
    e = (torch.as_tensor(z[1:]) - F.step(torch.as_tensor(z[:-1]))).numpy()  # (time, K)
F = ld.transitions.ShallowPLRNN.of(F.a, F.W1, F.W2, F.h1, F.h2, e.T @ e / len(e), clipped=True)
loadings = C @ (V.T * sd)[:PARTS]  # (64, K)
eeg = ld.StateSpace(F, ld.emissions.Gaussian.of(loadings, np.full(64, 1e-8), mean)).bind(theta)


def known(model, batch):
    """States from which predictions start."""
    start = torch.as_tensor(embedded(batch.y[0].double().numpy()) @ V.T / sd)[None]
    return SimpleNamespace(filtered=SimpleNamespace(mean=start))


# ---- scores beside floors and simple models
found = ld.diagnostics.scores(
    eeg,
    test,
    smoother=known,
    against=ld.diagnostics.Against(train=train, floor=train, orders=(2,) if QUICK else (2, 20)),
    distance=ld.diagnostics.Distance(dt=1 / HZ),
    runs=ld.diagnostics.Runs(length=LENGTH, noise=True, burn_in=200),
)
table = ld.diagnostics.score_table(found)
print(table.to_dataframe().round(3).to_string())

# ---- does it live without noise?
exponents = ld.diagnostics.lyapunov_spectrum(
    eeg, 500 if QUICK else 3000, burn_in=200, exponents=4, dt=1 / HZ, start=z[0]
)
first = exponents.values[..., 0].ravel()
low, middle, high = np.quantile(first, [0.05, 0.5, 0.95])
print(f"largest exponent {middle:.2f} per second (90% of draws: {low:.2f} to {high:.2f})")
print(f"probability of chaos: {(first > 0).mean():.2f}")

# ---- picture
runs = ld.diagnostics.free_run(eeg, LENGTH, noise=True, burn_in=200, seed=0)["y"].values[0]
figure = Figure(figsize=(11, 7), layout="constrained", dpi=150)
axes = figure.subplot_mosaic([["data", "run"], ["spectrum", "exponents"]])
channels, seconds = range(0, 64, 8), np.arange(min(480, LENGTH, len(test))) / HZ
for name, series, title in (("data", test, "EEG, held out"), ("run", runs[0], "one free run")):
    for row, channel in enumerate(channels):
        axes[name].plot(
            seconds, series[: len(seconds), channel] + 5 * row, color="0.2", linewidth=0.7
        )
    axes[name].set(title=title, xlabel="time (s)", ylabel="every eighth channel", yticks=[])
axes["run"].sharey(axes["data"])
segment = min(512, LENGTH, len(test))
frequency, each = welch(runs[..., ::8], HZ, nperseg=segment, axis=1)  # (draw, frequency, channel)
low, middle, high = np.quantile(each.mean(-1)[:, 1:], [0.05, 0.5, 0.95], axis=0)
axes["spectrum"].fill_between(frequency[1:], low, high, color="#0072B2", alpha=0.3, linewidth=0)
axes["spectrum"].plot(frequency[1:], middle, color="#0072B2", label="free runs, 90% of draws")
for series, style, label in ((train, "--", "EEG, learned from"), (test, "-", "EEG, held out")):
    power = welch(series[:, ::8], HZ, nperseg=segment, axis=0)[1].mean(1)
    axes["spectrum"].plot(frequency[1:], power[1:], "k" + style, linewidth=1.1, label=label)
axes["spectrum"].set(yscale="log", xlim=(0, 40), ylim=(1e-6, None), title="power spectrum")
axes["spectrum"].set(xlabel="frequency (Hz)", ylabel="power per Hz")
axes["spectrum"].legend(frameon=False, fontsize=8)
ld.plots.lyapunov(exponents, ax=axes["exponents"])
axes["exponents"].set(xlabel="Lyapunov exponent, without noise (1/s)")
if axes["exponents"].get_legend():
    axes["exponents"].get_legend().remove()
for ax in axes.values():
    ax.title.set_size(10)
    ax.spines[["top", "right"]].set_visible(False)
FOLDER.mkdir(parents=True, exist_ok=True)
figure.savefig(FOLDER / "eeg.png")
print(f"written to {FOLDER}")
