"""Posteriors from the path of an optimiser: Langevin dynamics and averaged iterates."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdyn.errors import NonFiniteError
from latentdyn.fit.engine.minibatches import Minibatches
from latentdyn.fit.sampling.density import LogDensity
from latentdyn.posterior.drawn import DrawnGuide

__all__ = ["sgld", "swag"]

FORGET = 0.99  # of squared gradients, as in RMSprop


def sgld(
    density: LogDensity, x: Tensor, data: Minibatches, steps: int, rate: float, draws: int
) -> DrawnGuide:
    r"""Preconditioned stochastic-gradient Langevin dynamics from x, thinned to so many draws.

    x' = x + (rate / 2) G g + N(0, rate G), with g the gradient of the log-density estimated from a
    minibatch and G = 1 / (l + sqrt v), v the running mean of (g / n)^2 over n entries and l its
    mean over parameters. The step is ``rate`` over the number of entries, so that ``rate`` has the
    scale of a learning rate. Source: Li, Chen, Carlson & Carin (2016), algorithm 1.
    """
    n = float(data.batch.mask.sum())
    v, kept = torch.zeros_like(x), []
    every = max(1, steps // draws)
    for step in range(steps):
        g = _gradient(density, x, data)
        v = FORGET * v + (1 - FORGET) * (g / n).square()
        root = (v / (1 - FORGET ** (step + 1))).sqrt()
        G = 1 / (root + root.mean())
        size = rate / n
        x = x + size / 2 * G * g + (size * G).sqrt() * torch.randn_like(x)
        if step % every == every - 1:
            kept.append(x)
    return DrawnGuide(density.values(torch.stack(kept)))


def swag(
    density: LogDensity, x: Tensor, data: Minibatches, steps: int, rate: float, draws: int
) -> DrawnGuide:
    r"""Draws of the Gaussian of a constant-rate optimiser's iterates, half of it their diagonal.

    x = mean + (sd * e_1 + D e_2 / sqrt(k - 1)) / sqrt 2, with D the k deviations of the iterates
    that were kept. Source: Maddox et al. (2019), eq. 1.
    """
    parameter = x.clone().requires_grad_()
    optimiser = torch.optim.Adam([parameter], lr=rate)
    n, kept = float(data.batch.mask.sum()), []
    every = max(1, steps // 40)
    for step in range(steps):
        parameter.grad = -_gradient(density, parameter.detach(), data) / n
        optimiser.step()
        if step % every == every - 1:
            kept.append(parameter.detach().clone())
    iterates = torch.stack(kept)
    mean, deviation = iterates.mean(0), iterates - iterates.mean(0)
    sd = deviation.square().mean(0).sqrt()
    own = sd * torch.randn(draws, len(x), dtype=x.dtype)
    shared = torch.randn(draws, len(kept), dtype=x.dtype) @ deviation / (len(kept) - 1) ** 0.5
    return DrawnGuide(density.values(mean + (own + shared) / 2**0.5))


def _gradient(density: LogDensity, x: Tensor, data: Minibatches) -> Tensor:
    density.batch = data.draw()
    value, g = density.gradient(x)
    if not bool(torch.isfinite(g).all()):
        raise NonFiniteError("gradient", f"the gradient at {value:.4g} is not finite; lower rate")
    return g
