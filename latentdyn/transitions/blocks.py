"""Several linear dynamics side by side."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.conditional import Affine, Conditional, rebind
from latentdyn.data import Batch
from latentdyn.distributions.gaussian import gaussian
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.nn.companion import block_diagonal, block_vector

__all__ = ["Blocks"]


class Blocks(Conditional):
    r"""z' = (z_1', z_2', ...), where each part follows its own linear-Gaussian dynamics.

    Args:
        parts: name -> conditional with an affine form (`transitions.Linear`, `Level`, ...); its
            parameters are named "name.parameter". Parts with inputs see all of them.

    Shapes: ``z`` (..., K), K the sum of those of the parts -> batch (...), event (K,).
    Raises: InputError if a part is not linear-Gaussian.

    Example:
        >>> from latentdyn import transitions
        >>> Blocks({"level": transitions.Level(), "season": transitions.Seasonal(4)}).state_dim
        4
    """

    def __init__(self, parts: Mapping[str, Conditional]):
        super().__init__()
        for name, part in parts.items():
            if not isinstance(part, Conditional) or part.linear_gaussian() is None:
                kind = type(part).__name__
                raise InputError("parts", "linear-Gaussian dynamics", kind, "use a StateSpace")
            self.add_module(name, part)
        self.state_dim = sum(part.state_dim for part in parts.values())
        self.input_dim = max(part.input_dim for part in parts.values())

    @property
    def parts(self) -> dict[str, Conditional]:
        """The parts by name."""
        return dict(self.named_children())  # type: ignore[arg-type]

    @property
    def time_varying(self) -> frozenset[str]:  # type: ignore[override]
        """Names of parameters with a time axis."""
        return frozenset(f"{k}.{n}" for k, part in self.parts.items() for n in part.time_varying)

    def at(self, times: slice) -> Blocks:  # type: ignore[override]
        """The dynamics at some times."""
        if not self.time_varying:
            return self
        new = rebind(self, {})
        new._modules = {name: part.at(times) for name, part in self.parts.items()}
        return new

    def initialise(self, batch: Batch) -> None:
        """Each part starts from data."""
        for part in self.parts.values():
            part.initialise(batch)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """Block-diagonal weights and noise."""
        each = [part.linear_gaussian(u if part.input_dim else None) for part in self.parts.values()]
        found = [a for a in each if a is not None]
        diagonal = all(a.diagonal for a in found)
        noise = (
            block_vector([a.noise for a in found])
            if diagonal
            else block_diagonal([a.covariance for a in found])
        )
        weight = block_diagonal([a.weight for a in found])
        return Affine(weight, block_vector([a.offset for a in found]), noise, diagonal)

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        weight, offset, noise, diagonal = self.linear_gaussian(u)
        if z.dim() == 1:
            weight, offset, noise = weight.squeeze(0), offset.squeeze(0), noise.squeeze(0)
        if diagonal and not bool((noise > 0).all()):
            noise, diagonal = torch.diag_embed(noise), False
        return gaussian(matvec(weight, z) + offset, noise, "diagonal" if diagonal else "singular")
