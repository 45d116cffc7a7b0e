"""The thread pool as LLVM IR.

What holds here:
- One 64-bit word is the whole truth about a launch: generation (high half), open bit, waiting bit, and how many
  workers are inside. Workers join an open launch by compare-and-exchange, so none can join one that was closed.
- Only the owner of `@busy` changes the job, and only while no launch is open and no worker is inside.
- A counter hands out chunks; chunk i is [i * grain, min(n, (i + 1) * grain)), whoever runs it.
- Workers spin for a moment, then sleep on a futex over the generation; the caller that waits for the last worker does
  the same on the low half. Sleepers are counted before they sleep and read after the generation changed (both
  sequentially consistent), so no launch is missed and no system call is made when nobody sleeps.
"""

from __future__ import annotations

MAX_THREADS = 256

# Linux: number of the futex system call; and the instruction that tells the core that it is spinning.
_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}
_PAUSE = {"x86_64": 'call void asm sideeffect "pause", ""()', "aarch64": 'call void asm sideeffect "yield", ""()'}

_SERIAL = """
define internal void @serial(ptr %fn, ptr %data, i64 %n, i64 %grain) nounwind {
entry:
  br label %loop
loop:
  %begin = phi i64 [ 0, %entry ], [ %end, %loop ]
  %left = sub i64 %n, %begin
  %size = call i64 @llvm.smin.i64(i64 %left, i64 %grain)
  %end = add i64 %begin, %size
  call void %fn(ptr %data, i64 %begin, i64 %end)
  %more = icmp slt i64 %end, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}

declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
"""

_SERIAL_ENTRY = """
@tdsl_pool_limit = global i32 1, align 64

define void @tdsl_parallel_for(ptr %fn, ptr %data, i64 %n, i64 %grain.asked) nounwind {
entry:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %run, label %done
run:
  %grain.most = call i64 @llvm.smin.i64(i64 %grain.asked, i64 %n)
  %grain = call i64 @llvm.smax.i64(i64 %grain.most, i64 1)
  call void @serial(ptr %fn, ptr %data, i64 %n, i64 %grain)
  br label %done
done:
  ret void
}

define void @tdsl_pool_reset() nounwind {
  ret void
}
"""

_GLOBALS = """
@state = internal global i64 0, align 128
@next = internal global i64 0, align 128
@job = internal global { ptr, ptr, i64, i64 } zeroinitializer, align 128
@busy = internal global i32 0, align 128
@sleepers = internal global i32 0, align 128
@created = internal global i32 0, align 128
@tdsl_pool_limit = global i32 $LIMIT, align 128

declare i64 @syscall(i64, ...)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)

; after a fork, in the child: no worker lives here, no launch is open
define void @tdsl_pool_reset() nounwind {
  %state = load i64, ptr @state, align 8
  %generation = and i64 %state, -4294967296
  store i64 %generation, ptr @state, align 8
  store i32 0, ptr @busy, align 4
  store i32 0, ptr @sleepers, align 4
  store i32 0, ptr @created, align 4
  ret void
}

define internal void @take_chunks(ptr %fn, ptr %data, i64 %n, i64 %grain) nounwind {
entry:
  br label %take
take:
  %i = atomicrmw add ptr @next, i64 1 monotonic, align 8
  %begin = mul i64 %i, %grain
  %more = icmp slt i64 %begin, %n
  br i1 %more, label %work, label %done
work:
  %left = sub i64 %n, %begin
  %size = call i64 @llvm.smin.i64(i64 %left, i64 %grain)
  %end = add i64 %begin, %size
  call void %fn(ptr %data, i64 %begin, i64 %end)
  br label %take
done:
  ret void
}
"""

