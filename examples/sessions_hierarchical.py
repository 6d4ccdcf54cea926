"""Eight subjects with different time constants, three of whom gave little data.

Each subject's activity decays at its own rate. Fitted alone, short recordings give poor rates;
a hierarchical prior learns how much subjects differ and lends strength to the short ones.

    python examples/sessions_hierarchical.py            # a minute
    python examples/sessions_hierarchical.py --quick    # seconds, not converged
"""

import sys

import numpy as np
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoMultivariateNormal

import latentdyn as ld

QUICK = "--quick" in sys.argv
STEPS = 5 if QUICK else 700
SUBJECTS = [f"s{k}" for k in range(8)]
SHORT = SUBJECTS[5:]

# ---- data: z' = A z + noise with A of each subject, y = z + noise; trials of different lengths
rng = np.random.default_rng(3)
true_A = dict(zip(SUBJECTS, rng.normal(0.85, 0.06, 8).clip(0.6, 0.97), strict=True))


def recording(subject: str, length: int) -> np.ndarray:
    z = np.zeros(length)
    for t in range(1, length):
        z[t] = true_A[subject] * z[t - 1] + rng.normal(0, 0.5)
    return z + rng.normal(0, 0.3, length)  # (time,)


labels = [s for s in SUBJECTS for _ in range(1 if s in SHORT else 4)]
trials = [recording(s, 25 if s in SHORT else 80) for s in labels]
data = ld.data.as_dataset(trials).assign_coords(session=("trial", labels))


def fit(data, prior):
    """Posterior of a linear model whose read-out is known."""
    torch.manual_seed(0)
    model = ld.StateSpace(
        ld.transitions.Linear(state_dim=1),  # A (1, 1), b, Q
        ld.emissions.Gaussian.of(C=[[1.0]], R=[0.09]),  # y = z + noise
        prior=prior,
    )
    # means, spread and subjects depend on each other: a guide with all correlations
    return ld.fit.svi(
        model,
        data,
        states=ld.encoders.Chain(obs_dim=1, state_dim=1),
        parameters=AutoMultivariateNormal,
        steps=STEPS,
        learning_rate=0.02,
        training=ld.fit.Training(progress=False),
    )


# ---- all subjects together
population = {"transition.A": dist.Normal(0.8, 0.3)}
together = fit(data, ld.priors.Hierarchical(population, sessions=8, spread=0.2))
draws = together.sample(1000, seed=0)
A = draws["transition.A"].squeeze()  # (draw, session)
mean, spread = draws["prior.transition.A.mean"], draws["prior.transition.A.spread"]
print(
    f"population: mean {mean.mean():.2f} +- {mean.std():.2f}, "
    f"between subjects {spread.mean():.2f} +- {spread.std():.2f}"
)

# ---- each subject alone, for comparison
alone = []
for subject in SUBJECTS:
    mine = data.sel(trial=data["session"] == subject)
    post = fit(mine, ld.priors.Independent(population))
    alone.append(post.sample(1000, seed=0)["transition.A"].squeeze())  # (draw,)
alone = torch.stack(alone, -1)  # (draw, session)

print("\nsubject  data   truth   together        alone")
for k, subject in enumerate(SUBJECTS):
    size = sum(len(x) for x, s in zip(trials, labels, strict=True) if s == subject)
    print(
        f"{subject:7}  {size:4d}   {true_A[subject]:.2f}    "
        f"{A[:, k].mean():.2f} +- {A[:, k].std():.2f}    "
        f"{alone[:, k].mean():.2f} +- {alone[:, k].std():.2f}"
    )

truth = torch.tensor(list(true_A.values()))
short = slice(5, None)
for name, estimate in (("together", A), ("alone", alone)):
    error = (estimate.mean(0) - truth)[short].square().mean().sqrt()
    print(f"error for the short recordings, {name}: {error:.3f}")
