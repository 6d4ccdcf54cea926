"""Switching linear dynamical systems, also recurrent ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import constraints

from latentdyn import emissions
from latentdyn.conditional import Conditional, need_dims
from latentdyn.data import Batch
from latentdyn.distributions import ObservedPath, SwitchingPath
from latentdyn.distributions.floored import Floored
from latentdyn.distributions.gaussian import known_noise, noise_support, white
from latentdyn.distributions.switching import Regimes
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes, matvec
from latentdyn.nn.rebind import parameter_of
from latentdyn.priors.prior import Prior
from latentdyn.programs._clusters import switching_start
from latentdyn.programs._common import widest
from latentdyn.programs.collapsed import Collapsed
from latentdyn.programs.hmm import log_probability, probabilities
from latentdyn.programs.memory import Memory
from latentdyn.programs.program import Program
from latentdyn.programs.simulated import by_name
from latentdyn.values import as_float, whole

__all__ = ["SwitchingLinear"]

_RANKS = {"initial": 1, "transition": 2, "G": 2, "A": 3, "b": 2, "B": 3, "mean": 1}


class SwitchingLinear(Program, Floored):
    r"""s_t ~ transition[s_{t-1}],  z_t ~ N(A[s_t] z_{t-1} + b[s_t] + B[s_t] u_t, Q[s_t]).

    y_t ~ emission(z_t, u_t), z_1 ~ N(mean, covariance), s_1 ~ initial. If recurrent, where the
    state is moves the switches: p(s_t = j | s_{t-1} = i, z_{t-1}) is proportional to
    transition[i, j] exp((G z_{t-1})_j).

    Args:
        states: S, discrete states.
        state_dim: K, continuous ones.
        obs_dim: D.
        input_dim: U, inputs to the dynamics.
        recurrent: whether z moves the switches.
        noise: "diagonal" or "full", of Q and of the first state.
        emission: p(y_t | z_t, u_t); by default a Gaussian one, shared by the discrete states.
        prior: draws named parameters; None: all are learned by gradient.

    Parameters: ``initial`` (S,), ``transition`` (S, S), ``G`` (S, K), ``A`` (S, K, K), ``b``
    (S, K), ``B`` (S, K, U), ``Q`` (S, K) or (S, K, K), ``mean`` (K,), ``covariance`` (K,) or
    (K, K).

    Called with a `Batch` it is a Pyro program with the sites of its prior, then ``"z"``, from whose
    density the discrete states are summed out exactly, and ``"y"``: any encoder of paths fits it.
    ``model.collapse(smooth.switching)`` integrates z out too.
    Source: Linderman et al. (2017), eq. 1-5; Ghahramani & Hinton (2000).

    Example:
        >>> model = SwitchingLinear(states=2, state_dim=3, obs_dim=5, recurrent=True)
        >>> data = model.simulate(trials=4, steps=20, seed=0)
        >>> data["z"].dims, data["s"].dims
        (('trial', 'time', 'state'), ('trial', 'time'))
    """

    form = "SwitchingLinear"
    latents = ("z",)
    hears = 0
    dims = {"z": ("state",), "s": ()}
    kept = {"input_dim": "dynamics_inputs"}
    parameter_dims = {
        "initial": ("regime",),
        "transition": ("regime", "regime_aux"),
        "G": ("regime", "state"),
        "A": ("regime", "state", "state_aux"),
        "b": ("regime", "state"),
        "B": ("regime", "state", "input"),
        "Q": ("regime", "state", "state_aux"),
        "mean": ("state",),
        "covariance": ("state", "state_aux"),
    }

    def __init__(
        self,
        states: int,
        state_dim: int,
        obs_dim: int,
        input_dim: int = 0,
        *,
        recurrent: bool = False,
        noise: str = "diagonal",
        emission: Conditional | None = None,
        prior: Prior | Callable[..., Any] | None = None,
        noise_floor: float = 1e-4,
    ):
        super().__init__()
        S, K = whole("states", states), whole("state_dim", state_dim)
        U = whole("input_dim", input_dim, 0)
        emission = emissions.Gaussian(K, obs_dim) if emission is None else emission
        need_dims("emission", emission, "state_dim", "obs_dim")
        sizes = {"state_dim": (K, emission.state_dim), "obs_dim": (obs_dim, emission.obs_dim)}
        for name, (size, got) in sizes.items():
            if got != size:
                raise InputError("emission", f"{name}={size}", f"{name}={got}", "build both alike")
        self.states, self.state_dim, self.dynamics_inputs = S, K, U
        self.recurrent, self.noise, self.prior = recurrent, noise, prior
        self.noise_floor = noise_floor
        self.emission = emission
        self.initial = nn.Parameter(torch.full((S,), 1 / S))
        stay = 0.9 if S > 1 else 0.0
        self.transition = nn.Parameter(stay * torch.eye(S) + (1 - stay) / S)
        self.G = nn.Parameter(torch.zeros(S, K if recurrent else 0))
        self.A = nn.Parameter(torch.empty(S, K, K))
        self.b = nn.Parameter(torch.zeros(S, K))
        self.B = nn.Parameter(torch.zeros(S, K, U))
        Q = white(K, noise, 0.1)
        self.Q = nn.Parameter(Q.expand(S, *Q.shape).clone())
        self.mean = nn.Parameter(torch.zeros(K))
        self.covariance = nn.Parameter(white(K, noise, 1.0))
        self.constraints: Mapping[str, Any] = {
            "initial": constraints.simplex,
            "transition": constraints.simplex,
            "Q": noise_support(noise, noise_floor),
            "covariance": noise_support(noise, noise_floor),
        }
        self.reset_parameters()
        self.to(widest(emission))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Near the identity, each state a little different."""
        K = self.state_dim
        if self.A.requires_grad:
            self.A.copy_(0.95 * torch.eye(K) + 0.1 * torch.randn(self.A.shape) / K**0.5)

    @classmethod
    def of(
        cls,
        initial: ArrayLike,
        transition: ArrayLike,
        A: ArrayLike,
        Q: ArrayLike,
        mean: ArrayLike,
        covariance: ArrayLike,
        emission: Conditional,
        b: ArrayLike | None = None,
        B: ArrayLike | None = None,
        G: ArrayLike | None = None,
        prior: Prior | Callable[..., Any] | None = None,
    ) -> Self:
        """Known dynamics; Q (S, K) or (S, K, K), covariance (K,) or (K, K); recurrent with G."""
        S, K = as_float("A", A).shape[0], as_float("A", A).shape[-1]
        U = 0 if B is None else as_float("B", B).shape[-1]
        V, P, noise = _noises(as_float("Q", Q), as_float("covariance", covariance), K)
        known = {"A": A, "b": b, "B": B, "G": G, "mean": mean, "Q": V, "covariance": P}
        known["initial"] = probabilities("initial", initial)
        known["transition"] = probabilities("transition", transition)
        D: Any = emission.obs_dim
        recurrent = G is not None
        model = cls(S, K, D, U, recurrent=recurrent, noise=noise, emission=emission, prior=prior)
        for name, parameter in list(model.named_parameters(recurse=False)):
            value = parameter if known.get(name) is None else as_float(name, known[name])
            if value.shape != parameter.shape:
                got, fix = f"shape {tuple(value.shape)}", "give one value for each discrete state"
                raise InputError(name, f"shape {tuple(parameter.shape)}", got, fix)
            model._parameters[name] = nn.Parameter(value.detach().clone(), requires_grad=False)
        return model.to(widest(model))

    @property
    def obs_dim(self) -> int:
        """D."""
        return self.emission.obs_dim  # type: ignore[return-value]

    @property
    def input_dim(self) -> int:
        """U, zero without inputs."""
        return max(self.dynamics_inputs, self.emission.input_dim)

    @property
    def sizes(self) -> dict[str, int]:
        """The discrete states."""
        return {"regime": self.states}

    def rank(self, name: str) -> int:
        """Dimensions of one of its own parameters, without draws."""
        full = self.noise == "full"
        return {**_RANKS, "Q": 2 + full, "covariance": 1 + full}[name]

    def regimes(self, u: Tensor | None = None) -> Regimes:
        """The dynamics at the current values, with inputs (N, T, U) in the offset."""
        own = {name: self._own(name) for name in ("initial", "transition", "A", "mean")}
        b = self._own("b")[..., None, :, :]
        if self.dynamics_inputs and u is not None:
            b = b + matvec(self._own("B")[..., None, :, :, :], u[..., None, :])
        Q, P = self._own("Q"), self._own("covariance")
        if self.noise == "diagonal":
            Q, P = torch.diag_embed(Q), torch.diag_embed(P)
        G = self._own("G") if self.recurrent else None
        first, A = log_probability(own["initial"]), log_probability(own["transition"])
        return Regimes(first, A, own["A"], b, Q, own["mean"], P, G)

    def _own(self, name: str) -> Tensor:
        """A parameter without the axis of time that binding draws adds: (..., own dims)."""
        value, rank = parameter_of(self, name), self.rank(name)
        return value if value.dim() == rank else value.squeeze(-rank - 1)

    def path_of(self, batch: Batch, name: str = "z") -> SwitchingPath:
        """Prior over the continuous paths of a batch, of which only valid steps count."""
        batch = self.fit_batch(batch)
        shape = broadcast_shapes(self.lead, (batch.trials,))
        return SwitchingPath(self.regimes(batch.u), batch.steps, batch.valid, batch.idle, shape)

    def observations(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> ObservedPath:
        """Distribution of y given paths z (..., N, T, K)."""
        batch, z = self.fit_batch(batch), by_name(self, latents)["z"]
        u = batch.u if self.emission.input_dim else None
        return ObservedPath(self.emission(z, u), batch.observed)

    def collapse(self, smoother: Callable[..., Any]) -> Collapsed:
        """The program with all states integrated out by ``smoother(model, batch)``."""
        return Collapsed(self, smoother)

    def initialise(self, batch: Batch) -> None:
        """Start the emission from data, the dynamics from regressions on what it shows of z."""
        batch = self.fit_batch(batch)
        self.emission.initialise(batch)
        scale = self.emission.state_scale(batch)
        if scale is not None:
            self.noise_at(scale)
        switching_start(self, batch)

    def carry(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> Memory:
        """The last states; where the discrete one is not given, it is drawn given the path."""
        found = by_name(self, latents)
        if "s" not in found:
            found["s"] = self.path_of(batch).states(found["z"]).sample()
        return super().carry(found, batch)

    def walk(self, memory: Memory, steps: int, u: Tensor | None = None) -> dict[str, Tensor]:
        """Both states on from the last ones, or from the first, as ``z`` and ``s``."""
        s, z = memory.latest("s"), memory.latest("z")
        before = None if s is None or z is None else (s, z)
        path = SwitchingPath(self.regimes(u), steps, batch_shape=memory.lead)
        s, z = path.draw(before=before)
        return {"z": z, "s": s}


def _noises(Q: Tensor, P: Tensor, dim: int) -> tuple[Tensor, Tensor, str]:
    """Both as variances, or both as matrices; refused if singular."""
    found = {}
    full = Q.dim() == 3 or P.dim() == 2
    for name, V, rank in (("Q", Q, 3), ("covariance", P, 2)):
        V = torch.diag_embed(V) if full and V.dim() < rank else V
        kind = known_noise(name, V, dim)[1] if full else ("diagonal" if bool((V > 0).all()) else "")
        if kind not in ("full", "diagonal"):
            raise InputError(name, "noise in every direction", "singular noise", "add a little")
        found[name] = V
    return found["Q"], found["covariance"], "full" if full else "diagonal"