_WORKER = """
define internal ptr @worker(ptr %unused) nounwind {
entry:
  br label %spin
spin:
  %seen = phi i32 [ 0, %entry ], [ %seen, %idle ], [ %seen, %join ], [ %now, %missed ], [ %now, %left ],
    [ %seen, %sleep ]
  %turns = phi i32 [ 0, %entry ], [ %turns.1, %idle ], [ %turns, %join ], [ %turns, %missed ], [ 0, %left ],
    [ 0, %sleep ]
  %state = load atomic i64, ptr @state acquire, align 8
  %high = lshr i64 %state, 32
  %now = trunc i64 %high to i32
  %news = icmp ne i32 %now, %seen
  br i1 %news, label %look, label %idle
look:
  %open.bit = and i64 %state, $OPEN
  %open = icmp ne i64 %open.bit, 0
  %inside = and i64 %state, $COUNT
  %limit = load atomic i32, ptr @tdsl_pool_limit monotonic, align 4
  %limit.wide = sext i32 %limit to i64
  %with.me = add i64 %inside, 1
  %room = icmp slt i64 %with.me, %limit.wide
  %welcome = and i1 %open, %room
  br i1 %welcome, label %join, label %missed
missed:
  br label %spin
join:
  %joined = add i64 %state, 1
  %swap = cmpxchg ptr @state, i64 %state, i64 %joined acq_rel monotonic, align 8
  %in = extractvalue { i64, i1 } %swap, 1
  br i1 %in, label %work, label %spin
work:
  %fn = load ptr, ptr @job, align 8
  %data.at = getelementptr i8, ptr @job, i64 8
  %data = load ptr, ptr %data.at, align 8
  %n.at = getelementptr i8, ptr @job, i64 16
  %n = load i64, ptr %n.at, align 8
  %grain.at = getelementptr i8, ptr @job, i64 24
  %grain = load i64, ptr %grain.at, align 8
  call void @take_chunks(ptr %fn, ptr %data, i64 %n, i64 %grain)
  %before = atomicrmw sub ptr @state, i64 1 acq_rel, align 8
  %low = and i64 %before, $WAIT_COUNT
  %last = icmp eq i64 %low, $WAIT_ONE
  br i1 %last, label %tell, label %left
tell:
  %told = call i64 (i64, ...) @syscall(i64 $FUTEX, ptr @state, i32 129, i32 1)
  br label %left
left:
  br label %spin
idle:
  $PAUSE
  %turns.1 = add i32 %turns, 1
  %again = icmp slt i32 %turns.1, $SPIN
  br i1 %again, label %spin, label %sleep
sleep:
  %s.0 = atomicrmw add ptr @sleepers, i32 1 seq_cst, align 4
  %generation = getelementptr i8, ptr @state, i64 4
  %woken = call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %generation, i32 128, i32 %seen, ptr null)
  %s.1 = atomicrmw sub ptr @sleepers, i32 1 seq_cst, align 4
  br label %spin
}

; start workers until there are `want`, with all signals blocked in them; what the system refuses, it refuses
define internal void @grow(i32 %want) nounwind {
entry:
  %all = alloca [16 x i64], align 16
  %old = alloca [16 x i64], align 16
  %id = alloca i64, align 8
  %f = call i32 @sigfillset(ptr %all)
  %m = call i32 @pthread_sigmask(i32 0, ptr %all, ptr %old)
  br label %loop
loop:
  %have = load i32, ptr @created, align 4
  %more = icmp slt i32 %have, %want
  br i1 %more, label %create, label %done
create:
  %failed = call i32 @pthread_create(ptr %id, ptr null, ptr @worker, ptr null)
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %created, label %done
created:
  %thread = load i64, ptr %id, align 8
  %d = call i32 @pthread_detach(i64 %thread)
  %count = add i32 %have, 1
  store i32 %count, ptr @created, align 4
  br label %loop
done:
  %r = call i32 @pthread_sigmask(i32 2, ptr %old, ptr null)
  ret void
}
"""

