"""What generated code and its callers agree on: names alone, so that loading code needs no code generator."""

from __future__ import annotations

ENTRY = "run"                          # void run(void **buffers): params, results, temporaries
PARALLEL_FOR = "tdsl_parallel_for"     # the thread pool's entry, see `pool`
