"""Linear-Gaussian programs with data, one for each thing that can be special about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentdyn import StateSpace, emissions, initials, transitions
from tests.helpers import make_batch
from tests.oracles import DenseChain


@dataclass
class Case:
    """A program and trials: y (N, T, D) with NaN where missing, lengths and inputs."""

    model: Any
    y: np.ndarray
    length: list[int]
    u: np.ndarray | None

    @property
    def batch(self) -> Any:
        """As a `Batch`."""
        y = torch.as_tensor(np.nan_to_num(self.y))
        u = None if self.u is None else torch.as_tensor(self.u)
        return make_batch(y, torch.as_tensor(~np.isnan(self.y)), self.length, u)

    def dense(self, n: int) -> DenseChain:
        """Oracle of one trial, all T steps: those past the end are missing."""
        return DenseChain(self.model, self.y[n], None if self.u is None else self.u[n])


def covariance(rng: np.random.Generator, dim: int, rank: int | None = None) -> np.ndarray:
    """A random covariance of this rank."""
    root = rng.normal(size=(dim, dim if rank is None else rank))
    return root @ root.T / dim + (0.1 * np.eye(dim) if rank is None else 0)


def _in_time(rng: np.random.Generator, value: np.ndarray, T: int) -> np.ndarray:
    """Another value at each step; covariances stay covariances."""
    scale = rng.uniform(0.5, 1.5, size=T)
    return value * scale.reshape(T, *(1,) * value.ndim)


def build(
    K: int = 3,
    D: int = 2,
    T: int = 5,
    N: int = 3,
    *,
    seed: int = 0,
    missing: float = 0.0,
    lost: tuple[int, ...] = (),
    lengths: list[int] | None = None,
    U: int = 0,
    varying: bool = False,
    full_R: bool = False,
    A: Any = None,
    Q: Any = None,
    R: Any = None,
    P: Any = None,
    flat: Any = None,
) -> Case:
    """A case; whatever is not given is random."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(K, K)) * 0.6 / K**0.5 + 0.3 * np.eye(K) if A is None else np.array(A)
    values = {"A": A, "Q": covariance(rng, K) if Q is None else np.array(Q)}
    values |= {"b": rng.normal(size=K), "B": rng.normal(size=(K, U)) if U else None}
    R0 = covariance(rng, D) if full_R else rng.uniform(0.3, 1, D)
    seen = {"C": rng.normal(size=(D, K)), "R": R0 if R is None else np.array(R)}
    seen |= {"d": rng.normal(size=D), "D": rng.normal(size=(D, U)) if U else None}
    if varying:
        values, seen = (
            {k: None if v is None else _in_time(rng, v, T) for k, v in x.items()}
            for x in (values, seen)
        )
    mean = rng.normal(size=K)
    P = covariance(rng, K) if P is None else np.array(P)
    known = flat is None
    first = initials.Gaussian.of(mean, P) if known else initials.Diffuse.of(flat, mean, P)
    model = StateSpace(transitions.Linear.of(**values), emissions.Gaussian.of(**seen), first)
    y = 2 * rng.normal(size=(N, T, D))
    y[rng.random(y.shape) < missing] = np.nan
    y[:, list(lost)] = np.nan
    length = [T] * N if lengths is None else lengths
    for n, end in enumerate(length):
        y[n, end:] = np.nan
    return Case(model, y, length, rng.normal(size=(N, T, U)) if U else None)


COMPANION = [[0.6, -0.3], [1.0, 0.0]]

