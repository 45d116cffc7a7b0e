"""OpenCL C functions with NumPy's semantics, where OpenCL's own operators have others.

What holds here: overloaded by type; nothing traps and nothing is undefined for any operand, as in the CPU's code.
float16 is a float that float16 can hold; `half` exists in memory alone.
"""

from __future__ import annotations

import re

_HEAD = """\
#pragma OPENCL FP_CONTRACT OFF
#define OVER static inline __attribute__((overloadable))
"""

# T: the type, W: the unsigned type that arithmetic wraps around in, BITS: of T
_SIGNED = """
OVER T t_floordiv(T a, T b) {
  if (b == 0) return 0;
  if (b == -1) return (T)(0 - (W)a);
  T q = a / b;
  return q * b != a && (a < 0) != (b < 0) ? q - 1 : q;
}
OVER T t_fmod(T a, T b) { return b == 0 || b == -1 ? 0 : a % b; }
OVER T t_mod(T a, T b) { T r = t_fmod(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
OVER T t_shl(T a, T n) { return n >= 0 && n < BITS ? (T)((W)a << (W)n) : 0; }
OVER T t_shr(T a, T n) { return n >= 0 && n < BITS ? a >> n : a < 0 ? -1 : 0; }
OVER T t_abs(T a) { return a < 0 ? (T)(0 - (W)a) : a; }
OVER T t_sign(T a) { return a > 0 ? 1 : a < 0 ? -1 : 0; }
"""
_UNSIGNED = """
OVER T t_floordiv(T a, T b) { return b == 0 ? 0 : a / b; }
OVER T t_fmod(T a, T b) { return b == 0 ? 0 : a % b; }
OVER T t_mod(T a, T b) { return b == 0 ? 0 : a % b; }
OVER T t_shl(T a, T n) { return n < BITS ? (T)((W)a << (W)n) : 0; }
OVER T t_shr(T a, T n) { return n < BITS ? a >> n : 0; }
OVER T t_abs(T a) { return a; }
OVER T t_sign(T a) { return a > 0 ? 1 : 0; }
"""
_INTEGER = """
OVER T t_pow(T a, T n) {
  W result = 1, base = (W)a;
  for (ulong left = (ulong)n; left; left >>= 1) { if (left & 1) result *= base; base *= base; }
  return (T)result;
}
OVER T t_max(T a, T b) { return a > b ? a : b; }
OVER T t_min(T a, T b) { return a < b ? a : b; }
OVER T t_fmax(T a, T b) { return a > b ? a : b; }
OVER T t_fmin(T a, T b) { return a < b ? a : b; }
"""
_FLOAT = """
OVER T t_max(T a, T b) { return a != a || a > b ? a : b; }
OVER T t_min(T a, T b) { return a != a || a < b ? a : b; }
OVER T t_fmax(T a, T b) { return a != a || b > a ? b : a; }
OVER T t_fmin(T a, T b) { return a != a || b < a ? b : a; }
OVER T t_sign(T a) { return a > 0 ? 1 : a < 0 ? -1 : a == 0 ? 0 : a; }
OVER T t_mod(T a, T b) {
  T rest = fmod(a, b);
  if (b == 0) return rest;
  if (rest != 0) return (b < 0) != (rest < 0) ? rest + b : rest;
  return copysign(rest, b);
}
OVER T t_floordiv(T a, T b) {
  T plain = a / b;
  if (b == 0) return plain;
  T rest = fmod(a, b), quotient = (a - rest) / b;
  if (rest != 0 && (b < 0) != (rest < 0)) quotient -= 1;
  if (quotient == 0) return copysign(quotient, plain);
  T whole = floor(quotient);
  return quotient - whole > (T)0.5 ? whole + 1 : whole;
}
OVER T t_sigmoid(T a) {
  double x = a;
  return (T)(x < -40.0 ? exp(x) : 1.0 / (1.0 + exp(-x)));
}
OVER int t_to_int(T x) { return x > (double)-2147483649.0 && x < (double)2147483648.0 ? (int)x : INT_MIN; }
OVER long t_to_long(T x) { return x >= (T)-9223372036854775808.0 && x < (T)9223372036854775808.0 ? (long)x : LONG_MIN; }
OVER ulong t_to_ulong(T x) {
  return x >= (T)9223372036854775808.0 ? (ulong)t_to_long((T)(x - (T)9223372036854775808.0)) ^ (1UL << 63)
                                       : (ulong)t_to_long(x);
}
OVER T t_half(T x) { ushort h; vstore_half_rte(x, 0, (half *)&h); return vload_half(0, (const half *)&h); }
"""

# lanes at once: V a vector of T, M the integers that comparisons give
_LANES = """
OVER V t_max(V a, V b) { return ((a != a) | (a > b)) ? a : b; }
OVER V t_min(V a, V b) { return ((a != a) | (a < b)) ? a : b; }
OVER V t_fmax(V a, V b) { return ((a != a) | (b > a)) ? b : a; }
OVER V t_fmin(V a, V b) { return ((a != a) | (b < a)) ? b : a; }
"""

_SIGNED_TYPES = (("char", "uint", 8), ("short", "uint", 16), ("int", "uint", 32), ("long", "ulong", 64))
_UNSIGNED_TYPES = (("uchar", "uint", 8), ("ushort", "uint", 16), ("uint", "uint", 32), ("ulong", "ulong", 64))


def _with(text: str, **words: object) -> str:
    heads = "".join(f"#define {name} {word}\n" for name, word in words.items())
    return f"{heads}{text}" + "".join(f"#undef {name}\n" for name in words)


def prelude(body: str) -> str:
    """The functions for the types that a program mentions; they stand before it."""
    if not re.search(r"\bt_\w+\(", body):
        return _HEAD
    words = set(re.findall(r"\w+", body))
    words |= {"float"} if "half" in words else set()
    parts = [_HEAD]
    parts += [_with(_SIGNED + _INTEGER, T=t, W=w, BITS=b) for t, w, b in _SIGNED_TYPES if t in words]
    parts += [_with(_UNSIGNED + _INTEGER, T=t, W=w, BITS=b) for t, w, b in _UNSIGNED_TYPES if t in words]
    parts += [_with(_FLOAT, T=t) for t in ("float", "double") if t in words]
    parts += [_with(_LANES, V=f"{t}{n}") for t in ("float", "double") for n in (2, 4, 8, 16)
              if t in words and words & {f"{t}{n}", f"vload{n}"}]
    return "".join(parts)
