"""The pool of large blocks as LLVM IR: an allocator in NumPy's terms (NEP 49) that keeps freed blocks for later.

What holds here:
- A block is a mapping of whole pages; blocks of 2 MiB and more start on a multiple of 2 MiB and ask for huge pages.
  The 64 bytes before what the caller gets hold the mapping's address and size.
- Freed blocks go into a ring of `KEPT`; the oldest leaves when a place or room below `@tdsl_memory_limit` is needed.
- The lock is only tried, never waited for: who does not get it maps and unmaps. So nothing can hang, not even in a
  child that was forked while another thread held it.
- Where a block's bytes start varies by a few cache lines, so that arrays that are walked together do not collide in
  the first-level cache.
"""

from __future__ import annotations

KEPT = 32                 # blocks in the ring
MALLOC, CALLOC, REALLOC, FREE = "tdsl_memory_malloc", "tdsl_memory_calloc", "tdsl_memory_realloc", "tdsl_memory_free"
LIMIT, HELD, TRIM = "tdsl_memory_limit", "tdsl_memory_held", "tdsl_memory_trim"

_HUGE = 2 << 20
_GRAIN = 64 << 10         # sizes are multiples of this
_HEAD = 64                # bytes before the data that the pool uses itself
_COLOURS = 8
_COLOUR = 320             # bytes between the starts of two colours

