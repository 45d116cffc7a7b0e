"""Diagnostics: what went wrong, where (file, line, caret), why, and what to do.

What holds here: every error that tracedsl raises on purpose carries a `Diagnostic` with a stable code from `CODES`;
its text is built in one place, `Diagnostic.render`. Nothing here imports anything else of tracedsl.
"""

from __future__ import annotations

import linecache
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

# Stable codes. The letter tells the part: A cache, C capture of kernels, G graph, H hardware, K kernel,
# L language-model client, P programs, S schedule, T tuning.
CODES: dict[str, str] = {
    "A001": "cache entry is damaged",
    "A002": "cache folder is open to others",
    "A003": "cache folder cannot be used",
    "C001": "source of a function is not at hand",
    "C002": "source is not the code that runs",
    "C003": "Python statement is not captured",
    "C004": "call of code that capture does not know",
    "C005": "control flow depends on data",
    "C006": "Python needs the value of an array",
    "C007": "NumPy function has no symbolic form",
    "C008": "option of a NumPy function is not captured",
    "C009": "argument cannot be taken",
    "C010": "outer name cannot be taken",
    "C011": "array is written in place",
    "C012": "function is too long when unrolled",
    "C013": "function raised while it was captured",
    "C014": "result cannot be returned",
    "C015": "dtype is not compiled",
    "C016": "hint is not well formed",
    "C017": "index is not captured",
    "C018": "Python number is not what was captured",
    "G001": "graph is not well formed",
    "G002": "pass broke the graph",
    "H001": "LLVM refuses generated code",
    "H002": "object code cannot be loaded",
    "H003": "unknown target",
    "H004": "thread pool cannot be used",
    "H005": "no such vector function",
    "H006": "setting of the environment is not understood",
    "L001": "endpoint cannot be reached",
    "L002": "endpoint refused the API key",
    "L003": "endpoint refused the request",
    "L004": "endpoint keeps failing",
    "L005": "endpoint sent something that is no chat completion",
    "L006": "package for this language model is missing",
    "L007": "model file is missing or damaged",
    "L008": "unknown language model",
    "L009": "model cannot be downloaded",
    "L010": "prompt does not fit into the model's context",
    "L011": "scripted language model has no answer left",
    "L012": "API key is missing",
    "L013": "endpoint's address cannot be used",
    "L014": "budget is spent",
    "L015": "recorded language model lacks an answer",
    "P001": "signature is not well formed",
    "P002": "unknown type in a signature",
    "P003": "no such field",
    "P004": "input has the wrong type",
    "P005": "answer does not parse",
    "P006": "saved program cannot be read",
    "P007": "saved program does not fit",
    "P008": "evaluation had too many failures",
    "P009": "no demonstration for a predictor",
    "P010": "predictor is called the wrong way",
    "P011": "training set cannot be used",
    "P012": "coroutine needs an event loop",
    "P040": "tool cannot be made",
    "P041": "arguments do not fit a tool",
    "P042": "no such tool",
    "P043": "tool's server failed",
    "P044": "generated code failed",
    "P045": "sandbox cannot be used",
    "P046": "sandbox has ended",
    "P047": "module is built or called the wrong way",
    "P048": "every attempt of a module failed",
    "P049": "index cannot be built or read",
    "P101": "program cannot be captured",
    "P102": "Python is not captured in a program",
    "P103": "unknown option of a program",
    "P104": "training set or metric does not fit the program",
    "P105": "compiled program is not better",
    "P106": "cached program does not fit",
    "P107": "compilation of a program was interrupted",
    "P108": "budget is too small to compile with",
    "P109": "package for a teleprompter is missing",
    "P111": "compilation in the background failed",
    "P112": "program cannot be found",
    "P110": "training data was written and no model was trained",
    "P020": "image, sound or file cannot be made",
    "P021": "no adapter could be scored",
    "H021": "array does not fit the compiled code",
    "H022": "compiled code is of another machine or version",
    "H040": "package for this target is missing",
    "H020": "loop nest is not well formed",
    "H060": "hardware configuration is not valid",
    "H061": "instruction stream is damaged",
    "H062": "instruction does not fit the hardware",
    "H063": "tokens of a program do not add up",
    "H070": "tool for this target is missing",
    "H071": "code of another machine did not end well",
    "H072": "OpenCL driver cannot be used",
    "H064": "instructions of a program race",
    "H065": "hardware tool is missing",
    "H066": "hardware tool failed",
    "H067": "simulation went over its limit",
    "H068": "tile does not fit the scratchpads",
    "H069": "nothing runs on the accelerator",
    "S001": "schedule names something that does not exist",
    "S002": "schedule primitive with a bad argument",
    "S003": "loop cannot be of that kind",
    "S004": "loops cannot stand in that order",
    "S005": "axes cannot be fused",
    "S006": "schedule would make too much code or use too much memory",
    "S007": "hint contradicts the task",
    "S008": "recorded schedule is damaged",
    "S011": "operation cannot be lowered to loops",
    "S012": "operation on complex numbers cannot be lowered",
    "S013": "position cannot be lowered",
    "S014": "expression of `compute` cannot be used",
    "K001": "too many specialisations",
    "K002": "nothing to show",
    "K003": "the compiler failed",
    "K004": "call was left to NumPy",
    "K010": "function or arguments of the command line cannot be found",
    "T001": "search space is empty",
    "T003": "record file is damaged",
    "T004": "package for tuning is missing",
    "T005": "tuning effort or strategy is not understood",
    "T006": "records cannot be read",
}


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a user's source: lines count from 1, columns from 0 as in `ast`; `end_column` is exclusive."""

    file: str
    line: int
    column: int = 0
    end_line: int | None = None
    end_column: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def short(self) -> str:
        """`name.py:12`, without the folder."""
        return f"{self.file.replace(chr(92), '/').rsplit('/', 1)[-1]}:{self.line}"

    def excerpt(self) -> str:
        """The source line with carets below the part that is meant; empty if the source is not at hand."""
        text = linecache.getline(self.file, self.line).rstrip("\n")
        if not text.strip():
            return ""
        last = self.end_column if self.end_column and self.end_line in (None, self.line) else len(text)
        carets = " " * self.column + "^" * max(1, last - self.column)
        number = f"{self.line:>5} | "
        return f"{number}{text}\n{' ' * (len(number) - 2)}| {carets}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding. `what` is a sentence; `why` and `hint` (what to do) are added where they help."""

    code: str
    what: str
    why: str = ""
    hint: str = ""
    span: Span | None = None

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise AssertionError(f"unknown diagnostic code {self.code}")

    def render(self) -> str:
        lines = [f"{self.what} [{self.code}]"]
        if self.span is not None:
            lines.append(f"  at {self.span}")
            if excerpt := self.span.excerpt():
                lines.append(excerpt)
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.hint:
            lines.append(f"  what to do: {self.hint}")
        return "\n".join(lines)


