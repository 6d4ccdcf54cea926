"""How the fit went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from latentdyn.errors import InputError
from latentdyn.plots.canvas import COLOURS, INK, axes_of, tidy
from latentdyn.plots.source import best_chain, observed
from latentdyn.posterior import Posterior

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["loss"]

PARTS = {
    "log_likelihood": "log likelihood",
    "kl_states": "divergence of states",
    "kl_parameters": "divergence of parameters",
}


def loss(
    source: Posterior | xr.DataTree, *, ax: Axes | Sequence[Axes] | np.ndarray | None = None
) -> Any:
    """The evidence lower bound of each chain over the steps, and its parts in the best one.

    Args:
        source: a Posterior or its DataTree.
        ax: two axes to draw on.

    Returns: array of two axes: the bound, in nats per observed entry; its parts in the best chain.
    The early steps, which lie far below, may be off the scale.
    Raises: InputError if no history was recorded.
    """
    histories, best, entries = _histories(source)
    axes = axes_of(ax, 1, 2, width=9, height=3.6)
    for chain, history in enumerate(histories):
        text = "bound (ELBO)" if len(histories) == 1 else f"bound, chain {chain}"
        axes[0].plot(
            history["step"],
            np.asarray(history["elbo"]) / entries,
            label=text,
            color=COLOURS[chain % len(COLOURS)],
            linewidth=1.8,
        )
    if "validation" in histories[best]:
        axes[0].plot(
            histories[best]["step"],
            histories[best]["validation"],
            color=INK,
            linestyle="--",
            label="log score of held-out entries",
        )
    for (name, text), colour in zip(PARTS.items(), COLOURS, strict=False):
        values = np.asarray(histories[best][name]) / entries
        if values.any():
            axes[1].plot(histories[best]["step"], values, color=colour, label=text, linewidth=1.8)
    tidy(axes[0], "Evidence lower bound", "gradient step", "nats per observed entry")
    tidy(axes[1], "What it is made of", "gradient step", "nats per observed entry")
    for each in axes:
        _show_the_end(each)
        each.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, fontsize=10)
    return axes


def _histories(source: Any) -> tuple[list[dict[str, Any]], int, int]:
    entries = int(observed(source)["y"].count())
    if isinstance(source, Posterior):
        found, best = source.histories, source.best
    else:
        ds, best = source["fit_history"].to_dataset(), best_chain(source)
        found = [
            {"step": ds["step"].values}
            | {str(k): v.isel(chain=c).values for k, v in ds.data_vars.items()}
            for c in range(ds.sizes.get("chain", 0))
        ]
    if not any(len(h.get("elbo", ())) for h in found):
        raise InputError("source", "a fit with a history", "none", "pass what fit.svi returned")
    return [h for h in found if len(h.get("elbo", ()))], best, entries


def _show_the_end(ax: Any) -> None:
    """Limits from the last nine tenths of the steps."""
    late = [np.asarray(line.get_ydata())[len(line.get_ydata()) // 10 :] for line in ax.lines]
    values = np.concatenate(late)
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.08 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + margin)
