"""The evidence of a linear-Gaussian program by one dense Gaussian: no recursion, numpy only."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

CASES = pathlib.Path(__file__).parents[3] / "shared" / "data" / "reference_cases.json"


def matrices(model: Any) -> dict[str, np.ndarray]:
    """A, b, Q, C, d, R, m, P of a program that does not vary in time."""
    first = model.first().linear_gaussian()
    A, C = model.transition.linear_gaussian(), model.emission.linear_gaussian()
    found = {"A": A.weight, "b": A.offset, "Q": A.covariance, "C": C.weight, "d": C.offset}
    found |= {"R": C.covariance, "m": first.offset, "P": first.covariance}
    return {k: v.detach().numpy()[0] for k, v in found.items()}


def evidence(model: Any, y: np.ndarray) -> float:
    r"""log p(y) of one trial (T, D), NaN where missing; exact diffuse for flat first states.

    With y = X beta + e, beta ~ N(0, kappa I), e ~ N(mean, V):  lim log p(y) + q / 2 log kappa =
    -1/2 (n log 2 pi + log|V| + log|X' V^{-1} X| + r' M r), with
    M = V^{-1} - V^{-1} X (X' V^{-1} X)^{-1} X' V^{-1}.
    """
    k, T = matrices(model), len(y)
    K = len(k["b"])
    flat = np.array(model.first().flat or (False,) * K, dtype=bool)
    powers = [np.linalg.matrix_power(k["A"], t) for t in range(T)]
    H = np.kron(np.eye(T), k["C"])
    walk = np.block(
        [[powers[t - s] if s <= t else np.zeros((K, K)) for s in range(T)] for t in range(T)]
    )
    noise = np.kron(np.eye(T), k["Q"])
    noise[:K, :K] = k["P"]
    shift = np.tile(k["b"], T)
    shift[:K] = k["m"]
    seen = ~np.isnan(y).ravel()
    V = (H @ walk @ noise @ walk.T @ H.T + np.kron(np.eye(T), k["R"]))[np.ix_(seen, seen)]
    r = (y.ravel() - H @ walk @ shift - np.tile(k["d"], T))[seen]
    X = (H @ walk[:, :K])[seen][:, flat]
    inverse = np.linalg.inv(V)
    information = X.T @ inverse @ X
    M = (
        inverse - inverse @ X @ np.linalg.solve(information, X.T @ inverse)
        if flat.any()
        else inverse
    )
    logs = np.linalg.slogdet(V)[1] + (np.linalg.slogdet(information)[1] if flat.any() else 0)
    return float(-0.5 * (seen.sum() * np.log(2 * np.pi) + logs + r @ M @ r))


def case(name: str) -> dict[str, Any]:
    """A reference case, or a skip where the reference data are not there."""
    if not CASES.exists():
        pytest.skip(f"{CASES.name} is not in ../shared/data")
    cases = json.loads(CASES.read_text())["cases"]
    return next(c for c in cases if c["id"] == name)