class TracedslError(Exception):
    """Base of every error that tracedsl raises on purpose.

    Subclasses may also derive from a built-in exception, so that existing `except` clauses keep working.
    """

    def __init__(self, code: str, what: str, *, why: str = "", hint: str = "", span: Span | None = None) -> None:
        self.diagnostic = Diagnostic(code, what, why, hint, span)
        super().__init__(what)

    @property
    def code(self) -> str:
        return self.diagnostic.code

    def __str__(self) -> str:
        return self.diagnostic.render()

    def __reduce__(self) -> tuple[object, ...]:
        d = self.diagnostic
        return (_rebuild, (type(self), d.code, d.what, d.why, d.hint, d.span))


def _rebuild(cls: type[TracedslError], code: str, what: str, why: str, hint: str, span: Span | None) -> TracedslError:
    error = cls.__new__(cls)
    TracedslError.__init__(error, code, what, why=why, hint=hint, span=span)
    return error


class Unsupported(TracedslError):
    """This code cannot be compiled; it still runs, as plain Python. Raised to the user only under `strict=True`."""


class TracedslWarning(UserWarning):
    """Something that a user should know and that does not stop the program."""


def warn(code: str, what: str, *, why: str = "", hint: str = "", span: Span | None = None, stacklevel: int = 3) -> None:
    """Warn with the same shape of text as an error."""
    warnings.warn(Diagnostic(code, what, why, hint, span).render(), TracedslWarning, stacklevel=stacklevel)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a name that does not exist: the nearest known one, else the list of them."""
    names = sorted(known)
    if close := get_close_matches(name, names, n=1, cutoff=0.6):
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(names) if names else ""
