"""The Kalman smoother against numbers of other programs that statsmodels ships with its tests.

They come from R (KFAS, FKF) and are printed with ten digits or more; models and data are those of
statsmodels/tsa/statespace/tests. KFAS leaves the constant -log(2 pi) / 2 of diffuse observations
out of its log-likelihood, so it is added. Rows: observed time; predictions are one row further.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch

from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.smooth.gaussian.kalman import kalman
from tests.helpers import make_batch

pd = pytest.importorskip("pandas")
statsmodels = pytest.importorskip("statsmodels")

RESULTS = pathlib.Path(statsmodels.__file__).parent / "tsa" / "statespace" / "tests" / "results"
DIGITS = {"rtol": 1e-6, "atol": 1e-8}  # KFAS counts directions as known above 1.5e-8
VAR = {
    "A": [
        [-0.1119908792, 0.8441841604, 0.0238725303],
        [0.2629347724, 0.4996718412, -0.0173023305],
        [-3.2192369082, 4.1536028244, 0.4514379215],
    ],
    "Q": [
        [0.0000640649, 0.0000388496, 0.0002148769],
        [0.0000388496, 0.0000572802, 0.000001555],
        [0.0002148769, 0.000001555, 0.0017088585],
    ],
}
VAR_R = [0.0000640649, 0.0000572802, 0.0017088585]


def table(name):
    """A result file, or a skip where this version of statsmodels does not ship it."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"statsmodels does not ship {path.name}")
    return pd.read_csv(path)


def macro(*names):
    """Columns of the quarterly US macroeconomic data set."""
    from statsmodels.datasets import macrodata

    return macrodata.load_pandas().data[list(names)]


def vague(K):
    """Variance 1e6."""
    return initials.Gaussian.of(np.zeros(K), np.full(K, 1e6))


def smoothed(A, Q, C, R, first, y, b=None, d=None):
    """One trial, (T, D) with NaN."""
    y = torch.as_tensor(np.array(y, dtype=float).reshape(len(y), -1))[None]
    model = StateSpace(
        transitions.Linear.of(A=np.array(A, float), Q=np.array(Q, float), b=b),
        emissions.Gaussian.of(C=np.array(C, float), R=np.array(R, float), d=d),
        first,
    )
    return kalman(model.double(), make_batch(y.nan_to_num(), ~y.isnan()))


def columns(frame, stem, K):
    """Columns stem1, stem2, ... (or stem_1, ...; or stem alone) as an array."""
    names = [f"{stem}{k + 1}" for k in range(K)]
    names = names if names[0] in frame else [f"{stem}_{k + 1}" for k in range(K)]
    return frame[names if names[0] in frame else [stem]].to_numpy()


def same(found, expected, **tolerance):
    """Equal, relative to the largest value."""
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else found
    tolerance = DIGITS | tolerance
    scale = max(1.0, np.nanmax(np.abs(expected)))
    np.testing.assert_allclose(found, expected, tolerance["rtol"], tolerance["atol"] * scale)


def determinants(q, frame):
    """Predicted and smoothed means, and the determinants of their covariances."""
    K = q.mean.shape[-1]
    same(q.predicted.mean[0, 1:], columns(frame, "a", K)[:-1])
    same(torch.linalg.det(q.predicted.covariance[0, 1:]), frame["detP"][:-1])
    same(q.mean[0], columns(frame, "alphahat", K))
    same(torch.linalg.det(q.covariance[0]), frame["detV"])


def holes(obs):
    """Entries that are missing in several of the tests."""
    obs = obs.to_numpy(copy=True)
    obs[:50, 0] = obs[19:70, 1] = obs[39:90, 2] = np.nan
    obs[119:130, 0] = obs[119:130, 2] = np.nan
    return obs


def test_random_walks_with_missing_entries():
    """results_smoothing_R: three random walks, each unit its own missing entries."""
    frame = table("results_smoothing_R")
    obs = holes(macro("realgdp", "realcons", "realinv").diff().iloc[1:])
    q = smoothed(np.eye(3), np.ones(3), np.eye(3), np.ones(3), vague(3), obs)
    np.testing.assert_allclose(float(q.log_evidence), -205310.9767, rtol=1e-9)  # ten digits
    determinants(q, frame)
    v, F = columns(frame, "v", 3), columns(frame, "F", 3)
    same(q.residuals[0], v)
    same(q.standardised_residuals[0], v / np.sqrt(F))


def test_vector_autoregression_with_noise():
    """results_smoothing2_R: covariances around 1e-4 that start at 1e6."""
    frame = table("results_smoothing2_R")
    obs = np.log(macro("realgdp", "realcons", "realinv")).diff().iloc[1:]
    q = smoothed(VAR["A"], VAR["Q"], np.eye(3), VAR_R, vague(3), obs)
    np.testing.assert_allclose(float(q.log_evidence), 1695.34872, rtol=1e-8)
    determinants(q, frame)


