"""Checkpoints of a training run: safetensors and JSON, exact to the last random number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentdyn.errors import InputError
from latentdyn.fit.engine.training import Progress

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(
    folder: Path,
    objective: nn.Module,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write the state of a run; an interrupted write leaves the previous checkpoint whole."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = optimizer.state_dict()
    tensors = {f"objective/{k}": v for k, v in objective.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in best.items()}
    tensors["rng"] = torch.get_rng_state()
    for index, state in groups["state"].items():
        tensors |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in state.items()}
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(plain, folder / "new.safetensors", {"progress": json.dumps(progress.to_json())})
    (folder / "new.safetensors").replace(folder / "checkpoint.safetensors")


def load_checkpoint(
    folder: Path | str, objective: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> dict[str, Tensor]:
    """Restore a run in place, the random generator included; returns the best state seen."""
    path = Path(folder) / "checkpoint.safetensors"
    if not path.exists():
        raise InputError(
            "resume_from",
            "a folder with checkpoint.safetensors",
            str(folder),
            "pass the folder given as Training(checkpoint=...)",
        )
    tensors = load_file(path)
    objective.load_state_dict(_part(tensors, "objective/"))
    groups = optimizer.state_dict()
    groups["state"] = _optimizer_state(_part(tensors, "optimizer/"))
    optimizer.load_state_dict(groups)
    torch.set_rng_state(tensors["rng"])
    for name, value in _metadata(path).items():
        setattr(progress, name, -float("inf") if name == "best" and value is None else value)
    return _part(tensors, "best/")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _optimizer_state(flat: dict[str, Tensor]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in flat.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = value
    return state


def _metadata(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["progress"])
