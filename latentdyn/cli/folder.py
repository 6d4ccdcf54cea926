"""Run folders: a posterior, its DataTree, pictures and a report."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import xarray as xr

from latentdyn.cli.choices import tree_draws
from latentdyn.errors import InputError
from latentdyn.posterior import Posterior, load
from latentdyn.report.readings import Reading

__all__ = ["contents", "need_new", "read_run", "write_report", "write_run"]


def need_new(folder: str, overwrite: bool) -> None:
    """Refuse, before any work, a folder that cannot be written or that holds something."""
    out = Path(folder)
    if out.exists() and not out.is_dir():
        raise InputError("--out", "a folder", f"the file {folder}", "choose another name")
    if out.is_dir() and not overwrite and any(out.iterdir()):
        fix = "choose another, or say --overwrite"
        raise InputError("--out", "a new or empty folder", f"{folder} with files", fix)
    parent = next(p for p in (out, *out.resolve().parents) if p.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise InputError("--out", "a folder that can be written", folder, "choose another place")


def contents() -> str:
    """What a run folder holds, in words."""
    drawn = "report.html, pictures/, " if find_spec("matplotlib") is not None else ""
    return f"{drawn}posterior.nc and the model"


def write_run(
    posterior: Posterior,
    folder: str,
    about: Mapping[str, Any],
    *,
    draws: int = 400,
    fan: xr.Dataset | None = None,
    truth: xr.Dataset | None = None,
    checks: Sequence[Reading] | None = None,
) -> None:
    """Everything about a fit into a folder.

    Files: those of `Posterior.save`; ``posterior.nc``, the DataTree; ``run.json``, findings and
    settings; ``forecast.nc`` and ``truth.nc`` where given; ``pictures/*.png``; ``report.html``.
    """
    out = Path(folder)
    posterior.save(out)
    (out / "run.json").write_text(json.dumps(dict(about), indent=1, default=str))
    if fan is not None:
        fan.to_netcdf(out / "forecast.nc", engine="h5netcdf")
    if truth is not None:
        truth.to_netcdf(out / "truth.nc", engine="h5netcdf")
    kept = tree_draws(draws, posterior.batch.y.numel() * len(posterior.fits))
    if kept < draws:
        print(f"keeping {kept} draws instead of {draws}, so that posterior.nc stays small")
    tree = posterior.to_datatree(kept, seed=0)
    tree.to_netcdf(out / "posterior.nc", engine="h5netcdf")
    write_report(posterior, out, about, fan, truth, checks)


def write_report(
    posterior: Posterior,
    out: Path,
    about: Mapping[str, Any],
    fan: xr.Dataset | None,
    truth: object,
    checks: Sequence[Reading] | None = None,
) -> None:
    """Pictures and the page; without matplotlib, a sentence."""
    if find_spec("matplotlib") is None:
        print('no pictures and no report without matplotlib: pip install "latentdyn[plots]"')
        return
    from latentdyn.report import page
    from latentdyn.report.figures import pictures

    start = time.time()
    shown = list(pictures(posterior, fan, truth))
    folder = out / "pictures"
    folder.mkdir(exist_ok=True)
    for picture in shown:
        (folder / f"{picture.name}.png").write_bytes(picture.png())
    text = page(posterior, about=about, shown=shown, checks=checks)
    (out / "report.html").write_text(text, encoding="utf-8")
    print(f"pictures and report written in {time.time() - start:.0f} s")


def read_run(folder: str) -> tuple[Posterior, dict[str, Any], Any, Any]:
    """Posterior, what is known about the run, and the forecast and truth if it has them.

    Raises: InputError if the folder holds no run.
    """
    out = Path(folder)
    if not (out / "posterior.json").exists():
        raise InputError(
            "run",
            "a folder written by latentdyn fit or demo",
            str(folder),
            "pass the folder given as --out",
        )
    about = json.loads((out / "run.json").read_text()) if (out / "run.json").exists() else {}
    return load(out), about, _dataset(out / "forecast.nc"), _dataset(out / "truth.nc")


def _dataset(path: Path) -> xr.Dataset | None:
    if not path.exists():
        return None
    with xr.open_dataset(path, engine="h5netcdf") as ds:
        return ds.load()
