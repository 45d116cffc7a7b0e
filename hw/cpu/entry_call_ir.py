"""The second half of the native entry point: results, temporaries, the call itself, what is returned, Python instead.

What holds here: texts, with the words of `entry_ir.source` after a `$`. Whoever fails drops what was made so far and
leaves an exception set.
"""

from __future__ import annotations

# New arrays for the results; their addresses go into the frame. False: out of memory, an exception is set.
ALLOCATE = """
define internal i1 @allocate(ptr %plan, ptr %frame, ptr %objects) nounwind {
entry:
  %n = call i64 @word(ptr %plan, i64 $PLAN.nouts)
  %outs = call ptr @pointer(ptr %plan, i64 $PLAN.outs)
  %none = icmp eq i64 %n, 0
  br i1 %none, label %done, label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %more ]
  %skip = mul i64 %i, $OUT.size_of
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
RUN = """
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
RETURN = """
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
  %skip = mul i64 %value, $OUT.size_of
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
  %skip = mul i64 %i, $PART.size_of
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

CALL = """
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
  %size.at = getelementptr i8, ptr %kwnames, i64 $length
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
