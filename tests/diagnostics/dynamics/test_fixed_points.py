"""Fixed points against closed forms and against every region tried one by one in numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentdyn as ld
from latentdyn.conditional import Conditional
from latentdyn.diagnostics.dynamics.equilibria import Search
from latentdyn.diagnostics.dynamics.fixed_points import fixed_points
from latentdyn.diagnostics.dynamics.kinds import kinds
from latentdyn.errors import InputError
from latentdyn.kernels.hinges import Hinges
from latentdyn.transitions.piecewise import PiecewiseLinear
from tests import fitted
from tests.diagnostics.dynamics.systems import Henon, Lorenz63, bound, posterior

BISTABLE = {"a": [0.5, 0.5], "W": [[0.0, -1.0], [-1.0, 0.0]], "h": [1.0, 1.0]}


def plrnn(a, W, h):
    return ld.transitions.PLRNN.of(a=a, W=W, h=h, Q=np.ones(len(h)))


def random_plrnns(S, K, seed=0):
    rng = np.random.default_rng(seed)
    W = 1.5 * rng.standard_normal((S, K, K)) * (1 - np.eye(K))
    return {
        "a": rng.uniform(0.3, 0.9, (S, K)),
        "W": W,
        "h": rng.standard_normal((S, K)),
    }


def by_hand(a, W, h):
    """Every region in turn: fixed points (P, K) and the largest |eigenvalue| of each."""
    found, largest = [], []
    for bits in itertools.product([0, 1], repeat=len(h)):
        J = np.diag(a) + W * np.array(bits)
        z = np.linalg.solve(np.eye(len(h)) - J, h)
        if ((z > 0) == np.array(bits, bool)).all():
            found.append(z)
            largest.append(np.abs(np.linalg.eigvals(J)).max())
    return np.array(found).reshape(-1, len(h)), np.array(largest)


def points(ds, s):
    there = ds["found"].values[0, s]
    return ds["z"].values[0, s][there]


def ordered(z):
    return z[np.lexsort(z.round(6).T)]


@pytest.mark.parametrize("method", ["exhaustive", "scyfi", "newton"])
@pytest.mark.parametrize("K", [2, 3, 4])
def test_all_are_found(K, method):
    """12 random networks; each fixed point, each stability, nothing else."""
    draws = random_plrnns(12, K)
    ds = fixed_points(bound(ld.transitions.PLRNN(K), **draws), search=Search(method=method))
    several = 0
    for s in range(12):
        z, largest = by_hand(*(draws[n][s] for n in "aWh"))
        several = max(several, len(z))
        np.testing.assert_allclose(ordered(points(ds, s)), ordered(z), atol=1e-7)
        there = ds["found"].values[0, s]
        moduli = np.abs(ds["eigenvalues"].values[0, s][there]).max(-1)
        np.testing.assert_allclose(np.sort(moduli), np.sort(largest), atol=1e-7)
        stable = ds["stable"].values[0, s]
        np.testing.assert_array_equal(stable[there], moduli < 1)
        assert np.isnan(stable[~there]).all()
    assert several >= 2


def test_closed_form():
    """Two winners and the balance between them: z = (2, -2), (-2, 2), (2/3, 2/3)."""
    ds = fixed_points(plrnn(**BISTABLE)).isel(chain=0, draw=0)
    places = {tuple(np.round(z, 9)): i for i, z in enumerate(ds["z"].values)}
    expected = [(2.0, -2.0), (-2.0, 2.0), (2 / 3, 2 / 3)]
    assert set(places) == {tuple(np.round(z, 9)) for z in expected}
    saddle = places[tuple(np.round(expected[2], 9))]
    np.testing.assert_allclose(np.sort(ds["eigenvalues"].values[saddle].real), [-0.5, 1.5])
    assert ds["kind"].values[saddle] == "saddle"
    assert ds["stable"].values[saddle] == 0
    assert ds["stability_probability"].values.tolist().count(1.0) == 2
    assert ds["z"].dims == ("point", "state")


def test_stability_uses_the_whole_jacobian():
    """diag(a) alone would call it stable, and a vector taken for a matrix would change it."""
    ds = fixed_points(
        plrnn([0.5, 0.5], [[0, 1.0], [1.0, 0]], [-0.5, -0.5]), search=Search(method="scyfi")
    )
    kind = {
        tuple(np.round(z, 6)): k
        for z, k in zip(ds["z"].values[0, 0], ds["kind"].values[0, 0], strict=True)
    }
    assert kind[(-1.0, -1.0)] == "stable node"
    assert kind[(1.0, 1.0)] == "saddle"


class Staircase(PiecewiseLinear):
    """z' = z + slope * zigzag(z): fixed points a given distance apart, on one state."""

    def __init__(self, gap: float, number: int):
        super().__init__()
        self.state_dim, self.input_dim, self.noise = 1, 0, "diagonal"
        kinks = gap * (torch.arange(number) + 0.5).double()
        self.register_buffer("kinks_at", kinks)
        self.register_buffer("Q", torch.ones(1).double())
        self.slope = 0.5

    def hinges(self, u=None):
        number = len(self.kinks_at)
        signs = self.slope * 2 * (-1.0) ** (torch.arange(number) + 1)
        one = torch.ones(1).double()
        V = torch.ones(number, 1).double()
        return Hinges(one + self.slope, signs[None].double(), 0 * one, V, -self.kinks_at)


