"""Networks without probability: broadcasting linear algebra and recurrent cells."""

from latentdyn.nn.gru import gru_step
from latentdyn.nn.linear import broadcast_shapes, matvec

__all__ = ["broadcast_shapes", "gru_step", "matvec"]
