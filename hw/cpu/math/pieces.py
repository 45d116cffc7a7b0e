"""Functions by pieces: polynomials around equally spaced centres, whose coefficients are looked up in registers.

What holds here: the function is odd, f(x) = x g(|x|), and reaches 1 where the pieces end. g is a polynomial in the
distance to the nearest centre; its constant term comes in two parts, so that the result is rounded about once.
"""

from __future__ import annotations

from tracedsl.hw.cpu.math.kinds import Kind, Pieces
from tracedsl.hw.cpu.math.num import Num

_TINY = {"float": 2.0 ** -90, "double": 2.0 ** -900}
_UP = 2.0 ** 64


def odd_by_pieces(x: Num, pieces: Pieces, kind: Kind) -> Num:
    a = x.abs()
    shifted = a.fma(1.0 / pieces.width, kind.magic)
    centre = shifted.bits()
    distance = (shifted - kind.magic).fma(-pieces.width, a)
    first, rest, *powers = pieces.rows
    value = centre.look_up(powers[-1])
    for row in (*reversed(powers[:-1]), rest):
        value = value.fma(distance, centre.look_up(row))
    value = a.fma(centre.look_up(first), a * value)
    if rest[0]:
        value = _without_underflow(a, value, first[0], rest[0])
    return (a > pieces.one).where(1.0, value).sign_of(x)


def _without_underflow(a: Num, value: Num, first: float, rest: float) -> Num:
    """Where a * rest would be a subnormal number, a (first + rest) by way of larger ones."""
    f, tiny = a.f, a < _TINY[a.elem]

    def scaled() -> Num:
        b = a * _UP
        return tiny.where(b.fma(first, b * rest) * (1.0 / _UP), value)

    return Num(f, f.detour(tiny.any().value, value.value, lambda: scaled().value))