@pytest.mark.parametrize("method", ["exhaustive", "scyfi"])
def test_close_neighbours_are_two_points(method):
    """0.004 apart: rounded to two decimals they would be one."""
    gap = 0.004
    ds = fixed_points(
        Staircase(gap, 6), search=Search(method=method, start=np.linspace(-0.01, 0.03, 50)[:, None])
    )
    np.testing.assert_allclose(np.sort(points(ds, 0)[:, 0]), gap * np.arange(7), atol=1e-9)


class Shallow(PiecewiseLinear):
    """z' = a z + W relu(V z + w) + h with many hidden units."""

    def __init__(self, a, W, V, w, h):
        super().__init__()
        self.state_dim, self.input_dim, self.noise = len(h), 0, "diagonal"
        for name, value in {"a": a, "W": W, "V": V, "w": w, "h": h, "Q": np.ones(len(h))}.items():
            self.register_parameter(
                name, torch.nn.Parameter(torch.as_tensor(value), requires_grad=False)
            )

    def hinges(self, u=None):
        return Hinges(self.a, self.W, self.h, self.V, self.w)


def cells_by_hand(m):
    """Of two states: every cell of the arrangement of lines, by points around their crossings."""
    V, w = m.V.numpy(), m.w.numpy()
    found = []
    probes = [np.random.default_rng(0).uniform(-50, 50, (2000, 2))]
    for i, j in itertools.combinations(range(len(w)), 2):
        cross = np.linalg.solve(V[[i, j]], -w[[i, j]])
        turn = np.linspace(0, 2 * np.pi, 16, endpoint=False) + 0.1
        probes.append(cross + 1e-6 * np.stack([np.cos(turn), np.sin(turn)], -1))
    regions = np.unique(np.concatenate(probes) @ V.T + w > 0, axis=0)
    for bits in regions:
        J = np.diag(m.a.numpy()) + (m.W.numpy() * bits) @ V
        c = m.h.numpy() + (m.W.numpy() * bits) @ w
        z = np.linalg.solve(np.eye(2) - J, c)
        if ((V @ z + w > 0) == bits).all():
            found.append(z)
    return np.array(found).reshape(-1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_shallow_networks_with_too_many_regions_to_try(seed):
    """40 hidden units: 2^40 patterns, of which 821 exist."""
    rng = np.random.default_rng(seed)
    W, V = 0.5 * rng.standard_normal((2, 40)), rng.standard_normal((40, 2))
    m = Shallow(np.full(2, 0.5), W, V, 2 * rng.standard_normal(40), 0.3 * rng.standard_normal(2))
    ds = fixed_points(m, search=Search(start=10 * rng.standard_normal((300, 2))))
    assert ds.attrs["method"] == "scyfi"
    np.testing.assert_allclose(ordered(points(ds, 0)), ordered(cells_by_hand(m)), atol=1e-6)


def test_more_than_53_kinks():
    """A region number in double precision would lose the last units."""
    K = 60
    a = np.full(K, 0.5)
    h = np.where(np.arange(K) % 3 == 0, -1.0, 1.0)
    W = np.zeros((K, K))
    W[0, K - 1] = 0.25
    ds = fixed_points(plrnn(a, W, h))
    expected = 2 * h
    expected[0] += 0.25 * 2 * h[K - 1] / 0.5
    np.testing.assert_allclose(points(ds, 0), expected[None], atol=1e-9)


def test_a_point_on_a_kink_counts_once():
    ds = fixed_points(plrnn([0.5, 0.5], [[0, 0.3], [0.2, 0]], [0.0, 0.0]))
    np.testing.assert_allclose(points(ds, 0), [[0, 0]], atol=1e-12)


def test_no_fixed_point():
    ds = fixed_points(plrnn([1.0], [[0.0]], [1.0]))
    assert ds.sizes["point"] == 0
    assert ds["probability"].shape == (0,)


def test_henon():
    b, a = 0.3, np.array([1.4, 1.0, 0.8])
    ds = fixed_points(bound(Henon(), a=a))
    assert ds.attrs["method"] == "newton"
    root = np.sqrt((1 - b) ** 2 + 4 * a)
    for sign in (1, -1):
        x = (-(1 - b) + sign * root) / (2 * a)
        z = np.stack([x, b * x], -1)
        gap = np.abs(ds["z"].values[0] - z[:, None]).max(-1)  # (draw, point)
        assert np.isfinite(gap).all()
        assert len(set(gap.argmin(1))) == 1  # the same number in all draws
        assert gap.min(1).max() < 1e-7
    J = np.array([[-2 * 1.4 * ds["z"].values[0, 0, 0, 0], 1], [b, 0]])
    expected = np.linalg.eigvals(J)
    np.testing.assert_allclose(
        ds["eigenvalues"].values[0, 0, 0], expected[np.argsort(-np.abs(expected))], rtol=1e-6
    )


def test_lorenz_equilibria_and_their_kinds():
    """0 is a saddle; C+- = (+-sqrt(beta (rho - 1)), ., rho - 1) turn stable below rho = 24.74."""
    rho = torch.tensor([28.0, 27.0, 20.0]).double()
    ds = fixed_points(bound(Lorenz63(), rho=rho))
    assert ds.sizes["point"] == 3
    np.testing.assert_array_equal(ds["probability"], 1.0)
    np.testing.assert_allclose(np.sort(ds["stability_probability"]), [0, 1 / 3, 1 / 3])
    for s in range(3):
        height = rho[s].item() - 1
        r = np.sqrt(8 / 3 * height)
        expected = np.array([[-r, -r, height], [0, 0, 0], [r, r, height]])
        np.testing.assert_allclose(ordered(points(ds, s)), ordered(expected), atol=1e-6)
    which = int(np.abs(ds["z"].values[0, 0]).sum(-1).argmin())
    assert (ds["kind"][0, :, which] == "saddle").all()
    assert (ds["kind"][0, 2].values == "stable focus").sum() == 2


def test_more_points_than_asked_for_are_said():
    ds = fixed_points(Staircase(1.0, 12), search=Search(max_points=7))
    assert (ds.sizes["point"], ds.attrs["more"]) == (7, 1)


class Saturating(Conditional):
    """z' = z + 0.1 tanh(z - 1) exp(-z^2): far out nothing moves in double precision."""

    state_dim, input_dim = 1, 0

    def forward(self, z, u=None):
        return dist.Normal(z + 0.1 * (z - 1).tanh() * (-(z**2)).exp(), 0.1).to_event(1)


def test_places_where_a_map_fades_are_no_fixed_points():
    ds = fixed_points(Saturating(), search=Search(start=np.linspace(-20, 20, 100)[:, None]))
    np.testing.assert_allclose(points(ds, 0), [[1.0]], atol=1e-6)


def test_draws_are_matched_although_some_lack_points():
    """Monostable for small h: the first winner and the saddle are there in half of the draws."""
    S = 10
    rng = np.random.default_rng(1)
    h = np.array([0.6, 1.0]) + 0.01 * rng.standard_normal((S, 2))
    h[5:, 0] = 0.45  # the first can win no more
    draws = {k: np.broadcast_to(BISTABLE[k], (S, *np.shape(BISTABLE[k]))).copy() for k in "aW"}
    ds = fixed_points(bound(ld.transitions.PLRNN(2), h=h, **draws))
    assert sorted(ds["probability"].values.tolist()) == [0.5, 0.5, 1.0]
    everywhere = int(ds["probability"].values.argmax())
    assert everywhere == 0
    z = ds["z"].isel(chain=0, point=0).values
    assert (z[:, 1] > 0).all()
    assert (z[:, 0] < 0).all()
    assert set(ds["kind"].values[0, 5:, 1:].ravel()) == {""}


def test_a_posterior_with_an_emission():
    """`observed` is the emission's mean, in the names of the data's units; chains meet by it."""
    S = 4
    draws = {
        k: torch.as_tensor(v).double().expand(2 * S, *np.shape(v)).clone()
        for k, v in BISTABLE.items()
    }
    C = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, -1.0]]).double().expand(2 * S, 3, 2).clone()
    # the second chain has its states in the other order
    C[S:] = C[S:].flip(-1)
    draws["h"] = draws["h"] + torch.tensor([0.2, 0.0]).double()
    draws["h"][S:] = draws["h"][S:].flip(-1)
    post = posterior(
        ld.transitions.PLRNN(2),
        ld.emissions.Gaussian(2, 3),
        chains=2,
        emission__C=C,
        **{f"transition__{k}": v for k, v in draws.items()},
    )
    ds = fixed_points(post, draws=S)
    assert dict(ds.sizes) == {"chain": 2, "draw": S, "point": 3, "state": 2, "unit": 3}
    np.testing.assert_allclose(
        ds["observed"][0],
        np.einsum("dk,spk->spd", C[0].numpy(), ds["z"][0]) + 0.0,
        atol=1e-9,
    )
    np.testing.assert_allclose(ds["observed"][0], ds["observed"][1], atol=1e-9)
    np.testing.assert_allclose(ds["z"][0], ds["z"][1][..., ::-1], atol=1e-9)