CASES = {
    "complete": lambda: build(),
    "complete-long": lambda: build(T=6, K=2),
    "missing": lambda: build(missing=0.3, seed=1),
    "steps-lost": lambda: build(T=6, lost=(0, 3, 5), seed=2),
    "ragged": lambda: build(missing=0.2, lengths=[5, 3, 1], seed=3),
    "inputs": lambda: build(U=2, seed=4),
    "inputs-ragged": lambda: build(U=2, seed=5, missing=0.3, lengths=[5, 2, 4]),
    "varying": lambda: build(varying=True, U=1, seed=6),
    "varying-missing": lambda: build(varying=True, full_R=True, missing=0.3, seed=7),
    "full-R": lambda: build(full_R=True, D=3, seed=8),
    "full-R-missing": lambda: build(full_R=True, D=3, missing=0.4, seed=9),
    "one-step": lambda: build(T=1, seed=10),
    "one-step-full": lambda: build(T=1, full_R=True, missing=0.3, seed=11),
    "scalar": lambda: build(K=1, D=1, T=6, seed=12),
    "many-units": lambda: build(K=2, D=6, T=4, missing=0.2, seed=13),
    "many-states": lambda: build(K=4, D=1, T=5, seed=14),
    "one-trial": lambda: build(N=1, missing=0.2, seed=15),
}
# densities of paths do not exist in these
SINGULAR = {
    "companion": lambda: build(K=2, D=1, A=COMPANION, Q=[0.5, 0.0], T=6, seed=20),
    "companion-missing": lambda: build(K=2, D=1, A=COMPANION, Q=[0.5, 0.0], missing=0.3, seed=21),
    "companion-exact": lambda: build(
        K=2, D=1, A=COMPANION, Q=[0.5, 0.0], R=[0.0], missing=0.2, seed=22
    ),
    "Q-rank-one": lambda: build(Q=covariance(np.random.default_rng(1), 3, 1), seed=23),
    "Q-zero": lambda: build(Q=np.zeros(3), seed=24),
    "P-rank-one": lambda: build(P=covariance(np.random.default_rng(2), 3, 1), seed=25),
    "P-zero": lambda: build(P=np.zeros(3), missing=0.3, seed=26),
    "R-zero-on-one": lambda: build(R=[0.5, 0.0], seed=27),
    "R-zero-on-one-missing": lambda: build(R=[0.0, 0.5], missing=0.3, lengths=[5, 4, 2], seed=28),
    "R-zero": lambda: build(R=[0.0, 0.0], seed=29, U=1),
    "R-zero-one-step": lambda: build(R=[0.0, 0.0], T=1, seed=30),
    "R-zero-one-step-diagonal": lambda: build(Q=np.ones(3), R=[0.0, 0.5], T=1, seed=30),
    "R-rank-one": lambda: build(R=[[1.0, 0.5], [0.5, 0.25]], missing=0.2, seed=31),
    "R-zero-varying": lambda: build(R=[0.0, 0.4], varying=True, missing=0.2, seed=32, U=1),
    "all-singular": lambda: build(
        K=4,
        Q=covariance(np.random.default_rng(3), 4, 2),
        P=covariance(np.random.default_rng(4), 4, 2),
        R=[0.0, 0.5],
        missing=0.2,
        lengths=[5, 5, 3],
        seed=33,
    ),
}
DIFFUSE = {
    "flat": lambda: build(flat=[1, 1, 1], T=6, seed=40),
    "flat-missing": lambda: build(flat=[1, 1, 1], T=6, missing=0.3, seed=41),
    "flat-lost": lambda: build(flat=[1, 1, 1], T=6, lost=(0, 2), lengths=[6, 6, 5], seed=42),
    "flat-scalar": lambda: build(K=1, D=1, flat=[1], seed=43),
    "flat-partly": lambda: build(flat=[0, 1, 0], T=6, missing=0.2, seed=44, U=2),
    "flat-full-R": lambda: build(flat=[1, 0, 1], D=3, full_R=True, missing=0.3, T=6, seed=45),
    "flat-varying": lambda: build(flat=[1, 1, 0], varying=True, T=6, seed=46),
    "flat-Q-rank-one": lambda: build(
        flat=[1, 1, 1], Q=covariance(np.random.default_rng(5), 3, 1), T=6, seed=47
    ),
    "flat-R-zero": lambda: build(flat=[1, 1, 1], R=[0.0, 0.0], T=6, seed=48),
    "flat-R-zero-on-one": lambda: build(
        flat=[1, 1, 0], R=[0.0, 0.6], T=6, missing=0.2, lengths=[6, 5, 6], seed=49, U=1
    ),
    "flat-R-zero-varying": lambda: build(
        flat=[0, 1, 0], R=[0.3, 0.0], T=6, varying=True, missing=0.2, seed=50
    ),
    "flat-companion-exact": lambda: build(
        K=2, D=1, A=COMPANION, Q=[0.5, 0.0], R=[0.0], flat=[1, 1], T=6, seed=51
    ),
    "flat-one-step": lambda: build(K=2, D=2, flat=[1, 1], T=1, seed=52),
    "flat-one-step-exact": lambda: build(K=2, D=2, flat=[1, 1], R=[0.0, 0.0], T=1, seed=53),
}