def test_autoregression_without_noise():
    """results_smoothing3_R: AR(3) in companion form, R = 0, Q of rank one, eleven steps missing."""
    frame, stata = table("results_smoothing3_R"), table("results_wpi1_ar3_stata")
    y = stata["wpi"].diff().to_numpy(copy=True)
    y[10:21] = np.nan
    P = [
        [1.58276997, 1.24351589, 1.12706975],
        [1.24351589, 1.58276997, 1.24351589],
        [1.12706975, 1.24351589, 1.58276997],
    ]
    A = [[0.5270715, 0.0952613, 0.2580355], [1, 0, 0], [0, 1, 0]]
    first = initials.Gaussian.of(np.zeros(3), np.array(P))
    q = smoothed(A, [0.5307459, 0, 0], [[1, 0, 0]], [0.0], first, y[1:])
    np.testing.assert_allclose(float(q.log_evidence), -130.0310409, rtol=1e-9)
    determinants(q, frame)
    same(q.residuals[0, :, 0], frame["v"])
    same(q.standardised_residuals[0, :, 0], frame["v"] / np.sqrt(frame["F"]))
    # E[noise of the step from t | y] = z_{t+1} - A z_t
    eta = (q.mean[0, 1:] - q.mean[0, :-1] @ torch.tensor(A).double().mT)[:, 0]
    same(eta, frame["etahat"][:-1])


def test_singular_observation_covariance():
    """results_smoothing_generalobscov_R: three random walks, R = X X' of rank two."""
    frame = table("results_smoothing_generalobscov_R")
    obs = macro("realgdp", "realcons", "realinv").diff().iloc[1:]
    X = (np.arange(9).reshape(3, 3) + 1) / 10
    q = smoothed(np.eye(3), np.ones(3), np.eye(3), X @ X.T, vague(3), obs)
    determinants(q, frame)


def test_intercepts():
    """results_intercepts_R: offsets in the transition and in the observations."""
    frame = table("results_intercepts_R")
    obs = macro("realgdp", "realcons", "realinv")
    obs = holes(obs / obs.std())
    b, d = np.array([4.0, 5.0, 6.0]), np.array([1.0, 2.0, 3.0])
    q = smoothed(np.eye(3), np.ones(3), np.eye(3), np.ones(3), vague(3), obs, b=b, d=d)
    np.testing.assert_allclose(float(q.log_evidence), -7924.03893566, rtol=1e-9)
    determinants(q, frame)
    same(q.residuals[0], columns(frame, "v", 3))


# exact diffuse starts


def constants(frame, y):
    """What KFAS leaves out: -log(2 pi) / 2 of each diffuse observation."""
    Finf = columns(frame, "Finf", y.shape[1])[: len(y)]
    return -0.5 * np.log(2 * np.pi) * (np.nan_to_num(Finf) > 1e-12)[~np.isnan(y)].sum()


def exact(name, q, y, *, known=None):
    """Log evidence, and moments from the step on at which all flat states are known."""
    frame, K, T = table(f"results_exact_initial_{name}_R"), q.mean.shape[-1], len(y)
    y = np.reshape(y, (T, -1))
    expected = frame["llf"][0] + constants(frame, y)
    np.testing.assert_allclose(float(q.log_evidence), expected, rtol=1e-9)
    np.testing.assert_allclose(float(q.increments.sum()), expected, rtol=1e-9)
    finite = torch.isfinite(q.predicted.mean[0]).all(-1).numpy()
    Pinf = "Pinf_1" if "Pinf_1" in frame else "sumPinf"
    diffuse = np.isfinite(frame[Pinf].to_numpy()[:T])
    np.testing.assert_array_equal(finite, ~diffuse)
    same(q.predicted.mean[0, finite], columns(frame, "a", K)[:T][finite])
    compare(q.predicted.covariance[0], frame, "P", finite)
    same(q.filtered.mean[0, finite], columns(frame, "att", K)[:T][finite])
    start = slice(known, None)
    same(q.mean[0, start], columns(frame, "alphahat", K)[:T][start])
    compare(q.covariance[0], frame, "V", np.ones(T, bool))


def compare(V, frame, stem, rows):
    """All entries of covariances, or their sums where only these are stored."""
    K = V.shape[-1]
    if f"sum{stem}" in frame:
        same(V.sum((-1, -2))[rows], frame[f"sum{stem}"].to_numpy()[: len(V)][rows])
    else:
        same(V.flatten(-2)[rows], columns(frame, stem, K * K)[: len(V)][rows])


def test_exact_local_level():
    y = np.r_[10.2394, np.ones(9)]
    q = smoothed([[1]], [8.253], [[1]], [1.993], initials.Diffuse(1), y)
    exact("local_level", q, y)
    # Koopman (1997)
    same(q.predicted.mean[0, 1, 0], 10.2394)
    same(q.predicted.variance[0, 1, 0], 1.993 + 8.253)


