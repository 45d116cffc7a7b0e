"""Factorisations, solvers and products."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from benchmarks.numpy_programs.program import Program, pick


def lu(a):
    n = a.shape[0]
    for i in range(n):
        for j in range(i):
            a[i, j] -= a[i, :j] @ a[:j, j]
            a[i, j] /= a[j, j]
        for j in range(i, n):
            a[i, j] -= a[i, :i] @ a[:i, j]


def lu_expert(a):
    n = a.shape[0]
    for k in range(n):
        for i in range(k + 1, n):
            a[i, k] /= a[k, k]
            for j in range(k + 1, n):
                a[i, j] -= a[i, k] * a[k, j]


def elimination(a, b):
    n = len(b)
    for k in range(n - 1):
        for i in range(k + 1, n):
            factor = a[i, k] / a[k, k]
            a[i, k:] -= factor * a[k, k:]
            b[i] -= factor * b[k]
    x = np.zeros(n)
    for i in range(n - 1, -1, -1):
        x[i] = (b[i] - np.dot(a[i, i + 1:], x[i + 1:])) / a[i, i]
    return x


def cholesky(a):
    n = a.shape[0]
    a[0, 0] = np.sqrt(a[0, 0])
    for i in range(1, n):
        for j in range(i):
            a[i, j] -= np.dot(a[i, :j], a[j, :j])
            a[i, j] /= a[j, j]
        a[i, i] -= np.dot(a[i, :i], a[i, :i])
        a[i, i] = np.sqrt(a[i, i])


def gram_schmidt(a):
    q = np.zeros_like(a)
    r = np.zeros((a.shape[1], a.shape[1]))
    for k in range(a.shape[1]):
        nrm = np.dot(a[:, k], a[:, k])
        r[k, k] = np.sqrt(nrm)
        q[:, k] = a[:, k] / r[k, k]
        for j in range(k + 1, a.shape[1]):
            r[k, j] = np.dot(q[:, k], a[:, j])
            a[:, j] -= q[:, k] * r[k, j]
    return q, r


def triangular_solve(l, x, b):  # noqa: E741
    for i in range(x.shape[0]):
        x[i] = (b[i] - l[i, :i] @ x[:i]) / l[i, i]


def thomas(a, b, c, d):
    n = len(d)
    for i in range(1, n):
        w = a[i] / b[i - 1]
        b[i] -= w * c[i - 1]
        d[i] -= w * d[i - 1]
    d[-1] /= b[-1]
    for i in range(n - 2, -1, -1):
        d[i] = (d[i] - c[i] * d[i + 1]) / b[i]
    return d


def durbin(r):
    y = np.zeros_like(r)
    alpha = -r[0]
    beta = 1.0
    y[0] = -r[0]
    for k in range(1, r.shape[0]):
        beta *= 1.0 - alpha * alpha
        alpha = -(r[k] + np.dot(r[:k][::-1], y[:k])) / beta
        y[:k] += alpha * y[:k][::-1]
        y[k] = alpha
    return y


def floyd_warshall(path):
    for k in range(path.shape[0]):
        path[:] = np.minimum(path, path[:, k, None] + path[None, k, :])


def floyd_warshall_expert(path):
    n = path.shape[0]
    for k in range(n):
        for i in range(n):
            for j in range(n):
                path[i, j] = min(path[i, j], path[i, k] + path[k, j])


def floyd_warshall_jax(jnp):
    from jax import lax

    def step(k, path):
        return jnp.minimum(path, path[:, k, None] + path[None, k, :])

    return lambda path: (lax.fori_loop(0, path.shape[0], step, path),)


def spmv(rows, columns, values, x, y):
    for i in range(len(y)):
        total = 0.0
        for k in range(rows[i], rows[i + 1]):
            total += values[k] * x[columns[k]]
        y[i] = total


def power_iteration(a, v, steps):
    norm = 0.0
    for _ in range(steps):
        w = a @ v
        norm = np.sqrt(np.dot(w, w))
        v = w / norm
    return v, norm


def power_iteration_jax(jnp):
    from jax import lax

    def step(_, given):
        a, v, _norm = given
        w = a @ v
        norm = jnp.sqrt(jnp.dot(w, w))
        return a, w / norm, norm

    def run(a, v, steps):
        _, found, norm = lax.fori_loop(0, steps, step, (a, v, 0.0))
        return found, norm, a, v

    return run


def conjugate_gradient(a, b, x, steps):
    r = b - a @ x
    p = r.copy()
    rs = np.dot(r, r)
    for _ in range(steps):
        ap = a @ p
        alpha = rs / np.dot(p, ap)
        x += alpha * p
        r -= alpha * ap
        new = np.dot(r, r)
        if new < 1e-30:
            break
        p = r + (new / rs) * p
        rs = new
    return rs


def _spd(r, n):
    m = r.random((n, n))
    return m @ m.T + n * np.eye(n)


def _sparse(r, s):
    n = pick(s, 5, 200, 20_000)
    counts = r.integers(0, 12, size=n)
    rows = np.concatenate([[0], np.cumsum(counts)])
    return rows, r.integers(0, n, size=int(rows[-1])), r.random(int(rows[-1])), r.random(n), np.zeros(n)


PROGRAMS = (
    Program(lu, lambda r, s: (_spd(r, pick(s, 4, 20, 120)),), lu_expert),
    Program(elimination, lambda r, s: (_spd(r, n := pick(s, 4, 20, 150)), r.random(n))),
    Program(cholesky, lambda r, s: (_spd(r, pick(s, 4, 20, 150)),)),
    Program(gram_schmidt, lambda r, s: (r.random((pick(s, 5, 30, 120), pick(s, 4, 20, 100))),)),
    Program(triangular_solve, lambda r, s: (_spd(r, n := pick(s, 4, 50, 1000)), np.zeros(n), r.random(n))),
    Program(thomas, lambda r, s: tuple(r.random(pick(s, 4, 100, 20_000)) + (3 if i == 1 else 0) for i in range(4))),
    Program(durbin, lambda r, s: (0.01 * r.random(pick(s, 5, 60, 1000)),)),
    Program(floyd_warshall, lambda r, s: (r.random((pick(s, 5, 30, 150),) * 2),), floyd_warshall_expert,
            floyd_warshall_jax),
    Program(spmv, _sparse),
    Program(power_iteration, lambda r, s: (_spd(r, n := pick(s, 4, 30, 300)), r.random(n), pick(s, 3, 10, 50)),
            jax=power_iteration_jax),
    Program(conjugate_gradient, lambda r, s: (_spd(r, n := pick(s, 4, 30, 300)), r.random(n), np.zeros(n),
                                              pick(s, 3, 5, 20)), tolerance=1e-7),
)
