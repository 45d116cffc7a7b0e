"""Compiled NumPy functions beside every peer, in one interleaved run. `python -m benchmarks.kernels --help`.

What holds here:
- A workload is data: the NumPy function that a user would write, its inputs, what it must give, and how each peer does
  the same at its best (`workload.py`, `workloads/`).
- Every contender runs in a process of its own (`worker.py`), which is stopped (SIGSTOP) while the others are measured:
  its pools may spin while it has the cores, and cannot take them from anybody else.
- Contenders take turns of a few hundredths of a second, in an order that rotates, until the time of the workload is
  up (`measure.py`); a result counts only if it agrees with float64 NumPy.
"""
