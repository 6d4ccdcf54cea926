"""Every model under every method: each cell runs, and the README prints what came of it.

A cell is what the method gives if it runs on the model, and a dash if it refuses with a clear error
(any other error fails). ``LATENTDYN_WRITE_TABLE=1 pytest tests/test_methods.py`` writes the table.
"""

from __future__ import annotations

import os
import pathlib
import re

import pyro
import pytest
import torch
from pyro.distributions import Normal

import latentdyn as ld

README = pathlib.Path(__file__).parents[1] / "README.md"
DASH = "–"


def space(transition, emission):
    return lambda: ld.StateSpace(transition(), emission())


def linear():
    return ld.transitions.Linear(2)


def gaussian():
    return ld.emissions.Gaussian(2, 3)


def poisson():
    return ld.emissions.Poisson(2, 3)


def arma():
    return ld.programs.ARMA(2, 1)


def seasonal():
    level = ld.programs.LocalLevel() + ld.programs.Seasonal(3)
    return ld.programs.Structural(*level.components, initial=ld.initials.Gaussian(level.state_dim))


MODELS = {
    "linear, Gaussian": space(linear, gaussian),
    "linear, Poisson": space(linear, poisson),
    "linear, categorical": space(linear, lambda: ld.emissions.Categorical(2, 3, 4)),
    "PLRNN, Gaussian": space(lambda: ld.transitions.PLRNN(2), gaussian),
    "PLRNN, Poisson": space(lambda: ld.transitions.PLRNN(2), poisson),
    "MLP, Student t": space(
        lambda: ld.transitions.MLP(2, hidden=4), lambda: ld.emissions.StudentT(2, 3)
    ),
    "GRU, Bernoulli": space(lambda: ld.transitions.GRU(2), lambda: ld.emissions.Bernoulli(2, 3)),
    "`ARMA` (singular noise)": arma,
    "`LocalLevel() + Seasonal(3)`": seasonal,
    "`StochasticVolatility`": lambda: ld.programs.StochasticVolatility(),
    "`HMM`": lambda: ld.programs.HMM(2, ld.emissions.StateGaussian(2, 2)),
    "`SwitchingLinear`": lambda: ld.programs.SwitchingLinear(2, 2, 2),
    "`PoissonAutoregression`": lambda: ld.programs.PoissonAutoregression(2, 2),
}


def collapsed(model):
    """The states integrated out by the first smoother that takes the model."""
    if not isinstance(model, ld.StateSpace):
        ways = {"HMM": ld.smooth.hmm, "SwitchingLinear": ld.smooth.switching}
        way = ways.get(type(model).__name__)
        return model if way is None else model.collapse(way)
    if (
        model.transition.linear_gaussian() is not None
        and model.emission.linear_gaussian() is not None
    ):
        return model.collapse(ld.smooth.kalman)
    labels = isinstance(model.emission, ld.emissions.Categorical)  # they have no moments
    return model.collapse(ld.smooth.laplace if labels else ld.smooth.ekf)


def with_prior(model):
    """All parameters known but one, which has a prior."""
    free = [
        n for n, t in model.templates.items() if t.support is torch.distributions.constraints.real
    ]
    name = next(n for n in free if model.templates[n].value.numel() < 5)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.prior = ld.priors.Independent({name: Normal(0.0, 0.5)})
    model.get_parameter(name).requires_grad_(True)
    return model


def encoder(model):
    """Programs other than `StateSpace` have no encoder by default."""
    switching = isinstance(model, ld.programs.SwitchingLinear)
    return ld.encoders.Chain(model.obs_dim, model.state_dim) if switching else None


def smoother(f, **options):
    def run(model, y):
        with torch.no_grad():
            return f(model, y, **options).log_evidence

    return run


