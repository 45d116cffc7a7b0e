"""Modules: what every language-model program is made of, and how its learned parts are found, copied and kept.

What holds here: the learned part of a program is its *parameters* (predictors), found by walking its attributes, lists
and dictionaries; each has one stable name. Saved programs are versioned JSON, written whole or not at all, and loading
one changes either everything or nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tracedsl.cache import write_atomic
from tracedsl.diagnostics import TracedslError, nearest
from tracedsl.programs.context import current_watcher
from tracedsl.programs.driving import current_io, drive

if TYPE_CHECKING:
    from tracedsl.programs.lm.base import LM
    from tracedsl.programs.modules.predict import Predict

FORMAT = "tracedsl-program"
VERSION = 1


class SavedProgramError(TracedslError, ValueError):
    """A saved program that cannot be read or does not fit."""


class Parameter:
    """Something that a teleprompter may change: `Predict` is one. Marks where the walk through a program stops."""

    def dump_state(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state(self, state: Mapping[str, Any]) -> Self:
        raise NotImplementedError

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise if `load_state` would fail; changes nothing."""
        raise NotImplementedError

    def reset(self) -> None:
        raise NotImplementedError


class Module:
    """Base of all programs. Write `forward`, or `aforward` if it has to wait for something else than models; the other
    one follows from it. Call the module itself, or `await module.acall(...)`.

    Subclasses need not call `super().__init__()`: a module has no state of its own.
    """

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        own = cls.__dict__
        if "forward" in own and "aforward" not in own:
            cls.aforward = _forward_on_a_thread  # type: ignore[method-assign]
        elif "aforward" in own and "forward" not in own:
            cls.forward = _aforward_driven  # type: ignore[method-assign]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    async def aforward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        watcher = current_watcher()
        if watcher is None:
            return self.forward(*args, **kwargs)
        watcher("module_start", self, kwargs)
        outputs = self.forward(*args, **kwargs)
        watcher("module_end", self, outputs)
        return outputs

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        watcher = current_watcher()
        if watcher is None:
            return await self.aforward(*args, **kwargs)
        watcher("module_start", self, kwargs)
        outputs = await self.aforward(*args, **kwargs)
        watcher("module_end", self, outputs)
        return outputs

    def batch(self, examples: Iterable[Any], num_threads: int | None = None, max_errors: int | None = None,
              return_failed_examples: bool = False, provide_traceback: bool | None = None,
              disable_progress_bar: bool = True, timeout: float | None = None,
              straggler_limit: int | None = None) -> Any:
        """See `abatch`, on threads. The last four are taken for DSPy's sake: an error is always whole, a program shows
        progress itself where it wants to, and requests have their own time limits."""
        return drive(self.abatch(examples, num_threads, max_errors, return_failed_examples))

    async def abatch(self, examples: Iterable[Any], num_threads: int | None = None, max_errors: int | None = None,
                     return_failed_examples: bool = False) -> Any:
        """The answers for many examples, in their order, `num_threads` (default 8) at the same time.

        The first error ends it and is raised. With `max_errors`, errors up to that number leave None in place of the
        answer. With `return_failed_examples`, returns (answers without the failed ones, failed examples, errors).
        """
        from tracedsl.programs.batch import run_batch

        return await run_batch(self, examples, num_threads, max_errors, return_failed_examples)

    # -- parameters ----------------------------------------------------------------------------------------------

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """All parameters with their names (`answer`, `steps[0]`, `tools['search'].predict`), each once."""
        return list(_walk(self, "", set()))

    def named_predictors(self) -> list[tuple[str, Predict]]:
        from tracedsl.programs.modules.predict import Predict

        return [(name, p) for name, p in self.named_parameters() if isinstance(p, Predict)]

    def predictors(self) -> list[Predict]:
        return [p for _, p in self.named_predictors()]

    def map_named_predictors(self, function: Callable[[Predict], Predict]) -> Self:
        """Replace every predictor by what `function` makes of it."""
        for name, predictor in self.named_predictors():
            _replace(self, name, function(predictor))
        return self

    def set_lm(self, lm: LM | None) -> None:
        """Let all predictors of this program use `lm`; None: whatever is configured."""
        for predictor in self.predictors():
            predictor.lm = lm

    def get_lm(self) -> LM | None:
        """The model that all predictors use (None: the configured one); raises if they use different ones."""
        models = {id(p.lm): p.lm for p in self.predictors()}
        if len(models) > 1:
            raise ValueError("the predictors of this program use different language models")
        return next(iter(models.values()), None)

    # -- copies --------------------------------------------------------------------------------------------------

    def deepcopy(self) -> Self:
        """A copy that shares nothing that can be learned. What cannot be copied (a lock, a connection) is shared."""
        made = object.__new__(type(self))
        memo: dict[int, Any] = {id(self): made}
        for name, value in self.__dict__.items():
            try:
                made.__dict__[name] = copy.deepcopy(value, memo)
            except TypeError:
                made.__dict__[name] = value
        return made

    def reset_copy(self) -> Self:
        """A copy in which nothing is learned."""
        made = self.deepcopy()
        for _, parameter in made.named_parameters():
            parameter.reset()
        return made

    # -- prompts for elsewhere -----------------------------------------------------------------------------------

    def export_messages(self, **inputs: Any) -> list[dict[str, Any]]:
        """The program's prompts as JSON data, to be used without this package: messages as the chat-completions
        protocol has them, settings, and which adapter reads the answer.

        Without inputs a template for each predictor, with `{{name}}` in the place of the input `name`. With inputs the
        program runs, and each of its calls is exported exactly as it was sent, in order.
        """
        from tracedsl.programs.exporting import export_calls, export_prompt

        if inputs:
            return export_calls(self, inputs)
        return [export_prompt(name, predictor, None) for name, predictor in self.named_predictors()]

    # -- saved form ----------------------------------------------------------------------------------------------

    def dump_state(self) -> dict[str, Any]:
        """What is learned, as JSON data: parameter name -> its state."""
        return {name: parameter.dump_state() for name, parameter in self.named_parameters()}

    def load_state(self, state: Mapping[str, Any]) -> Self:
        """Take over what was learned; raises `SavedProgramError` and changes nothing if it does not fit."""
        parameters = dict(self.named_parameters())
        for name in state:
            if name not in parameters:
                raise SavedProgramError("P007", f"the saved program has a predictor {name!r}, this one does not",
                                        hint=nearest(name, parameters))
        if missing := [name for name in parameters if name not in state]:
            raise SavedProgramError("P007", f"the saved program lacks the predictor {missing[0]!r}",
                                    hint="save the program again, or load it into the program it was saved from")
        for name, parameter in parameters.items():
            try:
                parameter.check_state(state[name])
            except (KeyError, TypeError, AttributeError) as error:
                raise SavedProgramError("P007", f"the saved state of {name!r} does not fit",
                                        why=f"{type(error).__name__}: {error}",
                                        hint="save the program again") from error
        for name, parameter in parameters.items():
            parameter.load_state(state[name])
        return self

    def save(self, path: str | Path) -> None:
        """Write what is learned, and how it was found, to a JSON file, whole or not at all."""
        import tracedsl

        whole = {"format": FORMAT, "version": VERSION, "tracedsl": tracedsl.__version__, "state": self.dump_state()}
        if (report := getattr(self, "compile_report", None)) is not None:
            whole["report"] = report.to_json()
        write_atomic(Path(path), json.dumps(whole, ensure_ascii=False, indent=2).encode())

    def load(self, path: str | Path) -> Self:
        """Read what `save` wrote; raises `SavedProgramError` and changes nothing if the file is no good."""
        try:
            whole = json.loads(Path(path).read_bytes())
        except FileNotFoundError:
            raise SavedProgramError("P006", f"there is no saved program {path}") from None
        except ValueError as error:
            raise SavedProgramError("P006", f"{path} is not a saved program", why=f"it is not JSON: {error}",
                                    hint="save the program again") from None
        if not isinstance(whole, dict) or whole.get("format") != FORMAT:
            raise SavedProgramError("P006", f"{path} is not a saved program", why=f"its format is not {FORMAT!r}")
        if whole.get("version") != VERSION:
            raise SavedProgramError("P006", f"{path} has version {whole.get('version')}, this is version {VERSION}",
                                    hint="load it with the release that wrote it, or save it again")
        if not isinstance(whole.get("state"), dict):
            raise SavedProgramError("P006", f"{path} is not a whole saved program", why="its state is missing")
        return self.load_state(whole["state"])

    def __repr__(self) -> str:
        names = ", ".join(f"{name}: {p.signature.signature}" for name, p in self.named_predictors())
        return f"{type(self).__name__}({names})"


