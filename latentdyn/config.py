"""Objects as JSON: what class, built with what arguments. Never pickle.

The convention (scikit-learn's): an object keeps every argument of its constructor as an attribute
of the same name. Where another argument may enlarge it, the class names the attribute that has it
as it was given: ``kept = {"input_dim": "dynamics_inputs"}``.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

import numpy as np
import pyro.distributions
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Transform

from latentdyn.errors import InputError

__all__ = ["build", "describe"]

WRAPPED = {  # made of another distribution: argument -> attribute that has it
    pyro.distributions.TransformedDistribution: {
        "base_distribution": "base_dist",
        "transforms": "transforms",
    },
    pyro.distributions.FoldedDistribution: {"base_dist": "base_dist"},
    pyro.distributions.MaskedDistribution: {"base_dist": "base_dist", "mask": "_mask"},
}
_MISSING = object()
_ROOMS = (
    *("transitions", "emissions", "initials", "encoders", "priors", "programs"),
    *("nn", "distributions", "conditional", "per_session", "fit.engine.flat"),
)
_OURS = (*(f"latentdyn.{room}" for room in _ROOMS), "torch.distributions.", "pyro.distributions.")


def describe(value: object, argument: str = "model", seen: dict[int, Any] | None = None) -> Any:
    """JSON for numbers, strings, containers, tensors, distributions and objects of the convention.

    An object that is met again, as a network that two encoders share, is one object when it is
    built; ``seen`` numbers them.

    Example:
        >>> from latentdyn import transitions
        >>> describe(transitions.PLRNN(3))["arguments"]["state_dim"]
        3
    """
    seen = {} if seen is None else seen
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        items = [describe(v, argument, seen) for v in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        return {"dict": {k: describe(v, argument, seen) for k, v in value.items()}}
    if isinstance(value, Tensor | np.ndarray):
        tensor = torch.as_tensor(value).detach().cpu()
        return {"tensor": tensor.tolist(), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if isinstance(value, Distribution):
        return _distribution(value, argument)
    if isinstance(value, Transform):
        return _transform(value, argument)
    if id(value) in seen:
        return {"same": seen[id(value)][0]}
    seen[id(value)] = len(seen), value  # as long as it lives nothing else has its number
    return {"number": seen[id(value)][0]} | _object(value, argument, seen)


def _distribution(d: Distribution, argument: str) -> dict[str, Any]:
    if type(d) in WRAPPED:
        inner = {name: getattr(d, kept) for name, kept in WRAPPED[type(d)].items()}
        return {"class": _path(type(d), argument), "arguments": describe(inner, argument)["dict"]}
    if isinstance(d, Independent):
        return {"independent": describe(d.base_dist, argument), "dims": d.reinterpreted_batch_ndims}
    given = [
        k
        for k in d.arg_constraints  # kept as attributes, or read off a base distribution
        if k in d.__dict__ or isinstance(inspect.getattr_static(d, k, None), property)
    ]
    values = {k: getattr(d, k) for k in given}
    return {"class": _path(type(d), argument), "arguments": describe(values, argument)["dict"]}


def _transform(value: Transform, argument: str) -> dict[str, Any]:
    """A transform, by the arguments of its constructor that it has."""
    names = [n for n in inspect.signature(type(value)).parameters if n in value.__dict__]
    given = describe({n: value.__dict__[n] for n in names}, argument)["dict"]
    return {"class": _path(type(value), argument), "arguments": given}


def _object(value: object, argument: str, seen: dict[int, Any]) -> dict[str, Any]:
    cls = type(value)
    takes = [p for n, p in inspect.signature(cls.__init__).parameters.items() if n != "self"]
    names = [p.name for p in takes if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    several = [p.name for p in takes if p.kind == p.VAR_POSITIONAL]
    kept = getattr(cls, "kept", {})
    held: dict[str, Any] = {n: getattr(value, kept.get(n, n), _MISSING) for n in (*names, *several)}
    missing = [n for n in names if held[n] is _MISSING]
    if not isinstance(value, nn.Module) or missing:
        wanted = "an object that keeps its constructor's arguments as attributes"
        got = f"{cls.__name__} without {missing}" if missing else cls.__name__
        raise InputError(argument, wanted, got, "set self.<name> = <name> in its __init__")
    out = {
        "class": _path(cls, argument),
        "arguments": {n: describe(held[n], n, seen) for n in names},
    }
    if several and held[several[0]] is not _MISSING:
        out["several"] = [describe(v, several[0], seen) for v in held[several[0]]]
    if known := getattr(value, "known", ()):
        out["known"] = {n: describe(getattr(value, n)) for n in known}
    return out


def _path(cls: type, argument: str) -> str:
    if "<locals>" in cls.__qualname__:
        raise InputError(
            argument,
            "a class defined at the top of a module",
            cls.__qualname__,
            "move the class out of the function",
        )
    return f"{cls.__module__}:{cls.__qualname__}"


def build(config: object, made: dict[int, Any] | None = None) -> Any:
    """The object that `describe` described; ``made`` are those that it has met, by number.

    Only modules and distributions are built, from this package, Pyro, torch, or a module that the
    caller has already imported.
    """
    made = {} if made is None else made
    if isinstance(config, list):
        return [build(c, made) for c in config]
    if not isinstance(config, dict):
        return config
    if "tuple" in config:
        return tuple(build(c, made) for c in config["tuple"])
    if "dict" in config:
        return {k: build(v, made) for k, v in config["dict"].items()}
    if "same" in config:
        return made[config["same"]]
    if "tensor" in config:
        return torch.tensor(config["tensor"], dtype=getattr(torch, config["dtype"]))
    if "independent" in config:
        return build(config["independent"], made).to_event(config["dims"])
    cls = _find(config["class"])
    several = [build(c, made) for c in config.get("several", ())]
    new = cls(*several, **{k: build(v, made) for k, v in config["arguments"].items()})
    if "known" in config:
        new = new.fix(**build({"dict": config["known"]}, made))
    if "number" in config:
        made[config["number"]] = new
    return new


def _find(path: str) -> type:
    module, _, name = path.partition(":")
    if not module.startswith(_OURS) and module not in sys.modules:
        raise InputError(
            "folder",
            f"the module '{module}' of a saved class to be imported",
            "a program that has not imported it",
            f"import {module} before loading",
        )
    if module.startswith("latentdyn.") and not module.startswith(_OURS):
        fix = "do not load files from people whom you do not trust"
        raise InputError("folder", "saved modules and distributions only", path, fix)
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        fix = "define it there before loading, best in a module of its own"
        raise InputError("folder", f"the class {name!r} in the module {module!r}", "none", fix)
    if not (isinstance(found, type) and issubclass(found, nn.Module | Distribution | Transform)):
        raise InputError(
            "folder",
            "saved modules and distributions only",
            path,
            "do not load files from people whom you do not trust",
        )
    return found
