"""Posteriors on disk: safetensors for numbers, JSON for what they are, netCDF for data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from latentdyn.config import describe
from latentdyn.data.storable import storable
from latentdyn.errors import InputError
from latentdyn.guide import Guide
from latentdyn.posterior.drawn_guide import DrawnGuide
from latentdyn.posterior.draws import draw_parameters
from latentdyn.posterior.files import write_all
from latentdyn.posterior.smoother_names import build_program, describe_program
from latentdyn.programs import Program
from latentdyn.rng import seeded

__all__ = ["save"]

_PLAIN_GUIDES = ("AutoDelta", "AutoNormal", "AutoDiagonalNormal", "AutoMultivariateNormal")
_KEPT_DRAWS = 2000


def save(posterior: Any, folder: Path) -> None:
    """Write ``posterior.json``, ``weights.safetensors`` and ``data.nc`` into a folder.

    What cannot be read again is refused before anything is written. Other files of the folder stay,
    and a fit that is there is replaced at once (`write_all`).

    Pyro's plain autoguides, Markov chains and other draws are kept as they are; any other guide
    over the parameters is kept as 2000 of its draws.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError("folder", "a folder", f"the file {folder}", "choose another name")
    tensors: dict[str, Tensor] = {}
    fits = [
        _save_fit(program, guide, f"{i}/", tensors)
        for i, (program, guide) in enumerate(posterior.fits)
    ]
    if posterior.held_out is not None:
        tensors["held_out"] = posterior.held_out.to(torch.uint8)
    data, dates = storable(posterior.data)
    config = {"format": 2, "fits": fits, "histories": posterior.histories, "dates": dates}
    config["attrs"] = posterior.attrs
    flat = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    writers = {
        "weights.safetensors": lambda path: save_file(flat, path),
        "data.nc": lambda path: data.to_netcdf(path, engine="h5netcdf"),
    }
    write_all(folder, json.loads(json.dumps(config, default=_number)), writers)


def _number(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    fix = "drop it: posterior.attrs.pop(...)"
    raise InputError("attrs", "numbers, text, lists and dicts", repr(value), fix)


def _save_fit(
    program: Program, guide: Guide, at: str, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    tensors |= {f"{at}program/{k}": v for k, v in program.state_dict().items()}
    config = {
        "program": describe_program(program),
        "dtype": str(program.dtype).removeprefix("torch."),
    }
    _need_built(config["program"])
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


def _need_built(program: Any) -> None:
    """Refuse what a file would not give back."""
    try:
        with seeded(0):
            build_program(program)
    except (TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        got = f"one that cannot ({str(error).splitlines()[0]})"
        fix = "save posterior.to_datatree() with .to_netcdf(), or pickle the posterior"
        wanted = "a program that can be built from its arguments"
        raise InputError("model", wanted, got, fix) from error


def _save(guide: DrawnGuide, at: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Markov chains as they are, and what came before them."""
    tensors |= {f"{at}draws/{k}": v for k, v in guide.draws.items()}
    tensors |= {f"{at}stats/{k}": v for k, v in guide.stats.items()}
    if guide.z is not None:
        tensors[f"{at}z"] = guide.z
    if guide.warmup is None:
        return {}
    return {"warmup": _save(guide.warmup, f"{at}warmup/", tensors)}
