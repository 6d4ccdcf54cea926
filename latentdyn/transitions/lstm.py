"""Long short-term memory with noise."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from latentdyn.distributions.gaussian import known_noise
from latentdyn.errors import InputError
from latentdyn.nn import lstm_jacobian, lstm_step
from latentdyn.transitions.cell import Cell, orthogonal_blocks
from latentdyn.values import as_float, whole

__all__ = ["LSTM"]


class LSTM(Cell):
    r"""z' ~ N((h', c'), Q): long short-term memory with peepholes p, of drive x = b + B u.

    The state z = (h, c) is the output h of H = K/2 units, then their cells c.

    i = sigmoid(x_i + W_i h + p_i * c),   f = sigmoid(x_f + W_f h + p_f * c),
    g = tanh(x_g + W_g h),                c' = f * c + i * g,
    o = sigmoid(x_o + W_o h + p_o * c'),  h' = o * tanh(c').

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,); ``W`` (4H, H), ``B`` (4H, U),
    ``b`` (4H,) in the order (i, f, g, o), ``p`` (3H,) in the order (i, f, o).
    ``LSTM.of(W=, Q=)`` builds it from known values; noise as in `Linear`, on h and on c. Learning
    starts with orthogonal blocks in W, no peepholes, and forget gates of bias 1.
    Raises `InputError` if ``state_dim`` is odd. Source: Gers, Schraudolph & Schmidhuber (2002)
    in the form of Graves (2013), eqs. 7-11; with p = 0, torch.nn.LSTMCell.

    Example:
        >>> LSTM.of(W=torch.zeros(4, 1), Q=[0.1, 0.1]).step(torch.tensor([0.0, 1.0]).double())
        tensor([0.2311, 0.5000], dtype=torch.float64)
    """

    blocks, driven, over = 4, 4, 2

    def __init__(
        self,
        state_dim: int,
        input_dim: int = 0,
        *,
        noise: str = "diagonal",
        noise_floor: float = 1e-4,
    ):
        if whole("state_dim", state_dim) % 2:
            fix = f"use state_dim={state_dim + 1}: half outputs, half cells"
            raise InputError("state_dim", "an even number", state_dim, fix)
        super().__init__(state_dim, input_dim, noise=noise, noise_floor=noise_floor)
        self.p = nn.Parameter(torch.zeros(3 * self.units))

    def reset_parameters(self) -> None:
        """Orthogonal blocks; forget gates of bias 1 (Jozefowicz et al., 2015, section 5)."""
        H = self.units
        open_forget = torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(H)
        self.start(W=orthogonal_blocks(4, H), b=open_forget)

    @classmethod
    def of(
        cls,
        W: ArrayLike,
        Q: ArrayLike,
        b: ArrayLike | None = None,
        B: ArrayLike | None = None,
        p: ArrayLike | None = None,
    ) -> Self:
        """Known dynamics; offsets, input weights and peepholes left out are zero."""
        W = as_float("W", W)
        Q, noise = known_noise("Q", Q, 2 * W.shape[-1])
        b = W.new_zeros(4 * W.shape[-1]) if b is None else b
        input_dim = 0 if B is None else as_float("B", B).shape[-1]
        return cls(2 * W.shape[-1], input_dim, noise=noise).fix(W=W, Q=Q, b=b, B=B, p=p)

    def step(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """(h', c'), (..., K)."""
        return lstm_step(z, self.drive(u), self.W, self.p)

    def jacobian(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """Derivative of (h', c') in (h, c), (..., K, K)."""
        return lstm_jacobian(z, self.drive(u), self.W, self.p)
