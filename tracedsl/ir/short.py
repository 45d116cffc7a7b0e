"""Short axes: coordinates, colours, components, matrices of a few rows.

What holds here: an axis of a few steps seldom fills a vector. Sums along such axes are written out as expressions,
loops over them are unrolled inside the longer loops, and what does not depend on one is computed once for all of its
steps. Rewriting and scheduling both count on this.
"""

SHORT = 8     # steps of the longest short axis
WRITTEN = 8   # terms of the longest sum that is written out
UNROLLED = 32   # copies of a body that short axes may make together


def is_short(extent: int) -> bool:
    return extent <= SHORT
