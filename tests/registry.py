"""Everything that goes through the common battery: one line each.

Calling an entry gives a new instance, with random starting values. Entries that take inputs are
called with their number.
"""

from __future__ import annotations

import torch
from pyro.distributions import HalfNormal, LogNormal, Normal

from latentdyn import (
    StateSpace,
    distributions,
    emissions,
    encoders,
    initials,
    priors,
    programs,
    smooth,
    transitions,
)

TRANSITIONS = {
    "linear": lambda U=0: transitions.Linear(3, U),
    "linear-full": lambda U=0: transitions.Linear(3, U, noise="full"),
    "plrnn": lambda U=0: transitions.PLRNN(3, U),
    "plrnn-full": lambda U=0: transitions.PLRNN(3, U, noise="full"),
    "plrnn-centred": lambda U=0: transitions.PLRNN(3, U, centred=True),
    "plrnn-bounded": lambda U=0: transitions.PLRNN(3, U, bounded=True),
    "clipped-plrnn": lambda U=0: transitions.ClippedPLRNN(3, U, bounded=True),
    "dendritic-plrnn": lambda U=0: transitions.DendriticPLRNN(3, 4, U),
    "dendritic-plrnn-clipped": lambda U=0: transitions.DendriticPLRNN(
        3, 4, U, clipped=True, bounded=True
    ),
    "shallow-plrnn": lambda U=0: transitions.ShallowPLRNN(3, 8, U),
    "shallow-plrnn-clipped": lambda U=0: transitions.ShallowPLRNN(
        3, 8, U, clipped=True, bounded=True
    ),
    "almost-linear-rnn": lambda U=0: transitions.AlmostLinearRNN(3, 2, U),
    "low-rank-rnn": lambda U=0: transitions.LowRankRNN(3, 8, U),
    "low-rank-rnn-clipped": lambda U=0: transitions.LowRankRNN(
        3, 24, U, clipped=True, noise="full"
    ),
    "gru": lambda U=0: transitions.GRU(3, U),
    "gru-full": lambda U=0: transitions.GRU(3, U, noise="full"),
    "gated": lambda U=0: transitions.Gated(3, U, hidden=8),
    "mlp": lambda U=0: transitions.MLP(3, U, hidden=8),
    "mean-reverting": lambda U=0: transitions.MeanReverting(3, U),
    "elman": lambda U=0: transitions.Elman(3, U),
    "lstm": lambda U=0: transitions.LSTM(4, U),  # two halves
    "mut1": lambda U=0: transitions.MUT1(3, U),
    "mut2": lambda U=0: transitions.MUT2(3, U),
    "mut3": lambda U=0: transitions.MUT3(3, U, noise="full"),
    "orthogonal": lambda U=0: transitions.Orthogonal(3, U),
    "orthogonal-tanh": lambda U=0: transitions.Orthogonal(3, U, activation="tanh", determinant=-1),
}

EMISSIONS = {
    "gaussian": lambda U=0: emissions.Gaussian(3, 4, U),
    "gaussian-full": lambda U=0: emissions.Gaussian(3, 4, U, noise="full"),
    "student-t": lambda U=0: emissions.StudentT(3, 4, U),
    "poisson": lambda U=0: emissions.Poisson(3, 4, U),
    "negative-binomial": lambda U=0: emissions.NegativeBinomial(3, 4, U),
    "bernoulli": lambda U=0: emissions.Bernoulli(3, 4, U),
    "categorical": lambda U=0: emissions.Categorical(3, 4, 5, U),
    "volatility": lambda U=0: emissions.Volatility(3, 4, U),
    "ordinal": lambda U=0: emissions.Ordinal(3, 4, 5, U),
    "zero-inflated-poisson": lambda U=0: emissions.ZeroInflatedPoisson(3, 4, U),
}

INITIALS = {
    "gaussian": lambda: initials.Gaussian(3),
    "gaussian-full": lambda: initials.Gaussian(3, noise="full"),
    "learned": lambda: initials.Learned(3),
}

ENCODERS = {
    "mean-field": lambda U=0: encoders.MeanField(4, 3, U, hidden=8),
    "bigru": lambda U=0: encoders.BiGRU(4, 3, U, hidden=8),
    "bigru-two-layers": lambda U=0: encoders.BiGRU(4, 3, U, hidden=8, layers=2),
    "chain": lambda U=0: encoders.Chain(4, 3, U, hidden=8),
    "structured": lambda U=0: encoders.Structured(4, 3, U, hidden=8),
}


