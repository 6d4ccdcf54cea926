"""Modules at other values of their parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from latentdyn.errors import InputError
from latentdyn.nn.linear import BroadcastingLinear

__all__ = ["parameter_of", "rebind"]


def parameter_of(module: nn.Module, name: str) -> Tensor:
    """A parameter by dotted name, also where it is bound to a tensor: torch's own refuses those."""
    owner, _, leaf = name.rpartition(".")
    return module.get_submodule(owner)._parameters[leaf]  # type: ignore[return-value]


def rebind(module: nn.Module, values: Mapping[str, Tensor]) -> Any:
    """A shallow copy of a module in which the named parameters are the given tensors.

    The module itself is untouched, and calling the copy costs nothing extra.
    """
    bound = copy.copy(module)
    bound.__dict__ = dict(module.__dict__)
    bound._parameters = dict(module._parameters)
    bound._modules = dict(module._modules)
    children: dict[str, dict[str, Tensor]] = {}
    for name, value in values.items():
        head, dot, rest = name.partition(".")
        if dot:
            children.setdefault(head, {})[rest] = value
        else:
            bound._parameters[name] = value  # type: ignore[assignment]
    for head, inner in children.items():
        bound._modules[head] = rebind(module._modules[head], inner)  # type: ignore[arg-type]
    _broadcast(module, bound)
    return bound


def _broadcast(module: nn.Module, bound: nn.Module) -> None:
    """Torch's own layers take one value of each parameter: `nn.Linear` is made to take many."""
    if not type(module).__module__.startswith("torch.nn.modules."):
        return
    own: Any = module._parameters
    many = [n for n, v in bound._parameters.items() if v is not None and v.dim() > own[n].dim()]
    if not many:
        return
    if isinstance(module, nn.Linear):
        bound.__class__ = BroadcastingLinear
    elif not isinstance(module, nn.ParameterList | nn.ParameterDict):
        kind = f"torch.nn.{type(module).__name__}"
        fix = "write this layer with latentdyn.nn.matvec, or leave its parameters out of the prior"
        raise InputError(many[0], "a layer whose parameters broadcast", f"draws in a {kind}", fix)
