"""The walk of the structured encoder against a plain loop."""

from __future__ import annotations

import torch

from latentdyn.kernels.structured import structured_path
from tests.helpers import FLOAT64, assert_close, fresh, ragged_batch
from tests.registry import ENCODERS


def arguments():
    torch.manual_seed(0)
    N, T, J, K = 2, 4, 3, 2
    shapes = [(N, T, J), (J, K), (J,), (2 * K, J), (2 * K,), (N, T, K)]
    return [torch.randn(*shape, dtype=FLOAT64) for shape in shapes]


def loop(e, W, b, H, c, eps, floor):
    z, path = torch.zeros_like(eps[:, 0]), []
    for t in range(eps.shape[1]):
        loc, raw = (((z @ W.T + b).tanh() + e[:, t]) / 2 @ H.T + c).chunk(2, -1)
        z = loc + (floor + torch.nn.functional.softplus(raw)) * eps[:, t]
        path.append(z)
    return torch.stack(path, 1)


def test_equals_a_loop():
    assert_close(structured_path(*arguments(), 0.1), loop(*arguments(), 0.1))


def test_gradients():
    *inputs, eps = arguments()
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: structured_path(*x, eps, 0.1), inputs)


def test_the_structured_encoder_walks_as_its_conditionals_say():
    path = fresh(ENCODERS["structured"]).encode(ragged_batch())
    torch.manual_seed(0)
    z = path.rsample((2,))
    torch.manual_seed(0)
    eps = torch.randn(2, 3, 7, 3, dtype=FLOAT64)
    first, later = path.conditionals(z)
    white = torch.cat(
        [(z[..., :1, :] - first.mean) / first.stddev, (z[..., 1:, :] - later.mean) / later.stddev],
        -2,
    )
    assert_close(white, eps, rtol=1e-8)
