"""Long short-term memory with peepholes, whose weights may carry leading dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdyn.nn.linear import broadcast_shapes, matvec

__all__ = ["lstm_jacobian", "lstm_step"]


def lstm_step(z: Tensor, x: Tensor, W: Tensor, p: Tensor) -> Tensor:
    r"""One step of an LSTM whose state z = (h, c) is output and cell.

    i = sigmoid(x_i + W_i h + p_i * c),   f = sigmoid(x_f + W_f h + p_f * c),
    g = tanh(x_g + W_g h),                c' = f * c + i * g,
    o = sigmoid(x_o + W_o h + p_o * c'),  h' = o * tanh(c').

    Shapes: ``z`` (..., 2H), ``x`` (..., 4H) the drive and ``W`` (..., 4H, H) in the order
    (i, f, g, o), ``p`` (..., 3H) in the order (i, f, o) -> (..., 2H).
    Source: Graves (2013), eqs. 7-11; peepholes by Gers, Schraudolph & Schmidhuber (2002); without
    them, torch.nn.LSTMCell.
    """
    _, _, _, out, cell = _units(z, x, W, p)
    return torch.cat(torch.broadcast_tensors(out * cell.tanh(), cell), -1)


def lstm_jacobian(z: Tensor, x: Tensor, W: Tensor, p: Tensor) -> Tensor:
    """dz'/dz of `lstm_step`, (..., 2H, 2H): rows of h', then of c'."""
    i, f, g, o, cell = _units(z, x, W, p)
    W_i, W_f, W_g, W_o = W.chunk(4, -2)
    p_i, p_f, p_o = p.chunk(3, -1)
    c, t = z.chunk(2, -1)[1], cell.tanh()
    by_i, by_f, by_o = g * i * (1 - i), c * f * (1 - f), t * o * (1 - o)
    cell_h = by_i[..., None] * W_i + by_f[..., None] * W_f + (i * (1 - g * g))[..., None] * W_g
    cell_c = f + by_f * p_f + by_i * p_i  # only of the own cell: a diagonal
    through = o * (1 - t * t) + by_o * p_o
    top = _beside(through[..., None] * cell_h + by_o[..., None] * W_o, through * cell_c)
    return torch.cat([top, _beside(cell_h, cell_c)], -2)


def _beside(by_h: Tensor, by_c: Tensor) -> Tensor:
    """[matrix, diagonal] as one matrix (..., H, 2H)."""
    diagonal = torch.diag_embed(by_c)
    lead = broadcast_shapes(by_h.shape, diagonal.shape)
    return torch.cat([by_h.expand(lead), diagonal.expand(lead)], -1)


def _units(z: Tensor, x: Tensor, W: Tensor, p: Tensor) -> tuple[Tensor, ...]:
    """Gates i and f, candidate g, gate o and the new cell."""
    h, c = z.chunk(2, -1)
    a_i, a_f, a_g, a_o = (x + matvec(W, h)).chunk(4, -1)
    p_i, p_f, p_o = p.chunk(3, -1)
    i, f, g = torch.sigmoid(a_i + p_i * c), torch.sigmoid(a_f + p_f * c), torch.tanh(a_g)
    cell = f * c + i * g
    return i, f, g, torch.sigmoid(a_o + p_o * cell), cell
