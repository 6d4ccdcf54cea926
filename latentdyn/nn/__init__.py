"""Networks without probability: broadcasting linear algebra and recurrent cells."""

from latentdyn.nn.gru import gru_step
from latentdyn.nn.linear import matvec

__all__ = ["gru_step", "matvec"]
