"""Hidden Markov models: golden files, enumeration, and everything a program has to do."""

from __future__ import annotations

import itertools
import json
import pathlib

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro.infer import Predictive
from torch import nn

import latentdyn as ld
from latentdyn import Conditional, emissions, priors
from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.fit.engine.training import Training
from latentdyn.programs import HMM
from latentdyn.smooth.discrete.hmm import hmm
from tests.helpers import FLOAT64, assert_close, make_batch, ragged_batch

CASES = pathlib.Path(__file__).parents[3] / "shared" / "data" / "reference_cases.json"
golden = pytest.mark.skipif(not CASES.exists(), reason=f"{CASES.name} is not in ../shared/data")
INITIAL = [0.6, 0.4, 0.0]
TRANSITION = [[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.5, 0.0, 0.5]]
MEANS = np.array([[0.0, 0.0], [2.0, -1.0], [-1.0, 1.5]])
COVARIANCES = np.array(
    [[[1.0, 0.3], [0.3, 0.5]], [[0.4, 0.0], [0.0, 0.4]], [[0.8, -0.2], [-0.2, 0.6]]]
)


def case(name):
    return next(c for c in json.loads(CASES.read_text())["cases"] if c["id"] == name)


def known(**changes):
    given = {"initial": INITIAL, "transition": TRANSITION} | changes
    return HMM.of(**given, emission=emissions.StateGaussian.of(MEANS, COVARIANCES))


def enumerated(y, initial=INITIAL, transition=TRANSITION):
    """All paths of one trial (NaN is missing) and their log joint, in numpy."""
    A = np.broadcast_to(transition, (len(y), 3, 3))
    paths = np.array(list(itertools.product(range(3), repeat=len(y))))
    density = np.zeros((len(y), 3))
    for t, k in itertools.product(range(len(y)), range(3)):
        seen = ~np.isnan(y[t])
        if seen.any():
            V = COVARIANCES[k][np.ix_(seen, seen)]
            density[t, k] = scipy.stats.multivariate_normal(MEANS[k][seen], V).logpdf(y[t, seen])
    with np.errstate(divide="ignore"):
        joint = np.log(initial)[paths[:, 0]] + density[0, paths[:, 0]]
        for t in range(1, len(y)):
            joint += np.log(A[t])[paths[:, t - 1], paths[:, t]] + density[t, paths[:, t]]
    return torch.as_tensor(paths), torch.as_tensor(joint)


def observations(trials=3, steps=5):
    """Trials of unequal lengths with missing entries, NaN where there is nothing."""
    torch.manual_seed(4)
    batch = ragged_batch(trials, steps, 2)
    return batch, batch.y.where(batch.mask, torch.nan).numpy()


@golden
def test_golden_gaussian_with_three_states():
    given, wanted = case("hmm_gaussian3")["inputs"], case("hmm_gaussian3")["expected"]
    emission = emissions.StateGaussian.of(given["means"], given["covs"])
    q = hmm(HMM.of(given["initial"], given["transition"], emission), np.array(given["y"]))
    assert_close(q.log_evidence[0], wanted["loglik"], rtol=0, atol=1e-6)
    assert_close(q.probabilities[0], wanted["smoothed_probs"], rtol=0, atol=1e-6)
    assert q.mode[0].tolist() == wanted["viterbi"]
    assert_close(q.mode_log_prob[0], wanted["viterbi_logjoint"], rtol=0, atol=1e-6)


class Volatility(Conditional):
    """y ~ N(0, exp(x_k)) in state k of a grid."""

    state_dim, obs_dim = 400, 1

    def __init__(self, grid):
        super().__init__()
        self.grid = nn.Parameter(grid, requires_grad=False)

    def forward(self, z, u=None):
        return dist.Normal(0.0, (0.5 * z @ self.grid).exp()[..., None]).to_event(1)


