"""The training loop: thin, over accelerate, so that it runs on one device or many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from latentdyn.data import Batch
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.fit.engine.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from latentdyn.fit.engine.failures import LINALG, name_entry, not_definite
from latentdyn.fit.engine.minibatches import Minibatches
from latentdyn.fit.engine.objective import Objective
from latentdyn.fit.engine.training import Progress, Training, rise

__all__ = ["Run", "attempt", "restart"]


class Run:
    """One optimisation of an `Objective`: steps, evaluations, early stopping, checkpoints.

    Args:
        objective: what is learned; it holds the result afterwards.
        data: minibatches.
        steps: how many.
        learning_rate: at the start; it falls along a half cosine to a hundredth of it
            (`Training.warmup` says how long it rises before).
        training: further settings.
        validate: called with the objective, the mean log-probability of held-out entries.
        callbacks: called with a `Progress` at every evaluation; returning ``"stop"`` stops.
        given: the data in the caller's units, of which errors speak; by default those of ``data``.
    """

    def __init__(
        self,
        objective: Objective,
        data: Minibatches,
        steps: int,
        learning_rate: float,
        training: Training,
        validate: Callable[[Any], float] | None = None,
        callbacks: Sequence[Callable[[Progress], Any]] = (),
        given: Batch | None = None,
    ):
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(kwargs_handlers=[unused])
        self.objective, self.data, self.steps, self.training = objective, data, steps, training
        self.validate, self.callbacks, self.progress = validate, callbacks, Progress()
        self.given = data.batch if given is None else given
        groups = [{"params": p, "name": name} for name, p in objective.groups().items()]
        optimizer = training.optimizer(groups, lr=learning_rate)
        self.learning_rate = learning_rate
        self.module, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.device = self.accelerator.device
        self.entries = max(float(data.batch.mask.sum()), 1.0)
        self.good = self.older = self.snapshot()

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of everything learned so far."""
        return {k: v.detach().clone() for k, v in self.objective.state_dict().items()}

    def resume(self, folder: Path | str) -> None:
        """Continue exactly where the checkpoint stands."""
        state = self.objective, self.optimizer, self.progress
        self.good, data = load_checkpoint(folder, *state, self.fit)
        self.data.restore(data)

    @cached_property
    def fit(self) -> dict[str, str]:
        """Of which data and settings this is."""
        names = ("particles", "ramp", "warmup", "clip", "context", "patience")
        settings = {name: vars(self.training)[name] for name in names}
        settings |= {"steps": self.steps, "learning_rate": self.learning_rate}
        settings |= {name: vars(self.data)[name] for name in ("size", "window")}
        settings["optimizer"] = type(self.optimizer.optimizer).__name__
        return fingerprint(self.data.batch, self.objective, **settings)

    def beta(self, step: int) -> float:
        """Weight of the divergences at a step."""
        ramp = self.training.ramp * self.steps
        return 1.0 if ramp == 0 else min(1.0, (step + 1) / ramp)

    def rate(self, step: int) -> float:
        """The learning rate at a step."""
        warmup = self.training.warmup * self.steps
        rise = 1.0 if warmup == 0 else min(1.0, (step + 1) / warmup)
        fall = (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.learning_rate * rise * (0.01 + 0.99 * fall)

    def go(self) -> Progress:
        """Run to the end, to an early stop, or to Ctrl-C, which keeps what is fitted so far."""
        every = max(1, math.ceil(self.steps / self.training.evaluations))
        show = self.training.progress and self.accelerator.is_main_process
        quiet: dict[str, Any] = {} if show else {"disable": True}  # else TQDM_DISABLE decides
        bar = tqdm(total=self.steps, initial=self.progress.step, desc="fit", **quiet)
        self.objective.train()
        try:
            while self.progress.step < self.steps and not self.progress.stop:
                parts = self.step()
                bar.update()
                if self.progress.step % every == 0 or self.progress.step == self.steps:
                    self.evaluate(parts)
                    name = self.objective.score
                    bar.set_postfix({name: f"{self.progress.history[name][-1]:.4g}"})
            still = rise(self.progress.history.get(self.objective.score, []))
            if still is not None and still.goes_on:
                bar.set_postfix_str(f"still rising, by {still.nats:.3g} nats: raise 'steps'")
        except KeyboardInterrupt:
            self.progress.interrupted = True
            bar.set_postfix_str("interrupted: keeping the fit so far")
        except (*LINALG, InputError, NonFiniteError) as error:
            self._fall_back()
            if isinstance(error, LINALG):
                raise not_definite(self.given) from error
            if isinstance(error, NonFiniteError):
                name_entry(error, self.given)
            raise
        finally:
            bar.close()
            self.objective.eval()
        if self.training.patience is not None and self.progress.history:
            self.objective.load_state_dict(self.good)
        return self.progress

    def step(self) -> dict[str, Tensor]:
        """One gradient step on one minibatch."""
        step = self.progress.step
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        world = self.accelerator.num_processes
        batch = self.data.draw(self.accelerator.process_index, world).to(device=self.device)
        self.objective.beta = self.beta(step)
        parts = self.module(batch)
        self.optimizer.zero_grad()
        self.accelerator.backward(parts["loss"] / self.entries)
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), self.training.clip)
        if norm is not None and not bool(torch.isfinite(norm)):
            raise NonFiniteError(*_gradient_error(self.objective))
        self.optimizer.step()
        self.progress.step += 1
        return parts

    def evaluate(self, parts: dict[str, Tensor]) -> None:
        """Record, keep the best or last good state, checkpoint, ask the callbacks."""
        progress, training = self.progress, self.training
        values = {k: float(v.detach()) for k, v in parts.items() if k != "loss"}
        values |= {
            "step": progress.step,
            "beta": self.beta(progress.step - 1),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        score = values[self.objective.score]
        if self.validate is not None:
            score = values["validation"] = self.validate(self.objective.eval())
            self.objective.train()
        progress.record(**values)
        if training.patience is None:
            self.older, self.good = self.good, self.snapshot()
        elif self.beta(progress.step) == 1.0:
            self._judge(score)
        if training.checkpoint is not None and self.accelerator.is_main_process:
            folder = Path(training.checkpoint) / f"chain{progress.chain}"
            state = self.objective, self.good, self.optimizer, progress
            save_checkpoint(folder, *state, self.fit, self.data.state())
        if any([callback(progress) == "stop" for callback in self.callbacks]):
            progress.stop = True

    def _fall_back(self) -> None:
        """The last snapshot, or the one before it, after which there was a finite loss."""
        self.objective.load_state_dict(self.good)
        try:
            with torch.no_grad():
                self.objective(self.data.draw().to(device=self.device))
        except (*LINALG, InputError, NonFiniteError):
            self.objective.load_state_dict(self.older)

    def _judge(self, score: float) -> None:
        if score > self.progress.best:
            self.progress.best, self.progress.stale, self.good = score, 0, self.snapshot()
        else:
            self.progress.stale += 1
            self.progress.stop = self.progress.stale >= (self.training.patience or 0)


def _gradient_error(objective: Objective) -> tuple[str, str]:
    bad = (n for n, p in objective.named_parameters() if p.grad is not None and _lost(p.grad))
    site = next((objective.site_of(name) for name in bad), None)
    fix = "lower 'learning_rate'"
    if site is None:
        return "gradient", f"the gradient is not finite; {fix}"
    return site, f"the gradient of '{site}' is not finite; {fix} or raise the noise floor"


def _lost(x: Tensor) -> bool:
    return not bool(torch.isfinite(x).all())


def attempt(run: Run) -> NonFiniteError | InputError | None:
    """Run to the end; what stopped it half-way, if anything did."""
    try:
        run.go()
    except NonFiniteError as error:
        return error
    except InputError as error:
        if not run.progress.step:
            raise  # an argument does not fit: nothing was learned
        return error
    return None


def restart(module: nn.Module | None) -> None:
    """Other random starting values, where modules say how."""
    parts: Any = [] if module is None else module.modules()
    for part in parts:
        reset: Any = getattr(part, "reset_parameters", None)
        if reset is not None and any(p.requires_grad for p in part.parameters(recurse=False)):
            reset()
