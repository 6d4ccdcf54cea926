"""How volatile is the pound, day by day, and how long do calm and nervous spells last?

Data: 750 daily log returns of GBP/USD, 1997-98, in percent, without their mean. Their log-variance
x_t follows x_t = mu + phi (x_{t-1} - mu) + sigma eps_t, and y_t ~ N(0, exp(x_t)): not Gaussian,
so no Kalman filter is exact (Kim, Shephard & Chib 1998).

What to look for: at fixed parameters twenty particle filters and Laplace's approximation agree with
the exact evidence within a third of a nat, so Laplace may integrate 750 states out of NUTS. But the
posterior is wide, and where phi is small and sigma large Laplace's evidence is a nat too high.
Particle filters, whose evidence is unbiased, weight the draws anew and say by how much it matters:
the tail of small phi loses over half of its weight, the medians hardly move.

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
PARTICLES, DRAWS, WARMUP = (50, 5, 3) if QUICK else (2000, 150, 100)
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
    model.collapse(ld.smooth.laplace),
    returns,
    draws=DRAWS,
    warmup=WARMUP,
    chains=2,
    seed=1,
    max_tree_depth=1 if QUICK else 10,
    progress=False,
)
sites = ["transition.mu", "transition.phi", "transition.sigma"]
tree = post.to_datatree()
stats = tree["sample_stats"]
print(
    f"NUTS: {float(stats['n_steps'].mean()):.1f} gradients to a draw, "
    f"{int(stats['diverging'].sum())} divergences"
)

# ---- how good was Laplace? Weight draws by the evidence of particle filters over Laplace's
theta = {n: x for n, x in post.sample(2 * DRAWS, seed=0).items() if n in sites}  # (draw, 1)
bound = post.model.model.bind(theta)
with torch.no_grad():
    unbiased = ld.smooth.particle(bound, returns, particles=PARTICLES, paths=0, seed=2)
    approximate = ld.smooth.laplace(bound, returns)
excess = (approximate.log_evidence - unbiased.log_evidence)[:, 0]  # (draw,)
weights = (-excess).softmax(0)
by_phi, tenth = theta["transition.phi"][:, 0].argsort(), DRAWS // 5
for word, where in (("smallest", by_phi[:tenth]), ("largest", by_phi[-tenth:])):
    phi = theta["transition.phi"][where].mean()
    print(
        f"Laplace's log evidence is too high by {excess[where].mean():5.2f} for the tenth of the "
        f"draws with the {word} phi, {phi:.2f} on average"
    )
print(f"weights are worth {1 / weights.square().sum():.0f} of {len(weights)} draws")


def interval(x: torch.Tensor, weights: torch.Tensor) -> str:
    """Median and 90% interval of weighted draws."""
    order = x.argsort()
    at = torch.searchsorted(weights[order].cumsum(0), torch.tensor([0.05, 0.5, 0.95]).to(weights))
    low, median, high = x[order][at.clamp(max=len(x) - 1)]
    return f"{median:6.3f} ({low:6.3f} to {high:6.3f})"


print("posterior median and 90% interval    by Laplace                  weighted")
for name in sites:
    x = theta[name][:, 0]
    print(f"{name:32} {interval(x, torch.full_like(x, 1 / len(x)))}   {interval(x, weights)}")

# ---- picture
figure = Figure(figsize=(9, 6.5), layout="constrained", dpi=150)
top, *small = figure.subplot_mosaic([["y"] * 3, ["mu", "phi", "sigma"]]).values()
days = returns["time"].values
x, sd = filters.filtered.mean[0, :, 0], filters.filtered.covariance[0, :, 0, 0].sqrt()
paths = tree["posterior"]["z"].squeeze(drop=True).stack(s=("chain", "draw"))  # (time, s)
low, high = np.exp(np.quantile(paths, [0.05, 0.95], axis=1) / 2)
top.plot(days, returns, color="0.25", linewidth=0.5, zorder=3, label="returns")
for sign in (-1, 1):
    top.fill_between(
        days,
        sign * 2 * low,
        sign * 2 * high,
        color=BLUE,
        alpha=0.35,
        linewidth=0,
        label="±2 volatilities given all days, 90% of draws" if sign > 0 else None,
    )
    top.plot(
        days,
        sign * 2 * (x / 2).exp(),
        color=ORANGE,
        linewidth=1,
        label="±2 volatilities given the days so far, known parameters" if sign > 0 else None,
    )
top.set(xlabel="day, 1997-98", ylabel="return (%)", xlim=(0, len(days)))
figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
words = ("level of log-variance, $\\mu$", "persistence, $\\varphi$", "steps, $\\sigma$")
for ax, name, word in zip(small, sites, words, strict=True):
    x, bins = theta[name][:, 0].numpy(), 20
    _, bins, _ = ax.hist(x, bins, density=True, color=BLUE, alpha=0.45, label="Laplace")
    ax.hist(
        x,
        bins,
        density=True,
        weights=weights.numpy(),
        histtype="step",
        color="black",
        label="weighted by particles",
    )
    value = known.templates[name].value.item()
    ax.axvline(value, color=ORANGE, label="value held fixed above")
    ax.set(xlabel=word, yticks=[])
small[0].set_ylabel("posterior density")
small[1].legend(frameon=False, fontsize=8, loc="upper left")
for ax in (top, *small):
    ax.spines[["top", "right"]].set_visible(False)
FOLDER.mkdir(parents=True, exist_ok=True)
figure.savefig(FOLDER / "volatility.png")
print(f"written to {FOLDER}")
