"""Data in: anything scientists hold becomes one xarray Dataset, and then tensors."""

from latentdyn.data import systems
from latentdyn.data.batch import Batch
from latentdyn.data.convert import as_dataset
from latentdyn.data.spikes import bin_spikes
from latentdyn.data.splits import train_test_split
from latentdyn.data.sunspots import sunspots

__all__ = [
    "Batch",
    "as_dataset",
    "bin_spikes",
    "sunspots",
    "systems",
    "train_test_split",
]


def __dir__() -> list[str]:
    return __all__
