"""Names of the dimensions of parameters."""

from __future__ import annotations

from typing import Any

__all__ = ["parameter_dims"]

_BY_LETTER = {
    "A": ("state", "state_aux"),
    "W": ("state", "state_aux"),
    "Q": ("state", "state_aux"),
    "covariance": ("state", "state_aux"),
    "a": ("state",),
    "h": ("state",),
    "b": ("state",),
    "mean": ("state",),
    "B": ("state", "input"),
    "C": ("unit", "state"),
    "d": ("unit",),
    "D": ("unit", "input"),
    "R": ("unit", "unit_aux"),
    "r": ("unit",),
    "df": ("unit",),
}


def parameter_dims(name: str, shape: Any, model: Any) -> tuple[str, ...]:
    """Dimension names of a parameter: states, units, inputs, or name_dim_0 where unknown.

    Example:
        >>> from latentdyn import StateSpace, emissions, transitions
        >>> model = StateSpace(transitions.PLRNN(2), emissions.Poisson(2, 5))
        >>> parameter_dims("transition.W", (2, 2), model)
        ('state', 'state_aux')
    """
    model = model.core
    sizes = {"state": model.state_dim, "unit": model.obs_dim, "input": model.input_dim}
    sizes["session"] = getattr(model.prior, "sessions", None)
    for wanted in _candidates(name, len(shape)):
        if [sizes.get(dim.removesuffix("_aux")) for dim in wanted] == list(shape):
            return wanted
    return tuple(f"{name}_dim_{i}" for i in range(len(shape)))


def _candidates(name: str, rank: int) -> list[tuple[str, ...]]:
    """What so many dims of a parameter, or of its hyper-parameters, may be called."""
    path, _, what = name.rpartition(".")
    if not path.startswith("prior."):
        own = _BY_LETTER.get(what, ())
        found = [own[:rank], ("session", *own)[:rank]]
    else:
        own = _BY_LETTER.get(path.rpartition(".")[2], ())
        by_kind = {"mean": own, "raw": ("session", *own), "relevance": own[-1:]}
        found = [by_kind.get(what, ())]
    return [dims for dims in found if len(dims) == rank]
