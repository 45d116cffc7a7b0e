"""Lets `threadpoolctl` see and limit the thread pool, with BLAS and OpenMP: `with threadpool_limits(limits=1): ...`.

What holds here: threadpoolctl knows thread pools by the shared library that they live in. This one lives in memory that
no file stands behind, so it is found beside the C library, which every process has and no other controller claims.
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def register() -> None:
    """Make the pool known to threadpoolctl; where its interface is another one, nothing happens."""
    import threadpoolctl

    from tracedsl import __version__
    from tracedsl.hw.cpu import pool
    from tracedsl.hw.cpu.pool_ir import MAX_THREADS

    if not hasattr(threadpoolctl, "LibController") or not hasattr(threadpoolctl, "register"):
        return

    class TracedslController(threadpoolctl.LibController):  # type: ignore[misc]
        user_api = "tracedsl"
        internal_api = "tracedsl"
        filename_prefixes = ("libc.so", "libc-", "ld-musl-", "libSystem.B")
        check_symbols = ("free",)

        def get_num_threads(self) -> int:
            return pool.get_num_threads()

        def set_num_threads(self, num_threads: Any) -> None:
            pool.set_num_threads(max(1, min(int(num_threads), MAX_THREADS)))

        def get_version(self) -> str:
            return __version__

    threadpoolctl.register(TracedslController)