def _chain(trials: int = 2, steps: int = 5, states: int = 3) -> distributions.GaussianChain:
    off = 0.3 * torch.randn(trials, steps - 1, states, states, dtype=torch.float64)
    root = torch.randn(trials, steps, states, states, dtype=torch.float64)
    diag = root @ root.mT + 3 * torch.eye(states, dtype=torch.float64)
    return distributions.GaussianChain(diag, off, torch.randn(trials, steps, states).double())


def _markov(trials: int = 2, steps: int = 5) -> distributions.MarkovPath:
    initial, transition = initials.Gaussian(3).double(), transitions.PLRNN(3).double()
    return distributions.MarkovPath(initial, transition, steps, batch_shape=(trials,))


# event (5, 3), batch (2,), float64
PATHS = {
    "markov": _markov,
    "gaussian-chain": _chain,
    "factorised": lambda: distributions.FactorisedPath(
        torch.randn(2, 5, 3).double(), 0.2 + torch.rand(2, 5, 3).double()
    ),
}

# of a PLRNN with three states that is read out by a Gaussian
PRIORS = {
    "independent": lambda: priors.Independent(
        {"transition.W": Normal(0.0, 0.3), "emission.R": LogNormal(-1.0, 0.5)}
    ),
    "manifold-attractor": lambda: priors.ManifoldAttractor(2),
    "manifold-attractor-learned": lambda: priors.ManifoldAttractor((0, 2), HalfNormal(0.1)),
    "ard": lambda: priors.ARD("transition.W", 0.5),
    "ard-emission": lambda: priors.ARD("emission.C"),
    "horseshoe": lambda: priors.Horseshoe("transition.W", expected=2),
    "horseshoe-emission": lambda: priors.Horseshoe("emission.C", expected=2, slab=2.0),
    "low-rank": lambda: priors.LowRank("transition.W", 1, scale=0.5),
    "low-rank-emission": lambda: priors.LowRank("emission.C", 2),
    "hierarchical": lambda: priors.Hierarchical(
        {"transition.W": Normal(0.0, 0.3), "transition.a": Normal(0.9, 0.1)}, sessions=2
    ),
    "hierarchical-manifold": lambda: priors.Hierarchical(priors.ManifoldAttractor(1), sessions=2),
    "joint": lambda: priors.Joint(
        priors.Hierarchical({"emission.d": Normal(0.0, 1.0)}, sessions=2, spread=1.0),
        priors.ManifoldAttractor(1),
        priors.ARD("emission.C"),
    ),
}


def _bold() -> StateSpace:
    return StateSpace(transitions.Linear(2), emissions.Hemodynamic(2, 3, 2.0))


def _product() -> StateSpace:
    parts = emissions.Product(emissions.Gaussian(2, 1), emissions.Poisson(2, 2))
    return StateSpace(transitions.Linear(2), parts, initials.Stationary(2))


def _trend_and_season() -> StateSpace:
    parts = (programs.LocalLinearTrend() + programs.Seasonal(4)).components
    return programs.Structural(*parts, initial=initials.Gaussian(5))


# also of conditionals that only make sense inside them
PROGRAMS = {
    "state-space": lambda: StateSpace(transitions.PLRNN(2), emissions.Poisson(2, 3)),
    "collapsed": lambda: StateSpace(transitions.Linear(2), emissions.Gaussian(2, 3)).collapse(
        smooth.kalman
    ),
    "identity": lambda: StateSpace(transitions.PLRNN(3), emissions.Identity(3, 2)),
    "product": _product,
    "bold": _bold,
    "delayed": lambda: programs.delayed(_bold()),
    "arma": lambda: programs.ARMA(2, 1),
    "var": lambda: programs.VAR(2, 2),
    "local-level": lambda: programs.LocalLevel(),
    "flat": lambda: StateSpace(
        transitions.Linear(2), emissions.Gaussian(2, 3), initials.Diffuse(2)
    ),
    "local-linear-trend": lambda: programs.LocalLinearTrend(),
    "season": lambda: programs.Seasonal(4),
    "trend-and-season": _trend_and_season,
    "stochastic-volatility": lambda: programs.StochasticVolatility(
        prior=programs.KimShephardChib()
    ),
    "hmm": lambda: programs.HMM(2, emissions.StateGaussian(2, 3)),
    "switching": lambda: programs.SwitchingLinear(2, 2, 3),
    "counts-given-counts": lambda: programs.PoissonAutoregression(2, 2),
    "autoregressive": lambda: programs.Autoregressive(emissions.Gaussian(4, 2)),
}
