"""The native entry point as LLVM IR: from a Python call to compiled code and back without running Python.

What holds here:
- One function serves all kernels. What it checks and calls stands in plans (`entry_plan`): tables of 64-bit words.
- A plan matches if the call's arguments and the outer names that the function uses are what the plan was made for,
  exactly: same types, same dtype objects, same dimensions, same layout. Whatever else comes goes to the Python
  function in `_slow`, which can do everything.
- The interpreter lock is held while anything of Python is touched; it is released around code that runs long.
- References: results are new, everything else is borrowed from the caller, the plan, or a dict that did not change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FRAME = 128          # words of a call's frame: addresses for the code, then numbers
OUTS = 24            # results of one call

# records, in words of 8 bytes
ARGUMENT = ("kind", "expected", "nd", "dims", "mask", "strides", "slot", "narrow_slot", "scratch", "narrow_scratch")
GUARD = ("kind", "holder", "name", "expected", "version", "value", "argument")
OUT = ("descr", "nd", "dims", "slot", "kind", "scratch", "large")
PART = ("kind", "value")
PLAN = ("nargs", "arguments", "nguards", "guards", "nouts", "outs", "nparts", "parts", "nfixed", "fixed", "ntemps",
        "temps", "workspace", "base", "busy", "code", "release", "single")

ARRAY, FLOAT, SCALAR, STATIC = 0, 1, 2, 3             # kinds of arguments
VERSIONED, CELL, PLAIN = 0, 1, 2                      # kinds of guards
NEW_ARRAY, NEW_SCALAR = 0, 1                          # kinds of results
OF_OUT, OF_ARGUMENT, OF_PLAN = 0, 1, 2                # kinds of parts of what is returned

PYTHON = ("PyObject_Vectorcall", "PyDict_GetItemWithError", "PyErr_Clear", "PyErr_NoMemory", "PyFloat_AsDouble",
          "Py_IncRef", "Py_DecRef", "PyTuple_New", "PyTuple_SetItem", "PyEval_SaveThread", "PyEval_RestoreThread",
          "PyObject_RichCompareBool", "PyFloat_Type")
# names of our own for functions in NumPy's table of its C API, and their places in it (numpy/__multiarray_api.h)
NUMPY = {"np_ndarray_type": 2, "np_new_array": 94, "np_new_scalar": 60, "np_set_handler": 304}
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
    version: int = 24              # of a dict
    scalar: int = 16               # value of a NumPy scalar


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
  %same.descr = icmp eq ptr %descr, %expected
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
  %both = and i1 %same.descr, %same.nd
  %all = and i1 %both, %same.flags
  br i1 %all, label %shape, label %no
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
  %skip = mul i64 %i, $ARGUMENT.size
  %r = getelementptr i64, ptr %records, i64 %skip
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
  br i1 %free, label %yes, label %guard
guard:
  %j = phi i64 [ 0, %outer ], [ %j.next, %held ]
  %jump = mul i64 %j, $GUARD.size
  %g = getelementptr i64, ptr %guards, i64 %jump
  %holds = call i1 @guarded(ptr %g, ptr %frame)
  br i1 %holds, label %held, label %no
held:
  %j.next = add i64 %j, 1
  %done = icmp eq i64 %j.next, %nguards
  br i1 %done, label %yes, label %guard
yes:
  ret i1 true
no:
  ret i1 false
}
"""

