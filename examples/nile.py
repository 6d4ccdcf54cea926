"""The Nile with two gaps of twenty years: is the level known where nobody measured?

Data: yearly flow of the Nile at Aswan, 1871-1970, in 10^8 m^3; 1891-1910 and 1931-1950 are removed
(Durbin & Koopman 2012, section 2.7). The model is a random walk seen in noise, whose two variances
are found by maximum likelihood with the level integrated out.

What to look for: the band widens in the gaps and narrows at their ends; both variances, the
log-likelihood and the smoothed level are those of statsmodels; the errors of the variances are
large, and a band that knows this is wider.

    python examples/nile.py            # seconds
"""

from pathlib import Path

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from statsmodels.tsa.statespace.structural import UnobservedComponents

import latentdyn as ld

DATA = Path(__file__).parents[1] / "../shared/data/univariate_classics.nc"
FOLDER = Path("runs/nile")
GAPS = (20, 40), (60, 80)

# ---- data: NaN is missing
flow = xr.open_dataset(DATA)["nile"].rename(nile_year="year").load()  # (year,)
seen = flow.copy()
for start, stop in GAPS:
    seen[start:stop] = np.nan

# ---- model and fit
model = ld.programs.LocalLevel()  # the first level is unknown: a diffuse start
post = ld.fit.laplace(model.collapse(ld.smooth.kalman), seen)
draws = post.sample(2000, seed=0)
log_likelihood = post.attrs["log_density"]

# ---- states: at the estimate, and averaged over the uncertain variances
names = {"emission.R": "noise", "transition.level.variance": "steps"}
values = {n: post.model.templates[n].value.detach() for n in names}
with torch.no_grad():
    level = ld.smooth.kalman(post.model.model, seen)
averaged = post.smooth(draws=500, seed=0)

# ---- the same with statsmodels
twin = UnobservedComponents(seen.values, "llevel", use_exact_diffuse=True)
peer = twin.fit(disp=False, method="bfgs", gtol=1e-7)
peer_mean, peer_sd = peer.smoothed_state[0], peer.smoothed_state_cov[0, 0] ** 0.5

print("                      latentdyn  statsmodels   90% interval")
for (name, word), reference in zip(names.items(), peer.params, strict=True):
    low, high = draws[name].flatten().quantile(torch.tensor([0.05, 0.95]).double())
    print(
        f"variance of {word:9} {values[name].item():10.1f} {reference:12.1f}   {low:.0f}-{high:.0f}"
    )
print(f"log-likelihood        {log_likelihood:9.4f} {peer.llf:12.4f}")
mean, sd = level.mean[0, :, 0], level.variance[0, :, 0].sqrt()
same = twin.smooth([values[n].item() for n in names])  # statsmodels at the estimates found here
print(
    f"largest difference of the smoothed means: {np.abs(mean.numpy() - peer_mean).max():.1e}; "
    f"with the same variances {np.abs(mean.numpy() - same.smoothed_state[0]).max():.1e}, "
    f"of the log-likelihood {abs(level.log_evidence.item() - same.llf):.1e}"
)

missing = np.isnan(seen.values)
for word, path in (("the variances known", level), ("the variances uncertain", averaged)):
    centre, spread = path.mean[0, :, 0].numpy(), path.variance[0, :, 0].sqrt().numpy()
    noise = values["emission.R"].item()
    inside = np.abs(flow - centre) < 1.645 * np.sqrt(spread**2 + noise)
    print(
        f"{word:24} sd of the level {spread[~missing].mean():.0f}, in the gaps "
        f"{spread[missing].mean():.0f}; {float(inside[missing].mean()):.0%} of the removed flows "
        f"lie in the 90% band"
    )

# ---- picture
figure = Figure(figsize=(9, 4.5), layout="constrained", dpi=150)
ax = figure.subplots()
years = flow["year"].values
middle, wide = averaged.mean[0, :, 0], averaged.variance[0, :, 0].sqrt()
for start, stop in GAPS:
    ax.axvspan(years[start] - 0.5, years[stop - 1] + 0.5, color="0.94", linewidth=0)
ax.fill_between(
    years,
    middle - 1.645 * wide,
    middle + 1.645 * wide,
    color="#56B4E9",
    alpha=0.25,
    linewidth=0,
    label="90%, variances uncertain",
)
ax.fill_between(
    years,
    mean - 1.645 * sd,
    mean + 1.645 * sd,
    color="#0072B2",
    alpha=0.35,
    linewidth=0,
    label="90%, variances at their estimates",
)
ax.plot(years, mean, color="#0072B2", label="smoothed level")
for sign in (-1, 1):
    ax.plot(
        years,
        peer_mean + sign * 1.645 * peer_sd,
        color="#D55E00",
        linestyle="--",
        linewidth=1,
        label="90%, statsmodels" if sign > 0 else None,
    )
ax.plot(years, seen, ".", color="0.2", label="flow")
ax.plot(years, flow.where(missing), "x", color="0.55", markersize=4, label="flow, removed")
ax.set(xlabel="year", ylabel="flow at Aswan ($10^8$ m$^3$)", xlim=(years[0] - 1, years[-1] + 1))
ax.spines[["top", "right"]].set_visible(False)
figure.legend(loc="outside lower center", ncols=3, frameon=False)
FOLDER.mkdir(parents=True, exist_ok=True)
figure.savefig(FOLDER / "level.png")
print(f"written to {FOLDER}")
