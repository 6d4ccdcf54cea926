"""Levels and spreads of units, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentdyn.data.scale import location_scale


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e160])
def test_location_and_scale_of_any_size(size):
    """Squares of the first and the last are no floats; 1e-14 is rounding of 24 numbers."""
    y = size * np.random.default_rng(0).normal(size=(2, 12, 3))
    y[..., 2] = size
    seen = np.random.default_rng(1).random(y.shape) < 0.8
    mean, scale = location_scale(torch.from_numpy(y), torch.from_numpy(seen))
    units = [y[..., d][seen[..., d]] / size for d in range(3)]
    wanted = np.array([u.std() for u in units])
    wanted[2] = np.sqrt(np.square(wanted[:2]).mean())  # it never varies
    np.testing.assert_allclose(mean / size, [u.mean() for u in units], rtol=1e-13)
    np.testing.assert_allclose(scale / size, wanted, rtol=1e-14)
