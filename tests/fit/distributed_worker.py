"""One process of a run: prints the gradients of its first step. Not a test by itself."""

from __future__ import annotations

import json
import sys

import torch
from torch import nn

import latentdyn as ld
from latentdyn.data import Batch
from latentdyn.distributions import FactorisedPath
from latentdyn.encoders import Encoder
from latentdyn.encoders.features import Features
from latentdyn.fit.engine.elbo import ELBO
from latentdyn.fit.engine.loop import Run
from latentdyn.fit.engine.minibatches import Minibatches
from latentdyn.fit.engine.training import Training
from latentdyn.guide import Guide


class Certain(FactorisedPath):
    """The mean itself: no noise, so that processes need not share random numbers."""

    def rsample(self, sample_shape=()):
        return self.loc


class Deterministic(Encoder):
    """A linear read-in."""

    def __init__(self, obs_dim: int, state_dim: int):
        super().__init__()
        self.obs_dim, self.state_dim = obs_dim, state_dim
        self.features, self.map = Features(obs_dim), nn.Linear(obs_dim, state_dim)

    def forward(self, batch, program=None):
        y = batch.y
        return Certain(self.map(y), torch.full((), 0.1).expand(*y.shape[:2], self.state_dim))


def main(batch_size: int | None) -> dict[str, list[float]]:
    """Gradients after one step, by name."""
    torch.manual_seed(0)
    model = ld.StateSpace(ld.transitions.PLRNN(2), ld.emissions.Gaussian(2, 3)).double()
    data = Batch.of(model.simulate(trials=7, steps=12, seed=0))
    objective = ELBO(model, Guide(None, Deterministic(3, 2).double()))
    run = Run(
        objective,
        Minibatches(data, batch_size),
        5,
        1e-3,
        Training(progress=False, clip=1e9, ramp=0.0),
    )
    torch.manual_seed(1)
    run.step()
    gradients = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    main_process = run.accelerator.is_main_process
    found = {name: g.flatten().tolist() for name, g in gradients.items()}
    run.accelerator.end_training()  # else gloo's threads may abort the exit
    return found if main_process else {}


if __name__ == "__main__":
    size = None if sys.argv[1] == "all" else int(sys.argv[1])
    found = main(size)
    if found:
        print("GRADIENTS" + json.dumps(found))