@golden
def test_golden_stochastic_volatility_on_a_grid():
    """400 points, +-6 sd: the trapezoid rule is exact to the mass outside, 2e-9 per step."""
    given, wanted = case("sv_gbpusd_exact")["inputs"], case("sv_gbpusd_exact")["expected"]
    mu, phi, sigma = given["mu"], given["phi"], given["sigma"]
    sd = sigma / (1 - phi**2) ** 0.5
    x = torch.linspace(mu - 6 * sd, mu + 6 * sd, 400, dtype=FLOAT64)
    first = dist.Normal(mu, sd).log_prob(x).softmax(-1)
    A = dist.Normal(mu + phi * (x[:, None] - mu), sigma).log_prob(x).softmax(-1)
    q = hmm(HMM.of(first, A, Volatility(x)), np.array(given["y"])[:, None])
    assert_close(q.log_evidence[0], wanted["loglik"], rtol=0, atol=1e-4)
    assert_close((q.filtered[0] @ x), wanted["filtered_mean"], rtol=0, atol=1e-4)


def test_agrees_with_enumeration():
    batch, y = observations()
    q = hmm(known(), batch)
    for n, length in enumerate(batch.length.tolist()):
        paths, joint = enumerated(y[n, :length])
        p = joint.softmax(0)
        hot = nn.functional.one_hot(paths, 3).double()
        assert_close(q.log_evidence[n], joint.logsumexp(0))
        assert_close(q.probabilities[n, :length], torch.einsum("p,pts->ts", p, hot))
        pairs = torch.einsum("p,pti,ptj->tij", p, hot[:, :-1], hot[:, 1:])
        assert_close(q.pairs[n, : length - 1], pairs)
        assert_close(q.filtered[n, length - 1], q.probabilities[n, length - 1])
        assert q.mode[n, :length].tolist() == paths[joint.argmax()].tolist()
        assert_close(q.mode_log_prob[n], joint.max())
        assert_close(q.entropy()[n], torch.special.entr(p).sum())


def test_log_prob_of_paths():
    batch, y = observations()
    q = hmm(known(), batch)
    z = q.sample((7,))
    for n, length in enumerate(batch.length.tolist()):
        _, joint = enumerated(y[n, :length])
        row = (z[:, n, :length] * 3 ** torch.arange(length - 1, -1, -1)).sum(-1)
        assert_close(q.log_prob(z)[:, n], joint.log_softmax(0)[row])
    impossible = torch.full((3, 5), 2)
    assert (q.log_prob(impossible) == -torch.inf).all()


def test_time_varying_transitions():
    """The entry at t leads into step t; the first is not used."""
    torch.manual_seed(0)
    A = torch.randn(5, 3, 3).double().softmax(-1)
    y = torch.randn(5, 2).double().numpy()
    q = hmm(known(transition=A), y)
    paths, joint = enumerated(y, transition=A.numpy())
    assert_close(q.log_evidence[0], joint.logsumexp(0))
    best = paths[joint.argmax()][None]
    assert_close(q.log_prob(best), joint.log_softmax(0).max()[None])
    longer = known(transition=torch.cat([A, A]))
    assert_close(hmm(longer, y).log_evidence, q.log_evidence)
    with pytest.raises(InputError, match="'transition': expected 6 times, got 5"):
        hmm(known(transition=A), np.zeros((6, 2)))


def test_bound_draws():
    """Leading draws: each as if it were bound alone."""
    batch, _ = observations()
    model = HMM(3, emissions.StateGaussian(3, 2)).double()
    torch.manual_seed(0)
    theta = {
        "initial": torch.randn(4, 3).double().softmax(-1),
        "transition": torch.randn(4, 3, 3).double().softmax(-1),
        "emission.means": torch.randn(4, 3, 2).double(),
        "emission.covariances": torch.as_tensor(COVARIANCES) * torch.rand(4, 1, 1, 1).double(),
    }
    q = hmm(model.bind(theta), batch)
    assert q.probabilities.shape == (4, 3, 5, 3)
    assert q.sample((2,)).shape == (2, 4, 3, 5)
    for s in range(4):
        alone = hmm(model.bind({k: v[s] for k, v in theta.items()}), batch)
        for name in ("log_evidence", "probabilities", "pairs", "filtered", "predicted", "mode"):
            assert_close(getattr(q, name)[s], getattr(alone, name))
        assert_close(q.entropy()[s], alone.entropy())
        assert_close(q.log_prob(q.mode)[s], alone.log_prob(alone.mode))
    some = model.bind({"transition": theta["transition"]})
    assert hmm(some, batch).log_evidence.shape == (4, 3)
    data = model.bind(theta).simulate(trials=2, steps=6, seed=0)
    assert dict(data.sizes) == {"draw": 4, "trial": 2, "time": 6, "unit": 2}


