"""ELBO and gradient: one path site against one Pyro site per step, and against hand-written torch.

The same Bayesian model (PLRNN states, Gaussian observations) and the same guides in every form, one
thread, alternating runs in one process; the table prints medians and ratios.

    python benchmarks/svi_path.py [--repeats 15] [--states 3 8]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

import latentdyn as ld
from latentdyn.data import Batch
from latentdyn.fit.engine.elbo import ELBO
from latentdyn.guide import Guide, parameter_guide

N, T, D = 16, 200, 16


def ours(
    model: ld.StateSpace,
    encoder: nn.Module,
    batch: Batch,
    particles: int = 1,
    parameters: nn.Module | None = None,
) -> Callable:
    """One path site."""
    objective = ELBO(model, Guide(parameters, encoder), particles)

    def run() -> Tensor:
        objective.zero_grad()
        loss = -objective(batch)["elbo"]
        loss.backward()
        return loss

    return run


def body(encoder: nn.Module, features: Tensor) -> Tensor:
    """Hidden features of every step, of whichever encoder."""
    if isinstance(encoder, ld.encoders.Structured):
        return encoder.body(features.flip(-2))[0].flip(-2)
    out = encoder.body(features)
    return out[0] if isinstance(out, tuple) else out


def per_step(model: ld.StateSpace, encoder: nn.Module, batch: Batch, structured: bool) -> Callable:
    """One Pyro site per step, in the model and in the guide, as in Pyro's deep Markov model."""
    f, g, first = model.transition, model.emission, model.initial

    def program() -> None:
        with pyro.plate("trials", N):
            z = pyro.sample("z_0", first().expand([N]))
            pyro.sample("y_0", g(z), obs=batch.y[:, 0])
            for t in range(1, T):
                z = pyro.sample(f"z_{t}", f(z))
                pyro.sample(f"y_{t}", g(z), obs=batch.y[:, t])

    def guide() -> None:
        hidden = body(encoder, encoder.features(batch.y))
        z = batch.y.new_zeros(N, model.state_dim)
        with pyro.plate("trials", N):
            for t in range(T):
                e = hidden[:, t]
                loc, scale = encoder.head((encoder.past(z).tanh() + e) / 2 if structured else e)
                z = pyro.sample(f"z_{t}", dist.Normal(loc, scale).to_event(1))

    elbo = Trace_ELBO()
    learned = [*model.parameters(), *encoder.parameters()]

    def run() -> Tensor:
        for p in learned:
            p.grad = None
        loss = elbo.differentiable_loss(program, guide)
        loss.backward()
        return loss

    return run


def by_hand(model: ld.StateSpace, encoder: nn.Module, batch: Batch, structured: bool) -> Callable:
    """Plain torch, no distribution objects: what a careful person would write."""
    f, g, first = model.transition, model.emission, model.initial
    learned = [*model.parameters(), *encoder.parameters()]

    def divergence(m: Tensor, s: Tensor, loc: Tensor, v: Tensor) -> Tensor:
        return 0.5 * (((m - loc).square() + s * s) / v - 1 + v.log() - 2 * s.log()).sum()

    def run() -> Tensor:
        for p in learned:
            p.grad = None
        x = (batch.y - encoder.features.center) / encoder.features.scale
        hidden = body(encoder, torch.cat([x, torch.ones_like(x)], -1))
        if structured:
            e = hidden
            z = batch.y.new_zeros(N, model.state_dim)
            locs, scales, path = [], [], []
            for t in range(T):
                loc, scale = encoder.head((encoder.past(z).tanh() + e[:, t]) / 2)
                z = loc + scale * torch.randn_like(loc)
                locs.append(loc), scales.append(scale), path.append(z)
            m, s, z = torch.stack(locs, 1), torch.stack(scales, 1), torch.stack(path, 1)
        else:
            m, s = encoder.head(hidden)
            z = m + s * torch.randn_like(m)
        loc = f.a * z[:, :-1] + z[:, :-1].relu() @ f.W.mT + f.h
        kl = divergence(m[:, :1], s[:, :1], first.mean, first.covariance)
        kl = kl + divergence(m[:, 1:], s[:, 1:], loc, f.Q)
        residual = batch.y - z @ g.C.mT - g.d
        log_p = -0.5 * (residual.square() / g.R + g.R.log() + math.log(2 * math.pi)).sum()
        loss = kl - log_p
        loss.backward()
        return loss

    return run


def network_alone(model: ld.StateSpace, encoder: nn.Module, batch: Batch) -> Callable:
    """Only the encoder's network and its gradient: what no way of writing the bound can save."""

    def run() -> Tensor:
        encoder.zero_grad()
        loss = body(encoder, encoder.features(batch.y)).sum()
        loss.backward()
        return loss

    return run


def scored(model: ld.StateSpace, batch: Batch, draws: int) -> Callable:
    """Log joint and gradient at known paths, under some draws of the parameters at once."""
    z = torch.randn(draws, N, T, model.state_dim)
    theta = {
        n: t.value.detach().expand(draws, *t.shape).clone().requires_grad_()
        for n, t in model.templates.items()
        if n.startswith("transition")
    }

    def run() -> Tensor:
        bound = model.bind(theta if draws > 1 else {k: v[0] for k, v in theta.items()})
        total = bound.path_of(batch).log_prob(z if draws > 1 else z[0]).sum()
        total.backward()
        return total

    return run


