"""Names of the dimensions of parameters."""

from __future__ import annotations

from collections.abc import Sequence

from latentdyn.conditional import Conditional
from latentdyn.programs import Program

__all__ = ["parameter_dims"]


def parameter_dims(name: str, shape: Sequence[int], model: Program) -> tuple[str, ...]:
    """Dimension names of a parameter: states, units, inputs, or name_dim_0 where unknown.

    Example:
        >>> from latentdyn import StateSpace, emissions, transitions
        >>> model = StateSpace(transitions.PLRNN(2), emissions.Poisson(2, 5))
        >>> parameter_dims("transition.W", (2, 2), model)
        ('state', 'state_aux')
    """
    model = model.core
    sizes = {"state": model.state_dim, "unit": model.obs_dim, "input": model.input_dim}
    sizes |= model.sizes | {"session": model.prior.sessions}
    for wanted in _candidates(model, name, len(shape)):
        if [sizes.get(dim.removesuffix("_aux")) for dim in wanted] == list(shape):
            return wanted
    return tuple(f"{name}_dim_{i}" for i in range(len(shape)))


def _candidates(model: Program, name: str, rank: int) -> list[tuple[str, ...]]:
    """What so many dims of a parameter, or of its hyper-parameters, may be called."""
    if name.startswith("prior."):
        path, _, what = name.removeprefix("prior.").rpartition(".")
        own = _own(model, path)
        found = [{"mean": own, "raw": ("session", *own), "relevance": own[-1:]}.get(what, ())]
    else:
        own = _own(model, name)
        found = [own[:rank], ("session", *own)[:rank]]
    return [dims for dims in found if len(dims) == rank]


def _own(model: Program, path: str) -> tuple[str, ...]:
    """What the part that a parameter belongs to calls its dims."""
    owner, _, name = path.rpartition(".")
    parts = dict(model.named_modules())
    part = parts.get(owner)
    return part.parameter_dims.get(name, ()) if isinstance(part, Conditional | Program) else ()
