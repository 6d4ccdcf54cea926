"""Which dimension is the trial, the time and the unit."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping

import xarray as xr

from latentdyn.errors import InputError

__all__ = ["guess", "rename_dim", "resolve"]

ROLES = ("trial", "time", "unit")
WORDS = {
    "trial": "trial sweep sequence seq subject episode epoch repeat replicate run segment session "
    "block batch animal recording participant",
    "time": "time t date datetime timestamp timepoint timestep step bin frame tick second minute "
    "hour day week month quarter year",
    "unit": "unit neuron cell channel electrode roi region voxel pixel sensor feature variable "
    "series component joint pitch",
}
_ROLE_OF = {word: role for role, words in WORDS.items() for word in words.split()}


def _role(word: str) -> str | None:
    return _ROLE_OF.get(word) or _ROLE_OF.get(word.removesuffix("s"))


def guess(name: Hashable, parts: bool = True) -> str | None:
    """Role that a name suggests: ``"year"`` and, with ``parts``, ``"sunspot_year"`` are times.

    Example:
        >>> guess("neurons"), guess("sequence_train"), guess("dim_0")
        ('unit', 'trial', None)
    """
    text = str(name).lower()
    if _role(text) or not parts:
        return _role(text)
    roles = [_role(word) for word in re.split(r"[^a-z0-9]+", text)]
    return next((role for role in reversed(roles) if role), None)


def resolve(
    dims: Iterable[Hashable], given: Mapping[str, Hashable | None], argument: str
) -> dict[str, Hashable]:
    """Role -> dimension, from what the caller gave, then names, then positions.

    A name that literally is a role wins over a synonym, a whole synonym over a part of a name. Of
    dimensions whose names say nothing, the last is the unit and the first of three the trial. Two
    dimensions whose names suggest the same role are refused.
    """
    dims = tuple(dims)
    found = _given(dims, given)
    for names in (_literal, _whole, guess):
        _match(dims, found, names)
    rest = [dim for dim in dims if dim not in found.values()]
    if clash := next((dim for dim in rest if guess(dim)), None):
        role = guess(clash)
        raise InputError(
            f"{role}_dim",
            f"one dimension of '{argument}' that can be the {role}",
            f"dimensions {dims}",
            "select or stack one, or say which is which: trial_dim=, time_dim=, unit_dim=",
        )
    free = [role for role in ("time", "unit", "trial") if role not in found][: len(rest)]
    found |= dict(zip((role for role in ROLES if role in free), rest, strict=True))
    if "time" not in found:
        raise InputError(
            "time_dim",
            f"a time dimension among the dimensions of '{argument}'",
            f"{dims}",
            f"pass time_dim='{dims[0]}' if that is the time",
        )
    return found


def _given(dims: tuple[Hashable, ...], given: Mapping[str, Hashable | None]) -> dict[str, Hashable]:
    found: dict[str, Hashable] = {}
    for role, dim in given.items():
        if dim is None:
            continue
        if dim not in dims or dim in found.values():
            free = tuple(d for d in dims if d not in found.values())
            raise InputError(
                f"{role}_dim",
                f"one of the dimensions {free}",
                repr(dim),
                "label the axes with xr.DataArray(x, dims=...) or name an existing dimension",
            )
        found[role] = dim
    return found


def _literal(name: Hashable) -> str | None:
    return str(name) if name in ROLES else None


def _whole(name: Hashable) -> str | None:
    return guess(name, parts=False)


def _match(dims: tuple[Hashable, ...], found: dict[str, Hashable], names: object) -> None:
    wanted: dict[str, list[Hashable]] = {}
    for dim in dims:
        role = names(dim)  # type: ignore[operator]
        if role and role not in found and dim not in found.values():
            wanted.setdefault(role, []).append(dim)
    found |= {role: claims[0] for role, claims in wanted.items() if len(claims) == 1}


def rename_dim(ds: xr.Dataset, old: Hashable, new: str) -> xr.Dataset:
    """Rename a dimension and its coordinate; a coordinate ``new`` along ``old`` takes its place."""
    if old == new:
        return ds
    if new in ds.coords and ds[new].dims == (old,):
        return ds.swap_dims({old: new})
    if new in ds.variables or new in ds.dims:
        raise InputError(
            f"{new}_dim",
            f"dimension '{old}' to be free to become '{new}'",
            f"another variable or dimension called '{new}'",
            f"rename that one, e.g. ds.rename({{'{new}': 'other_{new}'}})",
        )
    return ds.rename({old: new})
