"""Inverse circular functions: asin, acos, atan, atan2.

Method (Muller, Elementary Functions, ch. 11): the domain is folded until a short odd polynomial does, atan by pi/4 and
pi/2, asin by asin(a) = pi/2 - 2 asin(sqrt((1 - a) / 2)). What folding rounds away is kept: quotients, roots and the
multiples of pi/4 are a value and its error.

What holds here: errors are below 1 ULP; signs of zero and infinities are those of C99 annex F.
"""

from __future__ import annotations

from tracedsl.hw.cpu.math.kinds import Kind
from tracedsl.hw.cpu.math.num import Num, fast_two_sum, two_sum

_INF = float("inf")
_TAN_EIGHTH = 0.41421356237309503  # tan(pi/8)


def atan(x: Num, kind: Kind) -> Num:
    a = x.abs().at_most(kind.far)
    zeros = x.bits().lift(0)
    return _angle(a, a.lift(1.0), zeros, kind).sign_of(x)


def atan2(y: Num, x: Num, kind: Kind) -> Num:
    """The angle of the point (x, y)."""
    a, b = y.abs(), x.abs()
    large, small = (a > b).where(a, b), (a > b).where(b, a)
    up = (small < 1.0 / kind.scale).where(kind.scale, large.lift(1.0))
    scale = (large > kind.scale).where(1.0 / kind.scale, up)
    infinite, one = large.equals(_INF), a.lift(1.0)
    a, b = (infinite.where(v.equals(_INF).where(one, a.lift(0.0)), v * scale) for v in (a, b))
    b = large.equals(0.0).where(one, b)
    value = _angle(a, b, (x.bits() < 0).where(x.bits().lift(4), x.bits().lift(0)), kind).sign_of(y)
    return value.unless_nan(y).unless_nan(x)


def _angle(a: Num, b: Num, half_turn: Num, kind: Kind) -> Num:
    """The angle of the point (b, a), both at least 0, or with `half_turn` 4 in place of 0 of (-b, a)."""
    steep = a > b
    small, large = steep.where(b, a), steep.where(a, b)
    near = small > large * _TAN_EIGHTH
    top, top_low = two_sum(small, near.where(-large, large.lift(0.0)))
    below, below_low = two_sum(large, near.where(small, large.lift(0.0)))
    inverse = 1.0 / below
    q = top * inverse
    left = ((-q).fma(below, top) + (-q).fma(below_low, top_low)) * inverse
    square = q * q
    tail = (q * square).fma(square.polynomial(kind.atan), (-left).fma(square, left))
    zeros = half_turn.lift(0)
    eighths = near.where(zeros + 1, zeros)
    eighths = steep.where(2 - eighths, eighths)
    behind = half_turn.equals(4)
    eighths = behind.where(half_turn - eighths, eighths)
    high, low = (eighths.look_up(row) for row in kind.quarter_pi)
    back = steep ^ behind
    total, error = fast_two_sum(high, back.where(-q, q))
    return total + (error + (low + back.where(-tail, tail)))


def asin(x: Num, kind: Kind) -> Num:
    a = x.abs()
    folded = a > 0.5
    root, rest, tail = _folded(a, folded, kind)
    high, low = (row[2] for row in kind.quarter_pi)
    total, error = fast_two_sum(a.lift(high), root * -2.0)
    far = total + (error + (rest + tail).fma(-2.0, low))
    return folded.where(far, root + tail).sign_of(x)


def acos(x: Num, kind: Kind) -> Num:
    a = x.abs()
    folded, negative = a > 0.5, x < 0.0
    root, rest, tail = _folded(a, folded, kind)
    (_, _, half, _, whole, *_), (_, _, half_low, _, whole_low, *_) = kind.quarter_pi
    total, error = fast_two_sum(a.lift(whole), root * -2.0)
    far_left = total + (error + (rest + tail).fma(-2.0, whole_low))
    far_right = (root + (rest + tail)) * 2.0
    total, error = fast_two_sum(a.lift(half), -(root.sign_of(x)))
    middle = total + (error + (half_low - tail.sign_of(x)))
    return folded.where(negative.where(far_left, far_right), middle)


def _folded(a: Num, folded: Num, kind: Kind) -> tuple[Num, Num, Num]:
    """s, what s lacks, and asin(s) - s, for s = a or, folded, sqrt((1 - a) / 2); NaN outside of the domain."""
    square = folded.where((1.0 - a) * 0.5, a * a)
    root = square.sqrt()
    safe = root.equals(0.0).where(1.0, root)
    rest = (-root).fma(root, square) / (safe * 2.0)
    root = folded.where(root, a)
    return root, rest, root * square * square.polynomial(kind.asin)
