"""Conditionals of others: networks of torch's own layers inside, and sizes that were forgotten."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

import latentdyn as ld
from latentdyn.nn import matvec

from ..helpers import FLOAT64, assert_close

QUIET = ld.fit.Training(progress=False)


class Network(ld.Conditional):
    """z' ~ N(tanh-network of z, scale^2), as one writes it with torch."""

    def __init__(self, state_dim: int):
        super().__init__()
        self.state_dim = state_dim
        self.net = nn.Sequential(nn.Linear(state_dim, 4), nn.Tanh(), nn.Linear(4, state_dim))
        self.scale = nn.Parameter(torch.full((state_dim,), 0.5))
        self.constraints = {"scale": dist.constraints.positive}

    def forward(self, z, u=None):
        return dist.Normal(self.net(z), self.scale).to_event(1)


class Twin(ld.Conditional):
    """The same by matvec, with flat parameters."""

    def __init__(self, of: Network):
        super().__init__()
        self.state_dim, (first, _, last) = of.state_dim, of.net
        self.W, self.h, self.V, self.g = (
            nn.Parameter(p.detach().clone())
            for p in (first.weight, first.bias, last.weight, last.bias)
        )
        self.scale = nn.Parameter(of.scale.detach().clone())

    def forward(self, z, u=None):
        hidden = torch.tanh(matvec(self.W, z) + self.h)
        return dist.Normal(matvec(self.V, hidden) + self.g, self.scale).to_event(1)


class Reading(ld.Conditional):
    """y ~ N(linear in z, 1/4)."""

    def __init__(self, state_dim: int, obs_dim: int):
        super().__init__()
        self.state_dim, self.obs_dim, self.net = state_dim, obs_dim, nn.Linear(state_dim, obs_dim)

    def forward(self, z, u=None):
        return dist.Normal(self.net(z), 0.5).to_event(1)


PRIOR = {
    "transition.scale": dist.LogNormal(-1.0, 0.5),
    "transition.net.0.weight": dist.Normal(0.0, 1.0),
    "transition.net.2.bias": dist.Normal(0.0, 1.0),
}


def model(prior=True):
    torch.manual_seed(0)
    p = ld.priors.Independent(PRIOR) if prior else None
    return ld.StateSpace(Network(2), Reading(2, 3), prior=p).double()


def batch():
    return ld.data.Batch.of(model(False).simulate(2, 6, seed=0)[["y"]])


@pytest.mark.parametrize("smoother", [ld.smooth.ekf, ld.smooth.laplace])
def test_draws_of_a_layers_weights_are_those_of_matvec(smoother):
    theirs = model()
    ours = ld.StateSpace(Twin(theirs.transition), theirs.emission, theirs.initial).double()
    weight, bias = torch.randn(5, 4, 2, dtype=FLOAT64), torch.randn(5, 2, dtype=FLOAT64)
    many = theirs.bind({"transition.net.0.weight": weight, "transition.net.2.bias": bias})
    same = ours.bind({"transition.W": weight, "transition.g": bias})
    z = torch.randn(5, 2, 6, 2, dtype=FLOAT64)
    assert_close(many.path_of(batch()).log_prob(z), same.path_of(batch()).log_prob(z))
    a, b = (smoother(p, batch()).log_evidence for p in (many, same))
    assert_close(a, b, rtol=1e-8)
    assert type(theirs.transition.net[0]) is nn.Linear  # the model itself is as it was
    weights = torch.randn(5, 3, 2, dtype=FLOAT64)
    each = [theirs.bind({"emission.net.weight": w}).emission(z[0]).mean for w in weights]
    together = theirs.bind({"emission.net.weight": weights}).emission(z[:1]).mean
    assert_close(together, torch.stack(each))


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("vectorised", [False, True])
def test_plain_pyro_learns_it(prior, vectorised):
    pyro.clear_param_store()
    program, data = model(prior), batch()
    loss = Trace_ELBO(2, vectorize_particles=vectorised, max_plate_nesting=1)
    svi = SVI(program, AutoNormal(program), pyro.optim.Adam({"lr": 0.05}), loss)
    losses = [svi.step(data) for _ in range(30)]
    assert sum(losses[-10:]) < sum(losses[:10])
    moved = pyro.get_param_store()["transition.net.2.weight"]
    assert not torch.equal(moved.detach(), program.transition.net[2].weight.detach())
    pyro.clear_param_store()


@pytest.mark.parametrize("parallel", [False, True])
def test_plain_pyro_predicts_and_samples(parallel):
    pyro.clear_param_store()
    program, data = model(), batch()
    found = Predictive(program, num_samples=4, parallel=parallel)(data)
    assert found["z"].shape == (4, 2, 6, 2)
    if not parallel:
        sampler = MCMC(NUTS(program), num_samples=2, warmup_steps=2, disable_progbar=True)
        sampler.run(data)
        assert sampler.get_samples()["transition.net.0.weight"].shape == (2, 4, 2)
    pyro.clear_param_store()


def test_a_fit_with_priors_on_weights():
    post = ld.fit.svi(model(), batch(), steps=3, training=QUIET)
    tree = post.to_datatree(draws=4)
    assert tree["posterior"]["transition.net.0.weight"].shape == (1, 4, 4, 2)
    assert post.forecast(3, draws=4)["y"].shape == (4, 2, 3, 3)
    assert model().prior_predictive(3, 2, 5)["y"].shape == (3, 2, 5, 3)


def test_a_layer_that_does_not_broadcast_is_refused():
    program = model()
    program.transition.net[1] = nn.LayerNorm(4).double()
    program.bind(
        {"transition.net.1.weight": torch.ones(4, dtype=FLOAT64)}
    )  # one value: nothing new
    many = {"transition.net.1.weight": torch.ones(5, 4, dtype=FLOAT64)}
    with pytest.raises(
        ld.InputError, match=r"torch\.nn\.LayerNorm; write this layer with .*matvec"
    ):
        program.bind(many)


class Forgetful(ld.Conditional):
    """It keeps what it is told to keep."""

    def __init__(self, **sizes):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(2))
        for name, value in sizes.items():
            setattr(self, name, value)

    def forward(self, *parents):
        return dist.Normal(self.loc, 1.0).to_event(1)


@pytest.mark.parametrize(
    ("build", "argument", "size"),
    [
        (lambda x: ld.StateSpace(x, ld.emissions.Gaussian(2, 2)), "transition", "state_dim"),
        (lambda x: ld.StateSpace(ld.transitions.Linear(2), x), "emission", "state_dim"),
        (
            lambda x: ld.StateSpace(ld.transitions.Linear(2), Forgetful(state_dim=2)),
            "emission",
            "obs_dim",
        ),
        (
            lambda x: ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 2), x),
            "initial",
            "state_dim",
        ),
        (lambda x: ld.programs.HMM(2, x), "emission", "state_dim"),
        (lambda x: ld.programs.HMM(2, Forgetful(state_dim=2)), "emission", "obs_dim"),
        (lambda x: ld.emissions.Product(x), "parts", "state_dim"),
    ],
)
def test_sizes_that_were_forgotten(build, argument, size):
    wanted = f"'{argument}': expected a Conditional that says its {size}, got Forgetful without one"
    with pytest.raises(ld.InputError, match=f"{wanted}; set self.{size} = ... in its __init__"):
        build(Forgetful())
