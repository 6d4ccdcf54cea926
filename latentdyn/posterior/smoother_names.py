"""Smoothers of collapsed programs by name, for storage."""

from __future__ import annotations

from typing import Any

from latentdyn import smooth
from latentdyn.config import build, describe
from latentdyn.errors import InputError
from latentdyn.programs import Collapsed, Program
from latentdyn.smoother import Smoother, as_smoother

__all__ = ["build_program", "describe_program"]

_NAMED = {s.name: s for s in vars(smooth).values() if isinstance(s, Smoother)}
_ROOM = "smooth."


def describe_program(program: Program) -> Any:
    """JSON for a program; of a collapsed one, the model, and its smoother by name."""
    if program.core is program:
        return describe(program)
    given = as_smoother(program.smoother)
    if _NAMED.get(given.name) != given.plain:
        raise InputError(
            "model",
            "a smoother of latentdyn.smooth, which can be named in a file",
            repr(program.smoother),
            "save posterior.to_datatree() with .to_netcdf(), or collapse with one of "
            "latentdyn.smooth",
        )
    said = {"name": _ROOM + given.name, "settings": describe(dict(given.settings), "smoother")}
    return {"collapsed": describe(program.model), "smoother": said}


def build_program(config: Any) -> Any:
    """The program that `describe_program` described."""
    if "collapsed" not in config:
        return build(config)
    name = config["smoother"]["name"]
    found = _NAMED.get(name.removeprefix(_ROOM))
    if found is None:
        fix = "load it with the version of latentdyn that saved it"
        raise InputError("folder", "a smoother of latentdyn", name, fix)
    return Collapsed(
        build(config["collapsed"]), found.with_(**build(config["smoother"]["settings"]))
    )
