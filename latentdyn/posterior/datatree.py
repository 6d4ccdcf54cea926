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

from latentdyn.data import Batch
from latentdyn.posterior import predict
from latentdyn.posterior.draws import draw, for_batch
from latentdyn.posterior.names import parameter_dims

__all__ = ["to_datatree"]

INNER = 10  # paths for each importance-weighted marginal likelihood
SAMPLE = ("chain", "draw")


def to_datatree(posterior: Any, draws: int, chains: int) -> xr.DataTree:
    """Draw from every chain and name everything. See `Posterior.to_datatree`."""
    which = [c for c in range(len(posterior.fits)) for _ in range(chains)]
    columns = [_chain(posterior, c, draws) for c in which]
    arrays = {k: torch.stack([c[k] for c in columns]).cpu().numpy() for k in columns[0]}
    groups = _sampled_groups(posterior, arrays)
    groups["observed_data"] = posterior.data[["y"]]
    groups["constant_data"] = _constant_data(posterior)
    groups["fit_history"] = _fit_history(posterior)
    future = _predictions(posterior, draws, len(which))
    if future is not None:
        groups["predictions"] = future
    attrs = make_attrs() | _attrs(posterior, len(which))
    for ds in groups.values():
        ds.attrs.update(attrs)
    return xr.DataTree.from_dict(groups)


def _chain(posterior: Any, chain: int, draws: int) -> dict[str, Tensor]:
    """Everything that has a value for each draw of one chain: name -> (draws, ...)."""
    batch = posterior.batch
    parts = [_chunk(posterior, chain, n) for n in predict.chunks(draws, batch.y.numel())]
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}


@torch.no_grad()
def _chunk(posterior: Any, chain: int, number: int) -> dict[str, Tensor]:
    program, guide = posterior.fits[chain]
    drawn = draw(program, guide, posterior.batch, number)
    out = {f"posterior/{name}": value for name, value in drawn.sites.items()}
    out["sample_stats/lp"], out["sample_stats/log_q"] = drawn.log_prior, drawn.log_q
    if drawn.z is None or drawn.log_joint is None or drawn.log_qz is None:
        if drawn.log_joint is not None:
            out["sample_stats/lp"] = drawn.log_prior + drawn.log_joint.sum(-1)
            out["marginal_log_likelihood/y"] = drawn.log_joint
        return out
    whole = program.fit_batch(Batch.of(posterior.data, program.dtype))
    y = for_batch(program, drawn, whole).observations(drawn.z, whole)
    pointwise = y.pointwise(whole.y)
    observed = whole.mask if pointwise.dim() == 4 else whole.mask.any(-1)
    weights = drawn.log_joint - drawn.log_qz
    return out | {
        "posterior/z": _blank(drawn.z, whole.length),
        "posterior_predictive/y": _blank(y.sample(), whole.length),
        "log_likelihood/y": pointwise.where(observed, math.nan),
        "sample_stats/lp": drawn.log_prior + drawn.log_joint.sum(-1),
        "sample_stats/log_q": drawn.log_q + drawn.log_qz.sum(-1),
        "sample_stats/log_weight": weights,
        "marginal_log_likelihood/y": _marginal(posterior, chain, drawn, weights),
    }


def _marginal(posterior: Any, chain: int, drawn: Any, first: Tensor) -> Tensor:
    """Log p(y_n | theta) by importance weighting, (S, N): a lower bound in expectation."""
    program, guide = posterior.fits[chain]
    batch = posterior.batch.to(program.dtype, program.device)
    path = guide.states.encode(batch)
    bound = for_batch(program, drawn, batch)
    weights = [first]
    for _ in range(INNER - 1):
        z = path.expand(first.shape).rsample()
        log_p = bound.path_of(batch).score(z) + bound.observations(z, batch).log_prob(batch.y)
        weights.append(log_p - path.score(z))
    return torch.stack(weights).logsumexp(0) - math.log(INNER)


def _blank(values: Tensor, length: Tensor) -> Tensor:
    """NaN past the end of each trial: (S, N, T, ...)."""
    inside = torch.arange(values.shape[2], device=values.device) < length[:, None]
    return values if bool(inside.all()) else values.where(inside[..., None], math.nan)


def _sampled_groups(posterior: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, xr.Dataset]:
    groups: dict[str, dict[str, Any]] = {}
    for key, values in arrays.items():
        group, name = key.split("/", 1)
        groups.setdefault(group, {})[name] = (_dims(posterior, group, name, values), values)
    return {g: predict.named(xr.Dataset(v), posterior.data, time=True) for g, v in groups.items()}


def _dims(posterior: Any, group: str, name: str, values: np.ndarray) -> tuple[str, ...]:
    if name == "z":
        return (*SAMPLE, "trial", "time", "state")
    if group == "posterior":
        return SAMPLE + parameter_dims(name, values.shape[2:], posterior.model)
    if group == "sample_stats" and values.ndim == 2:
        return SAMPLE
    return (*SAMPLE, "trial", "time", "unit")[: values.ndim]


def _constant_data(posterior: Any) -> xr.Dataset:
    """Inputs, lengths, held-out entries and the parameters that were learned by gradient."""
    data = posterior.data
    ds = data[[name for name in ("u", "length") if name in data]]
    if posterior.held_out is not None:
        ds["held_out"] = (("trial", "time", "unit"), posterior.held_out.cpu().numpy())
    random = set() if posterior.model.prior is None else set(posterior.draws(1).theta)
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


def _predictions(posterior: Any, draws: int, chains: int) -> xr.Dataset | None:
    """A forecast of a tenth of the series, where the model can be continued without inputs."""
    model = posterior.model
    parts = (model.transition, model.emission) if hasattr(model, "transition") else ()
    if not parts or model.input_dim or any(p.time_varying for p in parts):
        return None
    steps = max(1, min(posterior.batch.steps // 10, 50))
    futures = [
        posterior.replace(fits=[fit], histories=[{}]).forecast(steps, draws)
        for fit in posterior.fits
        for _ in range(chains // len(posterior.fits))
    ]
    return xr.concat(futures, "chain").transpose(*SAMPLE, ...).assign_coords(chain=range(chains))


def _attrs(posterior: Any, chains: int) -> dict[str, str]:
    attrs = {k: str(v) for k, v in posterior.attrs.items()}
    attrs |= {"inference_library": "latentdyn", "inference_library_version": version("latentdyn")}
    attrs["sample_dims"] = list(SAMPLE)  # type: ignore[assignment]
    if attrs.get("inference_method") == "svi":
        restarts = len(posterior.fits)
        attrs["chains"] = (
            f"{chains} chains of independent draws from {restarts} restart(s) of the optimisation: "
            "R-hat compares restarts (several optima), it does not test convergence of a sampler"
        )
    return attrs