@pytest.mark.parametrize("missing", [False, True])
def test_exact_local_linear_trend(missing):
    y = np.r_[10.2394, 4.2039, 6.123123, np.ones(7)]
    y[1] = np.nan if missing else y[1]
    q = smoothed([[1, 1], [0, 1]], [8.253, 2.334], [[1, 0]], [1.993], initials.Diffuse(2), y)
    exact("local_linear_trend" + "_missing" * missing, q, y)
    if not missing:  # Koopman (1997)
        same(q.predicted.mean[0, 2], [2 * y[1] - y[0], y[1] - y[0]])


def test_exact_common_level():
    y = np.ones((10, 2))
    y[0] = 10.2394, 8.2304
    C, Q = [[1, 0], [0.1111, 1]], [3.2324, 0]
    q = smoothed(np.eye(2), Q, C, np.ones(2), initials.Diffuse(2), y)
    exact("common_level", q, y)
    same(q.predicted.mean[0, 1], [y[0, 0], y[0, 1] - 0.1111 * y[0, 0]])


def test_exact_common_level_restricted():
    y = np.ones((10, 2))
    y[0] = 10.2394, 8.2304
    q = smoothed([[1]], [3.2324], [[1], [0.1111]], np.ones(2), initials.Diffuse(1), y)
    phi = 1 / (1 + 0.1111**2)  # Koopman (1997), section 5.3
    same(q.predicted.mean[0, 1, 0], phi * (y[0, 0] + 0.1111 * y[0, 1]))
    same(q.predicted.variance[0, 1, 0], phi + 3.2324)


def growth(missing=False):
    """Growth rates of two series, twenty quarters."""
    y = (np.log(macro("realgdp", "realcons")).iloc[:21].diff().iloc[1:] * 400).to_numpy(copy=True)
    if missing:
        y[:5, 0] = y[8:12] = np.nan
    return y


A_VAR, Q_VAR = [[0.5, 0.3], [0.2, 0.4]], [2.0, 3.0]


@pytest.mark.parametrize("missing", [False, True])
def test_exact_vector_autoregression(missing):
    """No observation noise at all, flat start."""
    y = growth(missing)
    q = smoothed(A_VAR, Q_VAR, np.eye(2), np.zeros(2), initials.Diffuse(2), y)
    exact("var1" + "_missing" * missing, q, y)


def test_exact_vector_autoregression_with_measurement_error():
    y = growth()
    q = smoothed(A_VAR, Q_VAR, np.eye(2), [4.0, 5.0], initials.Diffuse(2), y)
    exact("var1_measurement_error", q, y)


def test_exact_dynamic_factor():
    """AR(2) factor; statsmodels distrusts the first means that KFAS gives, so do we."""
    y = growth()
    A, C = [[0.9, 0.1], [1.0, 0.0]], [[0.5, 0], [1.0, 0]]
    q = smoothed(A, [1.0, 0.0], C, [1.5, 2.0], initials.Diffuse(2), y)
    exact("dfm", q, y, known=2)


# Clark (1989): GDP and unemployment, six states, GDP without noise


def clark(y):
    """Parameters of statsmodels' test_representation."""
    s = [0.004863, 0.00668, 0.000295, 0.001518, 0.000306]
    A = np.zeros((6, 6))
    A[[0, 0, 2, 3, 4, 5], [0, 4, 1, 2, 4, 5]] = 1
    A[1, 1:3] = 1.43859, -0.517385
    C = np.array([[1, 1, 0, 0, 0, 0], [0, -0.336789, -0.163511, -0.072012, 0, 1]])
    Q = np.array([s[0], s[1], 0, 0, s[2], s[3]]) ** 2
    P = A @ (100 * np.eye(6)) @ A.T
    q = smoothed(A, Q, C, [0, s[4] ** 2], initials.Gaussian.of(np.zeros(6), P), y)
    return q, A, C, np.diag([0, s[4] ** 2])


def clark_data():
    """Log GDP and the unemployment rate."""
    path = RESULTS / "clark1989.csv"
    if not path.exists():
        pytest.skip(f"statsmodels does not ship {path.name}")
    raw = pd.read_csv(path, header=None).to_numpy(float)[4:]
    return np.column_stack([np.log(raw[:, 0]), raw[:, 1] / 100])


def test_clark_complete():
    """Sum of the Kalman gains (Durbin & Koopman's: with the transition)."""
    frame = table("results_clark1989_R")
    q, A, C, R = clark(clark_data())
    P = q.predicted.covariance[0].numpy()
    gain = A @ P @ C.T @ np.linalg.inv(C @ P @ C.T + R)
    np.testing.assert_allclose(gain.sum((1, 2)), frame["V1"], atol=1e-4)  # as statsmodels


def test_clark_with_missing_unemployment():
    """Evidence as KFAS prints it, predicted states of FKF."""
    frame = table("results_clark1989_R")
    y = clark_data()
    y[-51:, 1] = np.nan
    q = clark(y)[0]
    np.testing.assert_allclose(float(q.log_evidence), 1232.113456, rtol=1e-7)
    expected = frame.iloc[:-1, 1:].to_numpy()
    np.testing.assert_allclose(q.predicted.mean[0, 1:].numpy(), expected, atol=1e-8)
