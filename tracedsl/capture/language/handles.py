"""Handles: values that are still on their way, and the steps that produce them.

What holds here:
- A handle is opaque: it is no `str` and no `Prediction`. Whatever looks at it (a truth test, `==`, iteration, hashing,
  arithmetic, `str`) waits for the value and works on that; reading an attribute or an item gives another handle.
- A step is settled at most once, to a value or to an error, and never raises by itself: who asks decides when an
  error is raised, so that the error which program order meets first is the one that is seen.
- Reading attributes and items of a model's answer, and formatting it, is taken to be free of effects.
"""

from __future__ import annotations

import contextvars
import operator
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from tracedsl.diagnostics import Span
from tracedsl.ir.language import format_part


class Owner(Protocol):
    """The run that handles belong to (`capture.language.run.Run`)."""

    def look(self, handle: Handle, kind: str) -> Any: ...

    def attr(self, value: Any, name: str, /) -> Any: ...

    def item(self, value: Any, key: Any, /) -> Any: ...

    def submit(self, work: Callable[[], None]) -> None: ...

    def note_failure(self) -> None: ...


class Handle:
    """The value of a step. The methods below only matter where code that was not rewritten gets hold of a handle."""

    __slots__ = ("_tracedsl_step",)
    _tracedsl_step: Step

    def __init__(self, step: Step) -> None:
        object.__setattr__(self, "_tracedsl_step", step)

    def __getattr__(self, name: str) -> Any:
        return step_of(self).run.attr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_seen(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_seen(self), name)

    def __getitem__(self, key: Any) -> Any:
        return step_of(self).run.item(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _seen(self)[key] = value

    def __delitem__(self, key: Any) -> None:
        del _seen(self)[key]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _seen(self)(*args, **kwargs)

    def __bool__(self) -> bool:
        return bool(_seen(self))

    def __iter__(self) -> Iterator[Any]:
        return iter(_seen(self))

    def __contains__(self, value: Any) -> bool:
        return value in _seen(self)

    def __format__(self, spec: str) -> str:
        return format(_seen(self), spec)

    def __hash__(self) -> int:
        return hash(_seen(self))

    def __eq__(self, other: object) -> Any:
        return _seen(self) == _seen(other)

    def __ne__(self, other: object) -> Any:
        return _seen(self) != _seen(other)


def step_of(handle: Handle) -> Step:
    step: Step = object.__getattribute__(handle, "_tracedsl_step")
    return step


def _seen(value: Any) -> Any:
    """The finished value, if `value` is a handle."""
    return step_of(value).run.look(value, "value") if type(value) is Handle else value


def _unary(function: Callable[[Any], Any]) -> Callable[[Handle], Any]:
    return lambda self: function(_seen(self))


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[Handle, Any], Any]:
    return lambda self, other: function(_seen(self), _seen(other))


def _reflected(function: Callable[[Any, Any], Any]) -> Callable[[Handle, Any], Any]:
    return lambda self, other: function(_seen(other), _seen(self))


_UNARY: dict[str, Callable[..., Any]] = {
    "len": len, "str": str, "repr": repr, "int": int, "float": float, "complex": complex, "bytes": bytes,
    "index": operator.index, "neg": operator.neg, "pos": operator.pos, "invert": operator.invert, "abs": abs,
    "reversed": reversed,
}
_BINARY: dict[str, Callable[..., Any]] = {
    "and": operator.and_, "or": operator.or_, "divmod": divmod,
    **{name: getattr(operator, name) for name in (
        "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lshift", "rshift", "xor")},
}
for _name, _function in _UNARY.items():
    setattr(Handle, f"__{_name}__", _unary(_function))
for _name in ("lt", "le", "gt", "ge"):
    setattr(Handle, f"__{_name}__", _binary(getattr(operator, _name)))
for _name, _function in _BINARY.items():
    setattr(Handle, f"__{_name}__", _binary(_function))
    setattr(Handle, f"__r{_name}__", _reflected(_function))


