"""How volatile is the pound, day by day, and how long do calm and nervous spells last?

Data: daily log returns of GBP/USD in 1997-98, in percent, without their mean. Their log-variance
x_t follows x_t = mu + phi (x_{t-1} - mu) + sigma eps_t, and y_t ~ N(0, exp(x_t)): not Gaussian,
so no Kalman filter is exact (Kim, Shephard & Chib 1998).

What to look for: twenty particle filters agree on the evidence within a third of a nat, and with
the exact value; Laplace's approximation is a tenth of a nat below it, which makes it good enough to
integrate 750 states out of NUTS; phi is close to 1, so spells last for weeks.

    python examples/stochastic_volatility.py            # a minute
    python examples/stochastic_volatility.py --quick    # seconds, chains too short
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure

import latentdyn as ld

QUICK = "--quick" in sys.argv
PARTICLES, DRAWS, WARMUP = (100, 10, 10) if QUICK else (2000, 300, 200)
DATA = Path(__file__).parents[1] / "../shared/data/gbp_usd_returns.nc"
FOLDER = Path("runs/stochastic_volatility")
BLUE, ORANGE = "#0072B2", "#D55E00"

# ---- data
returns = xr.open_dataset(DATA)["log_return_pct"].rename(ret="time").load()  # (time,)
returns = returns - returns.mean()

# ---- known parameters: twenty independent particle filters, side by side as trials
known = ld.programs.StochasticVolatility.of(mu=-1.2, phi=0.96, sigma=0.2)
exact = -490.7139  # by quadrature on a grid of 3000 points
with torch.no_grad():
    filters = ld.smooth.particle(
        known, returns.expand_dims(trial=20), particles=PARTICLES, paths=0, seed=0
    )
    by_laplace = ld.smooth.laplace(known, returns).log_evidence.item()
each = filters.log_evidence  # (20,)
together = each.logsumexp(0) - math.log(len(each))
print(
    f"log evidence at known parameters: exact {exact:.2f}, Laplace {by_laplace:.2f},\n"
    f"  particles {each.mean():.2f} with sd {each.std():.2f}, all twenty averaged {together:.2f}"
)
print(f"effective sample size at worst: {filters.ess.min():.0f} of {PARTICLES}")

# ---- unknown parameters: NUTS over (mu, phi, sigma), the states integrated out
model = ld.programs.StochasticVolatility(prior=ld.programs.KimShephardChib())
post = ld.fit.mcmc(
    model.collapse(ld.smooth.laplace), returns,
    draws=DRAWS, warmup=WARMUP, chains=2, seed=1, progress=False,
)  # fmt: skip
tree = post.to_datatree()
summary = {n: tree["posterior"][f"transition.{n}"].squeeze(drop=True) for n in ("mu", "phi", "sigma")}
for name, x in summary.items():  # (chain, draw)
    low, high = np.quantile(x, [0.05, 0.95])
    print(f"{name:5} {float(x.mean()):6.3f}   90% interval {low:6.3f} to {high:6.3f}")
half = np.log(0.5) / np.log(summary["phi"])
print(f"a shock to the log-variance is halved after {float(np.median(half)):.0f} days (median)")
print(f"divergences: {int(tree['sample_stats']['diverging'].sum())}")

# ---- picture
figure = Figure(figsize=(9, 6.5), layout="constrained", dpi=150)
top, *small = figure.subplot_mosaic([["y"] * 3, ["mu", "phi", "sigma"]]).values()
days = returns["time"].values
x, sd = filters.filtered.mean[0, :, 0], filters.filtered.covariance[0, :, 0, 0].sqrt()
paths = tree["posterior"]["z"].squeeze(drop=True).stack(s=("chain", "draw"))  # (time, s)
low, high = np.exp(np.quantile(paths, [0.05, 0.95], axis=1) / 2)
top.plot(days, returns, color="0.6", linewidth=0.7, label="returns")
for sign in (-1, 1):
    top.fill_between(
        days, sign * 2 * low, sign * 2 * high, color=BLUE, alpha=0.35, linewidth=0,
        label="±2 volatilities given all days, 90% of draws" if sign > 0 else None,
    )  # fmt: skip
    top.plot(
        days, sign * 2 * (x / 2).exp(), color=ORANGE, linewidth=1,
        label="±2 volatilities given the days so far, known parameters" if sign > 0 else None,
    )  # fmt: skip
top.set(xlabel="trading day from January 1997", ylabel="return (%)", xlim=(0, len(days)))
top.legend(loc="upper center", ncols=3, frameon=False, bbox_to_anchor=(0.5, 1.16))
words = {"mu": "level of log-variance, $\\mu$", "phi": "persistence, $\\varphi$"}
words["sigma"] = "steps of log-variance, $\\sigma$"
for ax, (name, draws) in zip(small, summary.items(), strict=True):
    ax.hist(draws.values.ravel(), bins=30, density=True, color=BLUE, alpha=0.6)
    ax.axvline(getattr(known, name).item(), color=ORANGE, label="the known value above")
    ax.set(xlabel=words[name], yticks=[])
small[0].set_ylabel("posterior density")
small[0].legend(frameon=False, fontsize=8)
for ax in (top, *small):
    ax.spines[["top", "right"]].set_visible(False)
FOLDER.mkdir(parents=True, exist_ok=True)
figure.savefig(FOLDER / "volatility.png")
print(f"written to {FOLDER}")
