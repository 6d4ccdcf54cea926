"""What several test files need."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import transform_to

from latentdyn.conditional import Conditional, Template, templates_of
from latentdyn.data import Batch

FLOAT32, FLOAT64 = torch.float32, torch.float64


def fresh(
    make: Callable[..., nn.Module], *args: Any, seed: int = 0, dtype: torch.dtype = FLOAT64
) -> Any:
    """A new instance, all of whose free parameters are random and inside their supports."""
    torch.manual_seed(seed)
    module = make(*args).to(dtype)
    with torch.no_grad():
        for name, value in random_values(templates_of(module)).items():
            module.get_parameter(name).copy_(value)
    return module


def random_values(templates: Mapping[str, Template], spread: float = 0.3) -> dict[str, Tensor]:
    """Random values around the present ones, inside the supports."""
    found = {}
    for name, template in templates.items():
        transform = transform_to(template.support)
        raw = transform.inv(template.value.detach())
        found[name] = transform(raw + spread * torch.randn_like(raw))
    return found


def random_draws(templates: Mapping[str, Template], draws: int) -> dict[str, Tensor]:
    """Stacked random values: name -> (draws, ...)."""
    each = [random_values(templates) for _ in range(draws)]
    return {name: torch.stack([e[name] for e in each]) for name in templates}


def parents(conditional: Any, *shape: int, dtype: torch.dtype = FLOAT64) -> tuple[Tensor, ...]:
    """Random parents of this shape: () of an initial, (z,) or (z, u) of the others."""
    if list(inspect.signature(conditional.forward).parameters) == []:
        return ()
    z = torch.randn(*shape, conditional.state_dim, dtype=dtype)
    if not conditional.input_dim:
        return (z,)
    return (z, torch.randn(*shape, conditional.input_dim, dtype=dtype))


def known(conditional: Conditional, values: Mapping[str, Tensor]) -> Any:
    """``type(conditional).of`` with these parameter values and the same settings."""
    cls: Any = type(conditional)
    names = inspect.signature(cls.of).parameters
    settings = {n: getattr(conditional, n) for n in names if n not in values}
    used = {n: v for n, v in values.items() if v.numel()}
    return cls.of(**used, **{n: v for n, v in settings.items() if not isinstance(v, Tensor)})


def make_batch(
    y: Tensor, mask: Tensor | None = None, length: Any = None, u: Tensor | None = None
) -> Batch:
    """A batch; complete unless told otherwise."""
    mask = torch.ones_like(y, dtype=torch.bool) if mask is None else mask
    length = torch.full(y.shape[:1], y.shape[1]) if length is None else torch.as_tensor(length)
    return Batch(y=y * mask, mask=mask, length=length, u=u)


def ragged_batch(
    trials: int = 3,
    steps: int = 7,
    units: int = 4,
    inputs: int = 0,
    dtype: torch.dtype = FLOAT64,
    y: Tensor | None = None,
) -> Batch:
    """Trials of unequal length with a quarter of the entries missing."""
    y = torch.randn(trials, steps, units, dtype=dtype) if y is None else y.to(dtype)
    trials, steps, units = y.shape
    length = torch.tensor([max(steps - 2 * n, 1) for n in range(trials)])
    inside = torch.arange(steps) < length[:, None]
    mask = (torch.rand(trials, steps, units) > 0.25) & inside[..., None]
    u = torch.randn(trials, steps, inputs, dtype=dtype) if inputs else None
    return make_batch(y, mask, length, u)


def assert_close(a: Any, b: Any, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    """Equal up to rounding in double precision."""
    a = torch.as_tensor(a)
    b = b if isinstance(b, Tensor) else torch.as_tensor(b, dtype=a.dtype)
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def assert_mean(samples: Tensor, mean: Tensor, sds: float = 5) -> None:
    """The mean of samples (S, ...) is ``mean`` (...) up to ``sds`` standard errors sd / sqrt(S)."""
    error = samples.std(0) / len(samples) ** 0.5
    worst = ((samples.mean(0) - mean).abs() / error.clamp(min=1e-12)).max()
    assert worst < sds, f"off by {worst:.1f} standard errors"