# -- steps ------------------------------------------------------------------------------------------------------------


class Step:
    """Something whose value comes later."""

    @property
    def shape(self) -> Any:
        """What the value is sure to be: `str`, or a mapping of its attributes and items to their shapes; None where
        nothing is sure."""
        return None

    def __init__(self, run: Owner, span: Span | None) -> None:
        self.run = run
        self.span = span
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._settling = threading.Lock()

    def inputs(self) -> Iterator[Step]:
        """The steps that this one takes values from."""
        raise NotImplementedError

    def calls(self) -> Iterator[Call]:
        """The calls that have to be finished before this value can be computed (or before this call can be made)."""
        for step in self.inputs():
            if isinstance(step, Call):
                yield step
            elif not step.done:
                yield from step.calls()

    @property
    def idle(self) -> bool:
        """Whether nobody has asked for this value so far, and nobody needs to."""
        return not self.done and any(step.idle for step in self.inputs())

    @property
    def cannot_fail(self) -> bool:
        """Whether there is a value if the inputs have one."""
        return False

    def compute(self) -> Any:
        """The value; called when all inputs are settled without error."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until there is a value or an error."""
        if self.done:
            return
        value, error = None, None
        for step in self.inputs():
            step.settle()
            error = error or step.error
        if error is None:
            try:
                value = self.compute()
            except Exception as raised:  # noqa: BLE001 - kept, and raised where program order meets it
                error = raised
        self.finish(value, error)

    def finish(self, value: Any, error: BaseException | None) -> None:
        with self._settling:
            if not self.done:
                self.value, self.error, self.done = value, error, True
        if error is not None:
            self.run.note_failure()


class Field(Step):
    """`base.name`."""

    def __init__(self, run: Owner, span: Span | None, base: Step, name: str) -> None:
        super().__init__(run, span)
        self.base, self.name = base, name

    def inputs(self) -> Iterator[Step]:
        yield self.base

    @property
    def shape(self) -> Any:
        return _inside(self.base.shape, self.name)

    @property
    def cannot_fail(self) -> bool:
        shape = self.base.shape
        return hasattr(str, self.name) if shape is str else _has(shape, self.name)

    def compute(self) -> Any:
        return getattr(self.base.value, self.name)


class Item(Step):
    """`base[key]`; the key is finished."""

    def __init__(self, run: Owner, span: Span | None, base: Step, key: Any) -> None:
        super().__init__(run, span)
        self.base, self.key = base, key

    def inputs(self) -> Iterator[Step]:
        yield self.base

    @property
    def shape(self) -> Any:
        return _inside(self.base.shape, self.key)

    @property
    def cannot_fail(self) -> bool:
        return _has(self.base.shape, self.key)

    def compute(self) -> Any:
        return self.base.value[self.key]


def _has(shape: Any, key: Any) -> bool:
    return isinstance(shape, Mapping) and type(key) in (str, int) and key in shape


def _inside(shape: Any, key: Any) -> Any:
    return shape[key] if _has(shape, key) else None


class Lazy(Step):
    """`function(*arguments)`, of a function that has no effects and changes nothing; `arguments` is a snapshot.
    `text` says that it is sure to give a text."""

    def __init__(self, run: Owner, span: Span | None, callee: str, function: Callable[..., Any],
                 arguments: Any, *, text: bool) -> None:
        super().__init__(run, span)
        self.callee, self.function, self.arguments, self._text = callee, function, arguments, text

    @property
    def shape(self) -> Any:
        return str if self._text else None

    @property
    def cannot_fail(self) -> bool:
        return self._text

    def inputs(self) -> Iterator[Step]:
        return (step_of(handle) for handle in handles_in(self.arguments))

    def compute(self) -> Any:
        return self.function(*finished(self.arguments))


