"""NumPy programs with loops, slices and writes, as people write them: NumPy, tracedsl, Numba and JAX beside each other.

What holds here: a program is one plain function, the same for NumPy, tracedsl and Numba (its helpers are compiled for
Numba, which asks for that). Results and changed arguments are checked against NumPy, on two data sets.
"""
