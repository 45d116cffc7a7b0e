"""Element-wise work: a chain of cheap operations, and one made of functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import erf

from benchmarks.kernels.workload import COST, Arrays, Form, Workload

RATE, SIGMA = 0.02, 0.3


def chain(x, y):  # type: ignore[no-untyped-def]
    a = x * y + 0.5
    b = np.maximum(a, x) - y * 0.25
    return np.sqrt(np.abs(b) + 1) / (a * a)


def black_scholes(spot, strike, years):  # type: ignore[no-untyped-def]
    spread = SIGMA * np.sqrt(years)
    d1 = (np.log(spot / strike) + (RATE + 0.5 * SIGMA * SIGMA) * years) / spread
    d2 = d1 - spread
    n1 = 0.5 * (1 + erf(d1 * math.sqrt(0.5)))
    n2 = 0.5 * (1 + erf(d2 * math.sqrt(0.5)))
    discounted = strike * np.exp(-RATE * years)
    call = spot * n1 - discounted * n2
    return call, call - spot + discounted


def _pair(rng: np.random.Generator, n: int) -> Arrays:
    return rng.random(n, dtype=np.float32) + 1, rng.random(n, dtype=np.float32) + 1


def _options(rng: np.random.Generator, n: int) -> Arrays:
    return 50 + 100 * rng.random(n), 50 + 100 * rng.random(n), 0.1 + 2 * rng.random(n)


def _numexpr_chain(ne: Any) -> Any:
    ten = "sqrt(abs(where(x * y + half > x, x * y + half, x) - y * quarter) + one) / ((x * y + half) * (x * y + half))"
    half, quarter, one = np.float32(0.5), np.float32(0.25), np.float32(1)
    names = {"half": half, "quarter": quarter, "one": one}
    return lambda x, y: ne.evaluate(ten, {"x": x, "y": y, **names})


def _numba_chain(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def run(x, y):  # type: ignore[no-untyped-def]
        out = np.empty_like(x)
        for i in numba.prange(x.size):
            a = x[i] * y[i] + np.float32(0.5)
            b = max(a, x[i]) - y[i] * np.float32(0.25)
            out[i] = np.sqrt(np.abs(b) + np.float32(1)) / (a * a)
        return out
    return run


def _numba_black_scholes(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def run(spot, strike, years):  # type: ignore[no-untyped-def]
        call, put = np.empty_like(spot), np.empty_like(spot)
        half = math.sqrt(0.5)
        for i in numba.prange(spot.size):
            spread = SIGMA * math.sqrt(years[i])
            d1 = (math.log(spot[i] / strike[i]) + (RATE + 0.5 * SIGMA * SIGMA) * years[i]) / spread
            n1 = 0.5 * (1 + math.erf(d1 * half))
            n2 = 0.5 * (1 + math.erf((d1 - spread) * half))
            discounted = strike[i] * math.exp(-RATE * years[i])
            call[i] = spot[i] * n1 - discounted * n2
            put[i] = call[i] - spot[i] + discounted
        return call, put
    return run


def _jax_chain(jax: Any) -> Any:
    jnp = jax.numpy

    def run(x: Any, y: Any) -> Any:
        a = x * y + 0.5
        b = jnp.maximum(a, x) - y * 0.25
        return jnp.sqrt(jnp.abs(b) + 1) / (a * a)
    return run


def _torch_chain(torch: Any) -> Any:
    def run(x: Any, y: Any) -> Any:
        a = x * y + 0.5
        b = torch.maximum(a, x) - y * 0.25
        return torch.sqrt(torch.abs(b) + 1) / (a * a)
    return run


def _prices(exp: Any, log: Any, sqrt: Any, erf: Any) -> Any:
    def run(spot: Any, strike: Any, years: Any) -> Any:
        spread = SIGMA * sqrt(years)
        d1 = (log(spot / strike) + (RATE + 0.5 * SIGMA * SIGMA) * years) / spread
        n1 = 0.5 * (1 + erf(d1 * math.sqrt(0.5)))
        n2 = 0.5 * (1 + erf((d1 - spread) * math.sqrt(0.5)))
        discounted = strike * exp(-RATE * years)
        call = spot * n1 - discounted * n2
        return call, call - spot + discounted
    return run


WORKLOADS = [
    Workload("ten operations 4M f32", "elementwise", chain, _pair, (4 << 20,), (37,),
             lambda n: n * (8.0 + COST["sqrt"] + COST["div"]),
             {"numexpr": _numexpr_chain, "numba": _numba_chain, "jax": _jax_chain, "torch": _torch_chain},
             tolerance=1e-6),
    Workload("black-scholes 1M f64", "elementwise", black_scholes, _options, (1 << 20,), (37,),
             lambda n: n * (20.0 + 2 * COST["erf"] + COST["log"] + COST["exp"] + COST["sqrt"] + 2 * COST["div"]),
             {"numba": _numba_black_scholes,
              "jax": lambda jax: _prices(jax.numpy.exp, jax.numpy.log, jax.numpy.sqrt, jax.scipy.special.erf),
              "torch": lambda torch: Form(_prices(torch.exp, torch.log, torch.sqrt, torch.erf))},
             "f64", 1e-13),
]
