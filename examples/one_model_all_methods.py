"""One model, ten ways to infer its states: how far is each from the truth, and at what price?

Data: 150 steps simulated from a piecewise-linear network of two units that oscillates, seen through
Poisson counts of eight cells. All parameters are known; the truth about the states given the counts
is a run of 100,000 particles. ``model`` and ``y`` are the same objects in every line; only the
Kalman smoother needs another model, the linear-Gaussian twin that is nearest by least squares.

What to look for: "error" is the distance of the posterior mean from the long run's in posterior
standard deviations, "width" the ratio of the standard deviations. A linear model costs most, then
linearising once at each step; methods that weigh whole paths by the counts themselves (Laplace,
particles, SVI, NUTS) are close, at very different prices. The evidence of the Kalman kind is that
of counts with Gaussian noise, far off at such low rates; SVI's is a lower bound; NUTS has none.

    python examples/one_model_all_methods.py            # a minute
    python examples/one_model_all_methods.py --quick    # seconds, not converged
"""

import sys
import time
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure

import latentdyn as ld

QUICK = "--quick" in sys.argv
LONG, STEPS, DRAWS, T = (800, 10, 4, 30) if QUICK else (100_000, 1500, 300, 150)
FOLDER = Path("runs/one_model_all_methods")
BLUE, ORANGE = "#0072B2", "#D55E00"

# ---- model and data
C = torch.randn(8, 2, generator=torch.Generator().manual_seed(3)).double()
model = ld.StateSpace(
    ld.transitions.PLRNN.of(
        a=[0.9, 0.9], W=[[0.0, -0.45], [0.45, 0.0]], h=[0.3, -0.2], Q=[0.03, 0.03]
    ),
    ld.emissions.Poisson.of(C=0.6 * C, d=[-0.5] * 8),
    ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0]),
).double()
data = model.simulate(trials=1, steps=T, seed=1)
y, z = data["y"], torch.as_tensor(data["z"].values[0])  # (trial, time, unit), (T, K)


def linear_twin(steps: int = 5000) -> ld.StateSpace:
    """The linear-Gaussian model nearest to ``model`` where it spends its time."""
    long = model.simulate(steps=steps, seed=2)
    states, counts = (torch.as_tensor(long[n].values[0]) for n in ("z", "y"))

    def regress(target, source):
        design = torch.cat([source, torch.ones(len(source), 1).to(source)], 1)
        weight = torch.linalg.lstsq(design, target).solution
        return weight[:-1].T, weight[-1], torch.cov((target - design @ weight).T)

    A, b, Q = regress(states[1:], states[:-1])
    C, d, R = regress(counts, states)
    transition = ld.transitions.Linear.of(A=A, b=b, Q=Q)
    return ld.StateSpace(transition, ld.emissions.Gaussian.of(C=C, d=d, R=R), model.initial)


def by_particles(proposal=None, particles=500):
    return ld.smooth.particle(model, y, particles=particles, paths=1000, proposal=proposal, seed=0)


def by_svi():
    """The best Gaussian chain: its parameters are those of an encoder."""
    torch.manual_seed(0)
    encoder = ld.encoders.Chain(obs_dim=8, state_dim=2)
    training = ld.fit.Training(initialise=not QUICK, progress=False, particles=4)
    post = ld.fit.svi(
        model, y, states=encoder, steps=STEPS, learning_rate=0.02, seed=0, training=training
    )
    path = post.smooth()
    return path.mean, path.variance, post.history["elbo"][-1]


def by_nuts():
    """The program goes into Pyro's sampler as it is: its only site is z."""
    batch = ld.data.Batch.of(y, dtype=torch.float64)
    pyro.set_rng_seed(0)
    sampler = pyro.infer.MCMC(
        pyro.infer.NUTS(model), num_samples=DRAWS, warmup_steps=DRAWS // 2, disable_progbar=True
    )
    sampler.run(batch)
    draws = sampler.get_samples()["z"]  # (draw, 1, T, K)
    return draws.mean(0), draws.var(0), None


optimal = ld.smooth.proposals.Optimal()
methods = {
    "Kalman, twin": lambda: ld.smooth.kalman(linear_twin(), y),
    "extended": lambda: ld.smooth.ekf(model, y),
    "unscented": lambda: ld.smooth.ukf(model, y),
    "iterated": lambda: ld.smooth.iekf(model, y),
    "Laplace": lambda: ld.smooth.laplace(model, y),
    "500 particles": by_particles,
    "500, optimal": lambda: by_particles(optimal),
    "SVI": by_svi,
    "NUTS": by_nuts,
}


@torch.no_grad()
def moments(found):
    """Mean and variance (T, K), and the log evidence."""
    if not isinstance(found, tuple):
        found = found.mean, found.variance, found.log_evidence.item()
    mean, variance, evidence = found
    return mean[0].detach(), variance[0].detach(), evidence


# ---- run them all
fast = ld.smooth.backward_mcmc()  # the exact way costs particles times paths at each step
truth = ld.smooth.particle(model, y, particles=LONG, paths=5000, smoother=fast, seed=0)
best, spread, evidence = moments((truth.mean, truth.variance, truth.log_evidence.item()))
print(f"{'':15}  error  width  log evidence   seconds")
print(f"{f'{LONG} particles':15} {'':13} {evidence:13.2f}")
results = {}
for name, method in methods.items():
    start = time.process_time()
    mean, variance, log_evidence = moments(method())
    error = float(((mean - best).square() / spread).mean().sqrt())
    width = float((variance / spread).sqrt().mean())
    results[name] = mean, variance, error, log_evidence
    text = "" if log_evidence is None else f"{log_evidence:.2f}"
    seconds = time.process_time() - start
    print(f"{name:15} {error:6.2f} {width:6.2f} {text:>13} {seconds:9.2f}")

# ---- picture
figure = Figure(figsize=(10, 6), layout="constrained", dpi=150)
axes = figure.subplot_mosaic([["path", "path"], ["error", "evidence"]])
ax, steps, k = axes["path"], range(len(z)), 0
sd = spread[:, k].sqrt()
ax.fill_between(
    steps,
    best[:, k] - 1.645 * sd,
    best[:, k] + 1.645 * sd,
    color=BLUE,
    alpha=0.3,
    linewidth=0,
    label="90% of long run",
)
ax.plot(steps, z[:, k], color="0.5", linewidth=1, label="true state")
for name, style in (("Kalman, twin", ":"), ("extended", "--"), ("Laplace", "-")):
    colour = ORANGE if name == "Kalman, twin" else "black"
    ax.plot(results[name][0][:, k], color=colour, linestyle=style, linewidth=1, label=name)
ax.set(xlabel="step", ylabel="first state", xlim=(0, len(z) - 1))
ax.legend(frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=9)
names = list(results)
axes["error"].barh(names, [results[n][2] for n in names], color="0.6")
axes["error"].set(xlabel="error of the mean (posterior sd)")
named = [n for n in names if n not in ("Kalman, twin", "NUTS")]
axes["evidence"].axvline(0, color=BLUE)
axes["evidence"].plot([results[n][3] - evidence for n in named], named, "o", color="0.3")
axes["evidence"].set(xlabel="log evidence minus that of the long run (nats)")
for name in ("error", "evidence"):
    axes[name].invert_yaxis()
for ax in axes.values():
    ax.spines[["top", "right"]].set_visible(False)
FOLDER.mkdir(parents=True, exist_ok=True)
figure.savefig(FOLDER / "methods.png")
print(f"written to {FOLDER}")