def times(runs: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each, in alternation."""
    for run in runs.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            found[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in found.items()}


def build(K: int) -> tuple[ld.StateSpace, Batch]:
    """A model and data."""
    torch.manual_seed(0)
    model = ld.StateSpace(ld.transitions.PLRNN(K), ld.emissions.Gaussian(K, D))
    return model, Batch.of(model.simulate(N, T, seed=0), torch.float32)


def table(K: int, repeats: int) -> None:
    """Print the comparison at K states."""

    def fresh(encoder: type) -> tuple[ld.StateSpace, nn.Module, Batch]:
        model, batch = build(K)
        return model, encoder(D, K), batch

    structured, gru, field = (ld.encoders.Structured, ld.encoders.BiGRU, ld.encoders.MeanField)
    ms = times(
        {
            "structured: per-step Pyro": per_step(*fresh(structured), True),
            "structured: path site": ours(*fresh(structured)),
            "structured: by hand": by_hand(*fresh(structured), True),
            "bi-GRU: per-step Pyro": per_step(*fresh(gru), False),
            "bi-GRU: path site": ours(*fresh(gru)),
            "bi-GRU: by hand": by_hand(*fresh(gru), False),
            "bi-GRU: network alone": network_alone(*fresh(gru)),
            "per-time MLP: per-step Pyro": per_step(*fresh(field), False),
            "per-time MLP: path site": ours(*fresh(field)),
            "per-time MLP: by hand": by_hand(*fresh(field), False),
            "chain: path site": ours(*fresh(ld.encoders.Chain)),
        },
        repeats,
    )
    print(f"\nK={K}, T={T}, N={N}, D={D}, float32, one thread; median CPU ms")
    for name, value in ms.items():
        print(f"  {name:30s} {value:9.2f}")
    step = ms["structured: per-step Pyro"]
    print("ratios, with the bounds they are held to")
    for label, ratio, bound in [
        ("structured path / per-step Pyro", ms["structured: path site"] / step, 0.25),
        (
            "structured path / by hand",
            ms["structured: path site"] / ms["structured: by hand"],
            1.15,
        ),
        ("bi-GRU path / by hand", ms["bi-GRU: path site"] / ms["bi-GRU: by hand"], 1.15),
        (
            "per-time MLP path / per-step Pyro",
            ms["per-time MLP: path site"] / ms["per-time MLP: per-step Pyro"],
            0.1,
        ),
        (
            "per-time MLP path / by hand",
            ms["per-time MLP: path site"] / ms["per-time MLP: by hand"],
            1.15,
        ),
        (
            "bi-GRU path / per-step Pyro",
            ms["bi-GRU: path site"] / ms["bi-GRU: per-step Pyro"],
            0.25,
        ),
        ("chain path / structured per-step Pyro", ms["chain: path site"] / step, 0.1),
    ]:
        print(f"  {label:46s} {ratio:6.3f}  (<= {bound}) {'met' if ratio <= bound else 'NOT MET'}")


def walked(model: ld.StateSpace, draws: int) -> Callable:
    """Sample paths and differentiate them, under some draws of the parameters at once."""
    theta = {
        n: t.value.detach().expand(draws, *t.shape).clone().requires_grad_()
        for n, t in model.templates.items()
        if n.startswith("transition")
    }

    def run() -> Tensor:
        bound = model.bind(theta if draws > 1 else {k: v[0] for k, v in theta.items()})
        total = bound.path(T, trials=N).rsample().square().mean()
        total.backward()
        return total

    return run


def learned(model: ld.StateSpace, batch: Batch, draws: int) -> Callable:
    """The whole bound: draws of the parameters from their guide, each with paths of its own."""
    prior = ld.priors.Independent(
        {f"transition.{k}": dist.Normal(0.0, 1.0) for k in ("a", "W", "h")}
    )
    program = ld.StateSpace(model.transition, model.emission, model.initial, prior)
    encoder = ld.encoders.BiGRU(D, model.state_dim)
    return ours(program, encoder, batch, draws, parameter_guide(program))


def draws_table(repeats: int) -> None:
    """Print the cost of 16 parameter draws at once."""
    for K in (3, 8):
        for label, make in [
            ("walk and gradient", lambda m, b, S: walked(m, S)),
            ("ELBO and gradient, bi-GRU", learned),
            ("path density and gradient", scored),
        ]:
            runs = {str(S): make(*build(K), S) for S in (1, 16)}
            ms = times(runs, repeats)
            ratio = ms["16"] / ms["1"]
            print(
                f"PLRNN, K={K}, {label:26s}: 16 draws / 1 draw = {ms['16']:6.2f} / {ms['1']:6.2f} "
                f"ms = {ratio:.2f}  (<= 4) {'met' if ratio <= 4 else 'NOT MET'}"
            )


def profile(K: int) -> None:
    """Print where the time of the bounds that are missed goes."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    for label, encoder in (("chain", ld.encoders.Chain), ("per-time MLP", ld.encoders.MeanField)):
        model, batch = build(K)
        run = ours(model, encoder(D, K), batch)
        for _ in range(5):
            run()
        with recording(activities=[ProfilerActivity.CPU]) as trace:
            for _ in range(10):
                run()
        rows = sorted(trace.key_averages(), key=lambda e: -e.self_cpu_time_total)
        total = sum(e.self_cpu_time_total for e in rows) / 1e4
        print(
            f"\nprofile of the {label} path, K={K}: {total:.1f} ms with the profiler on, of which"
        )
        for e in rows[:8]:
            print(
                f"  {e.key:40s} {e.self_cpu_time_total / 1e4:6.2f} ms in {e.count / 10:.0f} calls"
            )


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--states", type=int, nargs="+", default=[3, 8])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for K in args.states:
        table(K, args.repeats)
    draws_table(args.repeats)
    profile(args.states[-1])


if __name__ == "__main__":
    main()