# New arrays for the results; their addresses go into the frame. False: out of memory, an exception is set.
_ALLOCATE = """
define internal i1 @allocate(ptr %plan, ptr %frame, ptr %objects) nounwind {
entry:
  %n = call i64 @word(ptr %plan, i64 $PLAN.nouts)
  %outs = call ptr @pointer(ptr %plan, i64 $PLAN.outs)
  %none = icmp eq i64 %n, 0
  br i1 %none, label %done, label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %more ]
  %skip = mul i64 %i, $OUT.size
  %r = getelementptr i64, ptr %outs, i64 %skip
  %slot = call i64 @word(ptr %r, i64 $OUT.slot)
  %kind = call i64 @word(ptr %r, i64 $OUT.kind)
  %is.scalar = icmp eq i64 %kind, $NEW_SCALAR
  br i1 %is.scalar, label %scalar, label %array
scalar:
  %scratch = call i64 @word(ptr %r, i64 $OUT.scratch)
  %place = getelementptr i64, ptr %frame, i64 %scratch
  call void @put(ptr %objects, i64 %i, ptr null)
  br label %more
array:
  %descr = call ptr @pointer(ptr %r, i64 $OUT.descr)
  %nd = call i64 @word(ptr %r, i64 $OUT.nd)
  %nd.32 = trunc i64 %nd to i32
  %dims = call ptr @pointer(ptr %r, i64 $OUT.dims)
  %large = call i64 @word(ptr %r, i64 $OUT.large)
  %handler = load ptr, ptr @tdsl_entry_handler, align 8
  %is.large = icmp ne i64 %large, 0
  %has.handler = icmp ne ptr %handler, null
  %special = and i1 %is.large, %has.handler
  br i1 %special, label %swap, label %plain
plain:
  call void @Py_IncRef(ptr %descr)
  %array.1 = call ptr @np_new_array(ptr @np_ndarray_type, ptr %descr, i32 %nd.32, ptr %dims, ptr null, ptr null,
    i32 0, ptr null)
  br label %made
swap:
  %before = call ptr @np_set_handler(ptr %handler)
  %refused = icmp eq ptr %before, null
  br i1 %refused, label %failed, label %swapped
swapped:
  call void @Py_IncRef(ptr %descr)
  %array.2 = call ptr @np_new_array(ptr @np_ndarray_type, ptr %descr, i32 %nd.32, ptr %dims, ptr null, ptr null,
    i32 0, ptr null)
  %ours = call ptr @np_set_handler(ptr %before)
  call void @Py_DecRef(ptr %before)
  %kept = icmp eq ptr %ours, null
  br i1 %kept, label %made, label %drop
drop:
  call void @Py_DecRef(ptr %ours)
  br label %made
made:
  %object = phi ptr [ %array.1, %plain ], [ %array.2, %swapped ], [ %array.2, %drop ]
  %bad = icmp eq ptr %object, null
  br i1 %bad, label %failed, label %keep
keep:
  call void @put(ptr %objects, i64 %i, ptr %object)
  %data = call ptr @field(ptr %object, i64 $data)
  br label %more
more:
  %address = phi ptr [ %place, %scalar ], [ %data, %keep ]
  call void @put(ptr %frame, i64 %slot, ptr %address)
  %next = add i64 %i, 1
  %end = icmp eq i64 %next, %n
  br i1 %end, label %done, label %loop
failed:
  call void @drop_all(ptr %objects, i64 %i)
  ret i1 false
done:
  ret i1 true
}

define internal void @drop_all(ptr %objects, i64 %n) nounwind {
entry:
  %none = icmp eq i64 %n, 0
  br i1 %none, label %done, label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %more ]
  %object = call ptr @pointer(ptr %objects, i64 %i)
  %empty = icmp eq ptr %object, null
  br i1 %empty, label %more, label %drop
drop:
  call void @Py_DecRef(ptr %object)
  br label %more
more:
  %next = add i64 %i, 1
  %end = icmp eq i64 %next, %n
  br i1 %end, label %done, label %loop
done:
  ret void
}
"""

