"""Tables of a report."""

from __future__ import annotations

import html
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from latentdyn.posterior import Posterior
from latentdyn.posterior.draws import draw_parameters
from latentdyn.posterior.names import parameter_dims
from latentdyn.rng import seeded

__all__ = ["pairs", "parameter_draws", "parameter_summary", "table"]

MOST_ROWS = 80


def parameter_draws(posterior: Posterior, draws: int = 1000) -> xr.Dataset:
    """Draws of the random parameters of the best chain, (chain, draw, ...), without the states."""
    program, guide = posterior.fits[posterior.best]
    with seeded(0), torch.no_grad():
        sites = draw_parameters(program, guide, draws).sites
    ds = {}
    for name, values in sites.items():
        dims = parameter_dims(name, values.shape[1:], posterior.model)
        ds[name] = (("chain", "draw", *dims), values.cpu().numpy()[None])
    return xr.Dataset(ds)


def parameter_summary(posterior: Posterior, most: int = MOST_ROWS) -> tuple[Any, int]:
    """ArviZ's summary of the random parameters (a DataFrame), and how many rows were left out.

    Draws of a variational fit are independent: columns about the mixing of chains are left out.
    """
    draws = parameter_draws(posterior)
    number = int(sum(v.size for v in draws.values())) // max(draws.sizes.get("draw", 1), 1)
    if not number:
        return None, 0
    kept, rows = [], 0
    for name, values in draws.data_vars.items():
        kept.append(name)
        rows += values.size // draws.sizes["draw"]
        if rows >= most:
            break
    return _summary(draws[kept]).iloc[:most], max(0, number - most)


def _summary(draws: xr.Dataset) -> Any:
    from arviz_stats import summary

    draws = draws.assign_coords({d: np.arange(n) for d, n in draws.sizes.items()})
    with warnings.catch_warnings():  # zero variance: the diagonal of W is zero
        warnings.simplefilter("ignore")
        return summary(xr.DataTree.from_dict({"posterior": draws}), kind="stats", ci_prob=0.9)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], classes: Sequence[str] = ()) -> str:
    """An HTML table; ``classes`` of its rows."""
    styles = [f' class="{c}"' for c in classes] if classes else [""] * len(rows)
    body = "".join(
        f"<tr{style}>" + "".join(f"<td>{_cell(x)}</td>" for x in row) + "</tr>"
        for row, style in zip(rows, styles, strict=True)
    )
    top = "<tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + "</tr>" if head else ""
    return f'<div class="wide"><table><thead>{top}</thead><tbody>{body}</tbody></table></div>'


def pairs(items: Mapping[str, Any]) -> str:
    """A two-column table of names and values."""
    return table((), [(k, v) for k, v in items.items() if v not in (None, "")])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return html.escape(str(value))
