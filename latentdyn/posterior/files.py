"""Files of a posterior: written whole or not at all, read only if they are what was written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import xarray as xr

from latentdyn.errors import InputError

__all__ = [
    "AGAIN",
    "INDEX",
    "need_own_data",
    "need_same",
    "need_sizes",
    "read_data",
    "read_index",
    "write_all",
]

INDEX = "posterior.json"
RATIO, SLACK = 1100, 10_000_000  # what zlib can shrink at most, and bytes of small files
SIZES = (
    "state_dim",
    "obs_dim",
    "input_dim",
    "hidden",
    "layers",
    "categories",
    "sessions",
    "p",
    "q",
)
LEAST, LARGE = 64, 10**8  # sizes that do no harm, and numbers that may be made of them
AGAIN = "save the posterior again, or use a copy"


def write_all(
    folder: Path, config: dict[str, Any], writers: Mapping[str, Callable[[Path], None]]
) -> None:
    """Write the files, then the index that names them: a fit that was there stays until then.

    A process that is killed at any moment leaves the old fit or the new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old, files = _named(folder), {}
    partials = {name: folder / f".{name}.partial" for name in writers}
    try:
        for name, write in writers.items():
            write(partials[name])
    except BaseException:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
        raise
    for name, partial in partials.items():
        place = _free(folder, name)
        _settle(partial, place)
        files[name] = {"name": place.name, "sha256": _sha(place)}
    config = config | {"files": files}
    config["digest"] = _digest(config)
    partial = folder / f".{INDEX}.partial"
    partial.write_text(json.dumps(config, indent=1))
    _settle(partial, folder / INDEX)
    for name in old - {f["name"] for f in files.values()}:
        (folder / name).unlink(missing_ok=True)


def _free(folder: Path, name: str) -> Path:
    """A place beside the old fit and whatever else is there: data.nc, data.2.nc, ..."""
    stem, _, suffix = name.partition(".")
    places = (folder / (f"{stem}.{k}.{suffix}" if k > 1 else name) for k in count(1))
    return next(place for place in places if not place.exists())


def _named(folder: Path) -> set[str]:
    """Files of the fit that is there."""
    try:
        files = json.loads((folder / INDEX).read_text())["files"]
        return {Path(f["name"]).name for f in files.values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _settle(partial: Path, place: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(place)


def _sha(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(config: Mapping[str, Any]) -> str:
    """Of everything in an index but the digest itself."""
    plain = {k: v for k, v in config.items() if k != "digest"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a folder, whose files are those that were written with it.

    Raises: InputError if there is none, or if a file is missing or has changed.
    """
    path = folder / INDEX
    if not path.is_file():
        wanted, fix = "a folder written by Posterior.save", f"pass the folder that contains {INDEX}"
        raise InputError("folder", wanted, str(folder), fix)
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise _changed(f"{INDEX} that cannot be read ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("files"), dict):
        raise _changed(f"an {INDEX} that does not name its files")
    for name, file in config["files"].items():
        place = folder / Path(str(file.get("name"))).name
        if not place.is_file():
            raise _changed(f"no {place.name}")
        if _sha(place) != file.get("sha256"):
            raise _changed(f"another {name}")
        config["files"][name] = place
    return config


def _changed(got: str) -> InputError:
    return InputError("folder", "files as Posterior.save wrote them", got, AGAIN)


def need_sizes(config: object, entries: int) -> None:
    """Refuse sizes that so many saved numbers cannot fill, before anything is built of them."""
    if isinstance(config, list):
        for part in config:
            need_sizes(part, entries)
    if not isinstance(config, dict):
        return
    most = max(LEAST, min(entries, int(max(64 * entries, LARGE) ** 0.5)))
    for name, value in config.items():
        if name in SIZES and isinstance(value, int) and value > most:
            raise _changed(f"{name}={value} beside {entries} saved numbers")
        need_sizes(value, entries)


def need_same(folder: Path) -> None:
    """Refuse an index that was changed after it was written."""
    written = json.loads((folder / INDEX).read_text())
    if written.get("digest") != _digest(written):
        raise _changed(f"another {INDEX}")


def need_own_data(path: Path) -> None:
    """Refuse a netCDF file that points to other files, or unpacks to more than it can hold."""
    import h5py

    total, least = 0, path.stat().st_size
    with h5py.File(path) as file:
        groups = [file["/"]]
        while groups:
            group = groups.pop()
            for name in group:
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    raise _changed(f"a link to other data, {name!r}")
                item = group[name]
                if isinstance(item, h5py.Group):
                    groups.append(item)
                elif item.external or item.is_virtual:
                    raise _changed(f"data kept in other files, {name!r}")
                else:
                    total += item.size * item.dtype.itemsize
    if total > RATIO * least + SLACK:
        raise _changed(f"{total / 2**30:.1f} GiB in a file of {least} bytes")


def read_data(path: Path) -> xr.Dataset:
    """The dataset of a file that holds all of it."""
    try:
        need_own_data(path)
        with xr.open_dataset(path, engine="h5netcdf", decode_times=False) as ds:
            return ds.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise _changed(f"{path.name} that cannot be read ({error})") from error
