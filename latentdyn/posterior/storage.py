"""Posteriors on disk: safetensors for numbers, JSON for what they are, netCDF for data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from pyro.infer import autoguide
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentdyn.config import build, describe
from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.guide import Guide, local_params, parameter_guide
from latentdyn.posterior.drawn import DrawnGuide
from latentdyn.posterior.draws import draw_parameters
from latentdyn.posterior.posterior import Posterior
from latentdyn.posterior.smoother_names import build_program, describe_program
from latentdyn.rng import seeded

__all__ = ["load", "save"]

_PLAIN_GUIDES = ("AutoDelta", "AutoNormal", "AutoDiagonalNormal", "AutoMultivariateNormal")
_KEPT_DRAWS = 2000


def save(posterior: Posterior, folder: Path) -> None:
    """Write ``posterior.json``, ``weights.safetensors`` and ``data.nc`` into a folder.

    Pyro's plain autoguides, Markov chains and other draws are kept as they are; any other guide
    over the parameters is kept as 2000 of its draws.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    fits = [
        _save_fit(program, guide, f"{i}/", tensors)
        for i, (program, guide) in enumerate(posterior.fits)
    ]
    if posterior.held_out is not None:
        tensors["held_out"] = posterior.held_out.to(torch.uint8)
    config = {"format": 1, "fits": fits, "histories": posterior.histories, "attrs": posterior.attrs}
    flat = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(flat, folder / "weights.safetensors")
    (folder / "posterior.json").write_text(json.dumps(config, indent=1))
    posterior.data.to_netcdf(folder / "data.nc", engine="h5netcdf")


def _save_fit(program: Any, guide: Guide, at: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    tensors |= {f"{at}program/{k}": v for k, v in program.state_dict().items()}
    config = {
        "program": describe_program(program),
        "dtype": str(program.dtype).removeprefix("torch."),
    }
    if guide.latents:
        tensors |= {f"{at}latents/{k}": v for k, v in guide.latents.state_dict().items()}
        config["latents"] = describe(dict(guide.latents.items()), "states")
    inner = guide.parameters_guide
    if inner is None:
        return config
    config["parameters"] = type(inner).__name__
    if isinstance(inner, DrawnGuide) and inner.chains is not None:
        return config | {"parameters": "chains", "chains": inner.chains} | _save(inner, at, tensors)
    if config["parameters"] in _PLAIN_GUIDES:
        tensors |= {f"{at}parameters/{k}": v for k, v in inner.state_dict().items()}
    else:
        config["parameters"] = "draws"
        if isinstance(inner, DrawnGuide):
            _save(inner, at, tensors)
            tensors[f"{at}draws_log_q"] = inner.log_q
            return config
        with seeded(0):
            sites = draw_parameters(program, guide, _KEPT_DRAWS)
        kept = {k: v for k, v in sites.sites.items() if k in sites.latent}
        tensors |= {f"{at}draws/{k}": v for k, v in kept.items()}
        tensors[f"{at}draws_log_q"] = sites.log_q
    return config


def _save(guide: DrawnGuide, at: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Markov chains as they are, and what came before them."""
    tensors |= {f"{at}draws/{k}": v for k, v in guide.draws.items()}
    tensors |= {f"{at}stats/{k}": v for k, v in guide.stats.items()}
    if guide.z is not None:
        tensors[f"{at}z"] = guide.z
    if guide.warmup is None:
        return {}
    return {"warmup": _save(guide.warmup, f"{at}warmup/", tensors)}


def load(folder: Path | str) -> Posterior:
    """Read a posterior that was saved.

    Raises:
        InputError: if the folder holds none, or if it needs a class that was not imported.
    """
    folder = Path(folder)
    path = folder / "posterior.json"
    if not path.exists():
        raise InputError(
            "folder",
            "a folder written by Posterior.save",
            str(folder),
            "pass the folder that contains posterior.json",
        )
    config = json.loads(path.read_text())
    tensors = load_file(folder / "weights.safetensors")
    with xr.open_dataset(folder / "data.nc", engine="h5netcdf") as ds:
        data = ds.load()
    fits = [_load_fit(c, _part(tensors, f"{i}/")) for i, c in enumerate(config["fits"])]
    batch = Batch.of(data, fits[0][0].dtype)
    held_out = tensors["held_out"].bool() if "held_out" in tensors else None
    if held_out is not None:
        batch = batch.replace(mask=batch.mask & ~held_out, y=batch.y.where(~held_out, 0))
    return Posterior(fits, data, batch, config["histories"], held_out, config["attrs"])


def _load_fit(config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[Any, Guide]:
    dtype = getattr(torch, config["dtype"])
    with seeded(0):  # modules and guides are built with random values before theirs are read
        program = build_program(config["program"]).to(dtype)
        program.load_state_dict(_part(tensors, "program/"))
        states = None
        if "latents" in config:
            states = Guide(None, build(config["latents"])).to(dtype).latents
            states.load_state_dict(_part(tensors, "latents/"))
        if config.get("parameters") == "chains":
            return program, Guide(_load_chains(config, config["chains"], tensors), states)
        return program, Guide(_load_parameters(config.get("parameters"), program, tensors), states)


def _load_chains(config: dict[str, Any], chains: int, tensors: dict[str, Tensor]) -> DrawnGuide:
    draws, stats = _part(tensors, "draws/"), _part(tensors, "stats/")
    warmup = None
    if "warmup" in config:
        warmup = _load_chains(config["warmup"], chains, _part(tensors, "warmup/"))
    z = tensors.get("z")
    return DrawnGuide(draws, None, chains, z, stats, warmup)


def _load_parameters(
    kind: str | None, program: Any, tensors: dict[str, Tensor]
) -> nn.Module | None:
    if kind is None:
        return None
    if kind == "draws":
        return DrawnGuide(_part(tensors, "draws/"), tensors["draws_log_q"])
    with local_params():
        guide: Any = parameter_guide(program, getattr(autoguide, kind))
        guide.load_state_dict(_part(tensors, "parameters/"))
    return guide


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
