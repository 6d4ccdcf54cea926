"""Systems with known dynamics, for tests, examples and benchmarks."""

from latentdyn.data.systems import flows
from latentdyn.data.systems.classics import (
    bursting_neuron,
    lorenz63,
    lorenz96,
    rossler,
    van_der_pol,
)
from latentdyn.data.systems.plrnn import plrnn_spikes

__all__ = [
    "bursting_neuron",
    "flows",
    "lorenz63",
    "lorenz96",
    "plrnn_spikes",
    "rossler",
    "van_der_pol",
]


def __dir__() -> list[str]:
    return __all__
