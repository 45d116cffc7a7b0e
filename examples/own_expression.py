"""A tensor expression written by hand, and a schedule hint; both also run under plain NumPy, without the decorator.

Run: python examples/own_expression.py
"""

import numpy as np

from tracedsl import compute, hint, kernel, reduce_axis


def distances(a, b):
    """Squared Euclidean distance of each row of a to each row of b."""
    k = reduce_axis(a.shape[1])
    return compute((a.shape[0], b.shape[0]), lambda i, j: k.sum((a[i, k] - b[j, k]) ** 2))


def scores(x, w):
    return hint(x @ w).tile(8, 32).vectorize(16) + 1


def main():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((300, 16)), rng.standard_normal((200, 16))
    fast = kernel(distances)
    assert np.allclose(fast(a, b), distances(a, b))
    print(fast.show("tasks"))

    x, w = rng.standard_normal((64, 48), dtype=np.float32), rng.standard_normal((48, 96), dtype=np.float32)
    hinted = kernel(scores)
    assert np.allclose(hinted(x, w), scores(x, w), atol=1e-4)
    print(hinted.show("schedule"))


if __name__ == "__main__":
    main()
