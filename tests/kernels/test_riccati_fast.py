"""The compiled Riccati equations against those in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from latentdyn.kernels import riccati_fast
from latentdyn.kernels.recursion import riccati_backward, riccati_forward

pytest.importorskip("numba", reason="needs the extra 'fast'")


@pytest.mark.parametrize("K", [1, 3, 5])
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("singular", [False, True])
def test_the_same_numbers(K, varying, singular):
    rng = np.random.default_rng(0)
    M, T = 2, 40
    n = T if varying else 1
    A = 0.5 * rng.normal(size=(M, n, K, K))
    rank = max(K - 1, 1) if singular else K
    Q, J, P = (
        root @ root.swapaxes(-1, -2)
        for root in (
            rng.normal(size=(1, 1, K, rank)),
            rng.normal(size=(M, T, K, 1)),
            rng.normal(size=(M, K, rank)),
        )
    )
    # the same operations in another order: rounding of 40 steps
    for mine, numpy in (
        (riccati_fast.forward(P, A, Q, J, T), riccati_forward(P, A, Q, J, T)),
        (riccati_fast.backward(A, Q, J, T), riccati_backward(A, Q, J, T)),
    ):
        for a, b in zip(mine, numpy, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


def test_what_is_not_finite_is_refused():
    eye = np.eye(2)[None, None]
    with pytest.raises(np.linalg.LinAlgError):
        riccati_fast.forward(np.eye(2)[None], eye * np.nan, eye, eye, 3)