METHODS = {
    "`kalman`": ("exact", smoother(ld.smooth.kalman)),
    "`ekf`": ("yes", smoother(ld.smooth.ekf)),
    "`ukf`": ("yes", smoother(ld.smooth.ukf)),
    "`iekf`": ("yes", smoother(ld.smooth.iekf)),
    "`laplace`": ("yes", smoother(ld.smooth.laplace)),
    "`particle`": ("unbiased", smoother(ld.smooth.particle, particles=50, paths=5, seed=0)),
    "`hmm`": ("exact", smoother(ld.smooth.hmm)),
    "`switching`": ("yes", smoother(ld.smooth.switching)),
    "`fit.em`": ("yes", lambda m, y: ld.fit.em(m, y, steps=2, progress=False)),
    "`fit.svi`": ("yes", lambda m, y: ld.fit.svi(m, y, steps=2, states=encoder(m))),
    "`fit.svi`, collapsed": ("yes", lambda m, y: ld.fit.svi(collapsed(m), y, steps=2)),
    "`fit.mcmc`, collapsed": (
        "yes",
        lambda m, y: ld.fit.mcmc(
            collapsed(with_prior(m)), y, draws=2, warmup=2, chains=1, progress=False
        ),
    ),
    "`fit.laplace`, collapsed": ("yes", lambda m, y: ld.fit.laplace(collapsed(with_prior(m)), y)),
    "`fit.particle_mcmc`": (
        "yes",
        lambda m, y: ld.fit.particle_mcmc(
            with_prior(m), y, particles=20, draws=2, warmup=2, chains=1, progress=False
        ),
    ),
    "`fit.particle_gibbs`": (
        "yes",
        lambda m, y: ld.fit.particle_gibbs(
            with_prior(m), y, particles=10, draws=2, warmup=2, chains=1, progress=False
        ),
    ),
}


def build(name):
    torch.manual_seed(0)
    model = MODELS[name]().double()
    with torch.no_grad():  # quiet enough for every method
        for key, parameter in model.named_parameters():
            if key.endswith(("emission.d", "prior")) and parameter.dtype.is_floating_point:
                parameter.fill_(0.1)
    return model, model.simulate(1, 12, seed=0)[["y"]]


FOUND: dict[tuple[str, str], str] = {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODELS)
def test_cell(name, method):
    model, y = build(name)
    label, run = METHODS[method]
    try:
        result = run(model, y)
    except ld.InputError as refusal:
        parts = re.match(r"'[\w.]+': expected .+, got .+; .+", str(refusal), re.S)
        FOUND[name, method] = DASH
        if parts is None:
            raise
        return
    assert not list(pyro.get_param_store().keys())
    if isinstance(result, torch.Tensor):
        assert bool(torch.isfinite(result).all())
    else:
        says_what_it_is(result, method)
    FOUND[name, method] = label


def says_what_it_is(post, method):
    """Latents are integrated out, have an encoder or were drawn; random parameters a guide."""
    assert post.attrs["inference_method"] == re.search(r"fit\.(\w+)", method)[1]
    for program, guide in post.fits:
        latents = () if program.integrated else program.latents
        stored = ("z",) if getattr(guide.parameters_guide, "z", None) is not None else ()
        assert {*guide.latents, *stored} >= set(latents)
        assert (guide.parameters_guide is not None) == program.prior.random
    drawn = post.sample(2, seed=0)
    assert set(post.model.prior.names) <= set(drawn)
    assert all(bool(torch.isfinite(x).all()) for x in drawn.values() if x.is_floating_point())


def table() -> str:
    head = "| | " + " | ".join(METHODS) + " |\n|---" * 1 + "|---" * len(METHODS) + "|\n"
    rows = [
        f"| {name} | " + " | ".join(FOUND[name, method] for method in METHODS) + " |"
        for name in MODELS
    ]
    return head + "\n".join(rows)


def test_the_readme_shows_this_table():
    if len(FOUND) < len(MODELS) * len(METHODS):
        pytest.skip("some cells were not run")
    text = README.read_text()
    pattern = re.compile(r"(<!-- methods -->\n)(.*?)(\n<!-- end -->)", re.S)
    if os.environ.get("LATENTDYN_WRITE_TABLE"):
        README.write_text(pattern.sub(lambda m: m[1] + table() + m[3], text))
        return
    found = pattern.search(text)
    assert found is not None
    assert found[2] == table()
