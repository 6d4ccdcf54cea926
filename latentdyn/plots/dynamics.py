"""Where the dynamics push the state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn.errors import InputError
from latentdyn.plots.canvas import INK, ORANGE, axes_of, colour_bar, legend, tidy
from latentdyn.plots.source import paths, place
from latentdyn.posterior import Posterior
from latentdyn.posterior.draws import draw_parameters, for_batch
from latentdyn.programs import Program, StateSpace
from latentdyn.programs.program import need_form
from latentdyn.rng import seeded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["flow_field"]

DRAWS = 50


def flow_field(
    source: Posterior | StateSpace,
    dims: tuple[int, int] | str = (0, 1),
    *,
    trial: object = 0,
    points: int = 24,
    limits: ArrayLike | None = None,
    steps: int = 600,
    ax: Axes | None = None,
) -> Any:
    """Streamlines of E[z' | z] - z in a plane of the state space, with the posterior mean path.

    The other coordinates stay at the mean of the path, inputs at zero; the flow is averaged over
    draws of the parameters. Colour: length of the step.

    Args:
        source: a Posterior, or a `StateSpace`, of which a simulated path is drawn.
        dims: two states; or ``"principal"``, the plane of the path's two principal components.
        trial: whose path is drawn, its label or its place from 0.
        points: of the grid, along each side.
        limits: (low, high) of both axes, or one such pair for each; by default around the path.
        steps: of the path to draw, at most.
        ax: axes to draw on.

    Raises: InputError for fewer than two states, or states that are not there.
    """
    program, path = _program_and_path(source, trial)
    centre, basis, names = _plane(path, dims)
    origin = np.zeros(2) if dims == "principal" else basis @ centre
    along = ((path - centre) @ basis.T + origin)[:steps]  # (T, 2)
    u, v = _grid(along, limits, points)
    places = centre + (np.stack([u.ravel(), v.ravel()], -1) - origin) @ basis  # (G, K)
    du, dv = (_flow(program, places) @ basis.T).T.reshape(2, *u.shape)
    own = ax is None
    ax = axes_of(ax, width=6.2, height=5.2)[0]
    lines = ax.streamplot(
        u,
        v,
        du,
        dv,
        color=np.hypot(du, dv),
        cmap="cividis",
        density=1.1,
        linewidth=1,
        arrowsize=1.1,
        zorder=1,
    )
    colour_bar(ax, lines.lines, "length of a step")
    walked = "posterior mean path" if isinstance(source, Posterior) else "simulated path"
    ax.plot(*along.T, color=ORANGE, linewidth=1.1, alpha=0.9, zorder=2, label=walked)
    ax.plot(*along[0], "o", color=INK, markersize=6, zorder=3, label="its first state")
    ax.set(xlim=(u.min(), u.max()), ylim=(v.min(), v.max()))
    tidy(ax, "Where the dynamics push the state", *names)
    legend(ax, own)
    return ax


def _program_and_path(source: Posterior | StateSpace, trial: object) -> tuple[Any, np.ndarray]:
    """The program bound to draws (S, 1, 1, ...) of its parameters, and a path (T, K)."""
    if isinstance(source, Posterior):
        path = paths(source, trial).mean("draw").values
        one = place(source.data, trial)
        program, guide = source.fits[source.best]
        with seeded(0):
            drawn = draw_parameters(program, guide, DRAWS)
        return for_batch(program, drawn, source.batch[one : one + 1]), path
    if not isinstance(source, Program):
        fix = "pass what fit.svi returned, or the model"
        raise InputError("source", "a Posterior or a StateSpace", type(source).__name__, fix)
    need_form(source, "StateSpace", "pass what fit.svi returned, or the model")
    model: Any = source
    inputs = torch.zeros(200, model.input_dim) if model.input_dim else None
    return source, source.simulate(1, 200, inputs, seed=0)["z"].values[0]


def _plane(path: np.ndarray, dims: Any) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    """Centre (K,), two directions (2, K), and their names."""
    K = path.shape[1]
    if K < 2:
        raise InputError("source", "two states or more", K, "plot latents of a single state")
    centre = path.mean(0)
    if dims == "principal":
        axes = np.linalg.svd(path - centre, full_matrices=False)[2][:2]
        return centre, axes, ("first principal component", "second principal component")
    if len(dims) != 2 or not all(0 <= d < K for d in dims) or dims[0] == dims[1]:
        raise InputError(
            "dims", f"two of the states 0 to {K - 1}, or 'principal'", dims, "use dims=(0, 1)"
        )
    return centre, np.eye(K)[list(dims)], (f"state {dims[0]}", f"state {dims[1]}")


def _grid(
    along: np.ndarray, limits: ArrayLike | None, points: int
) -> tuple[np.ndarray, np.ndarray]:
    low, high = along.min(0), along.max(0)
    margin = 0.15 * np.maximum(high - low, 1e-6)
    low, high = low - margin, high + margin
    if limits is not None:
        low, high = np.broadcast_to(np.asarray(limits, dtype=float), (2, 2)).T
    u, v = np.meshgrid(np.linspace(low[0], high[0], points), np.linspace(low[1], high[1], points))
    return u, v


@torch.no_grad()
def _flow(program: Any, z: np.ndarray) -> np.ndarray:
    """Mean step (G, K) from each of the states (G, K), averaged over draws."""
    at: Tensor = torch.as_tensor(z, dtype=program.dtype)[None]  # (1, G, K)
    moved = program.transition.at(slice(1, 2))(at).mean - at
    return moved.flatten(0, -3).mean(0).cpu().numpy()
