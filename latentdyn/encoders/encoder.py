"""Encoder: an amortised posterior over paths."""

from __future__ import annotations

import abc
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.distributions import Path
from latentdyn.encoders.features import Features

__all__ = ["Encoder", "GaussianHead", "perceptron", "recurrent", "reverse", "within"]


class Encoder(Conditional):
    """q(z_{1:T} | y_{1:T}, u, mask): a conditional whose child is a whole path.

    Called with a `Batch` and the program, returns a `Path` with batch (N,) and event (T, K). One
    that makes use of the program, of its networks or its transition, says so, ``reads_program``: it
    then is given the program bound to the parameters of the moment, in whose leading dimensions are
    draws, and its paths have them too, (..., N). Others are given None or the program as it is.
    """

    obs_dim: int
    features: Features
    reads_program = False

    @abc.abstractmethod
    def forward(self, batch: Batch, program: nn.Module | None = None) -> Path:
        """The posterior over paths, given what the batch shows and the bound program."""

    def initialise(self, batch: Batch, emission: Conditional | None = None) -> None:
        """Standardise with the data's mean and spread."""
        self.features.initialise(batch)

    def follow(
        self, program: nn.Module, batch: Batch, path: Callable[[], Tensor | None] | None = None
    ) -> bool:
        """Start from the posterior under the program as it stands; whether that is known.

        ``path``, called without arguments, gives states (N, T, K) near it, or None.
        """
        return False

    def seen(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """y, zero where missing, inputs, mask, and the length of trials if they differ from T."""
        return batch.y, batch.u, batch.mask, None if batch.idle is None else batch.length

    def encode(self, batch: Batch, program: nn.Module | None = None) -> Path:
        """The posterior over the paths of a batch, of which only valid steps count."""
        path = self(batch, program)
        path.idle = batch.idle
        return path if batch.inside is None else path.scored(batch.inside)


class GaussianHead(nn.Module):
    """Features (..., H) -> loc and scale (..., K), the scale above ``floor``."""

    def __init__(self, size: int, state_dim: int, floor: float = 1e-4, start: float = 0.3):
        super().__init__()
        self.linear = nn.Linear(size, 2 * state_dim)
        self.floor, self.start = floor, start
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scales near ``start``."""
        self.linear.reset_parameters()
        half = self.linear.bias.shape[0] // 2
        with torch.no_grad():
            self.linear.weight[half:].mul_(0.1)
            self.linear.bias[half:].fill_(torch.tensor(self.start).expm1().log())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Loc and scale."""
        loc, raw = self.linear(features).chunk(2, -1)
        return loc, self.floor + nn.functional.softplus(raw)


def perceptron(*sizes: int) -> nn.Sequential:
    """Fully connected layers with SiLU between them."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Linear(wide, narrow), nn.SiLU()]
    return nn.Sequential(*layers)


def within(length: Tensor | None, steps: int) -> Tensor | None:
    """The steps (N, T) before the end of each trial; None if there are no others."""
    if length is None:
        return None
    return torch.arange(steps, device=length.device) < length[:, None]


def recurrent(body: nn.GRU, features: Tensor, length: Tensor | None) -> Tensor:
    """Run a GRU over trials that end at their own length: (N, T, F) -> (N, T, H)."""
    if length is None:
        return body(features)[0]
    packed = pack_padded_sequence(features, length.cpu(), batch_first=True, enforce_sorted=False)
    out, _ = body(packed)
    return pad_packed_sequence(out, batch_first=True, total_length=features.shape[-2])[0]


def reverse(x: Tensor, length: Tensor | None) -> Tensor:
    """Each trial back to front, its padding left behind it: (N, T, F) -> (N, T, F)."""
    if length is None:
        return x.flip(-2)
    T = x.shape[-2]
    back = (length[:, None] - 1 - torch.arange(T, device=x.device)) % T
    return x.gather(-2, back[..., None].expand(x.shape))
