"""What people write loops for: distances, stencils, n-body, Mandelbrot, an image filter."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.kernels.workload import COST, Arrays, Form, Workload

STEPS = 50


def pairwise(a, b):  # type: ignore[no-untyped-def]
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))


def jacobi(u):  # type: ignore[no-untyped-def]
    new = u.copy()
    new[1:-1, 1:-1] = 0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:])
    return new


def accelerations(position, mass):  # type: ignore[no-untyped-def]
    apart = position[None, :] - position[:, None]
    squared = (apart * apart).sum(-1) + 1e-3
    weight = mass / (squared * np.sqrt(squared))
    return (apart * weight[:, :, None]).sum(1)


def mandelbrot(c):  # type: ignore[no-untyped-def]
    z = np.zeros_like(c)
    inside = np.zeros(c.shape, np.int32)
    for _ in range(STEPS):
        z = z * z + c
        inside += z.real * z.real + z.imag * z.imag < 4
    return inside


def grey_blur(image):  # type: ignore[no-untyped-def]
    wide = image.astype(np.uint16)
    grey = (77 * wide[..., 0] + 150 * wide[..., 1] + 29 * wide[..., 2]) >> 8
    rows = grey[:-4] + 4 * grey[1:-3] + 6 * grey[2:-2] + 4 * grey[3:-1] + grey[4:]
    both = rows[:, :-4] + 4 * rows[:, 1:-3] + 6 * rows[:, 2:-2] + 4 * rows[:, 3:-1] + rows[:, 4:]
    return ((both + 128) >> 8).astype(np.uint8)


# -- inputs -----------------------------------------------------------------------------------------------------------


def _points(rng: np.random.Generator, n: int, depth: int) -> Arrays:
    return rng.standard_normal((n, depth), dtype=np.float32), rng.standard_normal((n, depth), dtype=np.float32)


def _field(rng: np.random.Generator, n: int) -> Arrays:
    return (rng.random((n, n), dtype=np.float32),)


def _bodies(rng: np.random.Generator, n: int) -> Arrays:
    return rng.standard_normal((n, 3), dtype=np.float32), rng.random(n, dtype=np.float32)


def _plane(_rng: np.random.Generator, height: int, width: int) -> Arrays:
    y, x = np.mgrid[-1.2:1.2:height * 1j, -2:0.8:width * 1j]
    return ((x + 1j * y).astype(np.complex64),)


def _image(rng: np.random.Generator, n: int) -> Arrays:
    return (rng.integers(0, 256, (n, n, 3), dtype=np.uint8),)


# -- peers ------------------------------------------------------------------------------------------------------------


def _numba_pairwise(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def run(a, b):  # type: ignore[no-untyped-def]
        out = np.empty((a.shape[0], b.shape[0]), a.dtype)
        for i in numba.prange(a.shape[0]):
            for j in range(b.shape[0]):
                total = np.float32(0)
                for k in range(a.shape[1]):
                    d = a[i, k] - b[j, k]
                    total += d * d
                out[i, j] = np.sqrt(total)
        return out
    return run


def _numba_jacobi(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def run(u):  # type: ignore[no-untyped-def]
        n, m = u.shape
        new = np.empty_like(u)
        for i in numba.prange(n):
            if i == 0 or i == n - 1:
                for j in range(m):
                    new[i, j] = u[i, j]
            else:
                new[i, 0] = u[i, 0]
                new[i, m - 1] = u[i, m - 1]
                for j in range(1, m - 1):
                    new[i, j] = np.float32(0.25) * (u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1])
        return new
    return run


def _numba_bodies(numba: Any) -> Any:
    @numba.njit(parallel=True, fastmath=True, cache=True)
    def loops(x, y, z, mass):  # type: ignore[no-untyped-def]
        n = x.size
        out = np.empty((n, 3), x.dtype)
        for i in numba.prange(n):
            ax, ay, az = np.float32(0), np.float32(0), np.float32(0)
            for j in range(n):
                dx, dy, dz = x[j] - x[i], y[j] - y[i], z[j] - z[i]
                squared = dx * dx + dy * dy + dz * dz + np.float32(1e-3)
                weight = mass[j] / (squared * np.sqrt(squared))
                ax += dx * weight
                ay += dy * weight
                az += dz * weight
            out[i, 0], out[i, 1], out[i, 2] = ax, ay, az
        return out
    return Form(loops, lambda p, m: (*(np.ascontiguousarray(p[:, d]) for d in range(3)), m), name="planes")


def _numba_mandelbrot(numba: Any) -> Any:
    @numba.njit(parallel=True, cache=True)
    def run(c):  # type: ignore[no-untyped-def]
        out = np.empty(c.shape, np.int32)
        for i in numba.prange(c.shape[0]):
            for j in range(c.shape[1]):
                re, im = c[i, j].real, c[i, j].imag
                x, y, count = np.float32(0), np.float32(0), 0
                for _ in range(STEPS):
                    x, y = x * x - y * y + re, np.float32(2) * x * y + im
                    if not x * x + y * y < np.float32(4):
                        break
                    count += 1
                out[i, j] = count
        return out
    return Form(run, name="leaves a point when it escapes")


def _numba_blur(numba: Any) -> Any:
    @numba.njit(parallel=True, cache=True)
    def run(image):  # type: ignore[no-untyped-def]
        n, m = image.shape[:2]
        out = np.empty((n - 4, m - 4), np.uint8)
        strip = 64
        for b in numba.prange((n - 4 + strip - 1) // strip):
            low, high = b * strip, min((b + 1) * strip, n - 4)
            grey = np.empty((high - low + 4, m), np.uint16)
            for i in range(high - low + 4):
                for j in range(m):
                    r, g, u = image[low + i, j, 0], image[low + i, j, 1], image[low + i, j, 2]
                    grey[i, j] = (np.uint32(77) * r + np.uint32(150) * g + np.uint32(29) * u) >> np.uint32(8)
            row = np.empty(m, np.uint16)
            for i in range(high - low):
                for j in range(m):
                    row[j] = (grey[i, j] + np.uint16(4) * grey[i + 1, j] + np.uint16(6) * grey[i + 2, j]
                              + np.uint16(4) * grey[i + 3, j] + grey[i + 4, j])
                for j in range(m - 4):
                    total = (np.uint32(row[j]) + np.uint32(4) * row[j + 1] + np.uint32(6) * row[j + 2]
                             + np.uint32(4) * row[j + 3] + np.uint32(row[j + 4]))
                    out[low + i, j] = np.uint8((total + np.uint32(128)) >> np.uint32(8))
        return out
    return run


def _jax_pairwise(jax: Any) -> list[Form]:
    jnp = jax.numpy

    def by_product(a: Any, b: Any) -> Any:
        squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * (a @ b.T)
        return jnp.sqrt(jnp.maximum(squared, 0))
    return [Form(lambda a, b: jnp.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)), name="direct"),
            Form(by_product, name="as a matrix product")]


def _torch_pairwise(torch: Any) -> list[Form]:
    return [Form(torch.cdist, name="as a matrix product"),
            Form(lambda a, b: torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist"), name="direct")]


def _jax_jacobi(jax: Any) -> Any:
    return lambda u: u.at[1:-1, 1:-1].set(0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]))


def _torch_jacobi(_torch: Any) -> Any:
    def run(u: Any) -> Any:
        new = u.clone()
        new[1:-1, 1:-1] = 0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:])
        return new
    return run


def _bodies_of(sqrt: Any) -> Any:
    def run(position: Any, mass: Any) -> Any:
        apart = position[None, :] - position[:, None]
        squared = (apart * apart).sum(-1) + 1e-3
        return (apart * (mass / (squared * sqrt(squared)))[:, :, None]).sum(1)
    return run


def _jax_mandelbrot(jax: Any) -> Any:
    jnp = jax.numpy

    def run(c: Any) -> Any:
        def step(_: Any, state: Any) -> Any:
            x, y, count = state
            x, y = x * x - y * y + c.real, 2 * x * y + c.imag
            return x, y, count + (x * x + y * y < 4)
        zero = jnp.zeros(c.shape, jnp.float32)
        return jax.lax.fori_loop(0, STEPS, step, (zero, zero, jnp.zeros(c.shape, jnp.int32)), unroll=10)[2]
    return run


def _torch_mandelbrot(torch: Any) -> Form:
    def run(re: Any, im: Any) -> Any:
        x, y = torch.zeros_like(re), torch.zeros_like(re)
        count = torch.zeros(re.shape, dtype=torch.int32)
        for _ in range(STEPS):
            x, y = x * x - y * y + re, 2 * x * y + im
            count = count + (x * x + y * y < 4)
        return count
    return Form(run, lambda c: (torch.from_numpy(c.real.copy()), torch.from_numpy(c.imag.copy())), name="planes")


def _blur_of(wide: Any, narrow: Any) -> Any:
    def run(image: Any) -> Any:
        full = wide(image)
        grey = (77 * full[..., 0] + 150 * full[..., 1] + 29 * full[..., 2]) >> 8
        rows = grey[:-4] + 4 * grey[1:-3] + 6 * grey[2:-2] + 4 * grey[3:-1] + grey[4:]
        both = rows[:, :-4] + 4 * rows[:, 1:-3] + 6 * rows[:, 2:-2] + 4 * rows[:, 3:-1] + rows[:, 4:]
        return narrow((both + 128) >> 8)
    return run


WORKLOADS = [
    Workload("pairwise L2 2000x2000 d64", "loops", pairwise, _points, (2000, 64), (7, 5),
             lambda n, d: n * n * (3.0 * d + COST["sqrt"]),
             {"numba": _numba_pairwise, "jax": _jax_pairwise, "torch": _torch_pairwise}),
    Workload("jacobi step 2048x2048", "stencil", jacobi, _field, (2048,), (9,), lambda n: 4.0 * n * n,
             {"numba": _numba_jacobi, "jax": _jax_jacobi, "torch": _torch_jacobi}, tolerance=1e-6),
    Workload("n-body 2000", "stencil", accelerations, _bodies, (2000,), (9,),
             lambda n: n * n * (17.0 + COST["sqrt"] + COST["div"]),
             {"numba": _numba_bodies, "jax": lambda jax: _bodies_of(jax.numpy.sqrt),
              "torch": lambda torch: _bodies_of(torch.sqrt)}),
    Workload("mandelbrot 512x512, 50 steps", "loops", mandelbrot, _plane, (512, 512), (40, 50),
             lambda h, w: h * w * STEPS * 10.0,
             {"numba": _numba_mandelbrot, "jax": _jax_mandelbrot, "torch": _torch_mandelbrot},
             tolerance=0.01, share=True),
    Workload("grey + 5x5 blur uint8 2048x2048", "loops", grey_blur, _image, (2048,), (9,), lambda n: n * n * 24.0,
             {"numba": _numba_blur,
              "jax": lambda jax: _blur_of(lambda i: i.astype("uint16"), lambda i: i.astype("uint8")),
              "torch": lambda torch: _blur_of(lambda i: i.to(torch.int32), lambda i: i.to(torch.uint8))},
             "int16", 0),
]
