"""The specialists for other states: cuthbert and the package particles, each in its best form.

Each function returns what can be timed; it is empty where the library is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

SCORE = ("mu", "phi", "sigma")


def cuthbert_sweeps(p: Any, moments: bool, start: np.ndarray) -> Callable[[int], Callable]:
    """So many sweeps of the iterated smoother of a PLRNN, parallel over time, compiled.

    Linearised by its log-densities (``gaussian.taylor``), or by mean and root of the covariance
    (``gaussian.moments``). The first observation is absorbed in the first state, exactly, because
    cuthbert's filters begin one step before the data.
    """
    import cuthbert
    import jax
    import jax.numpy as jnp
    from cuthbert.gaussian import moments as by_moments
    from cuthbert.gaussian import taylor
    from cuthbertlib.stats.multivariate_normal import logpdf

    jax.config.update("jax_enable_x64", True)
    a, W, h, C, y = (jnp.asarray(x) for x in (p.a, p.W, p.h, p.C, p.y[0]))
    root_q, root_r = jnp.diag(jnp.sqrt(p.Q)), jnp.diag(jnp.sqrt(p.R))
    S = p.C @ p.C.T + np.diag(p.R)
    gain = np.linalg.solve(S, p.C).T
    m0 = jnp.asarray(gain @ p.y[0, 0])
    root_0 = jnp.asarray(np.linalg.cholesky(np.eye(p.K) - gain @ p.C))

    def f(z: Any) -> Any:
        return a * z + W @ jax.nn.relu(z) + h

    log_density = partial(logpdf, nan_support=False)

    def dynamics(_: Any, i: Any) -> tuple:
        if moments:
            return (lambda z: (f(z), root_q)), i["before"]
        return (lambda z, new: log_density(new, f(z), root_q)), i["before"], i["now"]

    def seen(_: Any, i: Any) -> tuple:
        if moments:
            return (lambda z: (C @ z, root_r)), i["now"], i["y"]
        return (lambda z, y: log_density(y, C @ z, root_r)), i["now"], i["y"]

    if moments:
        module = by_moments
        forward = module.build_filter(m0, root_0, dynamics, seen, associative=True)
    else:
        module = taylor
        first = partial(log_density, mean=m0, chol_cov=root_0)
        forward = module.build_filter(first, m0, dynamics, seen, associative=True)
    back = module.build_smoother(dynamics)

    def sweep(z: Any) -> tuple[Any, Any]:
        inputs = {"y": y[1:], "before": z[:-1], "now": z[1:]}
        states = cuthbert.filter(forward, inputs, forward.init_prepare(), parallel=True)
        q = cuthbert.smoother(back, states, inputs, parallel=True)
        return q.mean, q.chol_cov

    def sweeps(n: int) -> Callable:
        def all_of_them(z: Any) -> Any:
            found = jax.lax.fori_loop(0, n - 1, lambda _, x: sweep(x)[0], z)
            return sweep(found)

        compiled, z = jax.jit(all_of_them), jnp.asarray(start)
        return lambda: jax.block_until_ready(compiled(z))

    return sweeps


def cuthbert_particles(p: Any, particles: int) -> dict[str, Callable]:
    """Bootstrap filter of stochastic volatility, compiled, and its score.

    Resampling is systematic where the effective sample size is below a half, with stopped gradients
    for the score. Particles are constants and their density carries the gradient, as in ours; or
    gradients go along their paths, which costs less and varies more.
    """
    try:
        import cuthbert
        import jax
        import jax.numpy as jnp
        from cuthbert.smc import particle_filter
        from cuthbertlib.resampling import ess_decorator, stop_gradient_decorator, systematic
    except ImportError:
        return {}
    jax.config.update("jax_enable_x64", True)
    y, keys = jnp.asarray(p.y[0, :, 0]), iter(range(10**6))

    def evidence(v: dict[str, Any], key: Any, resampling: Any, fisher: bool = False) -> Any:
        def first(key: Any) -> Any:
            return v["mu"] + v["sigma"] / jnp.sqrt(1 - v["phi"] ** 2) * jax.random.normal(key)

        def move(key: Any, x: Any, _: Any) -> Any:
            new = v["mu"] + v["phi"] * (x - v["mu"]) + v["sigma"] * jax.random.normal(key)
            return jax.lax.stop_gradient(new) if fisher else new

        def weigh(old: Any, x: Any, y: Any) -> Any:
            seen = -0.5 * (x + y**2 * jnp.exp(-x) + jnp.log(2 * jnp.pi))
            if not fisher:
                return seen
            r = (x - v["mu"] - v["phi"] * (old - v["mu"])) / v["sigma"]
            density = -0.5 * r**2 - jnp.log(v["sigma"])
            return seen + density - jax.lax.stop_gradient(density)

        smc = particle_filter.build_filter(first, move, weigh, particles, resampling)
        one, two = jax.random.split(key)
        states = cuthbert.filter(smc, y, smc.init_prepare(key=one), key=two)
        return states.log_normalizing_constant[-1]

    plain = ess_decorator(systematic.resampling, 0.5)
    stopped = ess_decorator(stop_gradient_decorator(systematic.resampling), 0.5)
    values = {n: jnp.asarray(getattr(p, n)) for n in SCORE}
    one = jax.jit(partial(evidence, resampling=plain))

    def score(fisher: bool) -> Callable:
        two = jax.jit(jax.value_and_grad(partial(evidence, resampling=stopped, fisher=fisher)))

        def run() -> Any:
            value, slopes = two(values, jax.random.PRNGKey(next(keys)))
            return float(value), [float(slopes[n]) for n in SCORE]

        return run

    return {
        "evidence": lambda: float(one(values, jax.random.PRNGKey(next(keys)))),
        "score": score(fisher=True),
        "pathwise": score(fisher=False),
    }


def particles_of(p: Any, particles: int) -> Callable | None:
    """The package particles: its class for stochastic volatility in its bootstrap filter."""
    try:
        from particles import SMC
        from particles import state_space_models as ssm
    except ImportError:
        return None
    model = ssm.StochVol(mu=p.mu, rho=p.phi, sigma=p.sigma)
    y = list(p.y[0, :, 0])

    def run() -> float:
        steps = ssm.Bootstrap(ssm=model, data=y)
        smc = SMC(fk=steps, N=particles, resampling="systematic", ESSrmin=0.5)
        smc.run()
        return smc.logLt

    return run
