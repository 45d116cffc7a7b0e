"""Every float through every function: `python -m tracedsl.hw.cpu.math.exhaust [NAME ...]`.

What holds here: each of the 2^32 floats goes through the function of floats and through the one of doubles, in machine
code; the largest distance in ULP and where it is are kept. The functions of doubles are tested against mpmath
elsewhere; their own error counts for nothing in a float's last bit. Functions of two arguments get 2^32 pairs, half
of them with quotients or exponents of moderate size. Work is done in chunks, each of which is written to the state
file: a run that was stopped goes on where it was. Numbers that are NaN in one and not in the other, and zeros of the
wrong sign, count as infinitely wrong.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tracedsl.hw.cpu import jit, math
from tracedsl.hw.cpu.emitter import ModuleEmitter, Param, constant, constant_vector, vec
from tracedsl.hw.cpu.machine import host
from tracedsl.hw.cpu.math.num import Num

CHUNK = 1 << 25
ALL = 1 << 32
_LANES = 16
_SPREAD = 0x9E3779B1   # odd: multiples of it modulo 2^32 are all floats, in an order that jumps about


@dataclass(frozen=True)
class Worst:
    """The largest error of the first `done` arguments, in ULP, and the bits of the first argument it came from."""

    name: str
    done: int = 0
    ulp: float = 0.0
    bits: int = 0

    def __str__(self) -> str:
        return f"{self.name:8} {self.ulp:9.4f} ULP at {np.uint32(self.bits).view(np.float32)!s:>16}  of {self.done:,}"


def measure(so_far: Worst, until: int) -> Worst:
    """Go on to argument number `until`."""
    ulp, bits = np.zeros(_LANES), np.zeros(_LANES, np.uint32)
    _, call = _compiled(so_far.name)
    call(so_far.done, until, ulp.ctypes.data, bits.ctypes.data)
    at = int(ulp.argmax())
    if ulp[at] <= so_far.ulp:
        return Worst(so_far.name, until, so_far.ulp, so_far.bits)
    return Worst(so_far.name, until, float(ulp[at]), int(bits[at]))


@cache
def _compiled(name: str) -> tuple[jit.Loaded, ctypes._FuncPointer]:  # type: ignore[name-defined]
    """void f(i64 begin, i64 end, double *ulp, i32 *bits): 16 arguments a step, a worst one for each lane."""
    module = ModuleEmitter("exhaust", host().feature_names(), host().function_attributes())
    params = [Param("begin", "i64"), Param("end", "i64"), Param("ulp", "ptr"), Param("bits", "ptr")]
    f = module.function("f", params=params, attributes=module.attributes)
    begin, end, ulp_at, bits_at = f.params
    wide, whole = vec("double", _LANES), vec("i32", _LANES)
    before, loop, done = f.here, f.label("loop"), f.label("done")
    f.br(loop)
    f.start(loop)
    i = f.phi("i64", [(begin, before)])
    worst = f.phi(wide, [(constant(wide, 0.0), before)])
    where = f.phi(whole, [(constant(whole, 0), before)])
    number = f.add(f.splat(f.trunc(i.value, "i32"), _LANES), constant_vector("i32", range(_LANES)))
    bits = Num(f, number) * _SPREAD
    error = _error(name, _arguments(name, bits))
    larger = error > Num(f, worst.value)
    worst.add(larger.where(error, Num(f, worst.value)).value, loop)
    where.add(larger.where(bits, Num(f, where.value)).value, loop)
    last, place = worst.incoming[-1][0], where.incoming[-1][0]
    after = f.add(i.value, constant("i64", _LANES))
    i.add(after, loop)
    f.cond_br(f.icmp("slt", after, end), loop, done)
    f.start(done)
    f.store(last, ulp_at)
    f.store(place, bits_at)
    f.ret()
    loaded = jit.load(jit.compile_object(module.text()), ["f"])
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(loaded["f"])
    return loaded, call


def _arguments(name: str, bits: Num) -> list[Num]:
    x = bits.floats()
    if math.method(name, "float").arity == 1:
        return [x]
    mixed = (bits ^ (bits >> 13)) * 0x2C1B3C6D
    mixed = (mixed ^ (mixed >> 12)) * 0x297A2D39
    moderate = (mixed >> 8).from_int("float") * 2.0 ** -20
    if name != "pow":
        moderate = moderate * x
    return [x, (bits & 16).equals(16).where(moderate, mixed.floats())]


def _error(name: str, args: Sequence[Num]) -> Num:
    """In units of the last place of the float that is nearest to the value."""
    f = args[0].f
    got = Num(f, math.emit(f, name, [a.value for a in args]))
    want = Num(f, math.emit(f, name, [a.double().value for a in args]))
    value, nearest, infinity = got.double(), want.float(), float("inf")
    value = value.equals(infinity).where(2.0 ** 128, value.equals(-infinity).where(-(2.0 ** 128), value))
    exponent = want.abs().at_least(2.0 ** -126).bits() & (0x7FF << 52)
    error = (value - want).abs() * ((2 * 1023 + 23 << 52) - exponent).floats()
    error = (nearest.abs().equals(infinity) & nearest.equals(got)).where(0.0, error)
    zero = got.equals(0.0) & ((nearest.bits() ^ got.bits()) < 0)
    differ = zero | (got.is_nan() ^ want.is_nan())
    return differ.where(infinity, (got.is_nan() & want.is_nan()).where(0.0, error))


def run(names: Iterable[str], state: Path | None, *, until: int = ALL, chunk: int = CHUNK) -> Iterable[Worst]:
    """The worst of each function, one after the other; what the state file holds already is not done again."""
    known = json.loads(state.read_text()) if state is not None and state.exists() else {}
    for name in names:
        worst = Worst(**known.get(name, {"name": name}))
        while worst.done < until:
            worst = measure(worst, min(until, worst.done + chunk))
            known[name] = asdict(worst)
            if state is not None:
                state.write_text(json.dumps(known, indent=1))
            sys.stderr.write(f"\r{worst.done / until:6.1%} {worst}")
        sys.stderr.write("\r")
        yield worst


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = sorted({name for name, elem in math.METHODS if elem == "float"})
    parser.add_argument("names", nargs="*", default=names, metavar="NAME", help="functions; all if none is given")
    parser.add_argument("--state", type=Path, default=Path("exhaust.json"), help="what was done (exhaust.json)")
    options = parser.parse_args()
    try:
        for worst in run(options.names, options.state):
            print(worst, flush=True)
    except KeyboardInterrupt:
        sys.exit("\nstopped; run it again to go on")


if __name__ == "__main__":
    main()