class Part:
    """A piece of a template: text that is there already, or a handle with the way to format it.

    `value` is what an already formatted hole held (`hole` tells holes from literal text).
    """

    __slots__ = ("conversion", "handle", "hole", "spec", "text", "value")

    def __init__(self, text: str = "", handle: Handle | None = None, conversion: str = "", spec: str = "",
                 hole: bool = False, value: Any = None) -> None:
        self.text, self.handle, self.conversion, self.spec = text, handle, conversion, spec
        self.hole, self.value = hole, value


class Template(Step):
    """An f-string of which some parts are still on their way."""

    def __init__(self, run: Owner, span: Span | None, parts: tuple[Part, ...]) -> None:
        super().__init__(run, span)
        self.parts = parts

    def inputs(self) -> Iterator[Step]:
        return (step_of(part.handle) for part in self.parts if part.handle is not None)

    @property
    def shape(self) -> Any:
        return str

    @property
    def cannot_fail(self) -> bool:
        return not any(part.spec for part in self.parts)

    def compute(self) -> str:
        return "".join(_filled(part) for part in self.parts)


def _filled(part: Part) -> str:
    if part.handle is None:
        return part.text
    return format_part(step_of(part.handle).value, part.conversion, part.spec)


class Call(Step):
    """A call that may run beside the program: of a model, or of a function that was declared pure.

    `arguments` is a snapshot (below), so nothing in it that could hold a handle is changed afterwards. With `deferred`
    the call is made only when somebody asks for its value.
    """

    def __init__(self, run: Owner, span: Span | None, arguments: Any, *, deferred: bool = False) -> None:
        super().__init__(run, span)
        self.arguments = arguments
        self.deferred = deferred
        self.after: list[Call] = []     # further calls to wait for
        self._context = contextvars.copy_context()
        self._started = False
        self._future: Future[None] = Future()

    def inputs(self) -> Iterator[Step]:
        return (step_of(handle) for handle in handles_in(self.arguments))

    @property
    def idle(self) -> bool:
        return self.deferred and not self._started

    def release(self) -> None:
        """Wait no longer for others that may join this call: its value is needed."""

    def start(self) -> None:
        """Let the call run as soon as everything that it needs is there. Starting twice does nothing."""
        with self._settling:
            if self._started:
                return
            self._started = True
        self._proceed()

    def _proceed(self) -> None:
        for call in (*self.calls(), *self.after):
            call.start()
            if not call._future.done():
                call._future.add_done_callback(lambda _: self._proceed())
                return
        self.run.submit(self._work)

    def _work(self) -> None:
        try:
            self._context.run(super().settle)
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like: kept, raised in program order
            self.finish(None, error)
        finally:
            self._future.set_result(None)

    def settle(self) -> None:
        if not self.done:
            self._demand()
            self.start()
        self._future.result()

    def _demand(self) -> None:
        """Release this call and whatever it waits for."""
        waiting, seen = [self], set[Call]()
        while waiting:
            call = waiting.pop()
            if not call.done and call not in seen:
                seen.add(call)
                call.release()
                waiting += (*call.calls(), *call.after)

    def settle_here(self) -> None:
        """Make the call in this thread, at once."""
        self._started = True
        super().settle()
        self._future.set_result(None)


# -- values that may hold handles -------------------------------------------------------------------------------------


class Snapshot:
    """A container of the program as it was when a call was made; only what may hold handles is copied into one."""

    __slots__ = ("items", "keys", "kind")

    def __init__(self, kind: type, items: list[Any], keys: list[Any] | None = None) -> None:
        self.kind, self.items, self.keys = kind, items, keys


def handles_in(value: Any) -> Iterator[Handle]:
    """The handles in a snapshot, in order."""
    if type(value) is Handle:
        yield value
    elif type(value) is Snapshot:
        for inner in value.items:
            yield from handles_in(inner)


def finished(value: Any) -> Any:
    """What a snapshot stands for, every handle replaced by its value; the steps are settled without error."""
    if type(value) is Handle:
        return step_of(value).value
    if type(value) is Snapshot:
        items = [finished(inner) for inner in value.items]
        return dict(zip(value.keys, items)) if value.keys is not None else value.kind(items)
    return value
