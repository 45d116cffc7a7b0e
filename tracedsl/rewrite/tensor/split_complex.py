"""Complex numbers as pairs of real expressions.

What holds here: a complex buffer is a buffer of the real dtype with one more dimension of extent 2 (re, im
interleaved, all other strides doubled). Division is by Smith's method and the absolute value is `hypot`, both as in
NumPy. What is not listed raises `Unsupported` (S012), so that the function runs in NumPy instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracedsl.diagnostics import Span, Unsupported
from tracedsl.ir.dtypes import REAL_OF
from tracedsl.ir.expr import Buffer, Call, Cast, Const, Expr


@dataclass(frozen=True, eq=False)
class Pair:
    """One complex number."""

    re: Expr
    im: Expr


Value = Expr | Pair


def split_complex(buffer: Buffer) -> Buffer:
    """A complex buffer as floats; a real one stays.

        z: c64[4, 5] strides (5, 1)   ->   z: f32[4, 5, 2] strides (10, 2, 1)
    """
    if buffer.dtype not in REAL_OF:
        return buffer
    strides = (*(2 * s for s in buffer.strides), 1)
    return Buffer(buffer.name, REAL_OF[buffer.dtype], (*buffer.shape, 2), strides, buffer.scope)


def call(op: str, *args: Expr) -> Expr:
    """A scalar operation with the dtype that its first (for `select`: second) operand gives."""
    dtype = "bool" if op in ("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "signbit") \
        else args[1 if op == "select" else 0].dtype
    return Call(dtype, op, args)


def complex_op(op: str, args: Sequence[Value], span: Span | None) -> Value:
    """The operation on complex operands, by parts."""
    pairs = [arg for arg in args if isinstance(arg, Pair)]
    if op == "select":
        test, (a, b) = args[0], pairs
        assert isinstance(test, Expr)
        return Pair(call("select", test, a.re, b.re), call("select", test, a.im, b.im))
    if len(pairs) == 1 and op in _UNARY:
        return _UNARY[op](pairs[0])
    if len(pairs) == 2 and op in _BINARY:
        return _BINARY[op](*pairs)
    raise Unsupported("S012", f"{op} of complex numbers is not compiled", span=span,
                      why="only arithmetic, comparison for equality, parts and absolute values are",
                      hint="split the computation into real and imaginary parts, or leave this part to NumPy")


def complex_cast(value: Value, dtype: str) -> Value:
    """astype between real and complex; to real drops the imaginary part, to bool asks for non-zero."""
    if isinstance(value, Pair):
        if dtype in REAL_OF:
            return Pair(_cast(value.re, REAL_OF[dtype]), _cast(value.im, REAL_OF[dtype]))
        if dtype == "bool":
            return call("or", _nonzero(value.re), _nonzero(value.im))
        return _cast(value.re, dtype)
    real = REAL_OF[dtype]
    return Pair(_cast(value, real), Const(real, 0.0))


def _cast(value: Expr, dtype: str) -> Expr:
    return value if value.dtype == dtype else Cast(dtype, value)


def _nonzero(value: Expr) -> Expr:
    return call("ne", value, Const(value.dtype, 0.0))


def _multiply(a: Pair, b: Pair) -> Value:
    return Pair(call("sub", call("mul", a.re, b.re), call("mul", a.im, b.im)),
                call("add", call("mul", a.re, b.im), call("mul", a.im, b.re)))


def _divide(a: Pair, b: Pair) -> Value:
    """R. L. Smith, Algorithm 116: Complex division, CACM 5 (1962), in the form of NumPy's loops: scale by the larger
    part; a divisor of zero gives a.re/|b.re|, a.im/|b.re|."""
    abs_re, abs_im = call("abs", b.re), call("abs", b.im)
    first = call("ge", abs_re, abs_im)
    zero = Const(b.re.dtype, 0.0)
    both_zero = call("and", call("eq", abs_re, zero), call("eq", abs_im, zero))
    big, small = call("select", first, b.re, b.im), call("select", first, b.im, b.re)
    ratio = call("div", small, big)
    scale = call("div", Const(b.re.dtype, 1.0), call("add", big, call("mul", small, ratio)))
    re = call("select", first, call("add", a.re, call("mul", a.im, ratio)),
              call("add", call("mul", a.re, ratio), a.im))
    im = call("select", first, call("sub", a.im, call("mul", a.re, ratio)),
              call("sub", call("mul", a.im, ratio), a.re))
    return Pair(call("select", both_zero, call("div", a.re, abs_re), call("mul", re, scale)),
                call("select", both_zero, call("div", a.im, abs_re), call("mul", im, scale)))


_UNARY: dict[str, Callable[[Pair], Value]] = {
    "neg": lambda a: Pair(call("neg", a.re), call("neg", a.im)),
    "conj": lambda a: Pair(a.re, call("neg", a.im)),
    "abs": lambda a: call("hypot", a.re, a.im),
    "real": lambda a: a.re,
    "imag": lambda a: a.im,
    "isnan": lambda a: call("or", call("isnan", a.re), call("isnan", a.im)),
    "isinf": lambda a: call("or", call("isinf", a.re), call("isinf", a.im)),
    "isfinite": lambda a: call("and", call("isfinite", a.re), call("isfinite", a.im)),
}
_BINARY: dict[str, Callable[[Pair, Pair], Value]] = {
    "add": lambda a, b: Pair(call("add", a.re, b.re), call("add", a.im, b.im)),
    "sub": lambda a, b: Pair(call("sub", a.re, b.re), call("sub", a.im, b.im)),
    "mul": _multiply,
    "div": _divide,
    "eq": lambda a, b: call("and", call("eq", a.re, b.re), call("eq", a.im, b.im)),
    "ne": lambda a, b: call("or", call("ne", a.re, b.re), call("ne", a.im, b.im)),
}
