"""The native entry point as LLVM IR: from a Python call to compiled code and back without running Python.

What holds here:
- One function serves all kernels. What it checks and calls stands in plans (`entry_plan`): tables of 64-bit words.
- A plan matches if the call's arguments and the outer names that the function uses are what the plan was made for,
  exactly: same types, same dtypes, same dimensions, same layout. Whatever else comes goes to the Python
  function in `_slow`, which can do everything.
- The interpreter lock is held while anything of Python is touched; it is released around code that runs long.
- References: results are new, everything else is borrowed from the caller, the plan, or a dict that did not change.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from tracedsl.hw.cpu.entry_call_ir import ALLOCATE, CALL, RETURN, RUN
from tracedsl.hw.cpu.entry_type import WORDS

FRAME = 128          # words of a call's frame: addresses for the code, then numbers
OUTS = 24            # results of one call

# records, in words of 8 bytes
ARGUMENT = ("kind", "expected", "nd", "dims", "mask", "strides", "slot", "narrow_slot", "scratch", "narrow_scratch")
GUARD = ("kind", "holder", "name", "expected", "version", "value", "argument")
OUT = ("descr", "nd", "dims", "slot", "kind", "scratch", "large")
PART = ("kind", "value")
PAIR = ("slot", "size", "other", "low", "high")
PLAN = ("nargs", "arguments", "nguards", "guards", "npairs", "pairs", "nouts", "outs", "nparts", "parts", "nfixed",
        "fixed", "ntemps", "temps", "workspace", "base", "busy", "code", "release", "single")

ARRAY, FLOAT, SCALAR, STATIC, REPEATED = 0, 1, 2, 3, 4      # kinds of arguments
VERSIONED, CELL, PLAIN = 0, 1, 2                      # kinds of guards
NEW_ARRAY, NEW_SCALAR = 0, 1                          # kinds of results
OF_OUT, OF_ARGUMENT, OF_PLAN = 0, 1, 2                # kinds of parts of what is returned

PYTHON = ("PyObject_Vectorcall", "PyDict_GetItemWithError", "PyErr_Clear", "PyErr_NoMemory", "PyFloat_AsDouble",
          "Py_IncRef", "Py_DecRef", "PyTuple_New", "PyTuple_SetItem", "PyEval_SaveThread", "PyEval_RestoreThread",
          "PyObject_RichCompareBool", "PyFloat_Type")
# names of our own for what stands in NumPy's table of its C API
NUMPY = {"np_ndarray_type": "PyArray_Type", "np_new_array": "PyArray_NewFromDescr", "np_new_scalar": "PyArray_Scalar",
         "np_set_handler": "PyDataMem_SetHandler"}
ENTRY = "tdsl_call"
HANDLER = "tdsl_entry_handler"     # the capsule of the allocator for large results, or null


@dataclass(frozen=True)
class Offsets:
    """Where this interpreter and this NumPy keep things (bytes); checked against real objects before use."""

    words: int                     # of `entry_type.WORDS` in an instance
    type: int = 8
    data: int = 16
    nd: int = 24
    dims: int = 32
    strides: int = 40
    descr: int = 56
    flags: int = 64
    cell: int = 16
    length: int = 16               # of a tuple
    version: int = 24              # of a dict
    scalar: int = 16               # value of a NumPy scalar
    order: int = 26                # byte order of a dtype


_DECLARATIONS = """
@PyFloat_Type = external global i8
@np_ndarray_type = external global i8
@tdsl_entry_handler = global ptr null

declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare ptr @PyDict_GetItemWithError(ptr, ptr)
declare void @PyErr_Clear()
declare ptr @PyErr_NoMemory()
declare double @PyFloat_AsDouble(ptr)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i32 @PyObject_RichCompareBool(ptr, ptr, i32)
declare ptr @np_new_array(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
declare ptr @np_new_scalar(ptr, ptr, ptr)
declare ptr @np_set_handler(ptr)
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
"""

# word `i` of a record
_READ = """
define internal i64 @word(ptr %record, i64 %i) alwaysinline nounwind {
  %at = getelementptr i64, ptr %record, i64 %i
  %value = load i64, ptr %at, align 8
  ret i64 %value
}

define internal ptr @pointer(ptr %record, i64 %i) alwaysinline nounwind {
  %at = getelementptr i64, ptr %record, i64 %i
  %value = load ptr, ptr %at, align 8
  ret ptr %value
}

define internal void @put(ptr %frame, i64 %i, ptr %value) alwaysinline nounwind {
  %at = getelementptr i64, ptr %frame, i64 %i
  store ptr %value, ptr %at, align 8
  ret void
}

define internal ptr @field(ptr %object, i64 %offset) alwaysinline nounwind {
  %at = getelementptr i8, ptr %object, i64 %offset
  %value = load ptr, ptr %at, align 8
  ret ptr %value
}

; whether n words are equal
define internal i1 @equal(ptr %a, ptr %b, i64 %n) nounwind {
entry:
  %none = icmp eq i64 %n, 0
  br i1 %none, label %yes, label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %more ]
  %x = call i64 @word(ptr %a, i64 %i)
  %y = call i64 @word(ptr %b, i64 %i)
  %same = icmp eq i64 %x, %y
  br i1 %same, label %more, label %no
more:
  %next = add i64 %i, 1
  %end = icmp eq i64 %next, %n
  br i1 %end, label %yes, label %loop
yes:
  ret i1 true
no:
  ret i1 false
}
"""

# Two dtype objects that stand for the same numbers: what came out of a pickle is an object of its own.
_DTYPE = """
define internal i1 @same_dtype(ptr %a, ptr %b) nounwind {
  %class.a = call ptr @field(ptr %a, i64 $type)
  %class.b = call ptr @field(ptr %b, i64 $type)
  %same.class = icmp eq ptr %class.a, %class.b
  %order.at.a = getelementptr i8, ptr %a, i64 $order
  %order.at.b = getelementptr i8, ptr %b, i64 $order
  %order.a = load i8, ptr %order.at.a, align 1
  %order.b = load i8, ptr %order.at.b, align 1
  %same.order = icmp eq i8 %order.a, %order.b
  %same = and i1 %same.class, %same.order
  ret i1 %same
}
"""

# Check one argument against its record and put its address (or its value) into the frame.
_TAKE = """
define internal i1 @take(ptr %o, ptr %r, ptr %frame) nounwind {
entry:
  %kind = call i64 @word(ptr %r, i64 $ARGUMENT.kind)
  %expected = call ptr @pointer(ptr %r, i64 $ARGUMENT.expected)
  %slot = call i64 @word(ptr %r, i64 $ARGUMENT.slot)
  %type = call ptr @field(ptr %o, i64 $type)
  switch i64 %kind, label %no [ i64 $ARRAY, label %array  i64 $FLOAT, label %float
                                i64 $SCALAR, label %scalar  i64 $STATIC, label %static ]
array:
  %is.array = icmp eq ptr %type, @np_ndarray_type
  br i1 %is.array, label %dtype, label %no
dtype:
  %descr = call ptr @field(ptr %o, i64 $descr)
  %same.object = icmp eq ptr %descr, %expected
  br i1 %same.object, label %rank, label %other.dtype
other.dtype:
  %same.dtype = call i1 @same_dtype(ptr %descr, ptr %expected)
  br i1 %same.dtype, label %rank, label %no
rank:
  %nd.at = getelementptr i8, ptr %o, i64 $nd
  %nd.32 = load i32, ptr %nd.at, align 4
  %nd = zext i32 %nd.32 to i64
  %nd.wanted = call i64 @word(ptr %r, i64 $ARGUMENT.nd)
  %same.nd = icmp eq i64 %nd, %nd.wanted
  %flags.at = getelementptr i8, ptr %o, i64 $flags
  %flags.32 = load i32, ptr %flags.at, align 4
  %flags = zext i32 %flags.32 to i64
  %mask = call i64 @word(ptr %r, i64 $ARGUMENT.mask)
  %masked = and i64 %flags, %mask
  %same.flags = icmp eq i64 %masked, %mask
  %both = and i1 %same.nd, %same.flags
  br i1 %both, label %shape, label %no
shape:
  %dims = call ptr @field(ptr %o, i64 $dims)
  %dims.wanted = call ptr @pointer(ptr %r, i64 $ARGUMENT.dims)
  %same.dims = call i1 @equal(ptr %dims, ptr %dims.wanted, i64 %nd)
  br i1 %same.dims, label %layout, label %no
layout:
  %strides.wanted = call ptr @pointer(ptr %r, i64 $ARGUMENT.strides)
  %contiguous = icmp eq ptr %strides.wanted, null
  br i1 %contiguous, label %good, label %strided
strided:
  %strides = call ptr @field(ptr %o, i64 $strides)
  %same.strides = call i1 @equal(ptr %strides, ptr %strides.wanted, i64 %nd)
  %c.bit = and i64 %flags, 1
  %not.c = icmp eq i64 %c.bit, 0
  %fits = and i1 %same.strides, %not.c
  br i1 %fits, label %good, label %no
good:
  %data = call ptr @field(ptr %o, i64 $data)
  call void @put(ptr %frame, i64 %slot, ptr %data)
  %second = call i64 @word(ptr %r, i64 $ARGUMENT.narrow_slot)
  call void @put(ptr %frame, i64 %second, ptr %data)
  ret i1 true
float:
  %is.float = icmp eq ptr %type, @PyFloat_Type
  br i1 %is.float, label %number, label %no
number:
  %value = call double @PyFloat_AsDouble(ptr %o)
  %scratch = call i64 @word(ptr %r, i64 $ARGUMENT.scratch)
  %place = getelementptr i64, ptr %frame, i64 %scratch
  store double %value, ptr %place, align 8
  call void @put(ptr %frame, i64 %slot, ptr %place)
  %narrow.slot = call i64 @word(ptr %r, i64 $ARGUMENT.narrow_slot)
  %narrow.scratch = call i64 @word(ptr %r, i64 $ARGUMENT.narrow_scratch)
  %narrow.place = getelementptr i64, ptr %frame, i64 %narrow.scratch
  %narrow = fptrunc double %value to float
  store float %narrow, ptr %narrow.place, align 8
  call void @put(ptr %frame, i64 %narrow.slot, ptr %narrow.place)
  ret i1 true
scalar:
  %is.scalar = icmp eq ptr %type, %expected
  %inside = getelementptr i8, ptr %o, i64 $scalar
  call void @put(ptr %frame, i64 %slot, ptr %inside)
  ret i1 %is.scalar
static:
  %identical = icmp eq ptr %o, %expected
  br i1 %identical, label %yes, label %compare
compare:
  %type.wanted = call ptr @field(ptr %expected, i64 $type)
  %same.type = icmp eq ptr %type, %type.wanted
  %comparable = call i64 @word(ptr %r, i64 $ARGUMENT.nd)
  %may = icmp ne i64 %comparable, 0
  %try = and i1 %same.type, %may
  br i1 %try, label %rich, label %no
rich:
  %answer = call i32 @PyObject_RichCompareBool(ptr %o, ptr %expected, i32 2)
  %same.value = icmp eq i32 %answer, 1
  ret i1 %same.value
yes:
  ret i1 true
no:
  ret i1 false
}
"""

# Whether an outer name still is what the plan was made for. A dict that did not change is not looked into.
_GUARD = """
define internal i1 @guarded(ptr %g, ptr %frame) nounwind {
entry:
  %kind = call i64 @word(ptr %g, i64 $GUARD.kind)
  %holder = call ptr @pointer(ptr %g, i64 $GUARD.holder)
  switch i64 %kind, label %lookup [ i64 $VERSIONED, label %versioned  i64 $CELL, label %cell ]
versioned:
  %version = call ptr @field(ptr %holder, i64 $version)
  %seen = call ptr @pointer(ptr %g, i64 $GUARD.version)
  %unchanged = icmp eq ptr %version, %seen
  br i1 %unchanged, label %cached, label %lookup
cached:
  %value.1 = call ptr @pointer(ptr %g, i64 $GUARD.value)
  br label %known
cell:
  %value.2 = call ptr @field(ptr %holder, i64 $cell)
  br label %known
lookup:
  %name = call ptr @pointer(ptr %g, i64 $GUARD.name)
  %value.3 = call ptr @PyDict_GetItemWithError(ptr %holder, ptr %name)
  %now = call ptr @field(ptr %holder, i64 $version)
  call void @put(ptr %g, i64 $GUARD.version, ptr %now)
  call void @put(ptr %g, i64 $GUARD.value, ptr %value.3)
  %absent = icmp eq ptr %value.3, null
  br i1 %absent, label %clear, label %known
clear:
  call void @PyErr_Clear()
  br label %known
known:
  %value = phi ptr [ %value.1, %cached ], [ %value.2, %cell ], [ %value.3, %lookup ], [ null, %clear ]
  %argument = call ptr @pointer(ptr %g, i64 $GUARD.argument)
  %by.identity = icmp eq ptr %argument, null
  br i1 %by.identity, label %identity, label %array
identity:
  %expected = call ptr @pointer(ptr %g, i64 $GUARD.expected)
  %same = icmp eq ptr %value, %expected
  ret i1 %same
array:
  %nothing = icmp eq ptr %value, null
  br i1 %nothing, label %no, label %check
check:
  %fits = call i1 @take(ptr %value, ptr %argument, ptr %frame)
  ret i1 %fits
no:
  ret i1 false
}