# Constants and temporaries into the frame, then the code itself. The plan's own workspace serves one call at a time; a
# call that finds it taken (by another thread while the lock is released) takes memory of its own.
_RUN = """
define internal i1 @execute(ptr %plan, ptr %frame) nounwind {
entry:
  %nfixed = call i64 @word(ptr %plan, i64 $PLAN.nfixed)
  %fixed = call ptr @pointer(ptr %plan, i64 $PLAN.fixed)
  %code = call ptr @pointer(ptr %plan, i64 $PLAN.code)
  %none = icmp eq i64 %nfixed, 0
  br i1 %none, label %memory, label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %pair = mul i64 %i, 2
  %pair.1 = add i64 %pair, 1
  %slot = call i64 @word(ptr %fixed, i64 %pair)
  %address = call ptr @pointer(ptr %fixed, i64 %pair.1)
  call void @put(ptr %frame, i64 %slot, ptr %address)
  %next = add i64 %i, 1
  %end = icmp eq i64 %next, %nfixed
  br i1 %end, label %memory, label %loop
memory:
  %size = call i64 @word(ptr %plan, i64 $PLAN.workspace)
  %needs = icmp ne i64 %size, 0
  br i1 %needs, label %claim, label %ready
claim:
  %busy = getelementptr i64, ptr %plan, i64 $PLAN.busy
  %swap = cmpxchg ptr %busy, i64 0, i64 1 acquire monotonic, align 8
  %mine = extractvalue { i64, i1 } %swap, 1
  br i1 %mine, label %shared, label %own
shared:
  %base.1 = call ptr @pointer(ptr %plan, i64 $PLAN.base)
  br label %place
own:
  %base.2 = call ptr @aligned_alloc(i64 64, i64 %size)
  %bad = icmp eq ptr %base.2, null
  br i1 %bad, label %failed, label %place
failed:
  %e = call ptr @PyErr_NoMemory()
  ret i1 false
place:
  %base = phi ptr [ %base.1, %shared ], [ %base.2, %own ]
  %ntemps = call i64 @word(ptr %plan, i64 $PLAN.ntemps)
  %temps = call ptr @pointer(ptr %plan, i64 $PLAN.temps)
  br label %temp
temp:
  %t = phi i64 [ 0, %place ], [ %t.next, %temp ]
  %t.pair = mul i64 %t, 2
  %t.pair.1 = add i64 %t.pair, 1
  %t.slot = call i64 @word(ptr %temps, i64 %t.pair)
  %offset = call i64 @word(ptr %temps, i64 %t.pair.1)
  %t.address = getelementptr i8, ptr %base, i64 %offset
  call void @put(ptr %frame, i64 %t.slot, ptr %t.address)
  %t.next = add i64 %t, 1
  %t.end = icmp eq i64 %t.next, %ntemps
  br i1 %t.end, label %ready, label %temp
ready:
  %owned = phi i1 [ false, %memory ], [ %mine, %temp ]
  %block = phi ptr [ null, %memory ], [ %base, %temp ]
  %release = call i64 @word(ptr %plan, i64 $PLAN.release)
  %long = icmp ne i64 %release, 0
  br i1 %long, label %released, label %held
held:
  call void %code(ptr %frame)
  br label %after
released:
  %state = call ptr @PyEval_SaveThread()
  call void %code(ptr %frame)
  call void @give_back(ptr %plan, ptr %block, i1 %owned)
  call void @PyEval_RestoreThread(ptr %state)
  ret i1 true
after:
  call void @give_back(ptr %plan, ptr %block, i1 %owned)
  ret i1 true
}

define internal void @give_back(ptr %plan, ptr %block, i1 %owned) nounwind {
entry:
  br i1 %owned, label %unlock, label %other
unlock:
  %busy = getelementptr i64, ptr %plan, i64 $PLAN.busy
  store atomic i64 0, ptr %busy release, align 8
  ret void
other:
  %none = icmp eq ptr %block, null
  br i1 %none, label %done, label %drop
drop:
  call void @free(ptr %block)
  ret void
done:
  ret void
}
"""

