"""Do neurons of the cockroach's antennal lobe drive each other, or only share the odour?

Data: four neurons, 20 trials of 11 s, a puff of vanillin from 4.49 to 4.99 s (Pouzat & Chaffiol
2009). Counts in bins of 50 ms are Poisson with log rates that depend on the neuron's own last five
bins, on the last bin of the others, and on the time since the puff (six smooth bumps).

What to look for: the odour and a neuron's own past explain the held-out trials (every fourth);
coupling adds nothing there, although one of its twelve 90% intervals misses zero, as chance alone
would have it. Rates follow the counts; the spread of two neurons' counts fails a test by a little.

    python examples/cockroach.py            # seconds
    python examples/cockroach.py --quick    # a second or two, fewer trials and draws
"""

import sys
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

import latentdyn as ld

QUICK = "--quick" in sys.argv
TRIALS, DRAWS = (8, 200) if QUICK else (20, 4000)
DATA = Path(__file__).parents[1] / "../shared/data/cockroach_al_CAL1V.nc"
FOLDER = Path("runs/cockroach")
BIN, LAGS, PUFF = 0.05, 5, (4.49, 4.99)
COLOURS = "#0072B2", "#D55E00", "#009E73", "#CC79A7"

# ---- data: counts in bins of 50 ms; the last 0.2 s of some trials are cut
counts = xr.open_dataset(DATA)["counts"].load().isel(trial=slice(TRIALS), time=slice(1080))
counts = counts.coarsen(time=5, coord_func="min").sum().rename(neuron="unit")
centres = PUFF[0] + np.linspace(0.3, 2.8, 6)  # of the bumps, s
bumps = np.exp(-0.5 * ((counts["time"].values[:, None] + BIN / 2 - centres) / 0.3) ** 2)  # (T, 6)
held = np.arange(TRIALS) % 4 == 3
train, test = counts[~held], counts[held]


# ---- four models, each with one part more
def fit(lags: int, coupling: int, odour: bool):
    """Posterior by Laplace's method: flat priors, so the centre is the maximum likelihood."""
    model = ld.programs.PoissonAutoregression(4, lags, coupling, input_dim=6 * odour)
    return ld.fit.laplace(model, with_inputs(train, odour))


def with_inputs(y: xr.DataArray, odour: bool) -> xr.Dataset:
    return ld.data.as_dataset(y, inputs=bumps if odour else None)


def rates(post, odour: bool) -> xr.DataArray:
    """Expected counts of held-out trials given their past, where all models have one."""
    return post.expected(with_inputs(test, odour), draws=DRAWS // 40, seed=0)["y"][:, LAGS:]


parts = {
    "constant rates": (0, 0, False),
    "odour": (0, 0, True),
    "+ own past": (LAGS, 0, True),
    "+ coupling": (LAGS, 1, True),
}
scored = ld.data.as_dataset(test)["y"][:, LAGS:]  # (trial, time, unit)
print("held-out trials                 bits per spike")
score = {}
for name, part in parts.items():
    post = fit(*part)
    expected = rates(post, part[2])
    score[name] = float(ld.diagnostics.bits_per_spike(scored, expected))
    print(f"{name:32}{score[name]:8.3f}")

# ---- the full model: is each count as likely as it claims? Discrete time rescaling
chance = np.random.default_rng(0).random(scored.shape)
y, rate = scored.values.astype(float), expected.values
u = stats.poisson.cdf(y - 1, rate) + chance * stats.poisson.pmf(y, rate)  # uniform if all is well
for k in range(4):
    distance = stats.kstest(u[..., k].ravel(), "uniform").statistic
    print(f"neuron {k}: distance {distance:.3f}, 95% limit {1.36 / np.sqrt(u[..., k].size):.3f}")

# ---- coefficients
draws = post.sample(DRAWS, seed=0)
w, J = draws["emission.w"].numpy(), draws["emission.J"][:, 0].numpy()  # (draw, 4, 5), (draw, 4, 4)
mean, (low, high) = J.mean(0), np.quantile(J, [0.05, 0.95], axis=0)
print("coupling: change of log rate for a spike of the other neuron in the last 50 ms")
for to, by in zip(*np.nonzero((low > 0) | (high < 0)), strict=True):
    print(f"  {by} -> {to}: {mean[to, by]:+.2f} ({low[to, by]:+.2f} to {high[to, by]:+.2f})")

# ---- picture
figure = Figure(figsize=(11, 7), layout="constrained", dpi=150)
upper, lower = figure.subfigures(2, 1, height_ratios=(1.15, 1))
axes = upper.subplot_mosaic([["w", "J", "s"]]) | lower.subplot_mosaic([list("0123")])
lag = BIN * 1000 * np.arange(1, LAGS + 1)
for k, colour in enumerate(COLOURS):
    ends = np.quantile(w[:, k], [0.05, 0.95], axis=0) - w[:, k].mean(0)
    axes["w"].errorbar(
        lag + 4 * (k - 1.5),
        w[:, k].mean(0),
        np.abs(ends),
        color=colour,
        marker="o",
        markersize=4,
        capsize=2,
        label=f"neuron {k}",
    )
axes["w"].axhline(0, color="0.6", linewidth=0.8)
axes["w"].set(xlabel="lag (ms)", ylabel="change of log rate per spike", title="own past")
axes["w"].legend(frameon=False, fontsize=8)
top = np.abs(mean).max()
image = axes["J"].imshow(mean, cmap="RdBu_r", vmin=-top, vmax=top)
for to in range(4):
    for by in set(range(4)) - {to}:
        sure = low[to, by] > 0 or high[to, by] < 0
        axes["J"].text(
            by,
            to,
            f"{mean[to, by]:+.2f}\n±{(high - low)[to, by] / 2:.2f}",
            ha="center",
            va="center",
            fontsize=8,
            weight="bold" if sure else None,
            color="white" if abs(mean[to, by]) > 0.6 * top else "black",
        )
axes["J"].set(xlabel="of neuron", ylabel="on neuron", title="coupling (bold: interval misses 0)")
axes["J"].set(xticks=range(4), yticks=range(4))
axes["s"].barh(list(score)[1:], list(score.values())[1:], color="0.6")
axes["s"].invert_yaxis()
axes["s"].set(xlabel="bits per spike", title="gain over constant rates, held-out trials")
coarse = {"time": 4}  # 0.2 s
seen = scored.mean("trial").coarsen(coarse, boundary="trim").mean() / BIN  # (time, unit)
model = expected.mean("trial").coarsen(coarse, boundary="trim").mean() / BIN
for k, colour in enumerate(COLOURS):
    ax = axes[str(k)]
    ax.axvspan(*PUFF, color="0.9", linewidth=0, label="puff")
    ax.step(seen["time"], seen[:, k], where="mid", color="0.4", linewidth=0.9, label="counted")
    ax.plot(model["time"], model[:, k], color=colour, linewidth=1.5, label="expected")
    ax.set(xlabel="time (s)", title=f"neuron {k}", ylim=(0, None), xticks=(0, 5, 10))
axes["0"].set_ylabel("spikes per second,\nmean of the held-out trials")
axes["0"].legend(frameon=False, fontsize=8)
for name, ax in axes.items():
    ax.title.set_size(10)
    if name != "J":
        ax.spines[["top", "right"]].set_visible(False)
FOLDER.mkdir(parents=True, exist_ok=True)
figure.savefig(FOLDER / "coupling.png")
print(f"written to {FOLDER}")
