"""A prior that favours memory learns to add two numbers that it saw 100 steps ago.

The addition problem (Hochreiter & Schmidhuber 1997; Schmidt et al. 2021): at each step the network
receives a random number in (0, 1) and a marker, which is 1 twice: once in steps 1 to 10 and once in
steps 11 to 20. Once it is told the sum of the two marked numbers, and at all other steps nothing is
observed: first always at step 120, then at a random step between 120 and 170.

What to look for: without a prior the network says 1 whatever it saw, a mean squared error of 1/6.
With the manifold-attractor prior half of the units start to keep their state, along directions with
eigenvalues of 1 to two digits: a line attractor. The read-out of different sums fans out until step
120, the first at which it may be asked for, and stays where it is from there on.

    python examples/line_attractor.py            # two to three minutes
    python examples/line_attractor.py --quick    # seconds, not converged
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

import latentdyn as ld

QUICK = "--quick" in sys.argv
TRIALS, DELAY, STEPS = (50, 10, 20) if QUICK else (1000, 100, 2000)
UNITS, SPREAD, SEED = 16, 50, 0
FOLDER = Path("runs/line_attractor")


# ---- data: inputs (trial, time, 2) and one observation, somewhere in the last steps
def addition(trials: int, seed: int, spread: int = SPREAD):
    """Dataset, and the sums (trial,). Inputs of the first step act on no state: they are zero."""
    rng = np.random.default_rng(seed)
    rows, steps = np.arange(trials), 20 + DELAY + spread
    u = np.zeros((trials, steps + 1, 2), np.float32)
    u[:, 1:, 0] = rng.random((trials, steps))
    marked = [rng.integers(1, 11, trials), rng.integers(11, 21, trials)]
    for at in marked:
        u[rows, at, 1] = 1
    sums = sum(u[rows, at, 0] for at in marked)
    y = np.full((trials, steps + 1, 1), np.nan, np.float32)  # NaN: nothing was observed
    y[rows, rng.integers(20 + DELAY, steps + 1, trials), 0] = sums
    return ld.data.as_dataset(y, inputs=u), sums


test, sums = addition(500, seed=1000)


# ---- two models that differ in the prior alone
def fit(prior):
    """The fitted network, bound to the posterior mode of its parameters."""
    torch.manual_seed(SEED)
    transition = ld.transitions.PLRNN(UNITS, input_dim=2)
    transition.start(B=torch.randn(UNITS, 2) / UNITS**0.5)
    model = ld.StateSpace(
        transition,
        ld.emissions.Gaussian(UNITS, obs_dim=1),
        initial=ld.initials.Learned(UNITS),
        prior=prior,
    )
    for spread, rate, share in ((0, 1e-2, 1), (SPREAD, 5e-3, 2)):
        post = ld.fit.teacher_forcing(
            model,
            addition(TRIALS, SEED, spread)[0],
            forcing=ld.fit.Forcing(
                interval=DELAY + spread + 21,  # free from the first step to the last
                window=None,
                warm_start_iterations=0,
            ),
            batch_size=100,
            steps=share * STEPS,
            learning_rate=rate,
            seed=SEED,
            training=ld.fit.Training(torch.optim.RAdam, ramp=0.0, initialise=spread == 0),
        )
        model, mode = post.model.model, {n: v[0] for n, v in post.sample(1).items()}
        with torch.no_grad():
            for name in mode.keys() & dict(model.named_parameters()).keys():
                model.get_parameter(name).copy_(mode[name])  # where the second stage starts
    return model


def answers(model) -> tuple[np.ndarray, torch.Tensor]:
    """What the read-out would say at each step (trial, time), and the states."""
    with torch.no_grad():
        z = ld.smooth.forced(model, test, interval=DELAY + SPREAD + 21).predicted.mean
        return model.emission(z).mean[..., 0].numpy(), z


models = {
    "flat prior": fit(None),
    "manifold-attractor prior": fit(ld.priors.ManifoldAttractor(UNITS // 2, scale=0.01)),
}
found = {name: answers(model) for name, model in models.items()}
print(f"always saying 1            mean squared error {((sums - 1) ** 2).mean():.5f}")
for name, (said, _) in found.items():
    error = said[:, -1] - sums
    print(
        f"{name:<26} mean squared error {(error**2).mean():.5f}, "
        f"{(abs(error) < 0.04).mean():.0%} of the answers within 0.04"
    )

# ---- where does the memory live? Eigenvalues of the Jacobian from step 30 to the end
figure = Figure(figsize=(11, 6), layout="constrained")
axes = figure.subplots(2, 3, width_ratios=[1, 1.6, 1])
colour = matplotlib.colormaps["viridis"]
for (name, (said, z)), row in zip(found.items(), axes, strict=True):
    with torch.no_grad():
        J = models[name].transition.jacobian(z[::10, 30::10])  # (trial, time, unit, unit)
    size = torch.linalg.eigvals(J).abs().sort(-1, descending=True).values.flatten(0, 1)
    middle = size.median(0).values.numpy()
    print(f"{name:<26} largest |eigenvalues| {middle[:4].round(3)}")
    row[0].plot([0, 2], [0, 2], color="0.7", lw=1)
    row[0].plot(sums, said[:, -1], ".", color="#0072B2", ms=3)
    row[0].set(title=name, xlabel="sum of the marked numbers", ylabel="answer", ylim=(-0.2, 2.2))
    for n in np.argsort(sums)[:: max(1, len(sums) // 25)]:
        row[1].plot(said[n], color=colour(sums[n] / 2), lw=0.8)
    for first, last in ((0, 20), (20 + DELAY, 20 + DELAY + SPREAD)):  # numbers; answers
        row[1].axvspan(first, last, color="0.93", zorder=0)
    row[1].set(title="read-out along the way, coloured by the sum", xlabel="step")
    row[1].set(ylabel="C z + d", xlim=(0, DELAY + SPREAD + 20))
    row[2].axhline(1, color="0.7", lw=1)
    row[2].plot(range(1, UNITS + 1), middle, "o", color="#D55E00", ms=4)
    row[2].set(title="|eigenvalues| during the delay", xlabel="rank", ylim=(0, 1.25))
FOLDER.mkdir(parents=True, exist_ok=True)
figure.savefig(FOLDER / "line_attractor.png", dpi=120)
print(f"written to {FOLDER}")
