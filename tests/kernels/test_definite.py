"""Many small inverses against LAPACK."""

from __future__ import annotations

import numpy as np
import pytest

from latentdyn.kernels.definite import inverse


@pytest.mark.parametrize("K", [1, 2, 4, 8, 9])
@pytest.mark.parametrize("n", [3, 5000])
def test_agrees_with_lapack(K, n):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(2, n, K, K))
    x = root @ root.swapaxes(-1, -2) + 0.1 * np.eye(K)
    found, log_det = inverse(x)
    # condition numbers up to 1e3: rounding times that
    np.testing.assert_allclose(found @ x, np.broadcast_to(np.eye(K), x.shape), atol=1e-11)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(x)[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [3, 100])
def test_what_is_not_definite_is_nan(n):
    x = np.broadcast_to(np.diag([1.0, -1.0]), (n, 2, 2)).copy()
    assert np.isnan(inverse(x)[1]).all()
