"""A posterior as an xarray.DataTree with ArviZ's groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import xarray as xr
from arviz_base import make_attrs
from torch import Tensor

from latentdyn.distributions import ObservedPath
from latentdyn.errors import InputError
from latentdyn.guide import Guide
from latentdyn.posterior import pointwise, predict
from latentdyn.posterior.before import prior_groups
from latentdyn.posterior.drawn_guide import DrawnGuide, drawn_of
from latentdyn.posterior.draws import Draws, draw, draw_parameters, marginal
from latentdyn.posterior.names import parameter_dims
from latentdyn.programs import Program

__all__ = ["to_datatree"]

PRIOR = 50  # draws of it
SAMPLE = ("chain", "draw")


def to_datatree(
    posterior: Any, draws: int | None, chains: int | None, stacked: bool = False
) -> xr.DataTree:
    """Draw from every chain and name everything. See `Posterior.to_datatree`."""
    fits = _fits(posterior, draws, chains)
    columns = [_chain(posterior, *fit) for fit in fits]
    arrays = {k: torch.stack([c[k] for c in columns]).cpu().numpy() for k in columns[0]}
    groups = _sampled_groups(posterior, arrays)
    if "log_likelihood" in groups:
        groups["log_likelihood"] = pointwise.usable(groups["log_likelihood"], posterior, stacked)
    groups["observed_data"] = posterior.data[["y"]].copy(deep=True)
    groups["constant_data"] = _constant_data(posterior)
    groups["fit_history"] = _fit_history(posterior)
    groups |= _warmup_groups(posterior)
    groups |= prior_groups(posterior, PRIOR)
    attrs = make_attrs() | _attrs(posterior, len(fits))
    for ds in groups.values():
        ds.attrs.update(attrs)
    return xr.DataTree.from_dict(groups)


def _fits(posterior: Any, draws: int | None, chains: int | None) -> list[tuple[Any, Guide, int]]:
    """Program, guide and number of draws of each chain."""
    found = []
    for program, guide in posterior.fits:
        inner = guide.parameters_guide
        stored = inner.chains if isinstance(inner, DrawnGuide) else None
        if stored is None:
            found += [(program, guide, draws or 400)] * (chains or 1)
            continue
        if chains not in (None, stored):
            raise InputError("chains", f"{stored}, as were sampled", chains, "leave it out")
        most = inner.size // stored
        if draws is not None and draws > most:
            fix = "leave it out, or sample more"
            raise InputError("draws", f"at most {most}, as were kept", draws, fix)
        for chain in range(stored):
            places = inner.chain(chain, draws)
            found.append((program, Guide(inner.at(places), guide.latents), len(places)))
    return found


def _chain(posterior: Any, program: Program, guide: Guide, draws: int) -> dict[str, Tensor]:
    """Everything that has a value for each draw of one chain: name -> (draws, ...)."""
    parts, start = [], 0
    for number in predict.chunks(draws, posterior.batch.y.numel()):
        inner, some = guide.parameters_guide, guide
        if isinstance(inner, DrawnGuide) and inner.picked is not None:
            some = Guide(inner.at(inner.picked[start : start + number]), guide.latents)
        parts.append(_chunk(posterior, program, some, number))
        start += number
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}


@torch.no_grad()
def _chunk(posterior: Any, program: Program, guide: Guide, number: int) -> dict[str, Tensor]:
    drawn = draw(program, guide, posterior.batch, number, states=True)
    out = {f"posterior/{name}": value for name, value in drawn.sites.items()}
    out["sample_stats/lp"] = drawn.log_prior
    if drawn.log_joint is not None:
        out["sample_stats/lp"] = drawn.log_prior + drawn.log_joint.sum(-1)
    stored = drawn_of(guide)
    if stored is None or stored.chains is None:
        out["sample_stats/log_q"] = drawn.log_q
    else:
        out |= {f"sample_stats/{k}": v[drawn.places] for k, v in stored.stats.items()}
    if drawn.log_joint is not None and (drawn.path is not None or not drawn.latents):
        out["marginal_log_likelihood/y"] = drawn.log_joint
    if drawn.latents or not (program.core.latents or program.integrated):
        out |= _observed(posterior, program, drawn)
    if drawn.log_qz is not None and drawn.log_joint is not None:
        weights = drawn.log_joint - drawn.log_qz
        out["sample_stats/log_weight"] = weights
        out["sample_stats/log_q"] = drawn.log_q + drawn.log_qz.sum(-1)
        batch = posterior.batch.to(program.dtype, program.device)
        out["marginal_log_likelihood/y"] = marginal(program, guide, drawn, batch)
    return out


def _observed(posterior: Any, program: Program, drawn: Draws) -> dict[str, Tensor]:
    """What was drawn of states, observations and the future, and the log-likelihood."""
    whole = posterior.scoring
    y = predict.observations(program, drawn, whole)
    replicated = ObservedPath(y.steps, posterior.batch.observed).replicated(whole.y)
    out = {"posterior_predictive/y": _blank(replicated, whole.length)}
    for name, z in drawn.latents.items():
        out[f"posterior/{name}"] = _blank(z, whole.length)
    if drawn.latents and predict.can_continue(program):
        steps = max(1, min(posterior.batch.steps // 10, 50))
        ahead, after = predict.future(program, drawn, posterior.batch, steps, None)
        out |= {"predictions/y": ahead} | {f"predictions/{k}": z for k, z in after.items()}
    if drawn.path is not None:
        return out | _one_step_ahead(drawn)
    return out | {"log_likelihood/y": y.pointwise(whole.y)}


def _one_step_ahead(drawn: Draws) -> dict[str, Tensor]:
    """log p(y_t | y_1..y_{t-1}, theta) of each step with data, from smoothers that filter."""
    try:
        steps = drawn.path.increments
    except (InputError, AttributeError):
        return {"log_likelihood/y": drawn.log_joint}  # type: ignore[dict-item]
    return {"log_likelihood/y": steps.expand(*drawn.path.batch_shape, -1)}


def _blank(values: Tensor, length: Tensor) -> Tensor:
    """NaN past the end of each trial: (S, N, T, ...)."""
    inside = torch.arange(values.shape[2], device=values.device) < length[:, None]
    if bool(inside.all()):
        return values
    values = values if values.is_floating_point() else values.to(torch.get_default_dtype())
    return values.where(inside.reshape(*inside.shape, *(1,) * (values.dim() - 3)), math.nan)


def _sampled_groups(posterior: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, xr.Dataset]:
    groups: dict[str, dict[str, Any]] = {}
    for key, values in arrays.items():
        group, name = key.split("/", 1)
        groups.setdefault(group, {})[name] = (_dims(posterior, group, name, values), values)
    named = {g: predict.named(xr.Dataset(v), posterior.data, time=True) for g, v in groups.items()}
    if "predictions" in groups:
        future = xr.Dataset(groups["predictions"])
        future["y"].attrs.update(posterior.data["y"].attrs)
        own = predict.named(future, posterior.data)
        named["predictions"] = predict.clocked(own, posterior.data)
    if "log_likelihood" in named and posterior.model.integrated:
        named["log_likelihood"]["y"].attrs["density"] = "p(y_t | y_1..y_{t-1}, parameters)"
    return named


def _dims(posterior: Any, group: str, name: str, values: np.ndarray) -> tuple[str, ...]:
    own = posterior.model.dims
    if name in own and group in ("posterior", "predictions"):
        return (*SAMPLE, "trial", "time", *own[name])
    if group == "posterior":
        return SAMPLE + parameter_dims(name, values.shape[2:], posterior.model)
    if group == "sample_stats" and values.ndim == 2:
        return SAMPLE
    return (*SAMPLE, "trial", "time", "unit")[: values.ndim]


def _constant_data(posterior: Any) -> xr.Dataset:
    """Inputs, lengths, held-out entries and the parameters that were learned by gradient."""
    data = posterior.data
    ds = data[[name for name in ("u", "length") if name in data]].copy(deep=True)
    if posterior.held_out is not None:
        ds["held_out"] = (("trial", "time", "unit"), posterior.held_out.cpu().numpy())
    program, guide = posterior.fits[0]
    random = set(draw_parameters(program, guide, 1).theta)
    for name, template in posterior.model.templates.items():
        if template.value.requires_grad and name not in random:
            each = [p.templates[name].value.detach().cpu().numpy() for p, _ in posterior.fits]
            dims = parameter_dims(name, template.shape, posterior.model)
            ds[name] = (("chain", *dims), np.stack(each))
    return predict.named(ds, data, time=True)


def _fit_history(posterior: Any) -> xr.Dataset:
    """What was recorded at each evaluation, (chain, step)."""
    histories = [h for h in posterior.histories if h]
    longest: list[float] = max((h["step"] for h in histories), key=len, default=[])
    ds = xr.Dataset(coords={"step": np.asarray(longest, dtype=int)})
    for name in histories[0] if histories else {}:
        rows = np.full((len(posterior.histories), len(longest)), np.nan)
        for row, history in zip(rows, posterior.histories, strict=True):
            row[: len(history.get(name, []))] = history.get(name, [])
        if name != "step":
            ds[name] = (("chain", "step"), rows)
    return ds


def _warmup_groups(posterior: Any) -> dict[str, xr.Dataset]:
    """Parameters, and what the sampler said, of the draws before those that count."""
    program, guide = posterior.fits[0]
    stored = drawn_of(guide)
    warmup = None if stored is None else stored.warmup
    if warmup is None:
        return {}
    drawn = draw_parameters(program, Guide(warmup.at(torch.arange(warmup.size)), None), warmup.size)
    arrays = {f"posterior/{k}": v for k, v in drawn.sites.items()}
    arrays |= {f"sample_stats/{k}": v for k, v in warmup.stats.items()}
    each = {k: v.unflatten(0, (warmup.chains, -1)).cpu().numpy() for k, v in arrays.items()}
    return {f"warmup_{k}": ds for k, ds in _sampled_groups(posterior, each).items()}


def _attrs(posterior: Any, chains: int) -> dict[str, Any]:
    attrs: dict[str, Any] = {
        k: v if isinstance(v, float | int) and not isinstance(v, bool) else str(v)
        for k, v in posterior.attrs.items()
    }
    attrs |= {"inference_library": "latentdyn", "inference_library_version": version("latentdyn")}
    attrs["sample_dims"] = list(SAMPLE)
    if attrs.get("inference_method") == "svi":
        restarts = len(posterior.fits)
        attrs["chains"] = (
            f"{chains} chains of independent draws from {restarts} restart(s) of the optimisation: "
            "R-hat compares restarts (several optima), it does not test convergence of a sampler"
        )
    return attrs
