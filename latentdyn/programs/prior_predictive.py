"""Data that the prior expects, before any are seen."""

from __future__ import annotations

from typing import Any

import pyro
import torch

from latentdyn.errors import InputError
from latentdyn.rng import seeded

__all__ = ["prior_predictive"]


@torch.no_grad()
def prior_predictive(
    model: Any,
    draws: int = 100,
    trials: int = 1,
    steps: int = 100,
    inputs: Any = None,
    seed: int | None = None,
) -> Any:
    r"""y, z ~ p(y, z | theta), theta ~ p(theta): Dataset with y (draw, trial, time, unit) and z.

    If these paths look impossible (they explode, they never move), mend the prior before fitting.

    Args:
        model: a program with a prior and `simulate`; parameters without prior keep their values.
        draws: of the parameters.
        trials: for each of them; under a hierarchical prior all are of one new session.
        steps: of each trial.
        inputs: (trials, steps, U) if the model has inputs.
        seed: to have the same draws again.

    Source: Gabry et al. (2019), section 3.

    Example:
        >>> from latentdyn import StateSpace, emissions, priors, transitions
        >>> model = StateSpace(transitions.PLRNN(3), emissions.Gaussian(3, 2),
        ...                    prior=priors.ManifoldAttractor(2))
        >>> dict(prior_predictive(model, draws=5, trials=2, steps=7, seed=0)["y"].sizes)
        {'draw': 5, 'trial': 2, 'time': 7, 'unit': 2}
    """
    if not model.prior.random:
        raise InputError(
            "model", "a program with a prior", "prior=None", "pass prior= to it, or call simulate"
        )
    if draws < 1:
        raise InputError("draws", "a positive integer", draws, "use draws=100, say")
    with seeded(seed):
        with pyro.plate("draws", draws, dim=-2):
            theta = model.draw()  # (S, 1, ...)
        first = torch.zeros(trials, dtype=torch.long, device=model.device)
        theta = model.prior.assign(theta, first, model.templates)
        return model._bind_aligned(theta).simulate(trials, steps, inputs)
