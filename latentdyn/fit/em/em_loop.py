"""The loop of expectation maximisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from numpy.linalg import LinAlgError
from tqdm.auto import tqdm

from latentdyn.data import Batch
from latentdyn.distributions import DiscretePath
from latentdyn.distributions.particles import ParticlePath
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.fit.em.em_speed import Leaps, left
from latentdyn.fit.em.expectations import Expectations
from latentdyn.fit.em.m_discrete import maximise_discrete
from latentdyn.fit.em.m_steps import maximise
from latentdyn.fit.engine.parameters import free_values, restore, snapshot, toward
from latentdyn.fit.engine.training import Progress
from latentdyn.programs import Program
from latentdyn.smooth.gaussian.search import NoModeError
from latentdyn.smoother import Smoother

__all__ = ["EMRun"]

WORTH_SAYING = 0.1  # nats
FAILURES = (InputError, NonFiniteError, LinAlgError, torch.linalg.LinAlgError)


class EMRun:
    """E steps and M steps in turn, on a program that holds the result afterwards.

    Args:
        program: what is learned.
        batch: the data.
        smoother: the E step.
        seed: of points that stand for Gaussians.
    """

    def __init__(self, program: Program, batch: Batch, smoother: Smoother[..., Any], seed: int):
        self.program, self.batch, self.smoother, self.seed = program, batch, smoother, seed
        self.progress = Progress()
        self.entries = max(float(batch.mask.sum()), 1.0)
        self.start: dict[str, Any] = {}
        self.converged, self.leaps = False, Leaps(program)

    def go(
        self,
        steps: int,
        tolerance: float,
        callbacks: Sequence[Callable[[Progress], Any]],
        show: bool,
    ) -> None:
        """Run to the end, to where it stands still, or to Ctrl-C, which keeps the last good step.

        Also after an error the program is at the last good step.
        """
        quiet: dict[str, Any] = {} if show else {"disable": True}  # else TQDM_DISABLE decides
        bar = tqdm(total=steps, desc="em", **quiet)
        good = snapshot(self.program)
        try:
            q = self.expect()
            while self.progress.step < steps and not self.progress.stop:
                self.maximise(q, good, steps)
                self.progress.step += 1
                plain = isinstance(q, ParticlePath) or self.progress.step == steps
                q = self.expect() if plain else self._leap(good)
                good = snapshot(self.program)
                self._report(bar)
                self.converged = self._still(q, tolerance)
                if self._asked(callbacks) or self.converged:
                    self.progress.stop = True
            self._say(bar)
        except KeyboardInterrupt:
            self.progress.interrupted = True
            restore(self.program, good)
            bar.set_postfix_str("interrupted: keeping the fit so far")
        except Exception:
            restore(self.program, good)
            raise
        finally:
            bar.close()

    def _leap(self, before: dict[str, Any]) -> Any:
        """An E step after a longer step, or where that has lowered the evidence after the short."""
        evidences = self.progress.history["log_evidence"]
        back = self.leaps.propose(before, evidences)
        if back is not None:
            try:
                q, found = self._evaluate()
                if found >= evidences[-1]:
                    return self._record(q, found)
            except FAILURES:
                pass
            restore(self.program, back)
            self.leaps.forget()
            self.progress.step += 1  # what it has cost
        return self.expect()

    def _evaluate(self) -> tuple[Any, float]:
        try:
            with torch.no_grad():
                q = self.smoother(self.program, self.batch, **self.start)
        except NoModeError as error:
            raise self._no_states(error) from error
        found = float(q.log_evidence.double().sum())
        if not math.isfinite(found):
            raise NonFiniteError("log_evidence", self._message())
        return q, found

    def expect(self) -> Any:
        """One E step: the states given the present parameters, and their evidence."""
        return self._record(*self._evaluate())

    def _record(self, q: Any, found: float) -> Any:
        self.progress.record(step=self.progress.step, log_evidence=found)
        if self.smoother.warm:
            self.start = {"start": q.mean}  # the next mode is not far
        return q

    @torch.no_grad()
    def maximise(self, q: Any, before: dict[str, Any], steps: int) -> None:
        """One M step."""
        if isinstance(q, DiscretePath):
            maximise_discrete(self.program, q, self.batch)
        else:
            e = Expectations(q, self.batch, self.seed)
            maximise(self.program, e)
            late = self.progress.step - steps // 2
            if e.drawn and late > 0:
                toward(self.program, before, 1 / (1 + late))
        for name, value in free_values(self.program).items():
            if not bool(torch.isfinite(value).all()):
                raise NonFiniteError(name, f"the M step of '{name}' {self._where}")

    def _still(self, q: Any, tolerance: float) -> bool:
        """Whether the evidence rises no more, which a random E step does not tell."""
        if isinstance(q, ParticlePath) or not tolerance > 0:
            return False
        steps = 3 if self.leaps.slow else 1  # gains of long steps are irregular
        recent = self.progress.history["log_evidence"][-1 - steps :]
        gains = [b - a for a, b in pairwise(recent)]
        return max(gains) < tolerance * self.entries

    def _report(self, bar: Any) -> None:
        now = self.progress.history["log_evidence"][-1]
        bar.set_postfix(log_evidence=f"{now:.6g}", left=f"{self.left:.2g}", refresh=False)
        bar.update(self.progress.step - bar.n)  # one that was taken back counts too

    @property
    def left(self) -> float:
        """Nats still to be gained, by the last three evidences."""
        return left(self.progress.history.get("log_evidence", []))

    def _say(self, bar: tqdm) -> None:
        """Under the bar, if the steps were too few."""
        if not self.progress.stop and not bar.disable and self.left > WORTH_SAYING:
            known = math.isfinite(self.left)
            much = f"about {self.left:.2g} nats of log evidence still to be gained"
            more = much if known else "gains that do not shrink yet"
            bar.write(f"em: not converged after {self.progress.step} steps, {more}; raise steps")

    def _asked(self, callbacks: Sequence[Callable[[Progress], Any]]) -> bool:
        return any([callback(self.progress) == "stop" for callback in callbacks])

    def _no_states(self, error: NoModeError) -> InputError:
        """What a search for the states means here, where nobody can start it elsewhere."""
        fix = "pass smoother=smooth.laplace.with_(steps=500) or another one, or fewer "
        fix += "states; for counts of many thousands take emissions.Gaussian of their logarithms"
        got = f"a search that ended with {error.got}, at step {self.progress.step}"
        return InputError("smoother", "an E step that finds the mode of the states", got, fix)

    @property
    def _where(self) -> str:
        return f"is not finite at step {self.progress.step}; check the scale of the data"

    def _message(self) -> str:
        values = free_values(self.program).items()
        bad = [n for n, v in values if not bool(torch.isfinite(v).all())]
        inside = f" (neither are {bad})" if bad else ""
        return f"the log evidence {self._where}{inside}, or start elsewhere"
