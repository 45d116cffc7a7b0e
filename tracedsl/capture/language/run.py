"""The run of a captured program: what each operation of the rewritten source does (see `python_rewrite`).

What holds here: each method does what Python would do, with two additions. Calls of models and of pure functions go out
at once and give a handle; every operation that may run code which this module does not know first waits for all earlier
steps and gives that code finished values. Which operations are harmless is decided by `python_rules` alone.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType
from typing import Any

from tracedsl.capture.language import python_rules as rules
from tracedsl.capture.language.client_calls import ClientCall, method_of
from tracedsl.capture.language.handles import Field, Handle, Item, Lazy, Part, Template, step_of
from tracedsl.capture.language.helpers import DEEPEST, Frame, Helper, helper_of, note_asking, placed
from tracedsl.capture.language.model_calls import ModelCall, PredictorCall, PureCall, is_pure, predictor_of
from tracedsl.capture.language.python_rewrite import bind
from tracedsl.capture.language.recording import Formatted, PyCall
from tracedsl.capture.language.run_core import RunCore
from tracedsl.capture.language.sites import state_digest
from tracedsl.diagnostics import Span
from tracedsl.ir.language import format_part
from tracedsl.programs.context import trace_calls
from tracedsl.programs.example import Example, Prediction
from tracedsl.programs.lm.interception import ClientMethod, current_trace, is_part_of_client
from tracedsl.programs.modules.chain_of_thought import ChainOfThought
from tracedsl.programs.modules.module import Module
from tracedsl.programs.modules.predict import Predict

_RECORDS = (Example, Prediction)
_MODULES = (Predict, ChainOfThought)


class Run(RunCore):
    """The methods that rewritten code calls. Their arguments stand in the order in which Python evaluates them."""

    # -- calls ---------------------------------------------------------------------------------------------------

    def call(self, number: int, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if type(function) is Handle:
            if not kwargs and (made := self._lazily(function, args)) is not None:
                return made
            function = self.look(function, "value")
        if not args and predictor_of(function) is not None:
            return self._call_model(number, function, kwargs)
        if not args and (method := method_of(function, kwargs)) is not None:
            return self._call_client(number, method, kwargs)
        if type(function) is type and function in _MODULES:
            return function(*map(self.finish, args), **{k: self.finish(v) for k, v in kwargs.items()})
        if issubclass(type(function), Module):      # isinstance could run code of the object
            function = self._learned(number, function)
        if is_pure(function):
            return self._call_pure(number, function, args, kwargs)
        if (helper := helper_of(function)) is not None and self._helpers_deep < DEEPEST:
            return self._call_helper(helper, args, kwargs)
        return self._call_python(number, function, args, kwargs)

    def _call_model(self, number: int, module: Module, inputs: Mapping[str, Any]) -> Any:
        site, mine = self.sites.find(self.source_sites[number], module)
        predictor = predictor_of(mine)
        assert predictor is not None
        call = PredictorCall(self, self.span(number), self._snapshot_inputs(inputs), site=site,
                             kind=type(module).__name__, predictor=predictor)
        return self._add_model_call(number, call, inputs)

    def _call_client(self, number: int, method: ClientMethod, settings: Mapping[str, Any]) -> Any:
        site = self.sites.name(self.source_sites[number], method.name)
        call = ClientCall(self, self.span(number), self._snapshot_inputs(settings), site=site, method=method)
        return self._add_model_call(number, call, settings)

    def _add_model_call(self, number: int, call: ModelCall, inputs: Mapping[str, Any]) -> Any:
        self.recording.inputs[call] = self.refs(self.source_sites[number], inputs)
        self.guide.event(call.site)
        self.guide.direct(call, self.model_calls)
        self.model_calls.append(call)
        return self.add(call)

    def _call_helper(self, helper: Helper, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a helper's rewritten code within this run."""
        sites = helper.rewritten.sites
        frame = Frame(self, placed(sites, self.source_sites), helper.function.__code__.co_filename)
        self.files.add(helper.function.__code__.co_filename)
        self.note_constants(helper.function, helper.rewritten.code)
        code = bind(helper.rewritten.code, helper.function, frame)
        self._helpers_deep += 1
        try:
            return code(helper.first, *args, **kwargs) if helper.bound else code(*args, **kwargs)
        finally:
            self._helpers_deep -= 1

    def _lazily(self, function: Handle, args: tuple[Any, ...]) -> Any:
        """A call of a text's method on a value that is on its way; None if it is not sure to be one."""
        step = step_of(function)
        if type(step) is not Field or step.name not in rules.TEXT_METHODS or not all(map(self._still, args)):
            return None
        sure = not args and step.base.shape is str and step.name in rules.TEXT_TO_TEXT
        return self._add_lazy(step.name, functools.partial(rules.call_method, step.name), (Handle(step.base), *args),
                              text=sure)

    def _still(self, value: Any) -> bool:
        return type(value) is Handle or type(value) in rules.SCALARS

    def _add_lazy(self, callee: str, function: Callable[..., Any], args: tuple[Any, ...], *, text: bool) -> Any:
        refs = self.refs(None, {str(i): value for i, value in enumerate(args)})
        step = Lazy(self, self._here(), callee, function, self.snapshot(args), text=text)
        self.recording.inputs[step] = refs
        return self.add(step)

    def _learned(self, number: int, module: Module) -> Module:
        """The module to call in place of one with code of its own: the site's copy, where something is or could be
        learned for it; otherwise the module itself, with whatever state it keeps."""
        place = self.source_sites[number]
        if getattr(module, "overlaps_its_calls", False) or (self.overlap and not self.sites.knows(place)):
            return module
        mine = self.sites.find(place, module)[1]
        return mine if not self.overlap or state_digest(mine) != state_digest(module) else module

    def _snapshot_inputs(self, inputs: Mapping[str, Any]) -> Any:
        self.own(inputs)
        return self.snapshot(inputs)

    def _call_pure(self, number: int, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A pure function runs beside the program, unless it could see a container that changes later."""
        if any(self._changeable(value) for value in (*args, *kwargs.values())):
            refs = [self.ref(value) for value in (*args, *kwargs.values())]
            args = tuple(self.finish(value, noted=True) for value in args)
            kwargs = {name: self.finish(value, noted=True) for name, value in kwargs.items()}
            for value in (*args, *kwargs.values()):
                self.disown(value)
            return self._note_call(number, refs, function(*args, **kwargs))
        call = PureCall(self, self.span(number), self.snapshot((args, self.own(kwargs))), function=function,
                        callee=self.source_sites[number].callee)
        given = (*args, *kwargs.values())
        self.recording.inputs[call] = self.refs(None, {str(i): value for i, value in enumerate(given)})
        return self.add(call)

    def _changeable(self, value: Any) -> bool:
        return self.owns(value) or (type(value) is tuple and any(map(self._changeable, value)))

    def _call_python(self, number: int, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if type(function) is BuiltinFunctionType and not kwargs:
            owner = function.__self__
            if self.owns(owner) and function.__name__ in rules.MOVES[type(owner)]:
                return self._move(owner, function, args)
        refs = [self.ref(value) for value in (*args, *kwargs.values())]
        if not kwargs and (harmless := self._harmless(function, args)) is not None:
            result = function(*harmless)
            return self.own(result) if function in (list, dict, set, sorted) else result
        self.barrier()
        if type(function) is BuiltinFunctionType:
            self.export(function.__self__)
        args = tuple(self.export(value, noted=True) for value in args)
        kwargs = {name: self.export(value, noted=True) for name, value in kwargs.items()}
        asked = self._asked_elsewhere()
        with trace_calls() as steps:
            result = function(*args, **kwargs)
        if (steps or self._asked_elsewhere() > asked) and not issubclass(type(function), Module):
            self.eager[self.source_sites[number].callee] = self.span(number)
            note_asking(function)
        return self._note_call(number, refs, result)

    def _asked_elsewhere(self) -> int:
        """How many calls of clients were traced so far."""
        found = current_trace()
        return len(found.calls) if found is not None else 0

    def _note_call(self, number: int, refs: list[Any], result: Any) -> Any:
        site = self.source_sites[number]
        event = PyCall(site.callee, tuple(refs), type(result).__name__, site.span)
        self.recording.add(event)
        self.remember(result, event)
        return result

    def call_in_loop(self, number: int, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call whose result is only iterated over: what moves items on may move handles."""
        if not kwargs and self._moves_on(function, args):
            return _Moving(function(*args))
        return self.call(number, function, *args, **kwargs)

    def _moves_on(self, function: Any, args: tuple[Any, ...]) -> bool:
        if type(function) is BuiltinFunctionType:
            owner = function.__self__
            return self.owns(owner) and type(owner) is dict and function.__name__ in ("items", "keys", "values")
        return (type(function) is type and function in rules.ITERATORS
                and all(type(a) in (list, tuple, str, range, int, dict) for a in args))

    def _move(self, owner: Any, function: Any, args: tuple[Any, ...]) -> Any:
        """A method of an owned container that moves values without looking at them."""
        name = function.__name__
        if type(owner) is not list or name == "pop":
            args = (*(self.key(value) for value in args[:1]), *args[1:])
        elif name == "extend":
            args = tuple(map(self.unpack, args))
        return self.own(function(*args)) if name == "copy" else function(*args)

    def _harmless(self, function: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Finished arguments, if this call runs no unknown code and changes nothing; else None."""
        if function is isinstance or function is issubclass:
            return (self.finish(args[0]), args[1]) if len(args) == 2 and rules.check_is_harmless(args[1]) else None
        builtin = type(function) in (type, BuiltinFunctionType)
        if builtin and function in rules.SHAPE_ONLY:
            done = tuple(map(self.finish, args))
            return done if all(type(a) in rules.SCALARS | rules.CONTAINERS | {range} for a in done) else None
        if builtin and function in rules.DEEP:
            done = tuple(map(self.finish, args))
            return done if all(map(rules.is_plain, done)) else None
        if self._reads(function):
            done = tuple(map(self.finish, args))
            return done if all(map(rules.is_plain, (function.__self__, *done))) else None
        return None

    def _reads(self, function: Any) -> bool:
        """Whether this is a method of a text, a number or a container that changes nothing."""
        if type(function) is not BuiltinFunctionType:
            return False
        owner = function.__self__
        if type(owner) in rules.SCALARS and owner is not None:
            return True
        name = function.__name__
        if type(owner) is dict and name in ("keys", "values", "items") and self.owns(owner):
            return False    # a view would show later changes
        return not isinstance(owner, type) and name in rules.READS.get(type(owner), ()) and \
            self.finish(owner) is owner

    # -- attributes and items ------------------------------------------------------------------------------------

    def attr(self, value: Any, name: str, /) -> Any:
        if type(value) is Handle:
            if name.startswith("__"):
                return getattr(self.look(value, "value"), name)
            step = step_of(value)
            return self.add(Field(self, step.span, step, name))
        if type(value) in _RECORDS:
            return getattr(value, name)
        if not rules.attribute_is_harmless(value, name) and not is_part_of_client(value, name):
            self.barrier()
        return getattr(value, name)

    def item(self, value: Any, key: Any, /) -> Any:
        key = self.look(key, "value") if type(key) is Handle else key
        harmless = type(key) in rules.SCALARS or type(key) is slice
        if type(value) is Handle and harmless:
            step = step_of(value)
            return self.add(Item(self, step.span, step, key))
        if type(value) in _RECORDS and type(key) is str:
            return value[key]
        if type(value) in (*rules.CONTAINERS, str, bytes, range) and harmless:
            found = value[key]
            return self.own(found) if type(key) is slice and self.owns(value) else found
        key = self.export(key)
        return self.export(value)[key]

    def make_slice(self, *ends: Any) -> slice:
        return slice(*(self.look(end, "value") if type(end) is Handle else end for end in ends))

    def set_attr(self, value: Any, owner: Any, name: str) -> None:
        owner, value = self._seen_by_others("set " + name, owner, value)
        setattr(owner, name, value)

    def set_item(self, value: Any, owner: Any, key: Any) -> None:
        key = self.finish(key)
        if self.owns(owner) and type(owner) in (list, dict) and type(key) in rules.SCALARS:
            owner[key] = value
            return
        key = self.export(key)
        owner, value = self._seen_by_others("set item", owner, value)
        owner[key] = value

    def del_attr(self, owner: Any, name: str) -> None:
        delattr(self._seen_by_others("del " + name, owner)[0], name)

    def del_item(self, owner: Any, key: Any) -> None:
        key = self.finish(key)
        if not (self.owns(owner) and (type(key) in rules.SCALARS or type(key) is slice)):
            key, owner = self.export(key), self._seen_by_others("del item", owner)[0]
        del owner[key]

    def _seen_by_others(self, what: str, *values: Any) -> list[Any]:
        refs = tuple(self.ref(value) for value in values)
        done = [self.export(value, noted=True) for value in values]
        self.recording.add(PyCall(what, refs, "NoneType", None))
        return done

    # -- operators -----------------------------------------------------------------------------------------------

    def binary(self, name: str, left: Any, right: Any) -> Any:
        if name == "Add" and Handle in (kinds := (type(left), type(right))) and (str in kinds or kinds[0] is kinds[1]):
            return self._add_lazy("+", operator.add, (left, right), text=all(map(_is_text, (left, right))))
        left, right = self._value(left), self._value(right)
        if name == "Add" and type(left) in (list, tuple) and type(right) is type(left):
            return self.own(left + right)
        return rules.BINARY[name](*self._operands(left, right))

    def unary(self, name: str, value: Any) -> Any:
        value = self._value(value)
        if type(value) not in rules.SCALARS:
            value = self.export(value)
        return rules.UNARY[name](value)

    def inplace(self, name: str, old: Any, value: Any) -> Any:
        old = self._value(old)
        if name == "Add" and self.owns(old) and type(old) is list:
            old += self.unpack(value)
            return old
        value = self._value(value)
        if type(old) is tuple or type(old) in rules.SCALARS:
            return self.binary(name, old, value)
        return rules.INPLACE[name](*self._seen_by_others(name, old, value))

    def inplace_attr(self, name: str, owner: Any, attribute: str, value: Callable[[], Any]) -> None:
        owner = self.export(owner)
        old = getattr(owner, attribute)
        self.set_attr(self.inplace(name, old, value()), owner, attribute)

    def inplace_item(self, name: str, owner: Any, key: Any, value: Callable[[], Any]) -> None:
        key = self.finish(key)
        old = self.item(owner, key)
        self.set_item(self.inplace(name, old, value()), owner, key)

    def _operands(self, left: Any, right: Any) -> tuple[Any, Any]:
        """Both finished; after a barrier if the operator may run unknown code."""
        left, right = self.finish(left), self.finish(right)
        if rules.is_plain(left) and rules.is_plain(right):
            return left, right
        return self.export(left), self.export(right)

    def compare(self, name: str, left: Any, right: Any) -> Any:
        at = left if type(left) is Handle else right
        first, second = (self.force(v) if type(v) is Handle else self.finish(v) for v in (left, right))
        if name not in ("Is", "IsNot") and not (rules.is_plain(first) and rules.is_plain(second)):
            first, second = self.export(first), self.export(second)
        result = rules.COMPARE[name](first, second)
        if type(at) is Handle:
            self.note_look(at, name, result if type(result) is bool else None)
        return result

    def chain(self, first: Any, *rest: Any) -> Any:
        """`a < b < c`: the operands after a false comparison are not evaluated."""
        for i in range(0, len(rest), 2):
            second = rest[i + 1]()
            result = self.compare(rest[i], first, second)
            if i + 2 == len(rest) or not self.truth(result):
                break
            first = second
        return result

    def truth(self, value: Any) -> bool:
        if type(value) is Handle:
            result = bool(self.force(value))
            self.note_look(value, "truth", result)
            return result
        if not rules.truth_is_harmless(value):
            self.barrier()
        return bool(value)

    def test(self, value: Any) -> Any:
        """An operand of `and` and `or`, whose truth Python asks for next."""
        if type(value) is Handle:
            self.truth(value)
            return self.force(value)
        if not rules.truth_is_harmless(value):
            self.barrier()
        return value

    def _value(self, value: Any) -> Any:
        return self.look(value, "value") if type(value) is Handle else value

    # -- iteration and containers --------------------------------------------------------------------------------

    def iterate(self, value: Any, several: bool = False) -> Iterator[Any]:
        """What a loop runs over. With `several`, Python unpacks each item natively."""
        items = self._iterator(value)
        return map(self.unpack, items) if several else items

    def _iterator(self, value: Any) -> Iterator[Any]:
        if type(value) is _Moving:
            return value.iterator
        if type(value) is Handle:
            value = self._look_at_items(value)
        if type(value) in (*rules.CONTAINERS, str, bytes, range):
            return iter(value)
        return self._step_by_step(self.export(value))

    def _step_by_step(self, value: Any) -> Iterator[Any]:
        """Items of an unknown iterable: its code runs for each of them."""
        self.barrier()
        iterator = iter(value)
        while True:
            self.barrier()
            try:
                item = next(iterator)
            except StopIteration:
                return
            yield item

    def _look_at_items(self, handle: Handle) -> Any:
        value = self.force(handle)
        self.note_look(handle, "iterate", len(value) if type(value) in rules.CONTAINERS else None)
        return value

    def unpack(self, value: Any) -> Any:
        """Something that Python iterates over natively."""
        if type(value) is Handle:
            value = self._look_at_items(value)
        if type(value) in (*rules.CONTAINERS, str, bytes, range):
            return value
        return self.export(value)

    def mapping(self, value: Any) -> Any:
        value = self._value(value)
        return value if type(value) is dict else self.export(value)

    def key(self, value: Any) -> Any:
        """A key of a dict or an element of a set: Python hashes and compares it."""
        value = self.finish(value)
        return value if rules.is_plain(value) else self.export(value)

    def beside(self, key: Any, value: Any) -> Any:
        """The value of a dict's entry. Beside a key of an unknown type nothing may be put in later."""
        return value if rules.is_plain(key) else self.finish(value)

    def after(self, nothing: None, value: Any) -> Any:
        """`value`, which Python evaluated after what stands before it."""
        return value

    # -- text ----------------------------------------------------------------------------------------------------

    def part(self, value: Any, conversion: str, spec: Any) -> Part:
        """A replacement field of an f-string."""
        spec = self._value(spec)
        if type(value) is Handle:
            return Part(handle=value, conversion=conversion, spec=spec, hole=True)
        done = self.finish(value)
        if not rules.is_plain(done):
            done = self.export(done)
        return Part(format_part(done, conversion, spec), None, conversion, spec, True, value)

    def template(self, line: int, *parts: Any, file: str = "") -> Any:
        pieces = tuple(Part(part) if type(part) is str else part for part in parts)
        span = Span(file or self.source_sites[0].span.file, line) if file or self.source_sites else None
        texts, refs = self.template_refs(pieces)
        if any(piece.handle is not None for piece in pieces):
            step = Template(self, span, pieces)
            self.recording.parts[step] = (texts, refs)
            return self.add(step)
        text = "".join(piece.text for piece in pieces)
        event = Formatted(texts, refs, span)
        self.recording.add(event)
        self.remember(text, event)
        return text


def _is_text(value: Any) -> bool:
    """Whether a value, or one on its way, is sure to be a text."""
    return type(value) is str or (type(value) is Handle and step_of(value).shape is str)


class _Moving:
    """An iterator that passes handles on, used in a loop only."""

    def __init__(self, iterator: Any) -> None:
        self.iterator: Iterator[Any] = iter(iterator)
