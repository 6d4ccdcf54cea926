"""The specialists for Gaussian states: statsmodels, Pyro and dynamax, each in its best form.

Each function returns what can be timed; it is empty where the library is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def statsmodels_of(p: Any) -> dict[str, Callable]:
    """Kalman filter and smoother with univariate filtering of collapsed observations."""
    try:
        from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother
    except ImportError:
        return {}
    ks = KalmanSmoother(k_endog=p.D, k_states=p.K, k_posdef=p.K)
    ks.bind(np.asfortranarray(p.y[0].T))
    ks["design"], ks["obs_cov"], ks["transition"] = p.C, np.diag(p.R), p.A
    ks["selection"], ks["state_cov"] = np.eye(p.K), p.Q
    ks.initialize_known(np.zeros(p.K), np.eye(p.K))
    complete = not np.isnan(p.y).any()
    ks.set_filter_method(filter_univariate=True, filter_collapsed=complete)
    return {"likelihood": lambda: ks.loglike(), "smooth": lambda: ks.smooth()}


def pyro_of(p: Any) -> dict[str, Callable]:
    """Pyro's GaussianHMM, parallel over time."""
    import pyro.distributions as dist

    y = torch.as_tensor(p.y)
    names = ("A", "Q", "C", "R")

    def log_prob(v: dict[str, torch.Tensor]) -> torch.Tensor:
        normal, zero = dist.MultivariateNormal, torch.zeros
        hmm = dist.GaussianHMM(
            normal(zero(p.K).double(), torch.eye(p.K).double()),
            v["A"].T,
            normal(zero(p.K).double(), v["Q"]),
            v["C"].T,
            normal(zero(p.D).double(), torch.diag(v["R"])),
            duration=p.T,
        )
        return hmm.log_prob(y).sum()

    def gradient() -> None:
        v = {n: torch.as_tensor(getattr(p, n)).requires_grad_() for n in names}
        log_prob(v).backward()

    return {"gradient": gradient}


def dynamax_of(p: Any, parallel: bool = False, A: np.ndarray | None = None) -> dict[str, Callable]:
    """dynamax, sequential or parallel over time, vmapped over trials, compiled."""
    try:
        import jax
        import jax.numpy as jnp
        from dynamax.linear_gaussian_ssm import inference, parallel_inference
        from dynamax.linear_gaussian_ssm.inference import (
            ParamsLGSSM,
            ParamsLGSSMDynamics,
            ParamsLGSSMEmissions,
            ParamsLGSSMInitial,
        )
    except ImportError:
        return {}
    jax.config.update("jax_enable_x64", True)
    module = parallel_inference if parallel else inference
    a = jnp.asarray(p.A if A is None else A)
    zero_k, zero_d = jnp.zeros(p.K), jnp.zeros(p.D)
    params = ParamsLGSSM(
        ParamsLGSSMInitial(zero_k, jnp.eye(p.K)),
        ParamsLGSSMDynamics(a, zero_k, jnp.zeros((p.K, 0)), jnp.asarray(p.Q)),
        ParamsLGSSMEmissions(jnp.asarray(p.C), zero_d, jnp.zeros((p.D, 0)), jnp.asarray(p.R)),
    )
    if parallel:
        params = params._replace(emissions=params.emissions._replace(cov=jnp.diag(p.R)))
    y = jnp.asarray(p.y)
    axes = None
    if A is not None:
        axes = jax.tree_util.tree_map(lambda _: None, params)
        axes = axes._replace(dynamics=axes.dynamics._replace(weights=0))

    def total(q: Any) -> Any:
        each = jax.vmap(lambda q, e: module.lgssm_filter(q, e).marginal_loglik, (axes, 0))
        return each(q, y).sum()

    def moments(q: Any) -> Any:
        f = jax.vmap(lambda q, e: module.lgssm_smoother(q, e), (axes, 0))(q, y)
        return f.marginal_loglik, f.smoothed_means, f.smoothed_covariances

    compiled = {
        "likelihood": jax.jit(total),
        "smooth": jax.jit(moments),
        "gradient": jax.jit(jax.grad(total)),
    }
    return {k: (lambda f=f: jax.block_until_ready(f(params))) for k, f in compiled.items()}


def dynamax_ekf(p: Any) -> dict[str, Callable]:
    """dynamax's extended Kalman filter of a PLRNN, compiled; values for comparison as well."""
    try:
        import jax
        import jax.numpy as jnp
        from dynamax.nonlinear_gaussian_ssm.inference_ekf import extended_kalman_filter
        from dynamax.nonlinear_gaussian_ssm.models import ParamsNLGSSM
    except ImportError:
        return {}
    jax.config.update("jax_enable_x64", True)
    y = jnp.asarray(p.y[0])
    values = {n: jnp.asarray(getattr(p, n)) for n in ("a", "W", "h", "Q", "C", "R")}
    values |= {"d": jnp.zeros(p.D), "m": jnp.zeros(p.K), "P": jnp.eye(p.K)}

    def evidence(v: dict[str, Any]) -> Any:
        params = ParamsNLGSSM(
            v["m"],
            v["P"],
            lambda z: v["a"] * z + v["W"] @ jax.nn.relu(z) + v["h"],
            jnp.diag(v["Q"]),
            lambda z: v["C"] @ z + v["d"],
            jnp.diag(v["R"]),
        )
        return extended_kalman_filter(params, y, output_fields=[]).marginal_loglik

    one, two = jax.jit(evidence), jax.jit(jax.grad(evidence))
    return {
        "likelihood": lambda: float(one(values)),
        "gradient": lambda: {n: np.asarray(g) for n, g in two(values).items()},
    }


def dynamax_em(p: Any, steps: int) -> Callable | None:
    """dynamax's fit_em of all parameters, data and model ready."""
    try:
        import jax
        import jax.numpy as jnp
        import jax.random as jr
        from dynamax.linear_gaussian_ssm import LinearGaussianSSM
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    model, y = LinearGaussianSSM(p.K, p.D), jnp.asarray(p.y[0])
    start, props = model.initialize(
        jr.PRNGKey(0),
        initial_mean=jnp.zeros(p.K),
        initial_covariance=jnp.eye(p.K),
        dynamics_weights=0.95 * jnp.eye(p.K),
        dynamics_bias=jnp.zeros(p.K),
        dynamics_covariance=0.1 * jnp.eye(p.K),
        emission_weights=jr.normal(jr.PRNGKey(1), (p.D, p.K)) / p.K**0.5,
        emission_bias=jnp.zeros(p.D),
        emission_covariance=jnp.eye(p.D),
    )

    def run() -> Any:
        found = model.fit_em(start, props, y, num_iters=steps, verbose=False)
        return jax.block_until_ready(found)

    return run
