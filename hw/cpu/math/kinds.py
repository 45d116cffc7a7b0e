"""The floating-point kinds that the vector math computes in.

What holds here: plain data. F32 and F64 compute in their own format, within 1 ULP; WIDE computes in double with
polynomials just good enough for a float result, which is then right to within 0.51 ULP.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracedsl.hw.cpu.math import coefficients as table

_H = float.fromhex


@dataclass(frozen=True)
class Pieces:
    """Polynomials around multiples of `width`: `rows` are the constant terms, what these leave, then each power, with
    an entry for each centre. From `one` on the function is 1."""

    width: float
    one: float
    rows: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Kind:
    """`magic`: adding it rounds to a whole number and leaves that number in the low bits. ln 2 = ln2_high + ln2_low,
    where ln2_high times an exponent is exact. Beyond `log_overflow` and `log_zero` exp is inf or 0 (WIDE has the limits
    of the floats that its results become). Below `tiny`, f(x) = x for the odd functions; above `far`, 1 + x^2 is x^2;
    tanh has its polynomial up to `tanh_from` and is 1 above `tanh_one`. `exp_step` is ln(2)/16 in parts. Angles beyond
    `turns` are reduced the long way; below `linear`, sin(x) = x; `scale` brings the largest and the smallest numbers
    to where their quotients neither overflow nor lose digits. The tuples are polynomials and tables (`coefficients`).
    """

    elem: str
    mantissa: int
    bias: int
    magic: float
    ln2_high: float
    ln2_low: float
    log_overflow: float
    log_zero: float
    min_normal: float
    tiny: float
    far: float
    exp: tuple[float, ...]
    log: tuple[float, ...]
    tanh: tuple[float, ...]
    tanh_from: float
    tanh_one: float
    exp_step: tuple[float, ...]
    exp_table: tuple[tuple[float, ...], ...]
    exp_short: tuple[float, ...]
    half_pi: tuple[float, ...] = ()
    quarter_pi: tuple[tuple[float, ...], ...] = ()
    turns: float = 0.0
    linear: float = 0.0
    scale: float = 0.0
    sin: tuple[float, ...] = ()
    cos: tuple[float, ...] = ()
    atan: tuple[float, ...] = ()
    asin: tuple[float, ...] = ()
    erf_pieces: Pieces | None = None
    tanh_pieces: Pieces | None = None


F32 = Kind(
    elem="float", mantissa=23, bias=127, magic=12582912.0,
    ln2_high=_H("0x1.62e4p-1"), ln2_low=_H("0x1.7f7d1cf79abcap-20"),
    log_overflow=89.0, log_zero=-104.0, min_normal=2.0 ** -126, tiny=2.0 ** -30, far=2.0 ** 30,
    exp=table.EXP_F32, log=table.LOG_F32, tanh=table.TANH_F32, tanh_from=0.975, tanh_one=10.0,
    exp_step=table.LN2_SIXTEENTH_F32, exp_table=table.EXP_TABLE_F32, exp_short=table.EXP_SIXTEENTH_F32,
    half_pi=table.HALF_PI_F32, quarter_pi=table.QUARTER_PI_F32, turns=2.0 ** 15, linear=2.0 ** -13, scale=2.0 ** 64,
    sin=table.SIN_F32, cos=table.COS_F32, atan=table.ATAN_F32, asin=table.ASIN_F32,
    erf_pieces=Pieces(0.2578125, 3.95, table.ERF_PIECES_F32), tanh_pieces=Pieces(0.59375, 9.1, table.TANH_PIECES_F32))

F64 = Kind(
    elem="double", mantissa=52, bias=1023, magic=6755399441055744.0,
    ln2_high=_H("0x1.62e42fefap-1"), ln2_low=_H("0x1.cf79abc9e3b3ap-40"),
    log_overflow=710.0, log_zero=-746.0, min_normal=2.0 ** -1022, tiny=2.0 ** -60, far=2.0 ** 60,
    exp=table.EXP_F64, log=table.LOG_F64, tanh=table.TANH_F64, tanh_from=0.55, tanh_one=20.0,
    exp_step=table.LN2_SIXTEENTH_F64, exp_table=table.EXP_TABLE_F64, exp_short=table.EXP_SIXTEENTH_F64,
    half_pi=table.HALF_PI_F64, quarter_pi=table.QUARTER_PI_F64, turns=2.0 ** 30, linear=2.0 ** -27, scale=2.0 ** 500,
    sin=table.SIN_F64, cos=table.COS_F64, atan=table.ATAN_F64, asin=table.ASIN_F64,
    erf_pieces=Pieces(0.796875, 5.95, table.ERF_PIECES_F64))

WIDE = Kind(
    elem="double", mantissa=52, bias=1023, magic=6755399441055744.0,
    ln2_high=F64.ln2_high, ln2_low=F64.ln2_low,
    log_overflow=100.0, log_zero=-120.0, min_normal=2.0 ** -1022, tiny=2.0 ** -60, far=2.0 ** 60,
    exp=table.EXP_WIDE, log=table.LOG_WIDE, tanh=table.TANH_F64, tanh_from=0.55, tanh_one=20.0,
    exp_step=table.LN2_SIXTEENTH_F64, exp_table=table.EXP_TABLE_F64, exp_short=table.EXP_SIXTEENTH_WIDE)
