"""An ordinary NumPy function, decorated: what it gives, what it was made into, and how fast it is.

Run: python examples/softmax.py
"""

import timeit

import numpy as np

from tracedsl import kernel


@kernel
def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def main():
    x = np.random.default_rng(0).standard_normal((4096, 1024), dtype=np.float32)
    assert np.allclose(softmax(x), softmax.function(x))
    print(softmax.explain())
    print(softmax.show("loops"))
    for name, function in (("NumPy", softmax.function), ("tracedsl", softmax)):
        print(f"{name:>9}: {min(timeit.repeat(lambda f=function: f(x), number=1, repeat=20)) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