_TEXT = """
@tdsl_memory_limit = global i64 0, align 64
@tdsl_memory_held = global i64 0, align 64
@lock = internal global i32 0, align 64
@next = internal global i64 0, align 64
@colour = internal global i64 0, align 64
@ring = internal global [$KEPT x ptr] zeroinitializer, align 64

declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare i32 @munmap(ptr, i64)
declare i32 @madvise(ptr, i64, i32)
declare ptr @memcpy(ptr, ptr, i64)
declare ptr @memset(ptr, i32, i64)
declare i64 @llvm.umin.i64(i64, i64)

define internal i1 @try_lock() nounwind {
  %swap = cmpxchg ptr @lock, i32 0, i32 1 acquire monotonic, align 4
  %mine = extractvalue { i32, i1 } %swap, 1
  ret i1 %mine
}

define internal void @unlock() nounwind {
  store atomic i32 0, ptr @lock release, align 4
  ret void
}

; the size of the block that holds these data, and its first byte
define internal i64 @size_of(ptr %data) nounwind {
  %at = getelementptr i8, ptr %data, i64 -64
  %size = load i64, ptr %at, align 8
  ret i64 %size
}

define internal void @unmap(ptr %data) nounwind {
  %size = call i64 @size_of(ptr %data)
  %at = getelementptr i8, ptr %data, i64 -56
  %base = load ptr, ptr %at, align 8
  %r = call i32 @munmap(ptr %base, i64 %size)
  ret void
}

define internal ptr @map(i64 %size) nounwind {
entry:
  %large = icmp uge i64 %size, $HUGE
  %more = add i64 %size, $HUGE
  %asked = select i1 %large, i64 %more, i64 %size
  %got = call ptr @mmap(ptr null, i64 %asked, i32 3, i32 34, i32 -1, i64 0)
  %address = ptrtoint ptr %got to i64
  %failed = icmp eq i64 %address, -1
  br i1 %failed, label %none, label %mapped
mapped:
  br i1 %large, label %align, label %ready
align:
  %up = add i64 %address, $HUGE_LESS_1
  %start = and i64 %up, -$HUGE
  %before = sub i64 %start, %address
  %after = sub i64 $HUGE, %before
  %has.before = icmp ne i64 %before, 0
  br i1 %has.before, label %cut.before, label %behind
cut.before:
  %r.1 = call i32 @munmap(ptr %got, i64 %before)
  br label %behind
behind:
  %end = add i64 %start, %size
  %end.at = inttoptr i64 %end to ptr
  %has.after = icmp ne i64 %after, 0
  br i1 %has.after, label %cut.after, label %advise
cut.after:
  %r.2 = call i32 @munmap(ptr %end.at, i64 %after)
  br label %advise
advise:
  %aligned = inttoptr i64 %start to ptr
  %r.3 = call i32 @madvise(ptr %aligned, i64 %size, i32 14)
  br label %ready
ready:
  %base = phi ptr [ %got, %mapped ], [ %aligned, %advise ]
  %turn = load i64, ptr @colour, align 8
  %turn.1 = add i64 %turn, 1
  store i64 %turn.1, ptr @colour, align 8
  %which = and i64 %turn, $COLOURS_LESS_1
  %shift = mul i64 %which, $COLOUR
  %offset = add i64 %shift, $HEAD
  %data = getelementptr i8, ptr %base, i64 %offset
  %size.at = getelementptr i8, ptr %data, i64 -64
  store i64 %size, ptr %size.at, align 8
  %base.at = getelementptr i8, ptr %data, i64 -56
  store ptr %base, ptr %base.at, align 8
  ret ptr %data
none:
  ret ptr null
}

; a kept block of at least `size` bytes that is not much larger; the lock is held
define internal ptr @take(i64 %size) nounwind {
entry:
  %quarter = lshr i64 %size, 2
  %most = add i64 %size, %quarter
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %other ]
  %place = getelementptr ptr, ptr @ring, i64 %i
  %data = load ptr, ptr %place, align 8
  %empty = icmp eq ptr %data, null
  br i1 %empty, label %other, label %look
look:
  %have = call i64 @size_of(ptr %data)
  %enough = icmp uge i64 %have, %size
  %close = icmp ule i64 %have, %most
  %fits = and i1 %enough, %close
  br i1 %fits, label %found, label %other
other:
  %i.next = add i64 %i, 1
  %end = icmp eq i64 %i.next, $KEPT
  br i1 %end, label %none, label %loop
found:
  store ptr null, ptr %place, align 8
  %held = load i64, ptr @tdsl_memory_held, align 8
  %less = sub i64 %held, %have
  store i64 %less, ptr @tdsl_memory_held, align 8
  ret ptr %data
none:
  ret ptr null
}

; the block at the ring's oldest place leaves, and the next place becomes the oldest; the lock is held
define internal void @evict() nounwind {
entry:
  %i = load i64, ptr @next, align 8
  %i.1 = add i64 %i, 1
  %i.next = urem i64 %i.1, $KEPT
  store i64 %i.next, ptr @next, align 8
  %place = getelementptr ptr, ptr @ring, i64 %i
  %data = load ptr, ptr %place, align 8
  %empty = icmp eq ptr %data, null
  br i1 %empty, label %done, label %drop
drop:
  store ptr null, ptr %place, align 8
  %size = call i64 @size_of(ptr %data)
  %held = load i64, ptr @tdsl_memory_held, align 8
  %less = sub i64 %held, %size
  store i64 %less, ptr @tdsl_memory_held, align 8
  call void @unmap(ptr %data)
  br label %done
done:
  ret void
}

define internal i64 @rounded(i64 %size) nounwind {
  %with = add i64 %size, $OVERHEAD
  %up = add i64 %with, $GRAIN_LESS_1
  %whole = and i64 %up, -$GRAIN
  ret i64 %whole
}

define ptr @tdsl_memory_malloc(ptr %ctx, i64 %wanted) nounwind {
entry:
  %absurd = icmp ugt i64 %wanted, 1152921504606846976
  br i1 %absurd, label %none, label %round
round:
  %size = call i64 @rounded(i64 %wanted)
  %mine = call i1 @try_lock()
  br i1 %mine, label %search, label %fresh
search:
  %kept = call ptr @take(i64 %size)
  call void @unlock()
  %found = icmp ne ptr %kept, null
  br i1 %found, label %done, label %fresh
done:
  ret ptr %kept
fresh:
  %new = call ptr @map(i64 %size)
  ret ptr %new
none:
  ret ptr null
}

define void @tdsl_memory_free(ptr %ctx, ptr %data, i64 %unused) nounwind {
entry:
  %nothing = icmp eq ptr %data, null
  br i1 %nothing, label %done, label %some
some:
  %size = call i64 @size_of(ptr %data)
  %limit = load i64, ptr @tdsl_memory_limit, align 8
  %fits = icmp ule i64 %size, %limit
  br i1 %fits, label %lock, label %drop
lock:
  %mine = call i1 @try_lock()
  br i1 %mine, label %room, label %drop
drop:
  call void @unmap(ptr %data)
  ret void
room:
  %held = load i64, ptr @tdsl_memory_held, align 8
  %sum = add i64 %held, %size
  %over = icmp ugt i64 %sum, %limit
  br i1 %over, label %make.room, label %keep
make.room:
  call void @evict()
  br label %room
keep:
  %i = load i64, ptr @next, align 8
  call void @evict()
  %place = getelementptr ptr, ptr @ring, i64 %i
  store ptr %data, ptr %place, align 8
  %held.now = load i64, ptr @tdsl_memory_held, align 8
  %held.new = add i64 %held.now, %size
  store i64 %held.new, ptr @tdsl_memory_held, align 8
  call void @unlock()
  ret void
done:
  ret void
}

define ptr @tdsl_memory_calloc(ptr %ctx, i64 %n, i64 %each) nounwind {
entry:
  %product = call { i64, i1 } @llvm.umul.with.overflow.i64(i64 %n, i64 %each)
  %size = extractvalue { i64, i1 } %product, 0
  %overflow = extractvalue { i64, i1 } %product, 1
  br i1 %overflow, label %none, label %get
get:
  %data = call ptr @tdsl_memory_malloc(ptr null, i64 %size)
  %failed = icmp eq ptr %data, null
  br i1 %failed, label %none, label %clear
clear:
  %r = call ptr @memset(ptr %data, i32 0, i64 %size)
  ret ptr %data
none:
  ret ptr null
}

declare { i64, i1 } @llvm.umul.with.overflow.i64(i64, i64)

define ptr @tdsl_memory_realloc(ptr %ctx, ptr %data, i64 %wanted) nounwind {
entry:
  %new = call ptr @tdsl_memory_malloc(ptr null, i64 %wanted)
  %failed = icmp eq ptr %new, null
  %nothing = icmp eq ptr %data, null
  %stop = or i1 %failed, %nothing
  br i1 %stop, label %done, label %copy
copy:
  %size = call i64 @size_of(ptr %data)
  %room = sub i64 %size, $OVERHEAD
  %bytes = call i64 @llvm.umin.i64(i64 %room, i64 %wanted)
  %r = call ptr @memcpy(ptr %new, ptr %data, i64 %bytes)
  call void @tdsl_memory_free(ptr null, ptr %data, i64 0)
  br label %done
done:
  ret ptr %new
}

; give back all that is kept
define void @tdsl_memory_trim() nounwind {
entry:
  %mine = call i1 @try_lock()
  br i1 %mine, label %loop, label %done
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]
  call void @evict()
  %i.next = add i64 %i, 1
  %end = icmp eq i64 %i.next, $KEPT
  br i1 %end, label %unlock, label %loop
unlock:
  call void @unlock()
  br label %done
done:
  ret void
}
"""


def source() -> str:
    """The module's IR, for 64-bit Linux."""
    words = {"$KEPT": KEPT, "$HUGE_LESS_1": _HUGE - 1, "$HUGE": _HUGE, "$COLOURS_LESS_1": _COLOURS - 1, "$HEAD": _HEAD,
             "$GRAIN_LESS_1": _GRAIN - 1, "$GRAIN": _GRAIN, "$OVERHEAD": _HEAD + (_COLOURS - 1) * _COLOUR}
    text = _TEXT
    for word, value in {**words, "$COLOUR": _COLOUR}.items():
        text = text.replace(word, str(value))
    return text