# What the call returns: one object, or a tuple of them. NumPy scalars are made of the numbers that the code left.
_RETURN = """
define internal ptr @part(ptr %plan, ptr %r, ptr %args, ptr %frame, ptr %objects) nounwind {
entry:
  %kind = call i64 @word(ptr %r, i64 $PART.kind)
  %value = call i64 @word(ptr %r, i64 $PART.value)
  switch i64 %kind, label %held [ i64 $OF_OUT, label %out  i64 $OF_ARGUMENT, label %argument ]
out:
  %object = call ptr @pointer(ptr %objects, i64 %value)
  %is.scalar = icmp eq ptr %object, null
  br i1 %is.scalar, label %scalar, label %whole
whole:
  call void @put(ptr %objects, i64 %value, ptr null)
  ret ptr %object
scalar:
  %outs = call ptr @pointer(ptr %plan, i64 $PLAN.outs)
  %skip = mul i64 %value, $OUT.size
  %o = getelementptr i64, ptr %outs, i64 %skip
  %slot = call i64 @word(ptr %o, i64 $OUT.slot)
  %descr = call ptr @pointer(ptr %o, i64 $OUT.descr)
  %place = call ptr @pointer(ptr %frame, i64 %slot)
  %number = call ptr @np_new_scalar(ptr %place, ptr %descr, ptr null)
  ret ptr %number
argument:
  %given = call ptr @pointer(ptr %args, i64 %value)
  call void @Py_IncRef(ptr %given)
  ret ptr %given
held:
  %kept = inttoptr i64 %value to ptr
  call void @Py_IncRef(ptr %kept)
  ret ptr %kept
}

define internal ptr @returned(ptr %plan, ptr %args, ptr %frame, ptr %objects) nounwind {
entry:
  %parts = call ptr @pointer(ptr %plan, i64 $PLAN.parts)
  %single = call i64 @word(ptr %plan, i64 $PLAN.single)
  %is.single = icmp ne i64 %single, 0
  br i1 %is.single, label %one, label %many
one:
  %object = call ptr @part(ptr %plan, ptr %parts, ptr %args, ptr %frame, ptr %objects)
  ret ptr %object
many:
  %n = call i64 @word(ptr %plan, i64 $PLAN.nparts)
  %tuple = call ptr @PyTuple_New(i64 %n)
  %bad = icmp eq ptr %tuple, null
  br i1 %bad, label %failed, label %start
start:
  %none = icmp eq i64 %n, 0
  br i1 %none, label %done, label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %next, %set ]
  %skip = mul i64 %i, $PART.size
  %r = getelementptr i64, ptr %parts, i64 %skip
  %item = call ptr @part(ptr %plan, ptr %r, ptr %args, ptr %frame, ptr %objects)
  %missing = icmp eq ptr %item, null
  br i1 %missing, label %undo, label %set
set:
  %ok = call i32 @PyTuple_SetItem(ptr %tuple, i64 %i, ptr %item)
  %next = add i64 %i, 1
  %end = icmp eq i64 %next, %n
  br i1 %end, label %done, label %loop
undo:
  call void @Py_DecRef(ptr %tuple)
  br label %failed
failed:
  %nouts = call i64 @word(ptr %plan, i64 $PLAN.nouts)
  call void @drop_all(ptr %objects, i64 %nouts)
  ret ptr null
done:
  ret ptr %tuple
}
"""

