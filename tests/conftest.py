"""One thread: the suite is many small computations, and two pools on two cores fight."""

from __future__ import annotations

import pyro
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Set threads for this process only."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fresh_parameter_store():
    """Tests of plain Pyro keep parameters in Pyro's global store; the next test has none."""
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
