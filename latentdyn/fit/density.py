"""The log-density of a program's random sites, as a function of one unconstrained vector."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.guide import local_params
from latentdyn.posterior.draws import draw_site_names
from latentdyn.programs import Program
from latentdyn.programs.program import is_free

__all__ = ["LogDensity", "Site", "free_names"]


class Site(NamedTuple):
    """A random site, and its place in the vector."""

    name: str
    transform: Any
    shape: torch.Size  # of the unconstrained value
    place: slice


class LogDensity:
    r"""log p(y, theta) + log |dtheta / dx|,  theta = g(x), for a vector x of all random sites.

    Args:
        program: with a prior over all its free parameters.
        batch: the data.
        start: name -> value of each site; the states' site ``"z"`` is one of them if the program
            has states.

    Example:
        >>> import pyro.distributions as dist
        >>> import latentdyn as ld
        >>> prior = ld.priors.Independent({"transition.level.variance": dist.Gamma(2.0, 2.0)})
    """

    def __init__(self, program: Program, batch: Batch, start: dict[str, Tensor]):
        self.program, self.batch = program, batch
        self.sites: list[Site] = []
        pieces, at = [], 0
