"""What an interpreter for generated code is: the protocol, and how its executions end.

What holds here: an execution ends in one of three ways. It returns what was printed, or a `FinalOutput` if the code
called `SUBMIT`, or raises: `CodeError` for what the code did wrong (other code may well succeed), `SandboxError` for
what no code can mend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from tracedsl.diagnostics import TracedslError


class SandboxError(TracedslError, RuntimeError):
    """A sandbox that cannot be had, or whose process did not keep to the protocol."""


class CodeError(TracedslError, RuntimeError):
    """Code that failed. `text` is what to tell whoever wrote it, `output` what it had printed until then;
    `state_lost` is set if the interpreter had to be ended: what the code had defined is gone."""

    text: str = ""
    output: str = ""
    state_lost: bool = False

    @classmethod
    def of(cls, text: str, output: str = "", *, state_lost: bool = False, hint: str = "") -> CodeError:
        error = cls("P044", "generated code failed", why=text, hint=hint)
        error.text, error.output, error.state_lost = text, output, state_lost
        return error


@dataclass(frozen=True)
class FinalOutput:
    """What the code handed to `SUBMIT`: a mapping if by name, the value if it was one, else a list of the values."""

    output: Any


@runtime_checkable
class Interpreter(Protocol):
    """Runs Python code. State lasts from one execution to the next, until `shutdown`. The method names are those of
    DSPy's `CodeInterpreter`, so that one can stand in for the other."""

    @property
    def tools(self) -> MutableMapping[str, Callable[..., Any]]:
        """Functions of the host that the code may call by these names."""

    def start(self) -> None:
        """Make ready; `execute` does it by itself. Doing it twice does no harm."""

    def execute(self, code: str, variables: Mapping[str, Any] | None = None) -> Any:
        """Run code with these variables set: what it printed, or a `FinalOutput`. Raises `CodeError`."""

    def shutdown(self) -> None:
        """End it, and free what it holds."""