@pytest.mark.parametrize(
    ("emission", "inputs"),
    [
        (emissions.Gaussian(3, 2), 0),
        (emissions.Gaussian(3, 2, noise="full"), 0),
        (emissions.Poisson(3, 2, 2), 2),
        (emissions.Bernoulli(3, 2), 0),
        (emissions.Categorical(3, 2, 4), 0),
        (emissions.StudentT(3, 2), 0),
        (emissions.StateGaussian(3, 2, noise="diagonal"), 0),
    ],
)
def test_any_emission_with_its_densities_as_likelihoods(emission, inputs):
    model = HMM(3, emission).double()
    u = torch.randn(2, 6, inputs).double() if inputs else None
    data = model.simulate(2, 6, inputs=u, seed=0)
    batch = Batch.of(data, FLOAT64)
    ll = model.log_likelihood(batch)
    for k in range(3):
        z = nn.functional.one_hot(torch.tensor(k), 3).double().expand(2, 6, 3)
        assert_close(ll[..., k], _per_step(emission(z, u), batch.y))
    model.initialise(batch)
    for name, t in model.templates.items():
        assert t.support.check(t.value).all(), name


def _per_step(child, y):
    each = child.log_prob(y)
    return each.sum(-1) if each.dim() > 2 else each


def test_to_dataset_keeps_coordinates():
    y = np.zeros((2, 4, 2))
    y[1, 3] = np.nan
    data = ld.data.as_dataset(y).assign_coords(time=[0.1, 0.2, 0.3, 0.4], trial=["a", "b"])
    ds = hmm(known(), data).to_dataset()
    assert ds["probabilities"].dims == ("trial", "time", "state")
    assert ds["time"].values.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert ds["trial"].values.tolist() == ["a", "b"]
    assert ds["mode"].shape == (2, 4)


def test_single_precision():
    batch, _ = observations()
    single = hmm(known().float(), batch)
    assert single.probabilities.dtype == single.log_evidence.dtype == torch.float32
    # densities are rounded at 1e-7, relative to values of up to 30
    assert_close(single.probabilities, hmm(known(), batch).probabilities.float(), 1e-4, 1e-5)


def test_long_series_do_not_underflow():
    y = known().simulate(1, 200_000, seed=0)
    q = hmm(known(), y)
    assert torch.isfinite(q.log_evidence).all()
    truth = torch.as_tensor(y["z"].values)
    # a fair share: the best path is right more often than the most frequent state
    assert (q.mode == truth).double().mean() > 0.75
    # calibrated: mean of p(truth) is its own expectation sum p^2, up to 5 standard errors
    p = q.probabilities
    hit = p.gather(-1, truth[..., None])[..., 0] - p.square().sum(-1)
    assert hit.mean().abs() < 5 * hit.std() / 200_000**0.5 * 10**0.5  # steps: about 10 dependent


def test_simulation_has_the_probabilities_of_the_model():
    data = known().simulate(20_000, 3, seed=0)
    z = data["z"].values
    wanted = np.array(INITIAL) @ TRANSITION @ TRANSITION
    share = np.bincount(z[:, 2], minlength=3) / len(z)
    assert np.abs(share - wanted).max() < 4 * 0.5 / len(z) ** 0.5
    y = data["y"].values[z == 1]
    assert np.abs(y.mean(0) - MEANS[1]).max() < 4 * 0.4**0.5 / len(y) ** 0.5


