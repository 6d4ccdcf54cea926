"""Smooth curves through noisy series, before anything is known about their dynamics."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdyn import emissions, initials, smooth, transitions
from latentdyn.data import Batch
from latentdyn.programs import StateSpace

__all__ = ["local_trend"]

PART = 5000  # steps from which the amount of smoothing is learned
RATIOS = [4.0**-k for k in range(14)]  # of the innovations of the curvature to the noise


@torch.no_grad()
def local_trend(batch: Batch) -> tuple[Tensor, Tensor]:
    r"""Smoothed y, (N, T, D), and the noise variance of each unit, (D,).

    Each unit is a curve whose second difference is a random walk, y_t = c_t + noise: a smoothing
    spline of degree five, with the ratio of the two variances at the maximum of the likelihood.
    Source: Durbin & Koopman (2012), section 3.9.
    """
    curves, noise = [], []
    for d in range(batch.y.shape[-1]):
        unit = Batch(
            batch.y[..., d : d + 1].double(), batch.mask[..., d : d + 1], batch.length.clone()
        )
        found = [(*_profile(unit.head(steps=PART), ratio), ratio) for ratio in RATIOS]
        _, variance, ratio = max(found)
        curves.append(smooth.kalman(_model(unit, ratio * variance, variance), unit).mean[..., 0])
        noise.append(variance)
    y = torch.stack(curves, -1).to(batch.y)
    return y, torch.tensor(noise).to(batch.y)


def _model(batch: Batch, q: float, r: float) -> StateSpace:
    A, Q = torch.tensor([[1, 1, 0.5], [0, 1, 1], [0, 0, 1]]).double(), torch.zeros(3, 3).double()
    Q[2, 2] = q
    seen = batch.y[batch.mask]
    start = initials.Gaussian.of(
        mean=[float(seen.mean()), 0, 0], covariance=float(seen.var()) * torch.eye(3).double()
    )
    readout = emissions.Gaussian.of(C=[[1.0, 0, 0]], R=[r])
    return StateSpace(transitions.Linear.of(A=A, Q=Q), readout, start)


def _profile(batch: Batch, ratio: float) -> tuple[float, float]:
    """Log-likelihood at the best variance for this ratio, and that variance."""
    q = smooth.kalman(_model(batch, ratio, 1.0), batch)
    r = q.standardised_residuals[:, 3:].flatten()
    r = r[~torch.isnan(r)]
    n, square = len(r), float(r.square().sum())
    variance = square / n
    gain = square / 2 - n / 2 * torch.tensor(variance).log() - n / 2
    return float(q.log_evidence.sum() + gain), variance
