"""Posteriors on disk: written by `save`, read by `load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pyro.infer import autoguide
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from latentdyn.config import build
from latentdyn.data import Batch
from latentdyn.data.storable import restored
from latentdyn.errors import InputError
from latentdyn.guide import Guide, local_params, parameter_guide
from latentdyn.posterior.drawn_guide import DrawnGuide
from latentdyn.posterior.files import AGAIN, need_same, need_sizes, read_data, read_index
from latentdyn.posterior.posterior import Posterior
from latentdyn.posterior.saving import save
from latentdyn.posterior.smoother_names import build_program
from latentdyn.programs import Program
from latentdyn.rng import seeded

__all__ = ["load", "save"]


def load(folder: Path | str) -> Posterior:
    """Read a posterior that was saved.

    Raises:
        InputError: if the folder holds none, or if it needs a class that was not imported.
    """
    folder = Path(folder)
    config = read_index(folder)
    data = restored(read_data(config["files"]["data.nc"]), config.get("dates", {}))
    try:
        tensors = load_file(config["files"]["weights.safetensors"])
        need_sizes(config["fits"], sum(t.numel() for t in tensors.values()))
        fits = [_load_fit(c, _part(tensors, f"{i}/")) for i, c in enumerate(config["fits"])]
    except (
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
        SafetensorError,
    ) as error:
        if isinstance(error, InputError):
            raise
        got = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError("folder", "a posterior of this version", got, AGAIN) from error
    need_same(folder)
    batch = fits[0][0].fit_batch(Batch.of(data, fits[0][0].dtype))
    held_out = tensors["held_out"].bool() if "held_out" in tensors else None
    if held_out is not None:
        batch = batch.without(held_out)
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
    kind: str | None, program: Program, tensors: dict[str, Tensor]
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
