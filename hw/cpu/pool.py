"""The thread pool that compiled kernels run on: loading it, and saying how many threads it has.

What holds here:
- The pool is machine code (`pool_ir`), compiled once and kept in the store under kind "runtime".
- No thread exists before the first launch that needs one. After a fork the child starts its own; a caller that
  finds the pool busy (another thread's launch, or one inside of a launch) runs its chunks itself. Nothing hangs.
- The workers never touch Python and end with the process; the pool's code therefore is never unloaded.
- Which chunks there are depends on n and grain alone, so results do not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from tracedsl.cache import Store
from tracedsl.diagnostics import TracedslError, warn
from tracedsl.hw.cpu import jit, runtime
from tracedsl.hw.cpu.abi import PARALLEL_FOR as ENTRY
from tracedsl.hw.cpu.machine import Machine, host
from tracedsl.hw.cpu.pool_ir import MAX_THREADS, source

_RESET = "tdsl_pool_reset"
_LIMIT = "tdsl_pool_limit"
_VARIABLE = "TRACEDSL_NUM_THREADS"
_STARTING = threading.Lock()


@dataclass(frozen=True, eq=False)
class Pool:
    """The loaded pool. `symbols` is what `jit.load` takes as imports: kernels call

        void tdsl_parallel_for(void (*fn)(void *data, int64 begin, int64 end), void *data, int64 n, int64 grain)

    which calls fn for all chunks of `grain` out of 0 .. n-1, each once, and returns when all are done.
    """

    loaded: jit.Loaded

    @property
    def symbols(self) -> Mapping[str, int]:
        return {ENTRY: self.loaded[ENTRY]}

    @property
    def threads(self) -> int:
        return int(self._limit.value)

    def limit(self, threads: int) -> None:
        """Use at most so many threads from the next launch on."""
        self._limit.value = threads

    @property
    def _limit(self) -> ctypes.c_int32:
        return ctypes.c_int32.from_address(self.loaded[_LIMIT])

    def parallel_for(self, fn: int, data: int, n: int, grain: int) -> None:
        """Run a native function (an address) over 0 .. n-1; the global interpreter lock is released meanwhile."""
        entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        entry(self.loaded[ENTRY])(fn, data, n, grain)


def pool() -> Pool:
    """The pool of this process; loaded on the first call."""
    with _STARTING:
        found = _pool()
    if "threadpoolctl" in sys.modules:
        from tracedsl.hw.cpu.pool_control import register

        register()
    return found


@cache
def _pool() -> Pool:
    loaded = load(host(), Store())
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=ctypes.CFUNCTYPE(None)(loaded[_RESET]))
    made = Pool(loaded)
    if (asked := _asked()) is not None:
        made.limit(asked)
    return made


def _asked() -> int | None:
    """The number of threads that the environment asks for."""
    given = os.environ.get(_VARIABLE)
    if not given:
        return None
    if given.isdecimal() and 1 <= int(given) <= MAX_THREADS:
        return int(given)
    warn("H006", f"{_VARIABLE}={given!r} is not understood", why=f"it is a number from 1 to {MAX_THREADS}")
    return None


def load(machine: Machine, store: Store) -> jit.Loaded:
    """The pool's code from the store, or made and put there."""
    text = source(machine.triple.split("-")[0], sys.platform == "linux", min(machine.cores, MAX_THREADS))
    return runtime.load("thread pool", text, (ENTRY, _RESET, _LIMIT), machine, store)


def get_num_threads() -> int:
    """How many threads a kernel may use, the calling one included: at first `$TRACEDSL_NUM_THREADS`, or all cores."""
    return pool().threads


def set_num_threads(count: int) -> None:
    """Use at most `count` threads, the calling one included, from the next launch on. Results stay the same.

    Raises TracedslError (H004) unless 1 <= count <= 256.
    """
    if not isinstance(count, int) or not 1 <= count <= MAX_THREADS:
        raise TracedslError("H004", f"the number of threads cannot be {count!r}", why=f"it is from 1 to {MAX_THREADS}")
    pool().limit(count)
