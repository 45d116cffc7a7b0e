"""The CPU through Numba: the same loop nests as readable Python. A second opinion in tests, and a way to see what the
compiler made: `kernel.show("numba")`."""
