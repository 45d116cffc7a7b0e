"""Programs that hand out what their models write while they write it, field by field.

What holds here: the texts that a listener gets for a field, put together, are the field's value as the prediction has
it (for a field that is no text: a text that reads as this value), whatever the adapter and however the model's answer
is cut into pieces. If an answer has to be asked for again, or turns out otherwise than it looked, what came before no
longer counts and the field is given out anew, with a higher `attempt`. A listener holds no state: it serves any number
of runs, also at the same time. Names and arguments follow DSPy 3.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from tracedsl.diagnostics import nearest
from tracedsl.programs.context import listen_to_chunks, trace_calls, watch_calls
from tracedsl.programs.example import Prediction
from tracedsl.programs.field_streams import AnswerStream, FieldChunk
from tracedsl.programs.lm.base import LMChunk
from tracedsl.programs.types import FieldError


@dataclass(frozen=True)
class StreamResponse:
    """A piece of a field. `attempt` counts from 1; a higher one starts the field anew. The last chunk may be empty."""

    predict_name: str
    signature_field_name: str
    chunk: str
    is_last_chunk: bool
    attempt: int = 1


@dataclass(frozen=True)
class StatusMessage:
    """What the program is doing, in words."""

    message: str


class StatusMessageProvider:
    """Which status messages a stream has: each method gives a text or None. Derive and override."""

    def tool_start_status_message(self, instance: Any, inputs: Mapping[str, Any]) -> str | None:
        return f"Calling tool {instance.name}..."

    def tool_end_status_message(self, outputs: Any) -> str | None:
        return "Tool calling finished! Querying the LLM with tool calling results..."

    def module_start_status_message(self, instance: Any, inputs: Mapping[str, Any]) -> str | None:
        return None

    def module_end_status_message(self, outputs: Any) -> str | None:
        return None

    def lm_start_status_message(self, instance: Any, inputs: Mapping[str, Any]) -> str | None:
        return None

    def lm_end_status_message(self, outputs: Any) -> str | None:
        return None


@dataclass(frozen=True)
class StreamListener:
    """Listens to one output field.

    Args:
        signature_field_name: the field.
        predict: the predictor that writes it; needed only if several do.
        predict_name: what the chunks call the predictor; by default its name in the program.
        allow_reuse: whether later calls of the predictor within a run are listened to as well.
    """

    signature_field_name: str
    predict: Any = None
    predict_name: str | None = None
    allow_reuse: bool = False


def streamify(program: Callable[..., Any], status_message_provider: StatusMessageProvider | None = None,
              stream_listeners: Sequence[StreamListener] | None = None,
              include_final_prediction_in_output_stream: bool = True, is_async_program: bool = False,
              async_streaming: bool = True) -> Callable[..., Any]:
    """A function with the program's arguments that gives a stream: `StreamResponse`s of the listeners,
    `StatusMessage`s, at the end the prediction. Without listeners, the pieces of all answers as they come (`LMChunk`).

    Args:
        program: a module, a function, or a coroutine function.
        include_final_prediction_in_output_stream: False leaves the prediction out if a listener had something to say.
        is_async_program: not needed; a module's `acall` is awaited if it has one.
        async_streaming: True: the stream is an asynchronous generator; False: a plain one.

    Raises `FieldError` P003 if a listener's field is in no predictor, or in several. What the program raises, the
    stream raises. Closing the stream ends the program at its next piece.
    """
    heard = _placed(program, stream_listeners or ())
    provider = status_message_provider or StatusMessageProvider()

    def start(emit: Callable[[Any], None]) -> _Run:
        return _Run(heard, provider, emit, include_final_prediction_in_output_stream or not heard)

    async def async_streamer(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        async for item in _astream(program, start, args, kwargs):
            yield item

    def sync_streamer(*args: Any, **kwargs: Any) -> Iterator[Any]:
        return _stream(program, start, args, kwargs)

    return async_streamer if async_streaming else sync_streamer


def _placed(program: Any, listeners: Sequence[StreamListener]) -> dict[int, list[StreamListener]]:
    """The listeners by the identity of their predictor, with names and predictors filled in."""
    named = program.named_predictors() if hasattr(program, "named_predictors") else []
    placed: dict[int, list[StreamListener]] = {}
    for listener in listeners:
        field = listener.signature_field_name
        fitting = [(n, p) for n, p in named if (listener.predict is None and field in p.signature.output_fields)
                   or p is listener.predict]
        if listener.predict is not None and not fitting:  # of a program that is no module
            fitting = [(listener.predict_name or "predict", listener.predict)]
        if len(fitting) != 1 or field not in fitting[0][1].signature.output_fields:
            if len(fitting) > 1:
                raise FieldError("P003", f"{len(fitting)} predictors write the field {field!r}",
                                 hint="say which one: StreamListener(..., predict=program.first)")
            names = {f for _, p in named for f in p.signature.output_fields}
            raise FieldError("P003", f"no predictor writes the field {field!r}", hint=nearest(field, names))
        name, predictor = fitting[0]
        made = StreamListener(field, predictor, listener.predict_name or name, listener.allow_reuse)
        placed.setdefault(id(predictor), []).append(made)
    return placed


class _Closed(BaseException):
    """Nobody takes the stream any more. No `Exception`: what goes on after failures shall not go on after this."""


class _Run:
    """One run of a program: turns chunks and events into what the stream hands out. May be told things from several
    threads at once; each answer has a state of its own."""

    def __init__(self, heard: Mapping[int, list[StreamListener]], provider: StatusMessageProvider,
                 emit: Callable[[Any], None], final: bool) -> None:
        self.heard, self.provider, self.emit, self.final = heard, provider, emit, final
        self.closed = False
        self._answers: dict[int, tuple[Any, AnswerStream]] = {}
        self._served: set[int] = set()
        self._lock = threading.Lock()
        self._said = False

    async def sink(self, predictor: Any, call: Any, chunk: LMChunk) -> None:
        """More of an answer."""
        if self.closed:
            raise _Closed
        if not self.heard:
            if chunk.response is None:
                self.emit(chunk)
            return
        if chunk.index == 0 and (answer := self._answer(predictor, call)) is not None:
            for piece in answer.feed(call, chunk):
                self._hand_out(predictor, piece)

    def _answer(self, predictor: Any, call: Any) -> AnswerStream | None:
        """The state of the answer to this call; a repeated request is the same call. None if nobody listens."""
        key = id(call.inputs)  # held in the state, so that it stays this call's
        with self._lock:
            if key in self._answers:
                return self._answers[key][1]
            first = id(predictor) not in self._served
            fields = [x.signature_field_name for x in self.heard.get(id(predictor), ()) if first or x.allow_reuse]
            if not fields:
                return None
            self._served.add(id(predictor))
            answer = AnswerStream(call, fields)
            self._answers[key] = (call.inputs, answer)
            return answer

    def _hand_out(self, predictor: Any, piece: FieldChunk) -> None:
        for listener in self.heard[id(predictor)]:
            if listener.signature_field_name == piece.field:
                self._said = True
                name = str(listener.predict_name)
                self.emit(StreamResponse(name, piece.field, piece.text, piece.last, piece.attempt))

    def watch(self, event: str, instance: Any, data: Any) -> None:
        """A module, a model or a tool began or ended."""
        method = getattr(self.provider, f"{event}_status_message")
        message = method(data) if event.endswith("_end") else method(instance, data)
        if message:
            self.emit(StatusMessage(message))

    def finish(self, result: Any, steps: Sequence[Any]) -> None:
        """The program is done: what is still open is said now, then the prediction."""
        for step in steps:
            state = self._answers.get(id(step.inputs))
            if state is not None and state[0] is step.inputs:
                for piece in state[1].finish(step.prediction):
                    self._hand_out(step.predictor, piece)
        if self.final or not self._said:
            self.emit(result)


def _entered(run: _Run, stack: ExitStack) -> list[Any]:
    """Listen within the stack; returns the trace of calls."""
    stack.enter_context(listen_to_chunks(run.sink))
    stack.enter_context(watch_calls(run.watch))
    steps: list[Any] = stack.enter_context(trace_calls())
    return steps


async def _astream(program: Callable[..., Any], start: Callable[[Callable[[Any], None]], _Run], args: Any,
                   kwargs: Any) -> AsyncIterator[Any]:
    """The stream under asyncio: the program is a task (or a thread that the task waits for)."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Any]()
    end = object()

    def emit(item: Any) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, item)

    run = start(emit)

    async def work() -> None:
        try:
            with ExitStack() as stack:
                steps = _entered(run, stack)
                result = await _result(program, args, kwargs)
            run.finish(result, steps)
        finally:
            emit(end)

    task = asyncio.create_task(work())
    try:
        while (item := await queue.get()) is not end:
            yield item
        await task
    finally:
        run.closed = True
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _result(program: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    acall = getattr(program, "acall", None)
    if acall is not None:
        return await acall(*args, **kwargs)
    if inspect.iscoroutinefunction(program):
        return await program(*args, **kwargs)
    return await asyncio.to_thread(program, *args, **kwargs)


def _stream(program: Callable[..., Any], start: Callable[[Callable[[Any], None]], _Run], args: Any,
            kwargs: Any) -> Iterator[Any]:
    """The stream without asyncio: the program runs on a thread of its own."""
    queue: SimpleQueue[Any] = SimpleQueue()
    end, error = object(), list[BaseException]()
    run = start(queue.put)

    def work() -> None:
        try:
            with ExitStack() as stack:
                steps = _entered(run, stack)
                result = _result_now(program, args, kwargs)
            run.finish(result, steps)
        except BaseException as raised:  # noqa: BLE001 - raised again where the stream is read
            error.append(raised)
        finally:
            queue.put(end)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
    try:
        while (item := queue.get()) is not end:
            yield item
    finally:
        run.closed = True
    if error:
        raise error[0]


def _result_now(program: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    result = program(*args, **kwargs)
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def apply_sync_streaming(async_generator: AsyncGenerator[Any, None]) -> Iterator[Any]:
    """A plain generator over an asynchronous one, which runs in a loop of its own on another thread."""
    queue: SimpleQueue[Any] = SimpleQueue()
    end, error = object(), list[BaseException]()

    async def read() -> None:
        async for item in async_generator:
            queue.put(item)

    def work() -> None:
        try:
            asyncio.run(read())
        except BaseException as raised:  # noqa: BLE001 - raised again where the stream is read
            error.append(raised)
        finally:
            queue.put(end)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
    while (item := queue.get()) is not end:
        yield item
    if error:
        raise error[0]


async def streaming_response(streamer: AsyncIterator[Any]) -> AsyncIterator[str]:
    """A stream as server-sent events: `data: {"prediction": ...}`, `data: {"chunk": ...}`, `data: {"status": ...}`, and
    `data: [DONE]` at the end."""
    async for value in streamer:
        yield f"data: {json.dumps(_event(value), ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"


def _event(value: Any) -> dict[str, Any]:
    if isinstance(value, Prediction):
        return {"prediction": value.toDict()}
    if isinstance(value, StatusMessage):
        return {"status": value.message}
    if isinstance(value, StreamResponse):
        return {"chunk": vars(value)}
    if isinstance(value, LMChunk):
        return {"chunk": {"text": value.text, "reasoning": value.reasoning, "index": value.index}}
    return {"value": str(value)}
