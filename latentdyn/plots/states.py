"""Latent states over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from latentdyn.errors import InputError
from latentdyn.plots.canvas import BLUE, ORANGE, axes_of, label, legend, tidy
from latentdyn.plots.source import observed, paths, place
from latentdyn.posterior import Posterior

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["latents"]

MOST_STATES, MOST_STEPS = 6, 600


def latents(
    source: Posterior | xr.DataTree,
    trial: object = 0,
    truth: ArrayLike | None = None,
    *,
    states: Sequence[int] | None = None,
    time: slice | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
) -> Any:
    """Posterior mean and 90% band of each state over time.

    Args:
        source: a Posterior or its DataTree.
        trial: which one, its label or its place from 0.
        truth: true states (time, state) of this trial or (trial, time, state), if they are known.
            States are only defined up to their coordinates, so the affine image of the truth that
            is nearest to the posterior mean is drawn.
        states: which ones; by default the six that vary most.
        time: steps, as a slice of positions; by default the first 600.
        ax: axes to draw on, one for each state.

    Returns: the axes, or an array of axes (states,).
    Raises: InputError for states or trials that are not there, or a truth of another length.
    """
    z = paths(source, trial)
    one = place(observed(source), trial)
    aligned = None if truth is None else _aligned(truth, z.mean("draw").values, one)
    chosen = _chosen(z, states)
    cut = slice(0, MOST_STEPS) if time is None else time
    z = z.isel(time=cut)
    low, high = np.quantile(z.values, [0.05, 0.95], axis=0)
    height = 3.2 if len(chosen) == 1 else 1.2 + 1.15 * len(chosen)
    axes = axes_of(ax, len(chosen), 1, width=9, height=height, sharex=True)
    clock = z["time"].values
    for panel, k in zip(axes, chosen, strict=True):
        panel.fill_between(
            clock, low[:, k], high[:, k], color=BLUE, alpha=0.3, linewidth=0, label="90% of draws"
        )
        panel.plot(clock, z.values.mean(0)[:, k], color=BLUE, linewidth=1.5, label="posterior mean")
        if aligned is not None:
            panel.plot(
                clock,
                aligned[cut, k],
                color=ORANGE,
                linewidth=1.1,
                linestyle="--",
                label="truth, in these coordinates",
            )
        tidy(panel, y=f"state {k}")
    more = f", the {len(chosen)} of {z.sizes['state']} that vary most"
    few = states is None and z.sizes["state"] > len(chosen)
    tidy(axes[0], title="Latent states" + (more if few else ""))
    tidy(axes[-1], x=label(observed(source)["time"], "time"))
    axes[0].figure.align_ylabels(axes)
    legend(axes[0], own=ax is None)
    return axes[0] if len(axes) == 1 else axes


def _chosen(z: xr.DataArray, states: Sequence[int] | None) -> list[int]:
    number = z.sizes["state"]
    if states is None:
        spread = z.mean("draw").std("time").values
        return sorted(np.argsort(-spread)[:MOST_STATES].tolist())
    wrong = [k for k in states if not 0 <= k < number]
    if wrong or not len(states):
        raise InputError("states", f"numbers from 0 to {number - 1}", list(states), "choose these")
    return list(states)


def _aligned(truth: ArrayLike, mean: np.ndarray, trial: int) -> np.ndarray:
    """The affine image of the truth (T, M) nearest to the mean (T, K)."""
    values = np.asarray(truth, dtype=float)
    values = values[trial] if values.ndim == 3 else values
    if len(values) != len(mean):
        raise InputError("truth", f"{len(mean)} steps", len(values), "give one state for each step")
    design = np.column_stack([values, np.ones(len(values))])
    return design @ np.linalg.lstsq(design, mean, rcond=None)[0]
