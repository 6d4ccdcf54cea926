import numpy as np
import pytest

from latentdyn.data import as_dataset, sunspots


def test_agrees_with_the_copy_in_statsmodels():
    statsmodels = pytest.importorskip("statsmodels.api")
    table = statsmodels.datasets.sunspots.load_pandas().data
    ds = sunspots()
    np.testing.assert_array_equal(ds["time"], table["YEAR"])
    np.testing.assert_array_equal(ds["y"].values[0, :, 0], table["SUNACTIVITY"])
    assert as_dataset(ds).identical(ds)
    assert as_dataset(table)["y"].equals(ds["y"].assign_coords(unit=["SUNACTIVITY"]))