async def _forward_on_a_thread(self: Module, *args: Any, **kwargs: Any) -> Any:
    """`aforward` of a module that has `forward` alone."""
    return await current_io().call(self.forward, *args, **kwargs)


def _aforward_driven(self: Module, *args: Any, **kwargs: Any) -> Any:
    """`forward` of a module that has `aforward` alone."""
    return drive(self.aforward(*args, **kwargs))


def _walk(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Parameter]]:
    """The parameters below `value`, in the order of definition."""
    if id(value) in seen or (getattr(value, "_compiled", False) is True and name):
        return  # a part that was compiled on its own stays as it is
    if isinstance(value, Parameter):
        seen.add(id(value))
        yield name or "self", value
    elif isinstance(value, Module):
        seen.add(id(value))
        for attribute, inner in list(value.__dict__.items()):
            yield from _walk(inner, f"{name}.{attribute}" if name else attribute, seen)
    elif isinstance(value, Mapping):
        seen.add(id(value))
        for key, inner in value.items():
            yield from _walk(inner, f"{name}[{key!r}]", seen)
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        seen.add(id(value))
        for i, inner in enumerate(value):
            yield from _walk(inner, f"{name}[{i}]", seen)


def _replace(root: Module, wanted: str, new: Any) -> None:
    """Put `new` where the parameter of this name stands."""
    if wanted == "self":
        raise ValueError("a predictor cannot be replaced in itself")

    def visit(value: Any, name: str, put: Callable[[Any], None]) -> None:
        if name == wanted:
            put(new)
        elif isinstance(value, Module) and not isinstance(value, Parameter):
            for a, inner in list(value.__dict__.items()):
                visit(inner, f"{name}.{a}" if name else a, lambda n, o=value, a=a: setattr(o, a, n))  # type: ignore[misc]
        elif isinstance(value, (dict, list)):
            pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
            for key, inner in pairs:
                visit(inner, f"{name}[{key!r}]", lambda n, o=value, k=key: o.__setitem__(k, n))  # type: ignore[misc]

    visit(root, "", lambda _: None)
