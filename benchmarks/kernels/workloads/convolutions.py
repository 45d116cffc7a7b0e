"""Convolutions of ResNet-18 (C1-C12) and depthwise ones of MobileNet (D1-D9): Chen et al., TVM (2018), table 2.

What holds here: batch 1, padding (K - 1) // 2, written for NumPy as windows and a contraction, channels last. Peers
get the data in the layout that is best for them, and in both where that is not clear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.kernels.workload import Arrays, Form, Workload

# name: height = width, channels in, channels out, kernel, stride
CONVOLUTIONS = {
    "C1": (224, 3, 64, 7, 2), "C2": (56, 64, 64, 3, 1), "C3": (56, 64, 64, 1, 1), "C4": (56, 64, 128, 3, 2),
    "C5": (56, 64, 128, 1, 2), "C6": (28, 128, 128, 3, 1), "C7": (28, 128, 256, 3, 2), "C8": (28, 128, 256, 1, 2),
    "C9": (14, 256, 256, 3, 1), "C10": (14, 256, 512, 3, 2), "C11": (14, 256, 512, 1, 2), "C12": (7, 512, 512, 3, 1),
}
# name: height = width, channels, kernel, stride
DEPTHWISE = {
    "D1": (112, 32, 3, 1), "D2": (112, 64, 3, 2), "D3": (56, 128, 3, 1), "D4": (56, 128, 3, 2), "D5": (28, 256, 3, 1),
    "D6": (28, 256, 3, 2), "D7": (14, 512, 3, 1), "D8": (14, 512, 3, 2), "D9": (7, 1024, 3, 1),
}


def convolution(stride: int) -> Callable[..., Any]:
    def conv2d(x, w):  # type: ignore[no-untyped-def]
        k = w.shape[0]
        p = (k - 1) // 2
        padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
        windows = sliding_window_view(padded, (k, k), axis=(1, 2))[:, ::stride, ::stride]
        return np.tensordot(windows, w, axes=([4, 5, 3], [0, 1, 2]))
    return conv2d


def depthwise(stride: int) -> Callable[..., Any]:
    def depthwise_conv2d(x, w):  # type: ignore[no-untyped-def]
        k = w.shape[0]
        p = (k - 1) // 2
        padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
        windows = sliding_window_view(padded, (k, k), axis=(1, 2))[:, ::stride, ::stride]
        return np.einsum("nhwcij,ijc->nhwc", windows, w)
    return depthwise_conv2d


def _make(rng: np.random.Generator, size: int, inside: int, outside: int, k: int, _stride: int) -> Arrays:
    return (rng.standard_normal((1, size, size, inside), dtype=np.float32),
            rng.standard_normal((k, k, inside, outside), dtype=np.float32))


def _make_depthwise(rng: np.random.Generator, size: int, channels: int, k: int, _stride: int) -> Arrays:
    return (rng.standard_normal((1, size, size, channels), dtype=np.float32),
            rng.standard_normal((k, k, channels), dtype=np.float32))


def _torch(stride: int, k: int, grouped: bool = False) -> Callable[[Any], list[Form]]:
    """Both layouts; the weights stay as they are, as they are an argument for everybody."""
    def made(torch: Any) -> list[Form]:
        def run(x: Any, w: Any) -> Any:
            return torch.nn.functional.conv2d(x, w, stride=stride, padding=(k - 1) // 2,
                                              groups=x.shape[1] if grouped else 1)

        def planes(x: Any, w: Any) -> Arrays:
            kernel = w[:, :, None, :] if grouped else w
            return (torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))),
                    torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))))

        def last(x: Any, w: Any) -> Arrays:
            return tuple(t.to(memory_format=torch.channels_last) for t in planes(x, w))

        def finish(y: Any) -> Any:
            return y.permute(0, 2, 3, 1).numpy()
        return [Form(run, planes, finish, "NCHW"), Form(run, last, finish, "NHWC")]
    return made


def _jax(stride: int, k: int, grouped: bool = False) -> Callable[[Any], list[Form]]:
    def made(jax: Any) -> list[Form]:
        pad = ((k - 1) // 2, (k - 1) // 2)

        def of(layout: tuple[str, str, str]) -> Callable[..., Any]:
            return lambda x, w: jax.lax.conv_general_dilated(
                x, w, (stride, stride), (pad, pad), dimension_numbers=layout,
                feature_group_count=x.shape[layout[0].index("C")] if grouped else 1)

        def last(x: Any, w: Any) -> Arrays:
            return jax.numpy.asarray(x), jax.numpy.asarray(w[:, :, None, :] if grouped else w)

        def planes(x: Any, w: Any) -> Arrays:
            x, w = last(x, w)
            return x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1)
        return [Form(of(("NHWC", "HWIO", "NHWC")), last, name="NHWC"),
                Form(of(("NCHW", "OIHW", "NCHW")), planes, lambda y: np.asarray(y).transpose(0, 2, 3, 1), "NCHW")]
    return made


def _numba(stride: int) -> Callable[[Any], Any]:
    def made(numba: Any) -> Any:
        @numba.njit(parallel=True, fastmath=True, cache=True)
        def run(x, w):  # type: ignore[no-untyped-def]
            _, size, _, inside = x.shape
            k, outside = w.shape[0], w.shape[3]
            pad = (k - 1) // 2
            out = (size + 2 * pad - k) // stride + 1
            y = np.zeros((1, out, out, outside), x.dtype)
            for r in numba.prange(out):
                for c in range(out):
                    for i in range(max(0, pad - r * stride), min(k, size + pad - r * stride)):
                        for j in range(max(0, pad - c * stride), min(k, size + pad - c * stride)):
                            for p in range(inside):
                                v = x[0, r * stride + i - pad, c * stride + j - pad, p]
                                for o in range(outside):
                                    y[0, r, c, o] += v * w[i, j, p, o]
            return y
        return run
    return made


def _numba_depthwise(stride: int) -> Callable[[Any], Any]:
    def made(numba: Any) -> Any:
        @numba.njit(parallel=True, fastmath=True, cache=True)
        def run(x, w):  # type: ignore[no-untyped-def]
            _, size, _, channels = x.shape
            k = w.shape[0]
            pad = (k - 1) // 2
            out = (size + 2 * pad - k) // stride + 1
            y = np.zeros((1, out, out, channels), x.dtype)
            for r in numba.prange(out):
                for c in range(out):
                    for i in range(max(0, pad - r * stride), min(k, size + pad - r * stride)):
                        for j in range(max(0, pad - c * stride), min(k, size + pad - c * stride)):
                            for p in range(channels):
                                y[0, r, c, p] += x[0, r * stride + i - pad, c * stride + j - pad, p] * w[i, j, p]
            return y
        return run
    return made


def _outputs(size: int, k: int, stride: int) -> int:
    return ((size + 2 * ((k - 1) // 2) - k) // stride + 1) ** 2


def _conv(name: str, size: int, inside: int, outside: int, k: int, stride: int) -> Workload:
    return Workload(
        f"conv {name} {size}x{size} {inside}>{outside} k{k} s{stride}", "conv", convolution(stride), _make,
        (size, inside, outside, k, stride), (6, 3, 5, k, stride),
        lambda size, inside, outside, k, stride: 2.0 * _outputs(size, k, stride) * k * k * inside * outside,
        {"numba": _numba(stride), "jax": _jax(stride, k), "torch": _torch(stride, k)})


def _depthwise(name: str, size: int, channels: int, k: int, stride: int) -> Workload:
    return Workload(
        f"depthwise {name} {size}x{size} {channels} k{k} s{stride}", "depthwise", depthwise(stride), _make_depthwise,
        (size, channels, k, stride), (6, 5, k, stride),
        lambda size, channels, k, stride: 2.0 * _outputs(size, k, stride) * k * k * channels,
        {"numba": _numba_depthwise(stride), "jax": _jax(stride, k, True), "torch": _torch(stride, k, True)})


WORKLOADS = [*(_conv(name, *row) for name, row in CONVOLUTIONS.items()),
             *(_depthwise(name, *row) for name, row in DEPTHWISE.items())]
