"""Filters, transforms, images."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import math

import numpy as np

from benchmarks.numpy_programs.program import Program, pick


def biquad(x, y, b0, b1, b2, a1, a2):
    x1 = x2 = y1 = y2 = 0.0
    for i in range(len(x)):
        y[i] = b0 * x[i] + b1 * x1 + b2 * x2 - a1 * y1 - a2 * y2
        x2, x1 = x1, x[i]
        y2, y1 = y1, y[i]


def convolve_slices(x, taps):
    n = len(x) - len(taps) + 1
    out = np.zeros(n)
    for k in range(len(taps)):
        out += taps[k] * x[k:k + n]
    return out


def convolve_slices_expert(x, taps):
    n = len(x) - len(taps) + 1
    out = np.zeros(n)
    for i in range(n):
        total = 0.0
        for k in range(len(taps)):
            total += taps[k] * x[i + k]
        out[i] = total
    return out


def fft_radix_2(re, im):
    n = len(re)
    j = 0
    for i in range(1, n):
        bit = n >> 1
        while j & bit:
            j ^= bit
            bit >>= 1
        j |= bit
        if i < j:
            re[i], re[j] = re[j], re[i]
            im[i], im[j] = im[j], im[i]
    size = 2
    while size <= n:
        half = size // 2
        for k in range(half):
            wr = math.cos(2 * math.pi * k / size)
            wi = -math.sin(2 * math.pi * k / size)
            start = k
            while start < n:
                tr = wr * re[start + half] - wi * im[start + half]
                ti = wr * im[start + half] + wi * re[start + half]
                re[start + half] = re[start] - tr
                im[start + half] = im[start] - ti
                re[start] += tr
                im[start] += ti
                start += size
        size *= 2


def small_cnn(image, weights, bias):
    filters, channels, kh, kw = weights.shape
    h, w = image.shape[1] - kh + 1, image.shape[2] - kw + 1
    out = np.zeros((filters, h, w))
    for f in range(filters):
        for c in range(channels):
            for i in range(kh):
                for j in range(kw):
                    out[f] += weights[f, c, i, j] * image[c, i:i + h, j:j + w]
        out[f] = np.maximum(out[f] + bias[f], 0)
    return out


def small_cnn_expert(image, weights, bias):
    filters, channels, kh, kw = weights.shape
    h, w = image.shape[1] - kh + 1, image.shape[2] - kw + 1
    out = np.zeros((filters, h, w))
    for f in range(filters):
        for y in range(h):
            for c in range(channels):
                for i in range(kh):
                    for j in range(kw):
                        weight = weights[f, c, i, j]
                        for x in range(w):
                            out[f, y, x] += weight * image[c, y + i, x + j]
            for x in range(w):
                out[f, y, x] = max(out[f, y, x] + bias[f], 0.0)
    return out


def median_of_three(x, rounds):
    for _ in range(rounds):
        a, b, c = x[:-2], x[1:-1], x[2:]
        x[1:-1] = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def smoothing(x, alpha):
    level = x[0]
    for i in range(len(x)):
        level = alpha * x[i] + (1 - alpha) * level
        x[i] = level


def box_blur(image, radius):
    h, w = image.shape
    out = np.zeros_like(image)
    for i in range(h):
        for j in range(w):
            total, count = 0.0, 0
            for y in range(max(0, i - radius), min(h, i + radius + 1)):
                for x in range(max(0, j - radius), min(w, j + radius + 1)):
                    total += image[y, x]
                    count += 1
            out[i, j] = total / count
    return out


def autocorrelation(x, lags):
    out = np.zeros(lags)
    mean = x.mean()
    for k in range(lags):
        out[k] = np.dot(x[:len(x) - k] - mean, x[k:] - mean)
    return out / out[0]


def haar(x):
    n = len(x)
    while n > 1:
        half = n // 2
        old = x[:n].copy()
        for i in range(half):
            x[i] = (old[2 * i] + old[2 * i + 1]) * 0.5
            x[half + i] = (old[2 * i] - old[2 * i + 1]) * 0.5
        n = half


PROGRAMS = (
    Program(biquad, lambda r, s: (r.random(n := pick(s, 9, 200, 50_000)), np.zeros(n), 0.2, 0.4, 0.2, -0.3, 0.1)),
    Program(convolve_slices, lambda r, s: (r.random(pick(s, 30, 300, 20_000)), r.random(pick(s, 4, 9, 64))),
            convolve_slices_expert),
    Program(fft_radix_2, lambda r, s: (r.random(n := pick(s, 8, 64, 4096)), r.random(n))),
    Program(small_cnn, lambda r, s: (r.random((3, n := pick(s, 7, 16, 64), n)),
                                     r.normal(size=(pick(s, 2, 3, 8), 3, 3, 3)), r.random(pick(s, 2, 3, 8))),
            small_cnn_expert),
    Program(median_of_three, lambda r, s: (r.random(pick(s, 9, 100, 20_000)), pick(s, 2, 3, 20))),
    Program(smoothing, lambda r, s: (r.random(pick(s, 9, 200, 50_000)), 0.1)),
    Program(box_blur, lambda r, s: (r.random((pick(s, 5, 12, 60),) * 2), pick(s, 1, 2, 3))),
    Program(autocorrelation, lambda r, s: (r.random(pick(s, 20, 200, 5000)), pick(s, 4, 9, 60))),
    Program(haar, lambda r, s: (r.random(pick(s, 16, 64, 16_384)),)),
)