_CALL = """
define internal ptr @serve(ptr %plan, ptr %args, ptr %frame) nounwind {
entry:
  %objects = alloca [$OUTS x ptr], align 16
  %got = call i1 @allocate(ptr %plan, ptr %frame, ptr %objects)
  br i1 %got, label %run, label %failed
run:
  %ran = call i1 @execute(ptr %plan, ptr %frame)
  br i1 %ran, label %done, label %undo
done:
  %result = call ptr @returned(ptr %plan, ptr %args, ptr %frame, ptr %objects)
  ret ptr %result
undo:
  %nouts = call i64 @word(ptr %plan, i64 $PLAN.nouts)
  call void @drop_all(ptr %objects, i64 %nouts)
  br label %failed
failed:
  ret ptr null
}

; the Python function, with the callable in front of the arguments
define internal ptr @slow(ptr %self, ptr %args, i64 %n, ptr %kwnames) noinline nounwind {
entry:
  %function = call ptr @field(ptr %self, i64 $slow)
  %plain = icmp eq ptr %kwnames, null
  br i1 %plain, label %copy, label %named
named:
  %size.at = getelementptr i8, ptr %kwnames, i64 16
  %named.n = load i64, ptr %size.at, align 8
  br label %copy
copy:
  %nkw = phi i64 [ 0, %entry ], [ %named.n, %named ]
  %all = add i64 %n, %nkw
  %room = add i64 %all, 1
  %copied = alloca ptr, i64 %room, align 16
  store ptr %self, ptr %copied, align 8
  %some = icmp ne i64 %all, 0
  br i1 %some, label %loop, label %call
loop:
  %i = phi i64 [ 0, %copy ], [ %next, %loop ]
  %o = call ptr @pointer(ptr %args, i64 %i)
  %next = add i64 %i, 1
  call void @put(ptr %copied, i64 %next, ptr %o)
  %end = icmp eq i64 %next, %all
  br i1 %end, label %call, label %loop
call:
  %n.1 = add i64 %n, 1
  %result = call ptr @PyObject_Vectorcall(ptr %function, ptr %copied, i64 %n.1, ptr %kwnames)
  ret ptr %result
}

define ptr @tdsl_call(ptr %self, ptr %args, i64 %nargsf, ptr %kwnames) nounwind {
entry:
  %frame = alloca [$FRAME x i64], align 64
  %n = and i64 %nargsf, 9223372036854775807
  %plain = icmp eq ptr %kwnames, null
  %latest = call ptr @field(ptr %self, i64 $latest)
  %known = icmp ne ptr %latest, null
  %try = and i1 %plain, %known
  br i1 %try, label %again, label %search
again:
  %hit = call i1 @matches(ptr %latest, ptr %args, i64 %n, ptr %frame)
  br i1 %hit, label %found, label %search
search:
  br i1 %plain, label %table, label %python
table:
  %plans = call ptr @field(ptr %self, i64 $table)
  %count.word = call ptr @field(ptr %self, i64 $count)
  %count = ptrtoint ptr %count.word to i64
  br label %next
next:
  %i = phi i64 [ 0, %table ], [ %i.next, %other ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %check, label %python
check:
  %candidate = call ptr @pointer(ptr %plans, i64 %i)
  %fits = call i1 @matches(ptr %candidate, ptr %args, i64 %n, ptr %frame)
  br i1 %fits, label %found, label %other
other:
  %i.next = add i64 %i, 1
  br label %next
found:
  %plan = phi ptr [ %latest, %again ], [ %candidate, %check ]
  %latest.at = getelementptr i8, ptr %self, i64 $latest
  store ptr %plan, ptr %latest.at, align 8
  %result = call ptr @serve(ptr %plan, ptr %args, ptr %frame)
  ret ptr %result
python:
  %answer = call ptr @slow(ptr %self, ptr %args, i64 %n, ptr %kwnames)
  ret ptr %answer
}
"""


def source(at: Offsets) -> str:
    """The module's IR. Symbols: `ENTRY`, a function of the vectorcall protocol, and `HANDLER`. Needs inlining."""
    words = {name: str(getattr(at, name)) for name in ("type", "data", "nd", "dims", "strides", "descr", "flags", "cell",
                                                       "version", "scalar")}
    for i, name in enumerate(("vectorcall", "table", "count", "latest", "slow")):
        words[name] = str(at.words + 8 * i)
    for record, names in (("ARGUMENT", ARGUMENT), ("GUARD", GUARD), ("OUT", OUT), ("PART", PART), ("PLAN", PLAN)):
        words.update({f"{record}.{name}": str(i) for i, name in enumerate(names)})
        words[f"{record}.size"] = str(len(names))
    for name in ("FRAME", "OUTS", "ARRAY", "FLOAT", "SCALAR", "STATIC", "VERSIONED", "CELL", "NEW_SCALAR", "OF_OUT",
                 "OF_ARGUMENT"):
        words[name] = str(globals()[name])
    text = _DECLARATIONS + _READ + _TAKE + _GUARD + _ALLOCATE + _RUN + _RETURN + _CALL
    return re.sub(r"\$([A-Za-z_]+(?:\.[a-z_]+)?)", lambda match: words[match[1]], text)
