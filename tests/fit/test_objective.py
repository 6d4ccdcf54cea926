"""Any objective is driven by the same loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import latentdyn as ld
from latentdyn.data import Batch
from latentdyn.fit.engine.loop import Run
from latentdyn.fit.engine.minibatches import Minibatches
from latentdyn.fit.engine.objective import Objective


class Center(Objective):
    """Half the squared distance to the data, of two numbers in two groups."""

    score = "closeness"

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def losses(self, batch):
        loss = ((batch.y - self.a - self.b) ** 2).sum() * batch.scale / 2
        return {"loss": loss, "closeness": -loss, "ramp": torch.tensor(self.beta)}

    def groups(self):
        return {"left": [self.a], "right": [self.b]}

    def finish(self):
        return float((self.a + self.b).detach())


def test_a_strangers_objective_is_learned_recorded_and_resumed(tmp_path):
    batch = Batch.of(torch.full((4, 5, 1), 3.0))
    training = ld.fit.Training(progress=False, ramp=0.5, checkpoint=tmp_path, evaluations=10)
    objective = Center()
    run = Run(objective, Minibatches(batch, 2), 200, 0.1, training)
    run.go()
    assert objective.finish() == pytest.approx(3, abs=1e-2)
    assert run.progress.history["closeness"][-1] > run.progress.history["closeness"][0]
    assert run.progress.history["ramp"][0] < 1 == run.progress.history["ramp"][-1]
    assert [g["name"] for g in run.optimizer.param_groups] == ["left", "right"]
    again = Run(Center(), Minibatches(batch, 2), 200, 0.1, training)
    again.resume(tmp_path / "chain0")
    assert again.objective.finish() == objective.finish()


def test_a_loss_that_is_not_finite_stops_at_the_last_good_state():
    class Lost(Center):
        def losses(self, batch):
            found = super().losses(batch)
            late = bool(self.a > 0.5)
            return found | {"loss": found["loss"] * (torch.nan if late else 1)}

    objective = Lost()
    batch = Batch.of(torch.full((4, 5, 1), 3.0))
    run = Run(objective, Minibatches(batch), 50, 0.1, ld.fit.Training(progress=False))
    with pytest.raises(ld.NonFiniteError, match="gradient of 'a'"):
        run.go()
    assert 0 < objective.finish() < 3