"""

_MATCH = """
; whether an array that is written and another one lie apart
define internal i1 @disjoint(ptr %p, ptr %frame) nounwind {
  %slot = call i64 @word(ptr %p, i64 $PAIR.slot)
  %size = call i64 @word(ptr %p, i64 $PAIR.size)
  %other = call i64 @word(ptr %p, i64 $PAIR.other)
  %low = call i64 @word(ptr %p, i64 $PAIR.low)
  %high = call i64 @word(ptr %p, i64 $PAIR.high)
  %a = call i64 @word(ptr %frame, i64 %slot)
  %b = call i64 @word(ptr %frame, i64 %other)
  %a.end = add i64 %a, %size
  %b.begin = add i64 %b, %low
  %b.end = add i64 %b, %high
  %before = icmp ule i64 %a.end, %b.begin
  %after = icmp ule i64 %b.end, %a
  %apart = or i1 %before, %after
  ret i1 %apart
}

define internal i1 @matches(ptr %plan, ptr %args, i64 %n, ptr %frame) nounwind {
entry:
  %nargs = call i64 @word(ptr %plan, i64 $PLAN.nargs)
  %right = icmp eq i64 %nargs, %n
  br i1 %right, label %first, label %no
first:
  %records = call ptr @pointer(ptr %plan, i64 $PLAN.arguments)
  %nothing = icmp eq i64 %n, 0
  br i1 %nothing, label %outer, label %argument
argument:
  %i = phi i64 [ 0, %first ], [ %i.next, %taken ]
  %o = call ptr @pointer(ptr %args, i64 %i)
  %skip = mul i64 %i, $ARGUMENT.size_of
  %r = getelementptr i64, ptr %records, i64 %skip
  %kind = call i64 @word(ptr %r, i64 $ARGUMENT.kind)
  %repeated = icmp eq i64 %kind, $REPEATED
  br i1 %repeated, label %again, label %fresh
again:
  %which = call i64 @word(ptr %r, i64 $ARGUMENT.expected)
  %earlier = call ptr @pointer(ptr %args, i64 %which)
  %same = icmp eq ptr %o, %earlier
  br i1 %same, label %taken, label %no
fresh:
  %fits = call i1 @take(ptr %o, ptr %r, ptr %frame)
  br i1 %fits, label %taken, label %no
taken:
  %i.next = add i64 %i, 1
  %last = icmp eq i64 %i.next, %n
  br i1 %last, label %outer, label %argument
outer:
  %nguards = call i64 @word(ptr %plan, i64 $PLAN.nguards)
  %guards = call ptr @pointer(ptr %plan, i64 $PLAN.guards)
  %free = icmp eq i64 %nguards, 0
  br i1 %free, label %apart, label %guard
guard:
  %j = phi i64 [ 0, %outer ], [ %j.next, %held ]
  %jump = mul i64 %j, $GUARD.size_of
  %g = getelementptr i64, ptr %guards, i64 %jump
  %holds = call i1 @guarded(ptr %g, ptr %frame)
  br i1 %holds, label %held, label %no
held:
  %j.next = add i64 %j, 1
  %done = icmp eq i64 %j.next, %nguards
  br i1 %done, label %apart, label %guard
apart:
  %npairs = call i64 @word(ptr %plan, i64 $PLAN.npairs)
  %pairs = call ptr @pointer(ptr %plan, i64 $PLAN.pairs)
  %none = icmp eq i64 %npairs, 0
  br i1 %none, label %yes, label %pair
pair:
  %k = phi i64 [ 0, %apart ], [ %k.next, %separate ]
  %stride = mul i64 %k, $PAIR.size_of
  %p = getelementptr i64, ptr %pairs, i64 %stride
  %clear = call i1 @disjoint(ptr %p, ptr %frame)
  br i1 %clear, label %separate, label %no
separate:
  %k.next = add i64 %k, 1
  %all = icmp eq i64 %k.next, %npairs
  br i1 %all, label %yes, label %pair
yes:
  ret i1 true
no:
  ret i1 false
}
"""

def source(at: Offsets) -> str:
    """The module's IR. Symbols: `ENTRY`, a function of the vectorcall protocol, and `HANDLER`. Needs inlining."""
    words = {name: str(offset) for name, offset in asdict(at).items()}
    words |= {name.lstrip("_"): str(at.words + 8 * i) for i, name in enumerate(WORDS)}
    for record, names in (("ARGUMENT", ARGUMENT), ("GUARD", GUARD), ("OUT", OUT), ("PART", PART), ("PAIR", PAIR),
                          ("PLAN", PLAN)):
        words.update({f"{record}.{name}": str(i) for i, name in enumerate(names)})
        words[f"{record}.size_of"] = str(len(names))
    for name in ("FRAME", "OUTS", "ARRAY", "FLOAT", "SCALAR", "STATIC", "REPEATED", "VERSIONED", "CELL",
                 "NEW_SCALAR", "OF_OUT", "OF_ARGUMENT"):
        words[name] = str(globals()[name])
    text = _DECLARATIONS + _READ + _DTYPE + _TAKE + _GUARD + _MATCH + ALLOCATE + RUN + RETURN + CALL
    return re.sub(r"\$([A-Za-z_]+(?:\.[a-z_]+)?)", lambda match: words[match[1]], text)