def test_of_a_fit():
    ds = fixed_points(fitted.counts(), draws=5)
    assert ds.sizes["chain"] == 2
    assert ds["observed"].dims == ("chain", "draw", "point", "unit")
    again = fixed_points(fitted.counts(), draws=5)
    assert ds.identical(again)


def test_constant_inputs_move_the_points():
    still = ld.transitions.Linear.of(A=[[0.5]], B=[[2.0]], Q=[1.0])
    np.testing.assert_allclose(fixed_points(still)["z"].item(), 0, atol=1e-12)
    np.testing.assert_allclose(fixed_points(still, u=[3.0])["z"].item(), 12)
    bent = ld.transitions.PLRNN.of(a=[0.5], W=[[0.0]], h=[0.0], B=[[2.0]], Q=[1.0])
    np.testing.assert_allclose(fixed_points(bent, u=[3.0])["z"].item(), 12)


def test_kinds():
    values = np.array([[0.5, 0.2], [2.0, 1.5], [2.0, 0.5], [1.5j, -1.5j], [1.0, 0.0], [np.nan] * 2])
    expected = ["stable node", "unstable node", "saddle", "unstable focus", "marginal", ""]
    assert kinds(values).tolist() == expected


def test_wrong_inputs():
    with pytest.raises(InputError, match="method"):
        fixed_points(Henon(), search=Search(method="exhaustive"))
    with pytest.raises(InputError, match="method"):
        fixed_points(plrnn(**BISTABLE), search=Search(method="guess"))
    with pytest.raises(InputError, match="max_regions"):
        fixed_points(plrnn(**BISTABLE), search=Search(method="exhaustive", max_regions=3))
    with pytest.raises(InputError, match="start"):
        fixed_points(Henon(), search=Search(start=[1.0, 2.0]))
    with pytest.raises(InputError, match="source"):
        fixed_points(3)
    with pytest.raises(InputError, match=r"'starts'.*pass search=diagnostics.Search\(starts=...\)"):
        fixed_points(Henon(), starts=3)
