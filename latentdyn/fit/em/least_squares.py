"""Transitions made of hinges by least squares, from paths that are known."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdyn.conditional import Conditional, rebind
from latentdyn.distributions.hollow import hollow
from latentdyn.transitions.design import Design

__all__ = ["Steps", "has_least_squares", "least_squares"]

RIDGE = 1e-6  # just enough that units that are always off stay at zero


class Steps:
    """Pairs z_t, z_{t+1} of known paths, with the inputs that lead into the second.

    Args:
        z: (N, T, K).
        inside: (N, T), true where the path is known; a pair needs both.
        u: (N, T, U) or None.
    """

    def __init__(self, z: Tensor, inside: Tensor, u: Tensor | None = None):
        both = inside[:, :-1] & inside[:, 1:]
        self.now, self.then = z[:, :-1][both].double(), z[:, 1:][both].double()
        self.u = None if u is None else u[:, 1:][both].double()

    def __len__(self) -> int:
        return len(self.now)

    def some(self, rows: int) -> Steps:
        """So many of them at random, or all."""
        if len(self) <= rows:
            return self
        picked = torch.randperm(len(self))[:rows]
        new = object.__new__(Steps)
        new.now, new.then = self.now[picked], self.then[picked]
        new.u = None if self.u is None else self.u[picked]
        return new


def has_least_squares(transition: Conditional) -> bool:
    """Whether F is linear in parameters that are all free and unbounded."""
    outer = set(transition.outer)
    if not outer or transition.design is None:
        return False
    supports = [transition.constraints.get(n, hollow) for n in outer]
    named = {n: p for n, p in transition.named_parameters() if p.numel()}
    names = outer | ({"B"} & set(named))
    return all(s is hollow for s in supports) and all(named[n].requires_grad for n in names)


def least_squares(
    transition: Conditional,
    steps: Steps,
    iterations: int = 50,
    ridge: float = RIDGE,
    rows: int = 20_000,
) -> Tensor:
    r"""Minimise sum_t |z_{t+1} - F(z_t)|^2 / Var[z_{t+1} - z_t]; returns the variances left, (K,).

    F is linear in some parameters (`Design`), such as (a, W, h, B) of a * z + W psi(z) + h + B u.
    They are the ridge solution for whatever the other parameters are; those follow the gradient of
    what then remains (variable projection), by L-BFGS on at most ``rows`` steps. ``ridge`` is in
    units of the mean square of the features, of inputs and offset in those of their own.

    Source: Golub & Pereyra (1973).
    """
    whole, free = steps, _inner(transition, steps)
    some = steps.some(rows)
    if free and iterations:
        _search(transition, free, some, iterations, ridge)
    with torch.no_grad():
        solution, residual = _solve(transition, {}, whole, ridge)
        transition.start(**{n: v.to(transition.get_parameter(n)) for n, v in solution.items()})
    return residual


def _inner(transition: Conditional, steps: Steps) -> dict[str, Tensor]:
    """Free parameters inside the features."""
    outside = {*_design(transition, {}, steps.some(1)).names, "Q"}
    named = transition.named_parameters()
    return {n: p for n, p in named if p.requires_grad and p.numel() and n not in outside}


def _search(
    transition: Conditional, free: dict[str, Tensor], steps: Steps, iterations: int, ridge: float
) -> None:
    x = {n: p.detach().double().clone().requires_grad_() for n, p in free.items()}
    good = {n: v.detach().clone() for n, v in x.items()}
    best = torch.inf
    optimiser = torch.optim.LBFGS(
        list(x.values()), max_iter=iterations, history_size=50, line_search_fn="strong_wolfe"
    )
    scale = (steps.then - steps.now).square().mean(0)

    def closure() -> Tensor:
        nonlocal best, good
        optimiser.zero_grad()
        loss = (_solve(transition, x, steps, ridge)[1] / scale).sum()
        loss.backward()
        if float(loss.detach()) < best:
            best, good = float(loss.detach()), {n: v.detach().clone() for n, v in x.items()}
        return loss

    optimiser.step(closure)
    transition.start(**{n: v.to(free[n]) for n, v in good.items()})


def _design(transition: Conditional, inner: dict[str, Tensor], steps: Steps) -> Design:
    values = {n: p.detach().double() for n, p in transition.named_parameters()}
    return rebind(transition, values | inner).design(steps.now, steps.u)


def _solve(
    transition: Conditional, inner: dict[str, Tensor], steps: Steps, ridge: float
) -> tuple[dict[str, Tensor], Tensor]:
    """The linear parameters given the others, and the variances left."""
    design = _design(transition, inner, steps)
    K, n = steps.now.shape[-1], len(steps)
    own = [] if design.own is None else [design.own[1]]
    x = torch.cat([*own, *(f for _, f in design.full), steps.now.new_ones(n, 1)], -1)
    d = steps.then - design.base - sum(own)  # the own parameter is counted from one
    G, r = x.mT @ x / n, x.mT @ d / n
    places = _columns(transition, design, K).to(x.device)  # (K, m)
    states = sum(f.shape[-1] for f in own) + sum(f.shape[-1] for n, f in design.full if n != "B")
    size = G.diagonal().detach().clone()
    size[:states] = size[:states].mean()  # of one kind; units that are always off have none
    block = G[places[:, :, None], places[:, None, :]] + ridge * torch.diag_embed(size[places])
    theta = torch.linalg.solve(block, r.mT.gather(1, places)[..., None]).squeeze(-1)  # (K, m)
    full = theta.new_zeros(K, x.shape[-1]).scatter(1, places, theta)
    residual = (d - x @ full.mT).square().mean(0)
    return _named(design, full, K), residual


def _named(design: Design, full: Tensor, K: int) -> dict[str, Tensor]:
    """Columns (K, m) as parameters by name."""
    found, at = {design.offset: full[:, -1]}, 0
    if design.own is not None:
        found[design.own[0]] = 1 + full[:, :K].diagonal()
        at = K
    for name, features in design.full:
        found[name] = full[:, at : at + features.shape[-1]]
        at += features.shape[-1]
    return found


def _columns(transition: Conditional, design: Design, K: int) -> Tensor:
    """For each state the features it depends on: its own, units, one."""
    rows, at = [[] if design.own is None else [i] for i in range(K)], 0 if design.own is None else K
    for name, features in design.full:
        L = features.shape[-1]
        hole = transition.constraints.get(name) is hollow
        for i, row in enumerate(rows):
            row += [at + j for j in range(L) if not (hole and j == i)]
        at += L
    return torch.tensor([[*row, at] for row in rows])
