"""A small convolutional network reads handwritten digits on a simulated accelerator.

It is trained here, in float, on scikit-learn's digits; its weights and activations become int8; then the same NumPy
code that computes with integers runs through `@kernel(target="fpga-sim")`: convolutions, pooling and products on the
accelerator, the softmax on the host. `python examples/quantised_digits.py` takes about half a minute.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_digits

from tracedsl import kernel

Array = np.ndarray[Any, Any]
CHANNELS = (8, 16)


# -- the network, in any numbers ---------------------------------------------------------------------------------------


def windows(x):
    """The 3 x 3 neighbours of every pixel: n, h, w, c, 3, 3."""
    return sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), axis=(1, 2))


def pool(x):
    """The largest of each 2 x 2 pixels."""
    return sliding_window_view(x, (2, 2), axis=(1, 2))[:, ::2, ::2].max(axis=(-1, -2))


# -- training, in float ------------------------------------------------------------------------------------------------


def forward(p: list[Array], x: Array) -> list[Array]:
    """All activations; the last ones are the scores of the ten digits."""
    found = [x]
    for w, b in ((p[0], p[1]), (p[2], p[3])):
        found.append(np.maximum(np.einsum("nhwcij,ijco->nhwo", windows(found[-1]), w, optimize=True) + b, 0))
        found.append(pool(found[-1]))
    return [*found, found[-1].reshape(len(x), -1) @ p[4] + p[5]]


def gradients(p: list[Array], x: Array, y: Array) -> list[Array]:
    """Of the mean cross entropy, by backpropagation."""
    seen = forward(p, x)
    e = np.exp(seen[-1] - seen[-1].max(axis=1, keepdims=True))
    d = (e / e.sum(axis=1, keepdims=True) - np.eye(10)[y]) / len(x)
    flat = seen[4].reshape(len(x), -1)
    found = [flat.T @ d, d.sum(axis=0)]
    d = (d @ p[4].T).reshape(seen[4].shape)
    for layer in (2, 1):
        before, wide, pooled = seen[2 * layer - 2], seen[2 * layer - 1], seen[2 * layer]
        largest = wide == pooled.repeat(2, axis=1).repeat(2, axis=2)
        d = d.repeat(2, axis=1).repeat(2, axis=2) * largest * (wide > 0)
        w = p[2 * layer - 2]
        found = [np.einsum("nhwcij,nhwo->ijco", windows(before), d, optimize=True), d.sum(axis=(0, 1, 2)), *found]
        d = np.einsum("nhwoij,ijco->nhwc", windows(d), w[::-1, ::-1], optimize=True)
    return found


def train(x: Array, y: Array, epochs: int = 12, seed: int = 0) -> list[Array]:
    """Weights and biases after some epochs of Adam (Kingma and Ba, 2015)."""
    rng = np.random.default_rng(seed)
    one, two = CHANNELS
    shapes = ((3, 3, 1, one), (one,), (3, 3, one, two), (two,), (4 * two, 10), (10,))
    p = [rng.standard_normal(s) * np.sqrt(2 / max(np.prod(s[:-1]), 1)) if len(s) > 1 else np.zeros(s) for s in shapes]
    first, second, step = [np.zeros(s) for s in shapes], [np.zeros(s) for s in shapes], 0
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(x)), len(x) // 32):
            step += 1
            for at, g in enumerate(gradients(p, x[batch], y[batch])):
                first[at] += 0.1 * (g - first[at])
                second[at] += 0.001 * (g * g - second[at])
                rate = 0.003 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                p[at] -= rate * first[at] / (np.sqrt(second[at]) + 1e-8)
    return p


# -- quantisation ------------------------------------------------------------------------------------------------------


def quantise(p: list[Array], x: Array) -> tuple[list[Array], list[tuple[int, int]], float]:
    """int8 weights with one scale a layer, int32 biases; for each convolution the multiplier and the shift that bring
    its sums to int8; what a score of 1 is worth. `x`: images by which the scales of the activations are chosen."""
    scale, integers, scaling = 1 / 127, [], []
    seen = forward(p, x)
    for layer, (w, b) in enumerate(((p[0], p[1]), (p[2], p[3]), (p[4], p[5]))):
        step = float(abs(w).max()) / 127
        integers += [np.round(w / step).astype(np.int8), np.round(b / (step * scale)).astype(np.int32)]
        if layer == 2:
            return integers, scaling, step * scale
        after = float(seen[2 * layer + 1].max()) / 127
        shift = 14 - int(np.floor(np.log2(step * scale / after)))
        scaling.append((round(step * scale / after * 2**shift) // 2, shift - 1))
        scale = after
    raise AssertionError("three layers")


def network(scaling: list[tuple[int, int]], worth: float) -> Any:
    """The quantised network as a kernel: images of int8 and weights in, probabilities out."""
    (m1, s1), (m2, s2) = scaling

    def convolution(x, w, b, multiplier, shift):
        total = np.einsum("nhwcij,ijco->nhwo", windows(x).astype(np.int32), w.astype(np.int32)) + b
        scaled = (total.astype(np.int64) * multiplier + (1 << shift - 1)) >> shift
        return np.clip(scaled, 0, 127).astype(np.int8)

    @kernel(target="fpga-sim")
    def classify(x, w1, b1, w2, b2, w3, b3):
        x = pool(convolution(x, w1, b1, m1, s1))
        x = pool(convolution(x, w2, b2, m2, s2))
        scores = (x.reshape(x.shape[0], -1).astype(np.int32) @ w3.astype(np.int32) + b3) * np.float32(worth)
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)
    return classify


def main() -> dict[str, float]:
    images, y = load_digits(return_X_y=True)
    x = images.reshape(-1, 8, 8, 1) / 16
    x_train, y_train, x_test, y_test = x[:1400], y[:1400], x[1400:], y[1400:]
    p = train(x_train, y_train)
    in_float = float((forward(p, x_test)[-1].argmax(axis=1) == y_test).mean())

    weights, scaling, worth = quantise(p, x_train)
    classify = network(scaling, worth)
    x_int8 = np.round(x_test * 127).astype(np.int8)
    probabilities = classify(x_int8, *weights)
    assert np.allclose(probabilities, classify.function(x_int8, *weights), rtol=1e-5), "not what NumPy computes"
    in_int8 = float((probabilities.argmax(axis=1) == y_test).mean())

    print(f"accuracy on {len(y_test)} digits: {in_float:.1%} in float, {in_int8:.1%} in int8 on the accelerator\n")
    print("\n".join(line for line in classify.explain().splitlines() if "accelerator" in line or "host" in line))
    print("\n" + classify.show("timeline"))
    return {"float": in_float, "int8": in_int8}


if __name__ == "__main__":
    main()
