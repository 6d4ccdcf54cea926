"""How blood flow follows activity."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentdyn.errors import InputError

__all__ = ["RESPONSE", "hrf"]

RESPONSE = (6.0, 16.0, 1.0, 1.0, 6.0, 0.0, 32.0)


def hrf(repetition_time: float, response: tuple[float, ...] = RESPONSE) -> Tensor:
    r"""SPM's canonical haemodynamic response at 0, TR, 2 TR, ..., with sum one.

    h(t) = Gamma(t; p_1 / p_3, 1 / p_3) - Gamma(t; p_2 / p_4, 1 / p_4) / p_5 of t - p_6, with
    Gamma(t; a, b) = b^a t^{a-1} e^{-b t} / Gamma(a).

    SPM computes it on a grid of TR / 16 and keeps every 16th value: these.

    Args:
        repetition_time: TR, in seconds.
        response: p, in seconds but for p_5: delays of response and undershoot, their dispersions,
            ratio of response to undershoot, onset, length of the kernel.

    Shapes: (L + 1,), L = floor(p_7 / TR); float64.
    Raises: InputError if TR, or an entry of p that must be, is not positive, or nothing is left.
    Source: Friston et al. (1998); SPM12, spm_hrf.m.

    Example:
        >>> [round(h, 3) for h in hrf(4.0).tolist()]
        [0.0, 0.71, 0.409, 0.003, -0.071, -0.039, -0.011, -0.002, -0.0]
    """
    if not repetition_time > 0:
        raise InputError("repetition_time", "seconds > 0", repetition_time, "give the TR")
    if len(response) != 7 or not all(p > 0 for p in (*response[:5], response[-1])):
        fix = f"SPM's are {RESPONSE}"
        raise InputError("response", "seven numbers, positive but for the onset", response, fix)
    p = response
    steps = torch.arange(math.floor(p[6] / repetition_time) + 1, dtype=torch.float64)
    t = steps * repetition_time - p[5]
    h = _gamma(t, p[0] / p[2], 1 / p[2]) - _gamma(t, p[1] / p[3], 1 / p[3]) / p[4]
    if not float(h.sum()) > 0:
        fix = "use a shorter repetition_time, or a longer response"
        raise InputError("repetition_time", "a kernel with a positive sum", repetition_time, fix)
    return h / h.sum()


def _gamma(t: Tensor, shape: float, rate: float) -> Tensor:
    """Density of a Gamma variable, zero at t <= 0 (as in SPM)."""
    late = t.clamp(min=torch.finfo(t.dtype).tiny)
    logs = shape * math.log(rate) + (shape - 1) * late.log() - rate * late - math.lgamma(shape)
    return torch.where(t > 0, logs.exp(), 0.0)
