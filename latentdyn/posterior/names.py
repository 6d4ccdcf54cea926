"""Names of the dimensions of parameters."""

from __future__ import annotations

from typing import Any

__all__ = ["parameter_dims"]

_BY_LETTER = {
    "A": ("state", "state_aux"), "W": ("state", "state_aux"), "Q": ("state", "state_aux"),
    "covariance": ("state", "state_aux"), "a": ("state",), "h": ("state",), "b": ("state",),
    "mean": ("state",), "B": ("state", "input"), "C": ("unit", "state"), "d": ("unit",),
    "D": ("unit", "input"), "R": ("unit", "unit_aux"), "r": ("unit",), "df": ("unit",),
}


def parameter_dims(name: str, shape: Any, model: Any) -> tuple[str, ...]:
    """Dimension names of a parameter: states, units, inputs, or name_dim_0 where unknown.

    Example:
        >>> from latentdyn import StateSpace, emissions, transitions
        >>> model = StateSpace(transitions.PLRNN(2), emissions.Poisson(2, 5))
        >>> parameter_dims("transition.W", (2, 2), model)
        ('state', 'state_aux')
    """
    model = getattr(model, "model", model)
    sizes = {"state": getattr(model, "state_dim", None), "unit": getattr(model, "obs_dim", None),
             "input": getattr(model, "input_dim", None)}
    wanted = _BY_LETTER.get(name.rpartition(".")[2], ())[: len(shape)]
    if len(wanted) == len(shape) and all(
        sizes.get(dim.removesuffix("_aux")) == size for dim, size in zip(wanted, shape, strict=True)
    ):
        return wanted
    return tuple(f"{name}_dim_{i}" for i in range(len(shape)))
