"""Quotients by a number that many lanes share: three quick operations in place of one slow one, the same bits.

Method (Markstein, IA-64 and Elementary Functions, 2000; Brisebarre, Muller and Raina, IEEE Trans. Computers 53, 2004):
with z = 1/y rounded, q = x z, r = x - q y exactly, q + r z is x / y rounded correctly, as long as nothing overflows or
underflows on the way. Lanes where something might (very large and small numbers, zeros, infinities, NaN) send the
vector on the detour of an ordinary division.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracedsl.hw.cpu.math.num import Num

# how far from 1 the divisor and the dividend may be, as exponents of two
_REACH = {"float": (30, 60), "double": (200, 500)}


@dataclass(frozen=True)
class Divisor:
    """A number y with its inverse, and how many bit patterns of |x|, from the smallest allowed on, are ordinary: none
    if y itself is not."""

    y: Num
    inverse: Num
    span: Num


def divisor(y: Num) -> Divisor:
    reach, others = _REACH[y.elem]
    a = y.abs()
    low, high = y.lift(2.0 ** -others).bits(), y.lift(2.0 ** others).bits()
    ordinary = (a > 2.0 ** -reach) & (a < 2.0 ** reach)
    return Divisor(y, 1.0 / y, ordinary.where(high - low, low.lift(0)))


def quotient(x: Num, by: Divisor) -> Num:
    """x / y, bit for bit."""
    q = x * by.inverse
    q = (-q).fma(by.y, x).fma(by.inverse, q)
    low = x.lift(2.0 ** -_REACH[x.elem][1]).bits()
    unusual = (x.abs().bits() - low).not_below(by.span)
    return Num(x.f, x.f.detour(unusual.any().value, q.value, lambda: (x / by.y).value))
