"""A small model for priors, and what a prior says about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from latentdyn import StateSpace, emissions, transitions
from tests.helpers import FLOAT64


def small(prior: Any = None, dtype: torch.dtype = FLOAT64, seed: int = 0) -> StateSpace:
    torch.manual_seed(seed)
    return StateSpace(transitions.PLRNN(3), emissions.Gaussian(3, 2), prior=prior).to(dtype)


def draws_of(prior: Any, number: int, seed: int = 0, dtype: torch.dtype = FLOAT64) -> Any:
    """Sites and parameters in one plate: name -> (number, ...)."""
    model = small(prior, dtype)
    torch.manual_seed(seed)
    with pyro.plate("draws", number, dim=-2):
        trace = poutine.trace(model.draw).get_trace()
    return {name: site["value"][:, 0] for name, site in sites(trace)}


def sites(trace: Any) -> list[tuple[str, Any]]:
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    ]


def log_density(prior: Any, values: dict[str, Tensor]) -> Tensor:
    """Log p of the sampled sites at these values, (...) over any plate around."""
    trace = poutine.trace(poutine.condition(small(prior).draw, values)).get_trace()
    terms = [site["fn"].log_prob(site["value"]) for _, site in sites(trace)]
    return sum(terms[1:], terms[0])


def one_draw(prior: Any, seed: int = 0) -> dict[str, Tensor]:
    """All sites, drawn once."""
    torch.manual_seed(seed)
    trace = poutine.trace(small(prior).draw).get_trace()
    return {name: site["value"] for name, site in sites(trace)}


def sampled(values: dict[str, Tensor], prior: Any) -> dict[str, Tensor]:
    """Without the sites that are computed from others."""
    trace = poutine.trace(small(prior).draw).get_trace()
    return {n: values[n] for n, site in sites(trace) if not site["is_observed"]}


def arrays(values: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in values.items()}


def off_diagonal(x: np.ndarray) -> np.ndarray:
    """(K, K) -> (K (K - 1),), row by row."""
    return x[~np.eye(x.shape[-1], dtype=bool)]
