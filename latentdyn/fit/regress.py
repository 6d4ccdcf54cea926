"""Transitions made of hinges by least squares, from paths that are known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentdyn.conditional import rebind
from latentdyn.distributions.hollow import hollow
from latentdyn.transitions.piecewise import PiecewiseLinear

__all__ = ["Steps", "can_regress", "regress"]

RIDGE = 1e-7  # of the mean square of the features, so that units that are always off stay at zero


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


def can_regress(transition: Any) -> bool:
    """Whether F is linear in parameters that are all free and unbounded."""
    if not isinstance(transition, PiecewiseLinear) or transition.outer is None:
        return False
    a, W, h = transition.outer
    plain = a not in transition.constraints and transition.constraints.get(W, hollow) is hollow
    names = (a, W, h, *(["B"] if transition.input_dim else []))
    return plain and all(transition.get_parameter(n).requires_grad for n in names)


def regress(transition: Any, steps: Steps, iterations: int = 50, rows: int = 20_000) -> Tensor:
    r"""Minimise sum_t |z_{t+1} - F(z_t)|^2 / Var[z_{t+1} - z_t]; returns the variances left, (K,).

    F(z) = a * z + W psi(z) + h + B u is linear in (a, W, h, B), which are the ridge solution for
    whatever the other parameters are; those follow the gradient of what then remains (variable
    projection), by L-BFGS on at most ``rows`` steps.

    Source: Golub & Pereyra (1973).
    """
    whole, free = steps, _inner(transition)
    some = steps.some(rows)
    if free and iterations:
        _search(transition, free, some, iterations)
    with torch.no_grad():
        solution, residual = _solve(transition, {}, whole)
        transition.start(**{n: v.to(transition.get_parameter(n)) for n, v in solution.items()})
    return residual


def _inner(transition: Any) -> dict[str, Tensor]:
    """Free parameters inside psi."""
    outside = {*transition.outer, "B", "Q"} if transition.outer else set()
    named = transition.named_parameters()
    return {n: p for n, p in named if p.requires_grad and p.numel() and n not in outside}


def _search(transition: Any, free: dict[str, Tensor], steps: Steps, iterations: int) -> None:
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
        loss = (_solve(transition, x, steps)[1] / scale).sum()
        loss.backward()
        if float(loss.detach()) < best:
            best, good = float(loss.detach()), {n: v.detach().clone() for n, v in x.items()}
        return loss

    optimiser.step(closure)
    transition.start(**{n: v.to(free[n]) for n, v in good.items()})


def _solve(
    transition: Any, inner: dict[str, Tensor], steps: Steps
) -> tuple[dict[str, Tensor], Tensor]:
    """(a, W, h, B) given the other parameters, and the variances left."""
    values = {n: p.detach().double() for n, p in transition.named_parameters()}
    hinges = rebind(transition, values | inner).hinges()
    K, L = steps.now.shape[-1], hinges.units
    own = steps.now
    psi = hinges.psi(hinges.before(own))
    ones = own.new_ones(len(own), 1)
    x = torch.cat([own, psi, ones, *([] if steps.u is None else [steps.u])], -1)
    d = steps.then - own
    G, r = x.mT @ x / len(x), x.mT @ d / len(x)
    places = _columns(transition, K, L, x.shape[-1]).to(x.device)  # (K, m)
    eye = RIDGE * G.diagonal().detach().mean() * torch.eye(places.shape[-1]).to(x)
    block = G[places[:, :, None], places[:, None, :]] + eye
    theta = torch.linalg.solve(block, r.mT.gather(1, places)[..., None]).squeeze(-1)  # (K, m)
    full = theta.new_zeros(K, x.shape[-1]).scatter(1, places, theta)
    residual = (d - x @ full.mT).square().mean(0)
    a, W, h = transition.outer
    found = {
        a: 1 + full.diagonal(),
        W: full[:, K : K + L],
        h: full[:, K + L],
    }
    return found | ({} if steps.u is None else {"B": full[:, K + L + 1 :]}), residual


def _columns(transition: Any, K: int, L: int, width: int) -> Tensor:
    """For each state the features it depends on: its own z, units, one, inputs."""
    units = [list(range(L)) for _ in range(K)]
    if transition.constraints.get(transition.outer[1]) is hollow:
        units = [[j for j in range(L) if j != i] for i in range(K)]
    rest = list(range(K + L, width))
    return torch.tensor([[i, *[K + j for j in units[i]], *rest] for i in range(K)])
