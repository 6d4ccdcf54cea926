"""Amortised posteriors over paths: q(z_{1:T} | y_{1:T}, u, mask)."""

from latentdyn.encoders.bigru import BiGRU
from latentdyn.encoders.chain import Chain
from latentdyn.encoders.encoder import Encoder
from latentdyn.encoders.mean_field import MeanField
from latentdyn.encoders.structured import Structured

__all__ = ["BiGRU", "Chain", "Encoder", "MeanField", "Structured"]


def __dir__() -> list[str]:
    return __all__
