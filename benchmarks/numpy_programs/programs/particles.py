"""Points, orbits and samples."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import math

import numpy as np

from benchmarks.numpy_programs.program import Program, pick


def n_body(position, velocity, mass, dt, steps):
    n = len(mass)
    for _ in range(steps):
        for i in range(n):
            ax, ay, az = 0.0, 0.0, 0.0
            for j in range(n):
                dx = position[j, 0] - position[i, 0]
                dy = position[j, 1] - position[i, 1]
                dz = position[j, 2] - position[i, 2]
                r2 = dx * dx + dy * dy + dz * dz + 0.01
                f = mass[j] / (r2 * math.sqrt(r2))
                ax += dx * f
                ay += dy * f
                az += dz * f
            velocity[i, 0] += dt * ax
            velocity[i, 1] += dt * ay
            velocity[i, 2] += dt * az
        position += dt * velocity


def n_body_rows(position, velocity, mass, dt, steps):
    for _ in range(steps):
        for i in range(len(mass)):
            d = position - position[i]
            r2 = (d * d).sum(axis=1) + 0.01
            f = mass / (r2 * np.sqrt(r2))
            velocity[i] += dt * (d * f[:, None]).sum(axis=0)
        position += dt * velocity


def mandelbrot_points(x, y, counts, limit):
    for i in range(len(y)):
        for j in range(len(x)):
            re, im, n = 0.0, 0.0, 0
            while n < limit and re * re + im * im <= 4.0:
                re, im = re * re - im * im + x[j], 2.0 * re * im + y[i]
                n += 1
            counts[i, j] = n


def mandelbrot_grid(x, y, counts, limit):
    cr = x[None, :] + np.zeros((len(y), 1))
    ci = y[:, None] + np.zeros((1, len(x)))
    zr = np.zeros((len(y), len(x)))
    zi = np.zeros((len(y), len(x)))
    for _ in range(limit):
        inside = zr * zr + zi * zi <= 4.0
        counts += inside
        nr = np.where(inside, zr * zr - zi * zi + cr, zr)
        zi = np.where(inside, 2.0 * zr * zi + ci, zi)
        zr = nr


def k_means(points, centres, labels, steps):
    k = len(centres)
    for _ in range(steps):
        for i in range(len(points)):
            d = ((centres - points[i]) ** 2).sum(axis=1)
            labels[i] = np.argmin(d)
        sums = np.zeros(centres.shape)
        counts = np.zeros(k)
        for i in range(len(points)):
            sums[labels[i]] += points[i]
            counts[labels[i]] += 1
        for c in range(k):
            if counts[c] > 0:
                centres[c] = sums[c] / counts[c]


def random_walk(seed, n):
    inside = 0
    for _ in range(n):
        seed = (1103515245 * seed + 12345) % 2147483648
        x = seed / 2147483648
        seed = (1103515245 * seed + 12345) % 2147483648
        y = seed / 2147483648
        if x * x + y * y < 1.0:
            inside += 1
    return 4.0 * inside / n


def payoff(s, strike):
    return s - strike if s > strike else 0.0


def binomial_option(s, strike, rate, sigma, steps):
    dt = 1.0 / steps
    up = math.exp(sigma * math.sqrt(dt))
    p = (math.exp(rate * dt) - 1 / up) / (up - 1 / up)
    v = np.zeros(steps + 1)
    price = s
    for _ in range(steps):
        price /= up
    for i in range(steps + 1):
        v[i] = payoff(price, strike)
        price *= up * up
    for i in range(steps, 0, -1):
        v[:i] = math.exp(-rate * dt) * (p * v[1:i + 1] + (1 - p) * v[:i])
    return v[0]


def lennard_jones(x, force):
    energy = 0.0
    n = x.shape[0]
    for i in range(n):
        for j in range(i + 1, n):
            d = x[i] - x[j]
            r2 = np.dot(d, d)
            if r2 < 9.0:
                inverse = 1.0 / (r2 * r2 * r2)
                energy += 4.0 * inverse * (inverse - 1.0)
                f = 24.0 * inverse * (2.0 * inverse - 1.0) / r2
                force[i] += f * d
                force[j] -= f * d
    return energy


PROGRAMS = (
    Program(n_body, lambda r, s: (r.random((n := pick(s, 3, 10, 60), 3)), r.random((n, 3)), r.random(n), 0.01,
                                  pick(s, 2, 3, 5))),
    Program(n_body_rows, lambda r, s: (r.random((n := pick(s, 3, 10, 200), 3)), r.random((n, 3)), r.random(n), 0.01,
                                       pick(s, 2, 3, 5))),
    Program(mandelbrot_points, lambda r, s: (np.linspace(-2, 0.6, n := pick(s, 4, 10, 60)), np.linspace(-1.2, 1.2, n),
                                             np.zeros((n, n), dtype=np.int64), pick(s, 9, 20, 60))),
    Program(mandelbrot_grid, lambda r, s: (np.linspace(-2, 0.6, n := pick(s, 4, 10, 200)), np.linspace(-1.2, 1.2, n),
                                           np.zeros((n, n), dtype=np.int64), pick(s, 9, 20, 60))),
    Program(k_means, lambda r, s: (r.random((n := pick(s, 6, 30, 1000), 4)), r.random((pick(s, 2, 3, 8), 4)),
                                   np.zeros(n, dtype=np.int64), pick(s, 2, 3, 5))),
    Program(random_walk, lambda r, s: (int(r.integers(1, 1000)), pick(s, 20, 200, 50_000))),
    Program(binomial_option, lambda r, s: (100.0 + r.random(), 101.0, 0.03, 0.2, pick(s, 5, 30, 1000)),
            helpers=(payoff,)),
    Program(lennard_jones, lambda r, s: (6 * r.random((n := pick(s, 4, 10, 80), 3)) + 1.2 * np.arange(n)[:, None],
                                         np.zeros((n, 3)))),
)
