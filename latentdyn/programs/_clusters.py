"""Starting values of discrete states: clusters of the observations, then the emission for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentdyn.conditional import Coordinates
from latentdyn.data import Batch
from latentdyn.emissions._readout import smooth_rates
from latentdyn.programs.program import Program, is_free

__all__ = ["cluster", "fit_to", "switching_start"]


def cluster(batch: Batch, clusters: int, counts: bool = False, rounds: int = 30) -> Tensor:
    """Cluster (N, T) of each step: k-means of standardised y, of smoothed roots of counts.

    ``counts`` says what they are: whole numbers alone may be measurements in some unit.
    Starts are spread out (Arthur & Vassilvitskii 2007), drawn from torch's generator.
    """
    y, mask = batch.y, batch.mask
    if counts:
        y = smooth_rates(y, mask).sqrt()
        mask = torch.ones_like(mask)
    seen = mask.sum((0, 1)).clamp(min=1)
    mean = (y * mask).sum((0, 1)) / seen
    x = (y - mean) * mask
    sd = (x.square().sum((0, 1)) / seen).sqrt()
    x = (x / sd.where(sd > 0, 1)).flatten(0, 1)
    inside = batch.mask.any(-1).flatten().to(x.dtype)
    centres = _spread(x, inside, clusters)
    for _ in range(rounds):
        label = torch.cdist(x, centres).argmin(-1)
        hot = torch.nn.functional.one_hot(label, clusters).to(x.dtype) * inside[:, None]
        size = hot.sum(0)[:, None]
        centres = torch.where(size > 0, hot.mT @ x / size.clamp(min=1), centres)
    return torch.cdist(x, centres).argmin(-1).unflatten(0, batch.y.shape[:2])


def _spread(x: Tensor, weight: Tensor, number: int) -> Tensor:
    """Points of ``x``, each drawn in proportion to its squared distance from those before."""
    chosen = [torch.multinomial(weight + 1e-12, 1)]
    for _ in range(number - 1):
        distance = torch.cdist(x, x[torch.cat(chosen)]).amin(-1).square() * weight
        chosen.append(torch.multinomial(distance + 1e-12, 1))
    return x[torch.cat(chosen)]


def fit_to(program: Program, batch: Batch, weights: Tensor, steps: int = 50) -> None:
    """Move the emission's free parameters to the maximum of sum(weights * log_likelihood).

    ``weights`` (N, T, S) are those of the states at each step.
    """
    found = {n: t for n, t in program.templates.items() if n.startswith("emission.")}
    free = {n: t for n, t in found.items() if is_free(t.value)}
    if not free:
        return
    to = Coordinates(free)
    raw = {n: x.clone().requires_grad_() for n, x in to.start.items()}
    optimiser = torch.optim.LBFGS(raw.values(), max_iter=steps, line_search_fn="strong_wolfe")

    def mean_loss(bound: Any) -> Tensor:
        return -(weights * bound.log_likelihood(batch)).sum() / weights.sum()

    with torch.no_grad():
        wall = mean_loss(program) + 100  # nats per step: no line search takes that

    def loss() -> Tensor:
        optimiser.zero_grad()
        try:
            value = mean_loss(program.at_values(to.values(raw)))
        except torch.linalg.LinAlgError:  # a step so long that numbers overflow
            return wall
        if not bool(value.isfinite()):
            return wall
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    with torch.no_grad():
        for name, value in to.values(raw).items():  # a maximum at infinity is no start
            inside = torch.isfinite(value).all() and free[name].support.check(value).all()
            if bool(inside):
                free[name].value.copy_(value)


@torch.no_grad()
def switching_start(program: Any, batch: Batch, rounds: int = 20) -> None:
    """Regressions of z_t on z_{t-1}, with z read off y, each step in the one that fits it best.

    Nothing is done unless the emission is linear and Gaussian.
    """
    affine = program.emission.linear_gaussian(batch.u if program.emission.input_dim else None)
    if affine is None or batch.steps < 3:
        return
    z = ((batch.y - affine.offset) * batch.mask) @ torch.linalg.pinv(affine.weight).mT
    S, K = program.states, program.state_dim
    x = torch.cat([z[:, :-1], torch.ones_like(z[:, 1:, :1])], -1).flatten(0, 1)
    target = z[:, 1:].flatten(0, 1)
    seen = batch.mask.any(-1)
    weight = (seen[:, 1:] & seen[:, :-1]).flatten().to(z.dtype)
    label = cluster(batch.replace(y=z, mask=seen[..., None].expand_as(z)), S)[:, 1:].flatten()
    ridge = 1e-3 * weight.sum() * torch.eye(K + 1, dtype=z.dtype, device=z.device)
    for _ in range(rounds):
        hot = torch.nn.functional.one_hot(label, S).to(z.dtype) * weight[:, None]
        gram = torch.einsum("ns,ni,nj->sij", hot, x, x) + ridge
        W = torch.linalg.solve(gram, torch.einsum("ns,ni,nj->sij", hot, x, target))  # (S, K+1, K)
        squares = (target[:, None] - torch.einsum("ni,sij->nsj", x, W)).square()
        label = squares.sum(-1).argmin(-1)
    spread = torch.einsum("ns,nsk->sk", hot, squares) / hot.sum(0).clamp(min=1)[:, None]
    spread = spread + 0.01 * target.var(0) + 10 * program.floor.to(spread)
    Q = spread if program.noise == "diagonal" else torch.diag_embed(spread)
    for name, value in {"A": W[:, :K].mT, "b": W[:, K], "Q": Q}.items():
        parameter = program.get_parameter(name)
        if is_free(parameter):
            parameter.copy_(value)
