"""Time loops over grids, written with slices or with indices."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from benchmarks.numpy_programs.program import Program, pick


def jacobi_1d(a, b, steps):
    for _ in range(1, steps):
        b[1:-1] = 0.33333 * (a[:-2] + a[1:-1] + a[2:])
        a[1:-1] = 0.33333 * (b[:-2] + b[1:-1] + b[2:])


def jacobi_1d_expert(a, b, steps):
    for _ in range(1, steps):
        for i in range(1, a.shape[0] - 1):
            b[i] = 0.33333 * (a[i - 1] + a[i] + a[i + 1])
        for i in range(1, a.shape[0] - 1):
            a[i] = 0.33333 * (b[i - 1] + b[i] + b[i + 1])


def jacobi_1d_jax(jnp):
    from jax import lax

    def step(_, ab):
        a, b = ab
        b = b.at[1:-1].set(0.33333 * (a[:-2] + a[1:-1] + a[2:]))
        return a.at[1:-1].set(0.33333 * (b[:-2] + b[1:-1] + b[2:])), b

    return lambda a, b, steps: lax.fori_loop(1, steps, step, (a, b))


def jacobi_2d(a, b, steps):
    for _ in range(1, steps):
        b[1:-1, 1:-1] = 0.2 * (a[1:-1, 1:-1] + a[1:-1, :-2] + a[1:-1, 2:] + a[2:, 1:-1] + a[:-2, 1:-1])
        a[1:-1, 1:-1] = 0.2 * (b[1:-1, 1:-1] + b[1:-1, :-2] + b[1:-1, 2:] + b[2:, 1:-1] + b[:-2, 1:-1])


def jacobi_2d_expert(a, b, steps):
    for _ in range(1, steps):
        for i in range(1, a.shape[0] - 1):
            for j in range(1, a.shape[1] - 1):
                b[i, j] = 0.2 * (a[i, j] + a[i, j - 1] + a[i, j + 1] + a[i + 1, j] + a[i - 1, j])
        for i in range(1, a.shape[0] - 1):
            for j in range(1, a.shape[1] - 1):
                a[i, j] = 0.2 * (b[i, j] + b[i, j - 1] + b[i, j + 1] + b[i + 1, j] + b[i - 1, j])


def jacobi_2d_jax(jnp):
    from jax import lax

    def half(a, b):
        return b.at[1:-1, 1:-1].set(
            0.2 * (a[1:-1, 1:-1] + a[1:-1, :-2] + a[1:-1, 2:] + a[2:, 1:-1] + a[:-2, 1:-1]))

    def step(_, ab):
        a, b = ab
        b = half(a, b)
        return half(b, a), b

    return lambda a, b, steps: lax.fori_loop(1, steps, step, (a, b))


def heat_3d(a, b, steps):
    for _ in range(1, steps):
        b[1:-1, 1:-1, 1:-1] = (0.125 * (a[2:, 1:-1, 1:-1] - 2.0 * a[1:-1, 1:-1, 1:-1] + a[:-2, 1:-1, 1:-1])
                               + 0.125 * (a[1:-1, 2:, 1:-1] - 2.0 * a[1:-1, 1:-1, 1:-1] + a[1:-1, :-2, 1:-1])
                               + 0.125 * (a[1:-1, 1:-1, 2:] - 2.0 * a[1:-1, 1:-1, 1:-1] + a[1:-1, 1:-1, :-2])
                               + a[1:-1, 1:-1, 1:-1])
        a[1:-1, 1:-1, 1:-1] = b[1:-1, 1:-1, 1:-1]


def heat_3d_expert(a, b, steps):
    x, y, z = a.shape
    for _ in range(1, steps):
        for i in range(1, x - 1):
            for j in range(1, y - 1):
                for k in range(1, z - 1):
                    b[i, j, k] = (0.125 * (a[i + 1, j, k] - 2.0 * a[i, j, k] + a[i - 1, j, k])
                                  + 0.125 * (a[i, j + 1, k] - 2.0 * a[i, j, k] + a[i, j - 1, k])
                                  + 0.125 * (a[i, j, k + 1] - 2.0 * a[i, j, k] + a[i, j, k - 1]) + a[i, j, k])
        for i in range(1, x - 1):
            for j in range(1, y - 1):
                for k in range(1, z - 1):
                    a[i, j, k] = b[i, j, k]


def seidel_2d(a, steps):
    n = a.shape[0]
    for _ in range(steps):
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                a[i, j] = (a[i - 1, j - 1] + a[i - 1, j] + a[i - 1, j + 1] + a[i, j - 1] + a[i, j] + a[i, j + 1]
                           + a[i + 1, j - 1] + a[i + 1, j] + a[i + 1, j + 1]) / 9.0


def fdtd_2d(ex, ey, hz, fict):
    for t in range(fict.shape[0]):
        ey[0, :] = fict[t]
        ey[1:, :] -= 0.5 * (hz[1:, :] - hz[:-1, :])
        ex[:, 1:] -= 0.5 * (hz[:, 1:] - hz[:, :-1])
        hz[:-1, :-1] -= 0.7 * (ex[:-1, 1:] - ex[:-1, :-1] + ey[1:, :-1] - ey[:-1, :-1])


def fdtd_2d_expert(ex, ey, hz, fict):
    n, m = ex.shape
    for t in range(fict.shape[0]):
        for j in range(m):
            ey[0, j] = fict[t]
        for i in range(1, n):
            for j in range(m):
                ey[i, j] -= 0.5 * (hz[i, j] - hz[i - 1, j])
        for i in range(n):
            for j in range(1, m):
                ex[i, j] -= 0.5 * (hz[i, j] - hz[i, j - 1])
        for i in range(n - 1):
            for j in range(m - 1):
                hz[i, j] -= 0.7 * (ex[i, j + 1] - ex[i, j] + ey[i + 1, j] - ey[i, j])


def advection(u, c, steps):
    for _ in range(steps):
        u[1:] -= c * (u[1:] - u[:-1])
        u[0] = u[-1]
    return u.sum()


def advection_expert(u, c, steps):
    for _ in range(steps):
        for i in range(u.shape[0] - 1, 0, -1):
            u[i] -= c * (u[i] - u[i - 1])
        u[0] = u[-1]
    return u.sum()


def life(board, steps):
    for _ in range(steps):
        n = np.zeros(board.shape, dtype=np.int64)
        n[1:-1, 1:-1] = (board[:-2, :-2] + board[:-2, 1:-1] + board[:-2, 2:] + board[1:-1, :-2] + board[1:-1, 2:]
                         + board[2:, :-2] + board[2:, 1:-1] + board[2:, 2:])
        board[:] = np.where((n == 3) | ((board == 1) & (n == 2)), 1, 0)


def life_expert(board, steps):
    rows, columns = board.shape
    n = np.zeros(board.shape, dtype=np.int64)
    for _ in range(steps):
        for i in range(1, rows - 1):
            for j in range(1, columns - 1):
                n[i, j] = (board[i - 1, j - 1] + board[i - 1, j] + board[i - 1, j + 1] + board[i, j - 1]
                           + board[i, j + 1] + board[i + 1, j - 1] + board[i + 1, j] + board[i + 1, j + 1])
        for i in range(rows):
            for j in range(columns):
                board[i, j] = 1 if n[i, j] == 3 or (board[i, j] == 1 and n[i, j] == 2) else 0


def adi(u, v, p, q, steps):
    n = u.shape[0]
    a, b, c = -0.5, 2.0, -0.5
    for _ in range(steps):
        v[0, 1:-1] = 1.0
        p[1:-1, 0] = 0.0
        q[1:-1, 0] = v[0, 1:-1]
        for j in range(1, n - 1):
            p[1:-1, j] = -c / (a * p[1:-1, j - 1] + b)
            q[1:-1, j] = (0.5 * u[j, :-2] + 0.1 * u[j, 1:-1] + 0.5 * u[j, 2:] - a * q[1:-1, j - 1]) / (
                a * p[1:-1, j - 1] + b)
        v[-1, 1:-1] = 1.0
        for j in range(n - 2, -1, -1):
            v[j, 1:-1] = p[1:-1, j] * v[j + 1, 1:-1] + q[1:-1, j]
        u[1:-1, 1:-1] = v[1:-1, 1:-1]


def _two(shape):
    return lambda r, size: (r.random(shape(size)), r.random(shape(size)))


PROGRAMS = (
    Program(jacobi_1d, lambda r, s: (*_two(lambda z: pick(z, 9, 200, 4000))(r, s), pick(s, 3, 50, 200)),
            jacobi_1d_expert, jacobi_1d_jax),
    Program(jacobi_2d, lambda r, s: (*_two(lambda z: (pick(z, 7, 40, 300),) * 2)(r, s), pick(s, 3, 10, 30)),
            jacobi_2d_expert, jacobi_2d_jax),
    Program(heat_3d, lambda r, s: (*_two(lambda z: (pick(z, 5, 12, 60),) * 3)(r, s), pick(s, 3, 5, 20)),
            heat_3d_expert),
    Program(seidel_2d, lambda r, s: (r.random((pick(s, 6, 20, 120),) * 2), pick(s, 2, 3, 5))),
    Program(fdtd_2d, lambda r, s: (*(r.random((pick(s, 5, 30, 200), pick(s, 6, 20, 240))) for _ in range(3)),
                                   r.random(pick(s, 2, 10, 40))), fdtd_2d_expert),
    Program(advection, lambda r, s: (r.random(pick(s, 9, 100, 5000)), 0.4, pick(s, 4, 20, 400)), advection_expert),
    Program(life, lambda r, s: (r.integers(0, 2, size=(pick(s, 6, 30, 200), pick(s, 7, 20, 200))), pick(s, 2, 5, 20)),
            life_expert),
    Program(adi, lambda r, s: (*(r.random((pick(s, 5, 20, 150),) * 2) for _ in range(4)), pick(s, 2, 4, 10))),
)
