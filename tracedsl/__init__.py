"""tracedsl: two decorators, one compiler.

`@kernel` compiles NumPy functions, `@program` compiles functions that call language models.

What holds here: importing this package loads none of its parts. Every public name is loaded on first use, so that
`import tracedsl` costs milliseconds, touches no network and needs neither LLVM nor a language-model client.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# In a checkout, hw/, autotune/ and programs/ stand beside this folder; in a wheel they are inside it.
_here = os.path.dirname(os.path.abspath(__file__))
if not os.path.isdir(os.path.join(_here, "hw")):
    __path__.append(os.path.dirname(_here))

if TYPE_CHECKING:
    from tracedsl.cache import Store as Store
    from tracedsl.capture.tensor.hints import hint as hint
    from tracedsl.diagnostics import TracedslError as TracedslError
    from tracedsl.diagnostics import Unsupported as Unsupported
    from tracedsl.hw.cpu.pool import get_num_threads as get_num_threads
    from tracedsl.hw.cpu.pool import set_num_threads as set_num_threads
    from tracedsl.ir.compute import axis as axis
    from tracedsl.ir.compute import compute as compute
    from tracedsl.ir.compute import reduce_axis as reduce_axis
    from tracedsl.kernel import kernel as kernel
    from tracedsl.program import program as program
    from tracedsl.program import pure as pure
    from tracedsl.programs.lm.interception import trace as trace
else:
    from tracedsl._lazy import make_lazy

    make_lazy(__name__, {
        "cache": "Store",
        "capture.tensor.hints": "hint",
        "diagnostics": "TracedslError Unsupported",
        "hw.cpu.pool": "get_num_threads set_num_threads",
        "ir.compute": "axis compute reduce_axis",
        "kernel": "kernel",
        "program": "program pure",
        "programs.lm.interception": "trace",
    })
