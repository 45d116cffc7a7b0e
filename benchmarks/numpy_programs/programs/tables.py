"""Dynamic programming and whole numbers."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np

from benchmarks.numpy_programs.program import Program, pick


def edit_distance(a, b):
    n, m = len(a), len(b)
    d = np.zeros((n + 1, m + 1), dtype=np.int64)
    for i in range(n + 1):
        d[i, 0] = i
    for j in range(m + 1):
        d[0, j] = j
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            cost = 0 if a[i - 1] == b[j - 1] else 1
            d[i, j] = min(min(d[i - 1, j] + 1, d[i, j - 1] + 1), d[i - 1, j - 1] + cost)
    return d[n, m]


def knapsack(weights, values, capacity):
    best = np.zeros(capacity + 1)
    for i in range(len(weights)):
        w = weights[i]
        best[w:] = np.maximum(best[w:], best[:capacity + 1 - w] + values[i])
    return best[capacity]


def knapsack_expert(weights, values, capacity):
    best = np.zeros(capacity + 1)
    for i in range(len(weights)):
        w = weights[i]
        for c in range(capacity, w - 1, -1):
            best[c] = max(best[c], best[c - w] + values[i])
    return best[capacity]


def matrix_chain(sizes):
    n = len(sizes) - 1
    cost = np.zeros((n, n), dtype=np.int64)
    for length in range(2, n + 1):
        for i in range(n - length + 1):
            j = i + length - 1
            cost[i, j] = 1 << 60
            for k in range(i, j):
                found = cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1]
                if found < cost[i, j]:
                    cost[i, j] = found
    return cost[0, n - 1]


def viterbi(scores, transition, emission):
    for t in range(emission.shape[0]):
        both = scores[:, None] + transition
        scores = both.max(axis=0) + emission[t]
    return np.argmax(scores), scores


def fletcher(data):
    a, b = 0, 0
    for i in range(len(data)):
        a = (a + data[i]) % 65535
        b = (b + a) % 65535
    return b * 65536 + a


def sieve(flags):
    n = len(flags)
    flags[:2] = False
    p = 2
    while p * p < n:
        if flags[p]:
            for q in range(p * p, n, p):
                flags[q] = False
        p += 1
    return flags.sum()


def collatz(limit):
    best, where = 0, 0
    for start in range(1, limit):
        n, steps = start, 0
        while n != 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            steps += 1
        if steps > best:
            best, where = steps, start
    return where, best


def insertion_sort(a):
    for i in range(1, len(a)):
        x = a[i]
        j = i - 1
        while j >= 0 and a[j] > x:
            a[j + 1] = a[j]
            j -= 1
        a[j + 1] = x


def histogram(x, counts, low, high):
    n = len(counts)
    for i in range(len(x)):
        if low <= x[i] < high:
            k = int((x[i] - low) / (high - low) * n)
            counts[k] += 1


PROGRAMS = (
    Program(edit_distance, lambda r, s: (r.integers(0, 4, size=pick(s, 4, 20, 200)),
                                         r.integers(0, 4, size=pick(s, 5, 30, 180)))),
    Program(knapsack, lambda r, s: (r.integers(1, 30, size=pick(s, 4, 20, 200)), r.random(pick(s, 4, 20, 200)),
                                    pick(s, 60, 200, 5000)), knapsack_expert),
    Program(matrix_chain, lambda r, s: (r.integers(2, 40, size=pick(s, 5, 20, 60)),)),
    Program(viterbi, lambda r, s: (r.random(n := pick(s, 4, 10, 60)), r.random((n, n)),
                                   r.random((pick(s, 3, 20, 200), n)))),
    Program(fletcher, lambda r, s: (r.integers(0, 65535, size=pick(s, 9, 100, 50_000)),)),
    Program(sieve, lambda r, s: (np.ones(pick(s, 30, 300, 100_000), dtype=bool),)),
    Program(collatz, lambda r, s: (pick(s, 10, 100, 2000) + int(r.integers(0, 3)),)),
    Program(insertion_sort, lambda r, s: (r.random(pick(s, 6, 40, 400)),)),
    Program(histogram, lambda r, s: (r.random(pick(s, 9, 200, 50_000)), np.zeros(pick(s, 4, 10, 100), dtype=np.int64),
                                     0.1, 0.9)),
)
