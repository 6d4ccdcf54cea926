"""Checkpoints of a training run: safetensors and JSON, exact to the last random number."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.fit.engine.training import Progress

__all__ = ["fingerprint", "load_checkpoint", "save_checkpoint"]


def save_checkpoint(
    folder: Path,
    objective: nn.Module,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    fit: Mapping[str, str],
    data: Mapping[str, Tensor],
) -> None:
    """Write the state of a run; an interrupted write leaves the previous checkpoint whole.

    ``fit`` says of which data and settings it is. A folder that cannot be written to is a warning:
    the fit goes on.
    """
    groups = optimizer.state_dict()
    tensors = {f"objective/{k}": v for k, v in objective.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in best.items()}
    tensors |= {f"data/{k}": v for k, v in data.items()}
    tensors["rng"] = torch.get_rng_state()
    for index, state in groups["state"].items():
        tensors |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in state.items()}
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    said = {"progress": json.dumps(progress.to_json()), "fit": json.dumps(dict(fit))}
    new = folder / "new.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(plain, new, said | {"digest": _digest(plain, said)})
        new.replace(folder / "checkpoint.safetensors")
    except (OSError, SafetensorError) as error:
        warnings.warn(f"no checkpoint at step {progress.step}: {error}", stacklevel=4)


def load_checkpoint(
    folder: Path | str,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    fit: Mapping[str, str],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Restore a run in place, the random generator included; the best state seen, and the data's.

    Raises: InputError if there is none, if it has changed, or if it is of another fit.
    """
    path = Path(folder) / "checkpoint.safetensors"
    if not path.exists():
        raise InputError(
            "resume_from",
            "a folder with checkpoint.safetensors",
            str(folder),
            "pass the folder given as Training(checkpoint=...)",
        )
    tensors, said = _read(path)
    _need_same(json.loads(said["fit"]), fit)
    objective.load_state_dict(_part(tensors, "objective/"))
    groups = optimizer.state_dict()
    groups["state"] = _optimizer_state(_part(tensors, "optimizer/"))
    optimizer.load_state_dict(groups)
    torch.set_rng_state(tensors["rng"])
    for name, value in json.loads(said["progress"]).items():
        setattr(progress, name, -float("inf") if name == "best" and value is None else value)
    return _part(tensors, "best/"), _part(tensors, "data/")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _optimizer_state(flat: dict[str, Tensor]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in flat.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = value
    return state


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and what is said of them, as they were written."""
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            said = dict(file.metadata() or {})
    except (OSError, ValueError, SafetensorError) as error:
        raise _changed(f"one that cannot be read ({error})") from error
    if said.pop("digest", None) != _digest(tensors, said):
        raise _changed("another")
    return tensors, said


def _changed(got: str) -> InputError:
    fix = "start again, or resume from another"
    return InputError("resume_from", "a checkpoint as it was written", got, fix)


def _digest(tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(dict(said), sort_keys=True).encode())
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _need_same(theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    for name, value in ours.items():
        if theirs.get(name) != value:
            got = f"that of a fit with {name} {theirs.get(name)}"
            fix = "repeat the call that wrote it, or start again"
            raise InputError("resume_from", f"a checkpoint of {name} {value}", got, fix)


def fingerprint(batch: Batch, objective: nn.Module, **settings: object) -> dict[str, str]:
    """Of which data, parameters and settings a fit is."""
    found = hashlib.sha256()
    for x in (batch.y, batch.mask, batch.length, batch.u):
        if x is not None:
            found.update(x.detach().cpu().contiguous().numpy().tobytes())
    shapes = {n: tuple(p.shape) for n, p in objective.state_dict().items()}
    said = {"data": found.hexdigest()[:16], "parameters": str(sorted(shapes.items()))}
    return said | {name: str(value) for name, value in settings.items()}
