"""What generated code may call, and what starts it, as LLVM IR: an image has no C library.

What holds here: `support` are plain functions that LLVM lowers to a call on some machines; `start` is the entry of a
Linux process, which finds its arrays in the file that is its input, runs once, and ends.
"""

from __future__ import annotations

from tracedsl.hw.cpu.abi import ENTRY
from tracedsl.hw.cross.machines import Row

# Where the file with the arrays lies in the process. It starts with the addresses of all buffers.
BASE = 0x2_0000_0000
_LSEEK, _EXIT, _MMAP = 62, 93, 222
_END, _READ_WRITE, _SHARED_FIXED = 2, 3, 0x11

# x - trunc(x / y) * y, exactly: multiples of y are subtracted, each at least half of what is left, so that no
# difference is rounded.
_SUPPORT = """
declare double @llvm.fabs.f64(double)
declare double @llvm.copysign.f64(double, double)

define double @fmod(double %x, double %y) nounwind {
start:
  %a = call double @llvm.fabs.f64(double %x)
  %b = call double @llvm.fabs.f64(double %y)
  %finite = fcmp olt double %a, 0x7FF0000000000000
  %divides = fcmp ogt double %b, 0.0
  %defined = and i1 %finite, %divides
  br i1 %defined, label %double, label %undefined
undefined:
  %product = fmul double %x, %y
  %nan = fdiv double %product, %product
  ret double %nan
double:
  %t = phi double [ %b, %start ], [ %t2, %double ]
  %t2 = fadd double %t, %t
  %more = fcmp ole double %t2, %a
  br i1 %more, label %double, label %subtract
subtract:
  %left = phi double [ %a, %double ], [ %less, %subtract ]
  %m = phi double [ %t, %double ], [ %half, %subtract ]
  %fits = fcmp oge double %left, %m
  %rest = fsub double %left, %m
  %less = select i1 %fits, double %rest, double %left
  %half = fmul double %m, 0.5
  %last = fcmp ole double %m, %b
  br i1 %last, label %done, label %subtract
done:
  %result = call double @llvm.copysign.f64(double %less, double %x)
  ret double %result
}

define float @fmodf(float %x, float %y) nounwind {
  %a = fpext float %x to double
  %b = fpext float %y to double
  %r = call double @fmod(double %a, double %b)
  %result = fptrunc double %r to float
  ret float %result
}

define ptr @memset(ptr %to, i32 %value, SIZE %count) nounwind "no-builtins" {
start:
  %byte = trunc i32 %value to i8
  %none = icmp eq SIZE %count, 0
  br i1 %none, label %done, label %loop
loop:
  %i = phi SIZE [ 0, %start ], [ %next, %loop ]
  %at = getelementptr i8, ptr %to, SIZE %i
  store volatile i8 %byte, ptr %at
  %next = add SIZE %i, 1
  %end = icmp eq SIZE %next, %count
  br i1 %end, label %done, label %loop
done:
  ret ptr %to
}

define ptr @memcpy(ptr %to, ptr %from, SIZE %count) nounwind "no-builtins" {
start:
  %none = icmp eq SIZE %count, 0
  br i1 %none, label %done, label %loop
loop:
  %i = phi SIZE [ 0, %start ], [ %next, %loop ]
  %source = getelementptr i8, ptr %from, SIZE %i
  %at = getelementptr i8, ptr %to, SIZE %i
  %byte = load volatile i8, ptr %source
  store volatile i8 %byte, ptr %at
  %next = add SIZE %i, 1
  %end = icmp eq SIZE %next, %count
  br i1 %end, label %done, label %loop
done:
  ret ptr %to
}
"""


# 128-bit integers where the machine returns them in memory
_WIDE = """
define void @__multi3(ptr %r, i64 %a, i64 %ah, i64 %b, i64 %bh) nounwind {
  %a0 = and i64 %a, 4294967295
  %a1 = lshr i64 %a, 32
  %b0 = and i64 %b, 4294967295
  %b1 = lshr i64 %b, 32
  %p00 = mul i64 %a0, %b0
  %p01 = mul i64 %a0, %b1
  %p10 = mul i64 %a1, %b0
  %p11 = mul i64 %a1, %b1
  %carry = lshr i64 %p00, 32
  %middle = add i64 %p10, %carry
  %middle.low = and i64 %middle, 4294967295
  %second = add i64 %p01, %middle.low
  %upper = shl i64 %second, 32
  %lower = and i64 %p00, 4294967295
  %low = or i64 %upper, %lower
  %c1 = lshr i64 %middle, 32
  %c2 = lshr i64 %second, 32
  %h1 = add i64 %p11, %c1
  %h2 = add i64 %h1, %c2
  %x1 = mul i64 %a, %bh
  %x2 = mul i64 %ah, %b
  %h3 = add i64 %h2, %x1
  %high = add i64 %h3, %x2
  store i64 %low, ptr %r
  %r.high = getelementptr i64, ptr %r, i32 1
  store i64 %high, ptr %r.high
  ret void
}
""" + "".join(f"""
define void @{name}(ptr %r, i64 %low, i64 %high, i32 %count) nounwind {{
  %n = zext i32 %count to i64
  %far = icmp uge i64 %n, 64
  %m = and i64 %n, 63
  %left = xor i64 %m, 63
  %one = {back} i64 %{near}, 1
  %moved = {back} i64 %one, %left
  %kept = {there} i64 %{other}, %m
  %both = or i64 %moved, %kept
  %shifted = {there} i64 %{near}, %m
  %new.{near} = select i1 %far, i64 0, i64 %shifted
  %new.{other} = select i1 %far, i64 %shifted, i64 %both
  store i64 %new.low, ptr %r
  %r.high = getelementptr i64, ptr %r, i32 1
  store i64 %new.high, ptr %r.high
  ret void
}}
""" for name, there, back, near, other in (("__ashlti3", "shl", "lshr", "low", "high"),
                                          ("__lshrti3", "lshr", "shl", "high", "low")))


def support(row: Row) -> str:
    """The functions that code for this machine may call."""
    plain = _SUPPORT.replace("SIZE", f"i{8 * row.pointer_bytes}")
    return plain + (_start(row) if row.system else _WIDE)


def _start(row: Row) -> str:
    """`_start` of a Linux process."""
    words = ", ".join(f"i32 {word}" for word in row.system)

    def system(what: int, *args: str | int) -> str:
        values = ", ".join(f"i64 {a}" for a in (what, *args, *([0] * (6 - len(args)))))
        return f"call i64 @system({values})"

    return f"""
@system = internal constant [{len(row.system)} x i32] [{words}], section ".text.system", align 16

declare void @{ENTRY}(ptr)

define void @_start() noreturn nounwind "stackrealign" {{
  %size = {system(_LSEEK, 0, 0, _END)}
  %base = {system(_MMAP, BASE, "%size", _READ_WRITE, _SHARED_FIXED, 0, 0)}
  %mapped = icmp eq i64 %base, {BASE}
  br i1 %mapped, label %work, label %refused
work:
  call void @{ENTRY}(ptr inttoptr (i64 {BASE} to ptr))
  %ended = {system(_EXIT, 0)}
  unreachable
refused:
  %failed = {system(_EXIT, 1)}
  unreachable
}}
"""