_ENTRY = """
define void @tdsl_parallel_for(ptr %fn, ptr %data, i64 %n, i64 %grain.asked) nounwind {
entry:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %size, label %return
size:
  %grain.most = call i64 @llvm.smin.i64(i64 %grain.asked, i64 %n)
  %grain = call i64 @llvm.smax.i64(i64 %grain.most, i64 1)
  %limit = load atomic i32, ptr @tdsl_pool_limit monotonic, align 4
  %many = icmp sgt i32 %limit, 1
  %large = icmp sgt i64 %n, %grain
  %parallel = and i1 %many, %large
  br i1 %parallel, label %claim, label %alone
claim:
  %swap = cmpxchg ptr @busy, i32 0, i32 1 acq_rel monotonic, align 4
  %mine = extractvalue { i32, i1 } %swap, 1
  br i1 %mine, label %workers, label %alone
alone:
  call void @serial(ptr %fn, ptr %data, i64 %n, i64 %grain)
  br label %return
workers:
  %want = sub i32 %limit, 1
  %have = load i32, ptr @created, align 4
  %few = icmp slt i32 %have, %want
  br i1 %few, label %grow, label %open
grow:
  call void @grow(i32 %want)
  br label %open
open:
  store ptr %fn, ptr @job, align 8
  %data.at = getelementptr i8, ptr @job, i64 8
  store ptr %data, ptr %data.at, align 8
  %n.at = getelementptr i8, ptr @job, i64 16
  store i64 %n, ptr %n.at, align 8
  %grain.at = getelementptr i8, ptr @job, i64 24
  store i64 %grain, ptr %grain.at, align 8
  store i64 0, ptr @next, align 8
  %old = load atomic i64, ptr @state monotonic, align 8
  %old.generation = and i64 %old, -4294967296
  %generation = add i64 %old.generation, 4294967296
  %opened = or i64 %generation, $OPEN
  store atomic i64 %opened, ptr @state seq_cst, align 8
  %sleepers = load atomic i32, ptr @sleepers seq_cst, align 4
  %asleep = icmp sgt i32 %sleepers, 0
  br i1 %asleep, label %wake, label %work
wake:
  %rest = sub i64 %n, 1
  %others = udiv i64 %rest, %grain
  %want.wide = zext i32 %want to i64
  %useful = call i64 @llvm.smin.i64(i64 %others, i64 %want.wide)
  %useful.32 = trunc i64 %useful to i32
  %generation.at = getelementptr i8, ptr @state, i64 4
  %woken = call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %generation.at, i32 129, i32 %useful.32)
  br label %work
work:
  call void @take_chunks(ptr %fn, ptr %data, i64 %n, i64 %grain)
  %closed = atomicrmw and ptr @state, i64 $NOT_OPEN acq_rel, align 8
  br label %wait
wait:
  %turns = phi i32 [ 0, %work ], [ %turns.1, %pause ], [ $SPIN, %block ], [ $SPIN, %sleep ]
  %now = load atomic i64, ptr @state acquire, align 8
  %inside = and i64 %now, $COUNT
  %empty = icmp eq i64 %inside, 0
  br i1 %empty, label %done, label %patience
patience:
  %spin = icmp slt i32 %turns, $SPIN
  br i1 %spin, label %pause, label %block
pause:
  $PAUSE
  %turns.1 = add i32 %turns, 1
  br label %wait
block:
  %before = atomicrmw or ptr @state, i64 $WAIT acq_rel, align 8
  %still = and i64 %before, $COUNT
  %gone = icmp eq i64 %still, 0
  br i1 %gone, label %wait, label %sleep
sleep:
  %waiting = or i64 %before, $WAIT
  %low = trunc i64 %waiting to i32
  %slept = call i64 (i64, ...) @syscall(i64 $FUTEX, ptr @state, i32 128, i32 %low, ptr null)
  br label %wait
done:
  store atomic i32 0, ptr @busy release, align 4
  br label %return
return:
  ret void
}
"""

_OPEN, _WAIT, _COUNT = 1 << 31, 1 << 30, (1 << 30) - 1


def source(architecture: str, linux: bool, threads: int, spin: int = 2000) -> str:
    """The module's IR. Symbols: tdsl_parallel_for(fn, data, n, grain), tdsl_pool_reset(), tdsl_pool_limit (i32).

    `architecture` is LLVM's word; where there is no futex, everything runs serially, in the same chunks. `threads` is
    the number of threads to begin with, the caller included; `spin` how many turns a thread spins before it sleeps.
    """
    if not linux or architecture not in _FUTEX:
        return _SERIAL + _SERIAL_ENTRY
    words = {
        "$LIMIT": threads, "$NOT_OPEN": ~_OPEN, "$OPEN": _OPEN, "$WAIT_COUNT": _WAIT | _COUNT, "$WAIT_ONE": _WAIT | 1,
        "$WAIT": _WAIT, "$COUNT": _COUNT, "$SPIN": spin, "$FUTEX": _FUTEX[architecture],
        "$PAUSE": _PAUSE.get(architecture, 'fence syncscope("singlethread") seq_cst'),
    }
    text = _SERIAL + _GLOBALS + _WORKER + _ENTRY
    for word, value in words.items():
        text = text.replace(word, str(value))
    return text
