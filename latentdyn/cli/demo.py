"""latentdyn demo: two fits that show what the library does."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import xarray as xr

from latentdyn import emissions, encoders, priors, transitions
from latentdyn.cli.check import show
from latentdyn.cli.folder import contents, write_run
from latentdyn.cli.period import dominant_period, strongest_period
from latentdyn.cli.progress import printer
from latentdyn.data import sunspots, systems
from latentdyn.diagnostics import bits_per_spike
from latentdyn.fit import Training, svi
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace
from latentdyn.report.readings import readings
from latentdyn.report.scale import original, standardise
from latentdyn.report.tables import parameter_summary
from latentdyn.rng import seeded

__all__ = ["demo"]

HELD_OUT = 33  # years, three cycles


def demo(args: argparse.Namespace) -> int:
    """Sunspots, or with ``--spikes`` a population of neurons; 0 when done."""
    start = time.time()
    (_spikes if args.spikes else _sunspots)(args)
    print(f"written to {args.out}: {contents()}; total {time.time() - start:.0f} s")
    return 0


def _sunspots(args: argparse.Namespace) -> None:
    from pyro.infer.autoguide import AutoMultivariateNormal

    whole = sunspots()
    data = standardise(whole.isel(time=slice(0, -HELD_OUT)), power=2)
    first, last = (int(data["time"][k]) for k in (0, -1))
    print(
        f"Yearly sunspot numbers: a Bayesian piecewise-linear network with 4 states learns "
        f"{first}-{last}\nand forecasts {HELD_OUT} years that it has not seen. "
        "The square root of the numbers is standardised."
    )
    with seeded(args.seed):
        model = StateSpace(
            transitions.PLRNN(4), emissions.Gaussian(4, 1), prior=priors.ManifoldAttractor(1)
        ).double()
        encoder = encoders.Chain(1, 4)
    steps = 60 if args.quick else 1500
    posterior = svi(
        model,
        data,
        states=encoder,
        parameters=AutoMultivariateNormal,
        steps=steps,
        learning_rate=0.02,
        seed=args.seed,
        training=Training(particles=4, progress=False, evaluations=30),
        callbacks=[printer(data["y"].size, steps)],
    )
    draws = 100 if args.quick else 1000
    fan = posterior.forecast(HELD_OUT, draws=draws, seed=args.seed)
    findings = _judge(posterior, fan, whole)
    findings.append(_period(posterior, 20 if args.quick else 200, "years", "known: about 11"))
    about = {
        "title": "Sunspots 1700-2008",
        "findings": findings,
        "settings": {"command": "latentdyn demo", "steps": steps, "seed": args.seed},
    }
    _finish(posterior, args, about, fan, whole)


def _judge(posterior: Posterior, fan: xr.Dataset, whole: xr.Dataset) -> list[str]:
    """How the forecast fared, in original units and in nats."""
    import torch

    truth = whole["y"].sel(time=fan["time"]).values[0, :, 0]
    draws = original(fan, posterior.data)["y"].values[:, 0, :, 0]
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    inside = int(((truth >= low) & (truth <= high)).sum())
    data = posterior.data
    y = torch.as_tensor((np.sqrt(truth) - data["center"].item()) / data["scale"].item())
    with torch.no_grad():
        each = posterior.model.emission(torch.as_tensor(fan["z"].values)).log_prob(y[:, None])
        score = float((each.logsumexp(0) - np.log(len(each))).mean())
    flat = float(torch.distributions.Normal(0.0, 1.0).log_prob(y).mean())
    error, trivial = (
        float(np.sqrt(np.mean((truth - m) ** 2)))
        for m in (draws.mean(0), original(data, data)["y"].values.mean())
    )
    return [
        f"{inside} of {len(truth)} held-out years lie in the 90% band of the forecast "
        f"({100 * inside / len(truth):.0f}%).",
        f"Log score of the held-out years: {score:.2f} nats per year; a constant Gaussian with "
        f"mean and spread of the training years: {flat:.2f}. Higher is better.",
        f"Root mean square error of the mean forecast: {error:.0f} sunspots; of the training "
        f"mean: {trivial:.0f}.",
    ]


def _period(posterior: Posterior, draws: int, unit: str, truth: str) -> str:
    period = dominant_period(posterior, draws, seed=0)
    if not len(period):
        return "Simulations of the fitted model grow beyond all bounds: it has no period."
    low, middle, high = np.quantile(period, [0.05, 0.5, 0.95])
    return (
        f"Period of the cycle: median {middle:.1f} {unit}, 90% interval {low:.1f} to "
        f"{high:.1f} ({truth})."
    )


def _spikes(args: argparse.Namespace) -> None:
    ds = systems.plrnn_spikes(trials=10 if args.quick else 40, steps=60 if args.quick else 200)
    trials, bins, units = ds["y"].shape
    print(
        f"Spikes of {units} simulated neurons, {trials} trials of {bins} bins: a Bayesian "
        "piecewise-linear network\nwith 4 states learns their dynamics; a tenth of the counts "
        "is held out."
    )
    with seeded(args.seed):
        model = StateSpace(
            transitions.PLRNN(4), emissions.Poisson(4, units), prior=priors.ManifoldAttractor(1)
        )
        encoder = encoders.Chain(units, 4)
    steps = 60 if args.quick else 1500
    posterior = svi(
        model,
        ds,
        states=encoder,
        steps=steps,
        validation=0.1,
        batch_size=20,
        learning_rate=0.02,
        seed=args.seed,
        training=Training(progress=False, evaluations=30),
        callbacks=[printer(int(0.9 * ds["y"].size), steps)],
    )
    chosen: Any = posterior.held_out
    best = bits_per_spike(ds["y"].where(chosen.numpy()), ds["rate"])
    findings = [f"The rates that made the spikes would score {best:.3f} bits per held-out spike."]
    truth = f"true rates: {float(strongest_period(ds['rate'].values)):.1f}"
    findings.append(_period(posterior, 20 if args.quick else 100, "bins", truth))
    about = {
        "title": "Spikes of a known network",
        "findings": findings,
        "settings": {"command": "latentdyn demo --spikes", "steps": steps, "seed": args.seed},
    }
    _finish(posterior, args, about, None, None)


def _finish(
    posterior: Posterior, args: argparse.Namespace, about: Any, fan: Any, truth: Any
) -> None:
    print()
    for sentence in about["findings"]:
        print(sentence)
    print("\nParameters, as ArviZ summarises them:")
    print(parameter_summary(posterior)[0].to_string())
    print()
    checks = readings(posterior)
    show(checks)
    write_run(
        posterior,
        args.out,
        about,
        draws=100 if args.quick else 400,
        fan=fan,
        truth=truth,
        checks=checks,
    )
