"""Networks without probability: broadcasting linear algebra and recurrent cells."""

from latentdyn.nn.cayley import cayley, inverse_cayley, skew, strictly_lower
from latentdyn.nn.gru import gru_jacobian, gru_step
from latentdyn.nn.jacobian import jacobian
from latentdyn.nn.linear import BroadcastingLinear, broadcast_shapes, matvec
from latentdyn.nn.lstm import lstm_jacobian, lstm_step
from latentdyn.nn.mut import mut_jacobian, mut_step

__all__ = [
    "BroadcastingLinear",
    "broadcast_shapes",
    "cayley",
    "gru_jacobian",
    "gru_step",
    "inverse_cayley",
    "jacobian",
    "lstm_jacobian",
    "lstm_step",
    "matvec",
    "mut_jacobian",
    "mut_step",
    "skew",
    "strictly_lower",
]


def __dir__() -> list[str]:
    return __all__
