"""Discrete states of a hidden Markov model, exactly."""

from __future__ import annotations

from latentdyn.distributions import DiscretePath
from latentdyn.programs import HMM
from latentdyn.smooth.ready import ready
from latentdyn.smoother import smoother

__all__ = ["hmm"]


@smoother()
def hmm(model: HMM, y: object, u: object = None) -> DiscretePath:
    r"""p(z_{1:T} | y) of discrete states: marginals, pairs, best path, random paths.

    Args:
        model: `programs.HMM`.
        y: a `Batch`, or whatever `as_dataset` takes; NaN is missing.
        u: inputs (N, T, U), if the emission has any.

    Raises: InputError if y is outside of the emission's support, or if no path of states allows
    what was observed; it names the first such step.
    Returns: a `DiscretePath` over (..., N) trials with ``probabilities``, ``filtered``,
    ``predicted`` (..., N, T, S), ``pairs`` (..., N, T-1, S, S), ``mode`` (..., N, T),
    ``log_evidence`` (..., N), ``sample``, ``log_prob``, ``entropy`` and ``to_dataset``. Past
    the end of a trial the state stays as it was.
    Source: Rabiner (1989).

    Example:
        >>> import latentdyn as ld
        >>> from latentdyn.programs import HMM
        >>> emission = ld.emissions.StateGaussian.of(means=[[-1.0], [1.0]], covariances=[[1], [1]])
        >>> model = HMM.of([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], emission)
        >>> hmm(model, [-1.2, -0.3, 0.2, 1.5, 2.0]).mode
        tensor([[0, 0, 1, 1, 1]])
    """
    double, batch, data = ready(model, y, u, "HMM")
    path = double.path_of(batch)
    path.source = data
    if data is not None or not path.log_likelihood.requires_grad:  # else it may be a search
        path.need_path()
    return path.to(model.dtype)