def test_pyro_program():
    """The site y has the evidence as density; a prior is sampled; new data are drawn."""
    batch, _ = observations()
    prior = priors.Independent({"transition": dist.Dirichlet(torch.ones(3))})
    model = HMM(3, emissions.StateGaussian(3, 2), prior=prior).double()
    trace = pyro.poutine.trace(model).get_trace(batch)
    assert {"transition", "y"} <= set(trace.nodes)
    trace.compute_log_prob()
    theta = {n: trace.nodes[n]["value"] for n in ("initial", "transition")}  # brought to sum one
    wanted = hmm(model.bind(theta), batch).log_evidence
    assert_close(trace.nodes["y"]["log_prob"], wanted)
    drawn = Predictive(pyro.poutine.uncondition(model), num_samples=3)(batch)
    assert drawn["y"].shape == (3, 3, 5, 2)
    assert model.prior_predictive(4, 2, 6, seed=0)["y"].shape == (4, 2, 6, 2)
    pyro.clear_param_store()


def test_svi_finds_the_states_and_the_transition():
    data = known(transition=[[0.9, 0.1, 0], [0, 0.9, 0.1], [0.1, 0, 0.9]]).simulate(5, 300, seed=0)
    y = 3 * data["y"]
    torch.manual_seed(0)
    model = HMM(3, emissions.StateGaussian(3, 2))
    post = ld.fit.svi(model, y, steps=200, seed=0, training=Training(progress=False))
    fitted = post.model
    means = torch.as_tensor(3 * MEANS).to(fitted.dtype)  # double: nothing is left to sample
    order = torch.cdist(means, fitted.emission.means).argmin(-1)
    assert sorted(order.tolist()) == [0, 1, 2]
    A = fitted.transition[order][:, order]
    # sd of a proportion of about 500 steps, 0.013, and as much again for unknown states
    assert_close(A, [[0.9, 0.1, 0], [0, 0.9, 0.1], [0.1, 0, 0.9]], rtol=0, atol=5 * 2**0.5 * 0.013)
    assert hmm(fitted, y).log_evidence.sum() > hmm(model, y).log_evidence.sum()
    prior = priors.Independent({"transition": dist.Dirichlet(torch.ones(3))})
    bayes = HMM(3, emissions.StateGaussian(3, 2), prior=prior)
    quick = ld.fit.svi(bayes, y, steps=20, seed=0, training=Training(progress=False))
    assert quick.sample(10)["transition"].shape == (10, 3, 3)


def test_batches_in_single_precision_meet_programs_in_double():
    """As after a fit of a program in single precision, which ends in double."""
    batch, _ = observations()
    single = batch.to(torch.float32)
    rounded = single.to(torch.float64)
    assert_close(known().path_of(single).log_evidence, known().path_of(rounded).log_evidence)
    assert_close(known().log_likelihood(single), known().log_likelihood(rounded))


def test_collapsed_program_has_the_same_evidence():
    batch, _ = observations()
    assert_close(known().collapse(hmm)(batch), hmm(known(), batch).log_evidence)


def test_refusals():
    with pytest.raises(InputError, match="'emission': expected state_dim=3"):
        HMM(3, emissions.Gaussian(2, 2))
    with pytest.raises(InputError, match="add up to one"):
        known(initial=[0.5, 0.4, 0.0])
    with pytest.raises(InputError, match="'transition': expected shape"):
        known(transition=[[0.5, 0.5]])
    with pytest.raises(InputError, match="'y': expected 2 units"):
        hmm(known(), np.zeros((4, 3)))
    with pytest.raises(InputError, match="'model': expected a hidden Markov model"):
        hmm(ld.StateSpace(ld.transitions.Linear(2), emissions.Gaussian(2, 2)), np.zeros((4, 2)))
    with pytest.raises(InputError, match="noise in every direction"):
        emissions.StateGaussian.of([[0.0], [1.0]], [[1.0], [0.0]])


def test_one_state_is_independent_observations():
    emission = emissions.StateGaussian.of([[1.0, 0.0]], [[2.0, 3.0]])
    y = torch.randn(4, 2).double()
    q = hmm(HMM.of([1.0], [[1.0]], emission), make_batch(y[None]))
    wanted = dist.Normal(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 3.0]).sqrt()).log_prob(y)
    assert_close(q.log_evidence[0], wanted.sum(), rtol=1e-6)
    assert_close(q.entropy(), torch.zeros(1).double())
