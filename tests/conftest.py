"""One thread: the suite is many small computations, and two pools on two cores fight."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Set threads for this process only."""
    torch.set_num_threads(1)
