"""Posterior: what every fit returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as Folder
from typing import Any

import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn.data import Batch, as_dataset
from latentdyn.data.ahead import plain_inputs
from latentdyn.data.matching import like
from latentdyn.distributions import Path
from latentdyn.errors import InputError
from latentdyn.guide import Guide
from latentdyn.posterior import predict
from latentdyn.posterior.drawn_guide import drawn_of, stored_paths
from latentdyn.posterior.draws import Draws, draw, draw_parameters, marginal
from latentdyn.posterior.mixture import MixturePath
from latentdyn.posterior.saving import save
from latentdyn.programs import Program
from latentdyn.programs.program import at_floor
from latentdyn.rng import seeded
from latentdyn.values import whole

__all__ = ["Posterior"]


class Posterior:
    """Draws of parameters and paths, forecasts, ArviZ groups.

    Args:
        fits: a fitted program and its guide for each restart; of Markov chains one, whose guide
            holds them all (`DrawnGuide`).
        data: the data as `as_dataset` gave them.
        batch: what was fitted, without held-out entries.
        histories: for each chain, name -> one number for each evaluation.
        held_out: (N, T, D) entries of ``data`` that were held out, or None.
        attrs: what goes into the attributes of the DataTree; ``at_floor`` names the learned noise
            that rests on its floor, if any does.

    Random draws come from torch's generator; pass ``seed`` to have the same ones again.
    """

    def __init__(
        self,
        fits: Sequence[tuple[Program, Guide]],
        data: xr.Dataset,
        batch: Batch,
        histories: Sequence[dict[str, list[float]]],
        held_out: Tensor | None = None,
        attrs: dict[str, Any] | None = None,
    ):
        self.fits, self.data, self.batch = list(fits), data, batch
        self.histories, self.held_out, self.attrs = list(histories), held_out, dict(attrs or {})
        resting = at_floor(self.model)
        if resting:
            self.attrs["at_floor"] = resting

    def __repr__(self) -> str:
        """Model, data and bound in one line."""
        n, t, d = self.batch.y.shape
        elbo = [f"{h['elbo'][-1]:.1f}" for h in self.histories if h.get("elbo")]
        drawn = drawn_of(self.fits[0][1])
        chains = (drawn and drawn.chains) or len(self.fits)
        name = type(self.model.core).__name__
        end = f", elbo=[{', '.join(elbo)}])" if elbo else ")"
        return f"Posterior({name}, {n} trials x {t} steps x {d} units, chains={chains}{end}"

    @property
    def model(self) -> Any:
        """The fitted program of the best chain."""
        return self.fits[self.best][0]

    @property
    def scoring(self) -> Batch:
        """All the data, as they are scored: what was held out counts, and is not read."""
        whole = self.model.fit_batch(Batch.of(self.data, self.model.dtype))
        return whole if self.held_out is None else whole.hiding(self.held_out)

    @property
    def history(self) -> dict[str, list[float]]:
        """What was recorded at each evaluation of the best chain."""
        return self.histories[self.best]

    @property
    def best(self) -> int:
        """The chain with the highest bound at the end."""
        ends = [h["elbo"][-1] if h.get("elbo") else -float("inf") for h in self.histories]
        return max(range(len(ends)), key=ends.__getitem__)

    def draws(self, number: int, batch: Batch | None = None, chain: int | None = None) -> Draws:
        """Raw draws of one fit (by default the best), states included."""
        program, guide = self.fits[self.best if chain is None else chain]
        number = whole("draws", number)
        batch = self.batch if batch is None else batch
        if batch is not self.batch and stored_paths(guide) is not None:
            fix = "fit model.collapse(smoother), whose states can be found for any data"
            raise InputError("new_y", "None: paths were sampled with the fit", "other data", fix)
        return draw(program, guide, batch, number, states=True)

    def sample(self, draws: int = 400, seed: int | None = None) -> dict[str, Tensor]:
        """Joint draws: name -> (draws, ...), of all sites of the prior, point estimates, and z."""
        with seeded(seed):
            drawn = self.draws(draws)
        random = dict(drawn.sites)
        for name, template in self.model.templates.items():
            if template.value.requires_grad and name not in random:
                random[name] = template.value.detach().expand(draws, *template.shape)
        return random if drawn.z is None else random | {"z": drawn.z}

    def smooth(self, new_y: object = None, draws: int = 100, seed: int | None = None) -> Path:
        """Posterior over the paths, (N,) of event (T, K), of the data or of new ones.

        It is the encoder's, if the fit has one. Of a collapsed program, and of paths that were
        sampled, it is the mixture over so many draws of the parameters, a `MixturePath`; of a
        collapsed program without random parameters, what its smoother gives, and of an `HMM` the
        `DiscretePath` of its states.
        """
        program, guide = self.fits[self.best]
        data, batch = self._data_and_batch(new_y)
        batch = batch.to(program.dtype, program.device)
        with torch.no_grad(), seeded(seed):
            if guide.latents and not (guide.reads_program and guide.parameters_guide is not None):
                path = guide.encode(batch, program.at_sessions(batch.session))["z"]
                path.data = data
                return path
            if program.integrated and guide.parameters_guide is None:
                return program.path_of(batch)
            each: list[Any] = []
            for number in predict.chunks(whole("draws", draws), batch.y.numel()):
                drawn = self.draws(number, self.batch if new_y is None else batch)
                if drawn.z is None:
                    predict.need_latents(program, drawn)
                    fix = "use forecast, expected or simulate"
                    got = f"{type(program).__name__}, which has none"
                    raise InputError("model", "a program with states", got, fix)
                each.append(drawn.z if drawn.path is None else drawn.path)
        return MixturePath(each, batch.length, data)

    @torch.no_grad()
    def log_likelihood(
        self, new_y: object = None, draws: int = 100, seed: int | None = None
    ) -> xr.DataArray:
        """log p(y_n | theta_s) of whole trials of the data or of new ones, (draw, trial).

        Exact where states are integrated out or there are none; with an encoder the log of the mean
        importance weight of ten paths, which is too low on average. Its log-mean-exp over draws is
        the log predictive density of new trials.
        """
        program, guide = self.fits[self.best]
        data, batch = self._data_and_batch(new_y)
        if stored_paths(guide) is not None:
            got, fix = "paths that were sampled with the parameters", "fit model.collapse(smoother)"
            raise InputError("posterior", "states integrated out, or an encoder of them", got, fix)
        batch, found = batch.to(program.dtype, program.device), []
        with seeded(seed):
            for number in predict.chunks(whole("draws", draws), batch.y.numel()):
                drawn = draw(program, guide, batch, number)
                found.append(marginal(program, guide, drawn, batch))
        values = torch.cat(found).cpu().numpy()
        ds = xr.Dataset({"log_likelihood": (("draw", "trial"), values)})
        return predict.named(ds, data)["log_likelihood"]

    def expected(
        self, new_y: object = None, draws: int = 200, seed: int | None = None
    ) -> xr.Dataset:
        """E[y_t | data], averaged over draws: firing rates for counts. Dims and coords of y.

        Where an entry was seen, it is the expectation of a new measurement of it; where it is
        missing and units share noise, that of the entry given those seen at the same step.
        """
        data, batch = self._data_and_batch(new_y)
        with seeded(seed):
            return predict.expected(self, data, batch, draws)

    def forecast(
        self, steps: int, draws: int = 400, u: ArrayLike | None = None, seed: int | None = None
    ) -> xr.Dataset:
        """Draws of what follows each trial: y (draw, trial, time, unit) and z.

        The clock goes on where that of the data ends, by its calendar. Of trials that end earlier,
        the steps are those after their own end, whose times are in ``clock`` (trial, time).

        Args:
            steps: how many beyond the end of each trial.
            draws: of parameters, paths and noise.
            u: inputs of these steps, (steps, U) or (N, steps, U), if the model has inputs: whatever
                `as_dataset` takes. Inputs, trials and times with names are matched with the data's.
            seed: to have the same draws again.
        """
        steps, draws = whole("steps", steps), whole("draws", draws)
        with seeded(seed):
            return predict.forecast(self, steps, draws, u)

    def simulate(
        self,
        trials: int = 1,
        steps: int = 100,
        draws: int = 1,
        inputs: ArrayLike | None = None,
        seed: int | None = None,
    ) -> xr.Dataset:
        """New trials from the start, for some parameter draws: y (draw, trial, time, unit)."""
        program, guide = self.fits[self.best]
        if inputs is not None and "input" in self.data:
            known = self.data["input"].values
            inputs = plain_inputs(inputs, trials, steps, len(known), "inputs", known)
        with seeded(seed):
            drawn = draw_parameters(program, guide, whole("draws", draws))
            bound: Any = predict.bind_draws(program, drawn, draws)
            found = bound.simulate(trials, steps, inputs)
            if "draw" not in found.dims:  # nothing that it is bound to varies
                more = [bound.simulate(trials, steps, inputs) for _ in range(draws - 1)]
                found = xr.concat([found, *more], "draw")
            return predict.named(found, self.data)

    def impute(self, draws: int = 200, seed: int | None = None) -> xr.Dataset:
        """The data with missing entries drawn from their posterior: y (draw, trial, time, unit).

        A missing entry is drawn given all data, under a full covariance also those of its own step.
        Steps past the end of a trial stay NaN.
        """
        with seeded(seed):
            return predict.impute(self, whole("draws", draws))

    def to_datatree(
        self,
        draws: int | None = None,
        chains: int | None = None,
        seed: int | None = None,
        *,
        stacked: bool = False,
    ) -> Any:
        """All of it as an `xarray.DataTree` with ArviZ's groups.

        Of `fit.mcmc` and `fit.particle_mcmc` these are the chains that were sampled, in order. The
        log-likelihood of a collapsed program is that of each step given those before. The posterior
        predictive has new measurements; entries that are missing, or were held out, are drawn given
        what was seen of their step.

        Args:
            draws: in each chain, by default 400; of sampled chains all, or so many, evenly thinned.
            chains: chains of independent draws from each restart, by default one.
            seed: to have the same draws again.
            stacked: the log-likelihood over one dim, ``observation``, of what was observed only. By
                default it has the dims of the data, and is zero where nothing was observed: sums
                such as ``az.loo(...).elpd_loo`` are the same, but counts of observations and the
                standard errors that come from them are those of all entries.
        """
        from latentdyn.posterior.datatree import to_datatree

        draws = None if draws is None else whole("draws", draws)
        chains = None if chains is None else whole("chains", chains)
        with seeded(seed):
            return to_datatree(self, draws, chains, stacked)

    def to_arviz(
        self,
        draws: int | None = None,
        chains: int | None = None,
        seed: int | None = None,
        *,
        stacked: bool = False,
    ) -> Any:
        """What the installed ArviZ takes: InferenceData before 1.0, DataTree from then on.

        Args:
            draws: as in `to_datatree`, and so the others.
            chains: from each restart.
            seed: to have the same draws again.
            stacked: log-likelihoods of what was observed only, for `az.loo` with missing entries or
                trials of several lengths.
        """
        import arviz

        tree = self.to_datatree(draws, chains, seed, stacked=stacked)
        converted = getattr(getattr(arviz, "InferenceData", None), "from_datatree", None)
        return tree if converted is None else converted(tree)

    def save(self, folder: Folder | str) -> None:
        """Write safetensors, JSON and netCDF into a folder; `latentdyn.load` reads it."""
        save(self, Folder(folder))

    def _data_and_batch(self, new_y: object) -> tuple[xr.Dataset, Batch]:
        if new_y is None:
            return self.data, self.batch
        data = like(as_dataset(new_y), self.data, "new_y")
        return data, self._batch_of(data)

    def _batch_of(self, y: object) -> Batch:
        sessions = self.data["session"].values if "session" in self.data.coords else None
        return self.model.core.fit_batch(Batch.of(y, self.model.dtype, sessions=sessions))

    def replace(self, **changes: object) -> Posterior:
        """A copy with some attributes changed."""
        names = ("fits", "data", "batch", "histories", "held_out", "attrs")
        return Posterior(**({n: getattr(self, n) for n in names} | changes))
