"""What `explain()` and `show()` of a kernel print.

What holds here: texts only; what they tell was decided and kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from textwrap import indent
from types import FunctionType
from typing import TYPE_CHECKING, Any

from tracedsl.diagnostics import TracedslError, Unsupported, nearest
from tracedsl.hw.target import Target, target
from tracedsl.kernel_procedure import ProcedureVariant
from tracedsl.kernel_variant import Variant

if TYPE_CHECKING:
    from tracedsl.kernel import Stages


def explain_kernel(function: FunctionType, variants: Mapping[Any, Variant | ProcedureVariant | Unsupported],
                   last: Variant | ProcedureVariant | Unsupported | None) -> str:
    """One paragraph a set of argument types, the latest call's marked."""
    code = function.__code__
    lines = [f"kernel {function.__qualname__} ({code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno})"]
    known = list(variants.values())
    if last is not None and last not in known:
        known.append(last)
    if not known:
        lines.append("  not called yet")
    for variant in known:
        mark = "* " if variant is last else "  "
        lines.append(indent("\n".join(_variant(variant)), "  ").replace("  ", mark, 1))
    return "\n".join(lines)


def _variant(variant: Variant | ProcedureVariant | Unsupported) -> Iterable[str]:
    if isinstance(variant, Unsupported):
        yield "runs in plain NumPy: " + str(variant)
        return
    if isinstance(variant, ProcedureVariant):
        stages = ", ".join(f"{name} {value * 1e3:.1f}" for name, value in variant.seconds.items())
        head, *rest = variant.text.splitlines()
        yield head
        yield f"  {'loaded from the cache' if variant.cached else 'compiled'} (ms: {stages}), for every shape"
        if variant.left:
            yield f"  {variant.left} of {variant.left + variant.served} calls were left to NumPy"
        yield from (f"  {line}" for line in rest)
        return
    yield variant.report.signature
    origin, took = variant.origin, variant.origin.seconds
    stages = ", ".join(f"{name} {value * 1e3:.1f}" for name, value in took.items())
    total = f"{sum(took.values()) * 1e3:.1f} ms ({stages})"
    yield f"  loaded from the cache; compiling took {total}" if origin.cached else f"  compiled in {total}"
    if origin.why:
        yield f"  {origin.why}"
    yield from (f"  rewrite  {text}" for text in variant.report.passes)
    yield from (f"  {note}" for note in variant.report.notes)
    places = variant.report.places or ("",) * len(variant.report.tasks)
    for task, schedule, place in zip(variant.report.tasks, variant.report.schedules, places):
        yield indent(task, "  ")
        if place:
            yield f"    {place}"
        yield indent(schedule, "    schedule  ")


def show_stage(what: str, made: Stages, on: Target) -> str:
    """The text of one stage. Raises TracedslError K002 for an unknown word."""
    texts: dict[str, Callable[[], str]] = {
        "graph": lambda: str(made.captured.graph),
        "rewritten": lambda: str(made.rewritten.graph),
        "tasks": lambda: str(made.tasks),
        "schedule": lambda: "\n".join(map(str, made.schedules)),
        "hint": lambda: "\n".join(schedule.as_python() for schedule in made.schedules),
        "loops": lambda: str(made.loops),
        **{word: partial(on.text, word, made.loops) for word in on.texts},
    }
    if "llvm" in on.texts:     # the same loops, as Python and as OpenCL C
        texts |= {word: partial(target(word).text, word, made.loops) for word in ("numba", "opencl")}
    if what not in texts:
        raise TracedslError("K002", f"there is no stage {what!r} to show", hint=nearest(what, texts))
    return texts[what]()
