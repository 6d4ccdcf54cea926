"""Importance weights of an approximate posterior against the exact one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from latentdyn.errors import InputError
from latentdyn.posterior import Posterior
from latentdyn.posterior.drawn_guide import drawn_of
from latentdyn.posterior.draws import draw, marginal
from latentdyn.posterior.predict import chunks
from latentdyn.rng import seeded

__all__ = ["log_weights"]


def log_weights(
    source: Any, draws: int = 1000, *, paths: int = 10, seed: int | None = None
) -> xr.Dataset:
    r"""Log-ratios of the exact posterior to the fitted one, at draws of the fitted one.

    Variables: ``states`` (chain, draw, trial) = log p(y_n, z_n | theta) - log q(z_n), if there are
    states; ``parameters`` (chain, draw) = log p(theta) + sum_n log p(y_n | theta) - log q(theta),
    if there are random parameters. Each p(y_n | theta) is exact where the states are integrated
    out, else an unbiased importance estimate from ``paths`` draws of the states.

    Args:
        source: a Posterior, or a DataTree made by its ``to_datatree``, whose own draws are used.
        draws: of each chain.
        paths: draws of the states for each draw of the parameters.
        seed: to have the same draws again.
    """
    if isinstance(source, xr.DataTree):
        return _stored(source)
    _need_a_fitted_density(source)
    with seeded(seed):
        columns = [_chain(source, fit, draws, paths) for fit in source.fits]
    if not columns[0]:
        got = "points, with no states to draw or the states integrated out"
        fix = "there is nothing to weigh: only points were fitted"
        raise InputError("source", "a posterior over parameters or states", got, fix)
    ds = xr.Dataset(
        {
            name: (
                ("chain", "draw", "trial")[: values.ndim + 1],
                np.stack([column[name] for column in columns]),
            )
            for name, values in columns[0].items()
        }
    )
    ds = ds.assign_coords({dim: np.arange(size) for dim, size in ds.sizes.items()})
    return ds.assign_coords(trial=source.data["trial"]) if "trial" in ds.dims else ds


def _need_a_fitted_density(posterior: Posterior) -> None:
    if any(
        drawn is not None and drawn.chains for drawn in (drawn_of(g) for _, g in posterior.fits)
    ):
        raise InputError(
            "source",
            "an approximate posterior with a density",
            "draws of a Markov chain",
            "look at r_hat and effective sample sizes: az.summary(post.to_arviz())",
        )


def _stored(tree: xr.DataTree) -> xr.Dataset:
    stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree.children else xr.Dataset()
    if "log_weight" not in stats:
        raise InputError(
            "source",
            "sample_stats/log_weight",
            f"groups {list(tree.children)}",
            "pass the DataTree of a variational fit, or its Posterior",
        )
    ds = xr.Dataset({"states": stats["log_weight"]})
    prior = stats["lp"] - stats["log_q"] - stats["log_weight"].sum("trial")
    if "marginal_log_likelihood" in tree.children and set(tree["posterior"].data_vars) - {"z"}:
        ds["parameters"] = prior + tree["marginal_log_likelihood"]["y"].sum("trial")
    return ds


def _chain(
    posterior: Posterior, fit: tuple[Any, Any], draws: int, paths: int
) -> dict[str, np.ndarray]:
    parts = [_chunk(posterior, fit, n, paths) for n in chunks(draws, posterior.batch.y.numel())]
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}


@torch.no_grad()
def _chunk(
    posterior: Posterior, fit: tuple[Any, Any], number: int, paths: int
) -> dict[str, Tensor]:
    program, guide = fit
    batch = posterior.batch.to(program.dtype, program.device)
    drawn: Any = draw(program, guide, batch, number)
    out: dict[str, Tensor] = {}
    if drawn.log_qz is not None:
        out["states"] = drawn.log_joint - drawn.log_qz  # (S, N)
    if guide.parameters_guide is not None:
        evidence = marginal(program, guide, drawn, batch, paths)
        out["parameters"] = drawn.log_prior - drawn.log_q + evidence.sum(-1)
    return out
