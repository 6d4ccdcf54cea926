"""Numerical hearts: pure functions of tensors, each with an oracle test."""

from latentdyn.kernels.chain import ChainFactor, chain_factor
from latentdyn.kernels.structured import structured_path

__all__ = ["ChainFactor", "chain_factor", "structured_path"]


def __dir__() -> list[str]:
    return __all__
