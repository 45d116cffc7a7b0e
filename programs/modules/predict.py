"""Predict: one call of a language model, as a signature describes it. Every other module is built on it.

What holds here: `prepare` is pure and says everything about a call (model, adapter, complete request), so that a
compiler can fold, share and reorder calls before any is made; `execute` makes it. An answer that does not parse is
asked for at most once more (`repair` says how), and the first error stays visible. Nothing else is repeated here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from tracedsl.cache import digest
from tracedsl.diagnostics import TracedslError, nearest
from tracedsl.programs.adapters.base import Adapter, AdapterParseError
from tracedsl.programs.adapters.native import prompt_for, read_answer
from tracedsl.programs.context import (
    ChunkSink,
    chunk_sink,
    current_adapter,
    current_lm,
    current_watcher,
    record_call,
)
from tracedsl.programs.driving import drive
from tracedsl.programs.example import Example, Prediction
from tracedsl.programs.lm.accounts import call_site, open_accounts
from tracedsl.programs.lm.base import LM, REQUEST_SETTINGS, LMRequest, LMResponse, Message, Usage
from tracedsl.programs.lm.rehearsal import current_rehearsal, invented_outputs
from tracedsl.programs.modules.module import Module, Parameter
from tracedsl.programs.signature import make_signature

if TYPE_CHECKING:
    from tracedsl.programs.signature import Signature

_OVERRIDES = ("signature", "demos", "config", "lm", "adapter")
MOST_TOKENS = 16_384


class PredictError(TracedslError, TypeError):
    """A predictor called the wrong way."""


@dataclass(frozen=True)
class PreparedCall:
    """A call that is ready to be made. Two calls with the same `key` get the same prediction if `deterministic`."""

    signature: type[Signature]
    inputs: Mapping[str, Any]
    lm: LM
    adapter: Adapter
    request: LMRequest

    @property
    def deterministic(self) -> bool:
        return self.request.deterministic

    @property
    def key(self) -> str:
        """A digest of all that decides the prediction: model, endpoint, request, adapter, signature."""
        return digest(self.lm.identity, self.request.fingerprint, self.adapter.name, self.signature.fingerprint)


class Predict(Module, Parameter):
    """`Predict("question -> answer: int")(question="...").answer`.

    Args:
        signature: text, class or dictionary form.
        config: settings of the call: temperature, max_tokens, n, seed, stop, rollout_id.

    `demos` are the demonstrations, `lm` a model for this predictor alone (None: the configured one).
    """

    def __init__(self, signature: Any, **config: Any) -> None:
        self.signature: type[Signature] = make_signature(signature)
        self.config: dict[str, Any] = _checked(config)
        self.reset()

    def reset(self) -> None:
        self.demos: list[Example] = []
        self.lm: LM | None = None

    # -- the call ------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **inputs: Any) -> Prediction:
        if args:
            raise self._positional(args)
        if type(self) is Predict and current_watcher() is None:
            return drive(self.aforward(**inputs))
        made: Prediction = super().__call__(**inputs)
        return made

    async def acall(self, *args: Any, **inputs: Any) -> Prediction:
        if args:
            raise self._positional(args)
        made: Prediction = await super().acall(**inputs)
        return made

    def _positional(self, args: tuple[Any, ...]) -> PredictError:
        first = next(iter(self.signature.input_fields))
        return PredictError("P010", f"{type(self).__name__} takes its inputs by name",
                            why=f"{len(args)} came without one", hint=f"write {first}=...")

    async def aforward(self, **inputs: Any) -> Prediction:
        overrides = {name: inputs.pop(name) for name in _OVERRIDES
                     if name in inputs and name not in self.signature.input_fields}
        call = self.prepare(inputs, **overrides)
        prediction = await self.aexecute(call)
        record_call(self, call.inputs, prediction)
        return prediction

    def prepare(self, inputs: Mapping[str, Any], *, signature: Any = None,
                demos: Sequence[Mapping[str, Any]] | None = None, config: Mapping[str, Any] | None = None,
                lm: LM | None = None, adapter: Adapter | None = None) -> PreparedCall:
        """All of the call, without making it. Raises `FieldError` if the inputs do not fit."""
        made = self.signature if signature is None else make_signature(signature)
        checked = made.check_inputs(inputs)
        lm = lm or self.lm or current_lm()
        adapter = adapter or current_adapter(lm)
        messages, settings = prompt_for(adapter, made, _mappings(self.demos if demos is None else demos), checked, lm)
        settings |= {**self.config, **(config or {})}
        return PreparedCall(made, checked, lm, adapter, lm.request(messages, **settings))

    def execute(self, call: PreparedCall) -> Prediction:
        """As `aexecute`, on the calling thread."""
        return drive(self.aexecute(call))

    async def aexecute(self, call: PreparedCall) -> Prediction:
        """Make the call. An answer that cannot be read is asked for once more."""
        response = await self._ask(call)
        if not response.cached and current_rehearsal() is not None:
            return Prediction.from_completions([invented_outputs(call.signature, call.request)] * call.request.n)
        try:
            return await _read(call, response)
        except AdapterParseError as first:
            if not first.worth_asking_again:
                raise
            again = repair(call.request, response, first)
            second_response = await self._ask(replace(call, request=again))
            try:
                return await _read(call, second_response, spent=response.usage)
            except AdapterParseError as second:
                raise second from first

    async def _ask(self, call: PreparedCall) -> LMResponse:
        """The response, booked under the name of this predictor."""
        if (watcher := current_watcher()) is not None:
            watcher("lm_start", call.lm, {"request": call.request})
            response = await self._booked(call)
            watcher("lm_end", call.lm, response)
            return response
        return await self._booked(call)

    async def _booked(self, call: PreparedCall) -> LMResponse:
        sink = chunk_sink()
        if not open_accounts():
            return await (call.lm.acomplete(call.request) if sink is None else self._listened(call, sink))
        with call_site(call.signature.signature):
            return await (call.lm.acomplete(call.request) if sink is None else self._listened(call, sink))

    async def _listened(self, call: PreparedCall, sink: ChunkSink) -> LMResponse:
        """The response; whoever listens to the pieces of answers gets them as they come."""
        response: LMResponse | None = None
        async with aclosing(call.lm.astream(call.request)) as chunks:
            async for chunk in chunks:
                await sink(self, call, chunk)
                response = chunk.response
        assert response is not None     # a stream that breaks off raises
        return response

    def get_config(self) -> dict[str, Any]:
        return dict(self.config)

    def update_config(self, **config: Any) -> None:
        self.config = {**self.config, **_checked(config)}

    def export_messages(self, **inputs: Any) -> list[dict[str, Any]]:
        """As for any module, without asking the model."""
        from tracedsl.programs.exporting import export_prompt

        return [export_prompt("self", self, inputs or None)]

    # -- saved form ----------------------------------------------------------------------------------------------

    def dump_state(self) -> dict[str, Any]:
        return {"signature": self.signature.dump_state(), "demos": [demo.dump() for demo in self.demos],
                "lm": None if self.lm is None else dict(self.lm.dump_state())}

    def load_state(self, state: Mapping[str, Any]) -> Self:
        """Take over signature and demonstrations. The model is not taken over: which one is used, and with which
        credentials, is for the running program to say."""
        self.signature, self.demos = self._from_state(state)
        return self

    def check_state(self, state: Mapping[str, Any]) -> None:
        self._from_state(state)

    def _from_state(self, state: Mapping[str, Any]) -> tuple[type[Signature], list[Example]]:
        return self.signature.load_state(state["signature"]), [Example.load(demo) for demo in state["demos"]]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.signature.signature!r})"


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    for name in config:
        if name not in REQUEST_SETTINGS:
            hint = "set it on the predictor: predictor.lm = ..." if name == "lm" else nearest(name, REQUEST_SETTINGS)
            raise PredictError("P010", f"a call has no setting {name!r}", hint=hint)
    return dict(config)


def repair(request: LMRequest, response: LMResponse, error: AdapterParseError) -> LMRequest:
    """The second and last request for an answer that could not be read.

    An answer that was cut off is asked for again with twice the room; any other is shown to the model with the reason.
    """
    if response.finish_reason == "length":
        room = 2 * (request.max_tokens or max(256, response.usage.completion_tokens))
        return request.with_(max_tokens=min(room, max(MOST_TOKENS, request.max_tokens or 0)))
    remark = f"That could not be read: {error.reason}. Answer again, in exactly the form that was asked for."
    turns = (Message("assistant", error.text or "(nothing)"), Message("user", remark))
    return request.with_(messages=(*request.messages, *turns))


async def _read(call: PreparedCall, response: LMResponse, spent: Usage | None = None) -> Prediction:
    """The answers as a prediction. Of several answers, those that can be read; if none can, the first error. `spent`
    was used before, for an answer that could not be read."""
    rows, first = [], None
    for i in range(len(response.texts)):
        try:
            rows.append(await read_answer(call.adapter, call.signature, call.lm, response, i))
        except AdapterParseError as error:
            first = first or error
    if not rows:
        raise first or AdapterParseError.of(call.adapter.name, call.signature, "", None, "there is no answer at all")
    return Prediction.from_completions(rows, usage=response.usage if spent is None else response.usage + spent)


def _mappings(demos: Sequence[Any]) -> list[Mapping[str, Any]]:
    return [dict(demo.items()) for demo in demos]
