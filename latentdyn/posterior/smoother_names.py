"""Smoothers of collapsed programs by name, for storage."""

from __future__ import annotations

from functools import partial
from typing import Any

from latentdyn import programs, smooth
from latentdyn.config import build, describe
from latentdyn.errors import InputError
from latentdyn.programs import Collapsed

__all__ = ["build_program", "describe_program"]

_ROOMS = {"smooth": smooth, "programs": programs}


def describe_program(program: Any) -> Any:
    """JSON for a program; of a collapsed one, the model, and its smoother by name."""
    if program.core is program:
        return describe(program)
    plain: Any = program.smoother
    settings: dict[str, Any] = {}
    if isinstance(plain, partial):
        plain, settings = plain.func, dict(plain.keywords)
    for room, module in _ROOMS.items():
        name = getattr(plain, "__name__", "")
        if name in module.__all__ and getattr(module, name) is plain:
            said = {"name": f"{room}.{name}", "settings": describe(settings, "smoother")}
            return {"collapsed": describe(program.model), "smoother": said}
    raise InputError(
        "model",
        "a smoother of latentdyn.smooth, which can be named in a file",
        repr(program.smoother),
        "save posterior.to_datatree() with .to_netcdf(), or collapse with one of latentdyn.smooth",
    )


def build_program(config: Any) -> Any:
    """The program that `describe_program` described."""
    if "collapsed" not in config:
        return build(config)
    room, _, name = config["smoother"]["name"].partition(".")
    module: Any = _ROOMS.get(room)
    if module is None or name not in module.__all__:
        raise InputError(
            "folder",
            "a smoother of latentdyn",
            config["smoother"]["name"],
            "load it with the version of latentdyn that saved it",
        )
    smoother, settings = getattr(module, name), build(config["smoother"]["settings"])
    return Collapsed(
        build(config["collapsed"]), partial(smoother, **settings) if settings else smoother
    )
