"""Programs in plain Pyro: what works for any Pyro model works for these."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    Predictive,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    autoguide,
)

from latentdyn import StateSpace, emissions, encoders, initials, priors, transitions
from latentdyn.data import Batch
from latentdyn.guide import Guide
from tests.helpers import FLOAT32, FLOAT64, assert_close, fresh, make_batch, ragged_batch
from tests.oracles import dense_posterior

GUIDES = [
    autoguide.AutoDelta,
    autoguide.AutoNormal,
    autoguide.AutoDiagonalNormal,
    autoguide.AutoMultivariateNormal,
    autoguide.AutoLowRankMultivariateNormal,
    autoguide.AutoIAFNormal,
]


@pytest.fixture(autouse=True)
def own_store():
    """No test sees another's parameters or random numbers."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()


def model_and_batch(transition=transitions.PLRNN, trials=2, steps=5, dtype=FLOAT64):
    """Trials of one length: states after the end have no density, which samplers want."""
    offset = "transition.h" if transition is transitions.PLRNN else "transition.b"
    prior = priors.Independent(
        {
            offset: dist.Normal(0.0, 1.0),
            "emission.C": dist.Normal(0.0, 1.0),
            "emission.R": dist.LogNormal(0.0, 0.5),
        }
    )
    parts = fresh(lambda: transition(2)), fresh(lambda: emissions.Gaussian(2, 3))
    y = torch.randn(trials, steps, 3, dtype=dtype)
    batch = make_batch(y, torch.rand(y.shape) > 0.25)
    return StateSpace(*parts, prior=prior).to(dtype), batch


def learn(model, guide, batch, loss, steps=15):
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), loss)
    losses = [svi.step(batch) for _ in range(steps)]
    assert torch.isfinite(torch.tensor(losses)).all()
    return losses


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO])
def test_svi(loss):
    model, batch = model_and_batch()
    start = {n: t.value.detach().clone() for n, t in model.templates.items()}
    guide = autoguide.AutoNormal(model, init_scale=0.01)
    losses = learn(model, guide, batch, loss(), steps=40)
    assert sum(losses[-5:]) < sum(losses[:5])
    store = pyro.get_param_store()
    free = set(model.templates) - {"transition.h", "emission.C", "emission.R"}
    assert free <= set(store.keys())
    # learned values live in the store; the module is as it was
    assert all(torch.equal(t.value, start[n]) for n, t in model.templates.items())
    assert any(not torch.equal(store[n], start[n]) for n in free)


def test_several_particles_at_once_estimate_what_a_loop_does():
    """Two estimates of one bound; within 5 standard errors."""
    model, batch = model_and_batch()
    guide = autoguide.AutoNormal(model, init_scale=0.01)
    guide(batch)
    losses = torch.tensor([Trace_ELBO().loss(model, guide, batch) for _ in range(200)])
    many = Trace_ELBO(num_particles=400, vectorize_particles=True, max_plate_nesting=1)
    error = losses.std() * (1 / 200 + 1 / 400) ** 0.5
    assert abs(many.loss(model, guide, batch) - losses.mean()) < 5 * error


@pytest.mark.parametrize("make", GUIDES, ids=lambda g: g.__name__)
def test_autoguides(make):
    # the networks of that guide are in single precision
    dtype = FLOAT32 if make is autoguide.AutoIAFNormal else FLOAT64
    model, batch = model_and_batch(dtype=dtype)
    guide = make(model)
    learn(model, guide, batch, Trace_ELBO())
    drawn = guide(batch)
    assert drawn["z"].shape == (2, 5, 2)
    assert drawn["emission.C"].shape == (3, 2)
    assert (drawn["emission.R"] > 0).all()


def test_laplace_guide_is_exact_for_a_linear_model():
    """The log joint is quadratic in z: its curvature is that of the exact posterior anywhere."""
    torch.manual_seed(0)
    model = StateSpace(
        transitions.Linear.of(A=[[0.9, 0.2], [-0.2, 0.8]], Q=[0.1, 0.2]),
        emissions.Gaussian.of(C=torch.randn(3, 2), R=[0.5, 1.0, 0.3]),
        initials.Gaussian.of(mean=[1.0, -1.0], covariance=[1.0, 0.5]),
    )
    y = torch.randn(1, 4, 3, dtype=FLOAT64)
    mask = torch.rand(y.shape) > 0.25
    _, mean, sd = dense_posterior(model, torch.where(mask, y, torch.nan)[0].numpy())
    guide, batch = autoguide.AutoLaplaceApproximation(model), make_batch(y, mask)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03, "betas": (0.9, 0.99)}), Trace_ELBO())
    for _ in range(400):
        svi.step(batch)
    found = guide.laplace_approximation(batch)
    variance = found.get_posterior().variance.detach()
    assert_close(variance.sqrt().view(4, 2), torch.tensor(sd), rtol=1e-8)
    assert_close(found.median(batch)["z"][0], torch.tensor(mean), rtol=0, atol=1e-2)


def test_a_prior_on_a_hollow_matrix_keeps_its_diagonal():
    prior = priors.Independent({"transition.W": dist.Normal(0.0, 0.1)})
    model = StateSpace(transitions.PLRNN(3), emissions.Gaussian(3, 3), prior=prior).double()
    batch = ragged_batch(units=3)
    guide = autoguide.AutoNormal(model)
    learn(model, guide, batch, Trace_ELBO())
    assert (guide(batch)["transition.W"].diagonal() == 0).all()


