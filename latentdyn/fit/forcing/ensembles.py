"""Posteriors from the path of an optimiser: Langevin dynamics and averaged iterates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentdyn.errors import NonFiniteError
from latentdyn.fit.engine.minibatches import Minibatches
from latentdyn.fit.forcing.around import AroundMode
from latentdyn.fit.sampling.density import LogDensity
from latentdyn.posterior.drawn_guide import DrawnGuide

__all__ = ["SGLD", "SWAG"]

LEAST = 500  # steps of an ensemble
FORGET = 0.99  # of squared gradients, as in RMSprop


@dataclass(frozen=True)
class SGLD(AroundMode):
    r"""Preconditioned stochastic-gradient Langevin dynamics from the mode, thinned.

    x' = x + (rate / 2) G g + N(0, rate G), with g the gradient of the log-density estimated from a
    minibatch and G = 1 / (l + sqrt v), v the running mean of (g / n)^2 over n entries and l its
    mean over parameters.

    Args:
        draws: of the parameters that are kept.
        rate: of a step, times the number of entries, so that it has the scale of a learning rate; a
            wider walk leaves where the posterior is Gaussian.

    Source: Li, Chen, Carlson & Carin (2016), algorithm 1.
    """

    rate: float = 1e-3

    def find(self, density: LogDensity, data: Minibatches, steps: int) -> DrawnGuide:
        """Draws, over as many steps as the optimisation had."""
        x, n, steps = density.centre, float(data.batch.mask.sum()), max(steps, LEAST)
        v, kept = torch.zeros_like(x), []
        every, size = max(1, steps // self.draws), self.rate / n
        for step in range(steps):
            g = _gradient(density, x, data)
            v = FORGET * v + (1 - FORGET) * (g / n).square()
            root = (v / (1 - FORGET ** (step + 1))).sqrt()
            G = 1 / (root + root.mean())
            x = x + size / 2 * G * g + (size * G).sqrt() * torch.randn_like(x)
            if step % every == every - 1:
                kept.append(x)
        return DrawnGuide(density.values(torch.stack(kept)))


@dataclass(frozen=True)
class SWAG(AroundMode):
    r"""Draws of the Gaussian of a constant-rate optimiser's iterates, half of it their diagonal.

    x = mean + (sd * e_1 + D e_2 / sqrt(k - 1)) / sqrt 2, with D the k deviations of the iterates
    that were kept.

    Args:
        draws: of the parameters that are kept.
        rate: the learning rate; a wider walk leaves where the posterior is Gaussian.

    Source: Maddox et al. (2019), eq. 1.
    """

    rate: float = 1e-4

    def find(self, density: LogDensity, data: Minibatches, steps: int) -> DrawnGuide:
        """Draws, from as many iterates as the optimisation had."""
        parameter = density.centre.clone().requires_grad_()
        optimiser = torch.optim.Adam([parameter], lr=self.rate)
        n, kept, steps = float(data.batch.mask.sum()), [], max(steps, LEAST)
        every = max(1, steps // 40)
        for step in range(steps):
            parameter.grad = -_gradient(density, parameter.detach(), data) / n
            optimiser.step()
            if step % every == every - 1:
                kept.append(parameter.detach().clone())
        iterates = torch.stack(kept)
        mean, deviation = iterates.mean(0), iterates - iterates.mean(0)
        sd = deviation.square().mean(0).sqrt()
        own = sd * torch.randn(self.draws, len(parameter), dtype=parameter.dtype)
        shared = torch.randn(self.draws, len(kept), dtype=parameter.dtype) @ deviation
        both = own + shared / (len(kept) - 1) ** 0.5
        return DrawnGuide(density.values(mean + both / 2**0.5))


def _gradient(density: LogDensity, x: Tensor, data: Minibatches) -> Tensor:
    density.batch = data.draw()
    value, g = density.gradient(x)
    if not bool(torch.isfinite(g).all()):
        raise NonFiniteError("gradient", f"the gradient at {value:.4g} is not finite; lower rate")
    return g
