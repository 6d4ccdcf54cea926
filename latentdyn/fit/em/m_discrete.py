r"""M step of a hidden Markov model (Baum & Welch).

With g_t(k) = p(z_t = k | y) and x_t(i, j) = p(z_{t-1} = i, z_t = j | y) summed over trials:
initial ~ g_1, transition[i] ~ sum_t x_t(i, .), and the emission of each state is fitted to the
observations weighted by g. Source: Rabiner (1989), eq. 40 and 53.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from latentdyn import emissions
from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.distributions import DiscretePath
from latentdyn.fit.em.m_step import closed_form, m_step_discrete
from latentdyn.fit.em.readout import gaussian_readout
from latentdyn.fit.em.regression import covariance_of
from latentdyn.fit.engine.parameters import array, free_of, is_known, write
from latentdyn.programs import Program
from latentdyn.programs._clusters import fit_to

__all__ = ["maximise_discrete"]

SILENT = 1e-8  # the estimate of a rate or probability of which nothing was seen is zero


def maximise_discrete(program: Any, q: DiscretePath, batch: Batch) -> None:
    """Move the free parameters to their maximum.

    A state that the data give no weight keeps its emission, and one that is never left its row of
    the transition. The maximum for a count or label that a state never shows is a rate of zero,
    which has no logarithm: it becomes 1e-8, or stays if it was less.
    """
    idle = None if batch.idle is None else batch.idle.cpu().numpy()
    inside = np.ones(batch.y.shape[:2]) if idle is None else (~idle).astype(float)
    g = array(q.probabilities) * inside[..., None]
    write(program, initial=g[:, 0].mean(0))
    if not is_known(program, "transition"):
        counts = np.einsum("nt,ntij->ij", inside[:, 1:], array(q.pairs))
        total, old = counts.sum(-1, keepdims=True), array(program.transition)
        rows = np.divide(counts, total, out=old.copy(), where=total > 0)
        write(program, transition=rows / rows.sum(-1, keepdims=True))
    if free_of(program, "emission."):
        _emission(program, g, batch)


def _emission(program: Program, g: ndarray, batch: Batch) -> None:
    if m_step_discrete(program.emission, Weights(g, batch)) is NotImplemented:
        fit_to(program, batch, torch.from_numpy(g).to(batch.y))


class Weights:
    """Moments of the states as one-hot vectors, as a linear read-out wants them."""

    def __init__(self, g: ndarray, batch: Batch):
        self.mean, self.batch, self.u = g, batch, np.zeros((*g.shape[:2], 0))

    @cached_property
    def covariance(self) -> ndarray:
        """(N, T, S, S)."""
        g = self.mean
        return g[..., None] * np.eye(g.shape[-1]) - g[..., :, None] * g[..., None, :]

    def total(self, weight: ndarray) -> ndarray:
        """Sum of weight[n, t] Var[z_t]."""
        return np.einsum("nt,ntij->ij", weight, self.covariance)


def _per_state(part: Conditional) -> bool:
    """Whether each state has values of its own that are free: no inputs, no known loadings."""
    loadings = dict(part.named_parameters()).get("C")
    return not part.input_dim and (loadings is None or loadings.requires_grad)


@closed_form(m_step_discrete, emissions.Gaussian)
def _gaussian(part: Conditional, e: Weights) -> Any:
    return gaussian_readout(part, e) if _per_state(part) else NotImplemented


@closed_form(m_step_discrete, emissions.Poisson)
def _poisson(part: Any, e: Weights) -> Any:
    if not _per_state(part):
        return NotImplemented
    mask, y, C, d = array(e.batch.mask), array(e.batch.y), array(part.C), array(part.d)
    g = e.mean
    n = np.einsum("nts,nti->is", g, mask)
    old = np.exp(C + d[:, None])
    seen = np.divide(np.einsum("nts,nti->is", g, y * mask), n, out=old.copy(), where=n > 0)
    rate = np.where(seen > 0, seen, np.minimum(old, SILENT))
    write(part, C=np.log(rate) - d[:, None])


@closed_form(m_step_discrete, emissions.Categorical)
def _categorical(part: Any, e: Weights) -> Any:
    if not _per_state(part):
        return NotImplemented
    g, batch = e.mean, e.batch
    M, D = part.categories, part.obs_dim
    C, d = array(part.C).reshape(D, M, -1), array(part.d).reshape(D, M, 1)
    hot = (array(batch.y)[..., None] == np.arange(M)) * array(batch.mask)[..., None]
    counts = np.einsum("nts,ntim->ims", g, hot)
    n = counts.sum(1, keepdims=True)
    logits = C + d
    old = np.exp(logits - logits.max(1, keepdims=True))
    old /= old.sum(1, keepdims=True)
    seen = np.divide(counts, n, out=old.copy(), where=n > 0)
    p = np.where(seen > 0, seen, np.minimum(old, SILENT))
    write(part, C=(np.log(p) - d).reshape(D * M, -1))


@closed_form(m_step_discrete, emissions.StateGaussian)
def _state_gaussian(part: Any, e: Weights) -> Any:
    g, mask, y = e.mean, array(e.batch.mask), array(e.batch.y)
    means, V = array(part.means), array(part.covariances)
    each = _diagonal_state if part.noise == "diagonal" else _full_state
    for k in range(part.state_dim):
        each(means, V, k, g[..., k], y, mask, is_known(part, "means"))
        own = np.diag(V[k]) if part.noise == "diagonal" else V[k]
        V[k] = covariance_of(own, part.noise, array(part.floor))
    write(part, means=means, covariances=V)


def _diagonal_state(
    means: ndarray, V: ndarray, k: int, g: ndarray, y: ndarray, mask: ndarray, known: bool
) -> None:
    w = g[..., None] * mask
    n = w.sum((0, 1))
    at = n > 0
    if not known:
        means[k, at] = (w * y).sum((0, 1))[at] / n[at]
    V[k, at] = (w * np.square(y - means[k])).sum((0, 1))[at] / n[at]


def _full_state(
    means: ndarray, V: ndarray, k: int, g: ndarray, y: ndarray, mask: ndarray, known: bool
) -> None:
    """Missing units are completed by their regression on the others, as in `readout`."""
    seen = mask.any(-1)
    y, m, w = y[seen], mask[seen], g[seen]
    if not w.sum() > 0:
        return
    more = np.zeros_like(V[k])
    gaps = ~(m > 0).all(-1)
    if bool(gaps.any()):
        own = V[k] * m[gaps, :, None] * m[gaps, None, :] + np.eye(len(V[k])) * (
            1 - m[gaps, :, None]
        )
        G = np.linalg.solve(own, m[gaps, :, None] * V[k]).swapaxes(-1, -2) * m[gaps, None, :]
        y = y.copy()
        y[gaps] = means[k] + ((y[gaps] - means[k])[:, None, :] @ G.swapaxes(-1, -2))[:, 0]
        more = np.einsum("t,tij->ij", w[gaps], V[k] - G @ V[k])
    if not known:
        means[k] = w @ y / w.sum()
    r = y - means[k]
    V[k] = ((w[:, None] * r).T @ r + more) / w.sum()