@pytest.mark.parametrize("make", [encoders.MeanField, encoders.BiGRU, encoders.Chain])
def test_encoders_are_guides(make):
    model, batch = model_and_batch()
    prior_guide = autoguide.AutoNormal(poutine.block(model, hide=["z", "y"]))
    states = make(3, 2, hidden=8).double()
    states.initialise(batch, model.emission)

    def guide(batch):
        pyro.module("states", states)
        prior_guide(batch)
        with pyro.plate("trials", batch.trials):
            pyro.sample("z", states.encode(batch))

    losses = learn(model, guide, batch, Trace_ELBO(), steps=40)
    assert sum(losses[-5:]) < sum(losses[:5])


def test_own_guide_in_plain_pyro():
    model, batch = model_and_batch()
    model.prior = None
    guide = Guide(None, encoders.BiGRU(3, 2, hidden=8).double())
    trace = poutine.trace(guide).get_trace(batch)
    replayed = poutine.trace(poutine.replay(model, trace)).get_trace(batch)
    assert torch.equal(replayed.nodes["z"]["value"], trace.nodes["z"]["value"])
    assert torch.isfinite(Trace_ELBO().differentiable_loss(model, guide, batch))


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(parallel):
    model, batch = model_and_batch()
    guide = autoguide.AutoNormal(model)
    guide(batch)
    prior = Predictive(model, num_samples=4, parallel=parallel)(batch)
    posterior = Predictive(
        model, guide=guide, num_samples=4, parallel=parallel, return_sites=("z", "y", "emission.C")
    )(batch)
    for drawn in (prior, posterior):
        assert drawn["z"].shape == (4, 2, 5, 2)
        assert drawn["emission.C"].shape == (4, 1, 3, 2)  # Pyro keeps the plate
        assert drawn["z"][:, 0, 0].unique(dim=0).shape[0] == 4
    assert torch.equal(posterior["y"][0].reshape(2, 5, 3), batch.y)


def test_predictive_density_of_parallel_draws_equals_a_loop():
    model, batch = model_and_batch()
    with pyro.plate("draws", 4, dim=-2):
        together = poutine.trace(model).get_trace(batch)
    together.compute_log_prob()
    names = ("transition.h", "emission.C", "emission.R", "z")
    values = {n: together.nodes[n]["value"] for n in names}
    total = sum(together.nodes[n]["log_prob"] for n in ("z", "y"))  # (4, 2)
    for s in range(4):
        now = {n: v[s] if n == "z" else v[s, 0] for n, v in values.items()}
        one = poutine.trace(poutine.condition(model, now)).get_trace(batch)
        one.compute_log_prob()
        expected = one.nodes["z"]["log_prob"] + one.nodes["y"]["log_prob"]
        torch.testing.assert_close(total[s], expected, rtol=1e-10, atol=1e-12)


def test_nuts():
    model, batch = model_and_batch(transitions.Linear, trials=1)
    kernel = NUTS(model, max_tree_depth=4)
    mcmc = MCMC(kernel, num_samples=20, warmup_steps=20, disable_progbar=True)
    mcmc.run(batch)
    drawn = mcmc.get_samples()
    assert drawn["z"].shape == (20, 1, 5, 2)
    assert drawn["emission.R"].shape == (20, 3)
    assert (drawn["emission.R"] > 0).all()
    assert all(torch.isfinite(v).all() for v in drawn.values())
    assert len(drawn["z"].unique(dim=0)) > 10


def test_conditioning_and_enumerated_handlers():
    model, batch = model_and_batch()
    z = torch.randn(2, 5, 2, dtype=torch.float64)
    conditioned = poutine.condition(model, data={"z": z})
    assert conditioned(batch)[0] is z
    blocked = poutine.trace(poutine.block(model, hide=["z"])).get_trace(batch)
    assert "z" not in blocked.nodes
    lifted = poutine.lift(
        model, prior={"transition.a": dist.Normal(torch.zeros(2).double(), 1.0).to_event(1)}
    )
    site = poutine.trace(lifted).get_trace(batch).nodes["transition.a"]
    assert site["type"] == "sample"


def test_discrete_observations_and_labels():
    for emission in (
        emissions.Bernoulli(2, 3),
        emissions.Categorical(2, 3, 4),
        emissions.NegativeBinomial(2, 3),
    ):
        model = StateSpace(transitions.Gated(2, hidden=4), emission).double()
        batch = ragged_batch(2, 5, y=torch.randint(2, (2, 5, 3)))
        learn(model, autoguide.AutoNormal(model), batch, Trace_ELBO(), steps=5)
        pyro.clear_param_store()


def test_ragged_trials_are_proper_under_any_autoguide():
    """States past the end of a trial are standard normal, so a guide finds scale 1 there."""
    torch.manual_seed(0)
    model = StateSpace(
        transitions.Linear.of(A=[[0.9]], Q=[0.1]), emissions.Gaussian.of(C=[[1.0]], R=[0.5])
    )
    batch = Batch(
        torch.randn(2, 6, 1),
        (torch.arange(6) < torch.tensor([[6], [3]]))[..., None],
        torch.tensor([6, 3]),
    )
    pyro.clear_param_store()
    guide = pyro.infer.autoguide.AutoNormal(model)
    bound = pyro.infer.Trace_ELBO(10, vectorize_particles=True, max_plate_nesting=1)
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), bound)
    for _ in range(400):
        svi.step(batch)
    scale = guide.scales.z.detach()
    pyro.clear_param_store()
    assert ((scale[1, 3:] > 0.7) & (scale[1, 3:] < 1.4)).all()
    assert (scale[1, :3] < 0.7).all()
