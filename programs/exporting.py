"""A program's prompts as plain JSON data, to be used without this package.

What holds here: with inputs, what is exported is what would be sent, message by message; sent elsewhere, it gets the
same answer. Without inputs it is a template in which `{{name}}` stands for the input `name`. No credential is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tracedsl.programs.adapters.native import prompt_for
from tracedsl.programs.context import current_adapter, current_lm, trace_calls
from tracedsl.programs.lm.wire import chat_message

if TYPE_CHECKING:
    from tracedsl.programs.lm.base import LMRequest
    from tracedsl.programs.modules.module import Module
    from tracedsl.programs.modules.predict import Predict

FORMAT, VERSION = "tracedsl-messages", 1


def export_prompt(name: str, predictor: Predict, inputs: Mapping[str, Any] | None) -> dict[str, Any]:
    """One predictor's prompt: its messages and settings, and how to read the answer (the adapter's name and the
    outputs)."""
    lm = predictor.lm or current_lm()
    adapter = current_adapter(lm)
    if inputs is not None:
        request = predictor.prepare(inputs).request
    else:
        holes = {n: [] if f.role in ("tool", "history") else f"{{{{{n}}}}}"
                 for n, f in predictor.signature.input_fields.items()}
        demos = [dict(demo.items()) for demo in predictor.demos]
        messages, settings = prompt_for(adapter, predictor.signature, demos, holes, lm)
        request = lm.request(messages, **{**settings, **predictor.get_config()})
    outputs = {n: field.type_name for n, field in predictor.signature.output_fields.items()}
    return {"format": FORMAT, "version": VERSION, "predictor": name, "model": lm.model, "adapter": adapter.name,
            "signature": predictor.signature.signature, "outputs": outputs, **_request(request)}


def export_calls(program: Module, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The prompt of each call that the program makes for these inputs. Runs the program."""
    names = {id(predictor): name for name, predictor in program.named_predictors()}
    with trace_calls() as steps:
        program(**inputs)
    return [export_prompt(names.get(id(step.predictor), ""), step.predictor, step.inputs) for step in steps]


def _request(request: LMRequest) -> dict[str, Any]:
    """Messages and settings; what is not set is left out."""
    data: dict[str, Any] = {"messages": [chat_message(m) for m in request.messages]}
    for name in ("temperature", "max_tokens", "seed", "tool_choice"):
        if getattr(request, name) is not None:
            data[name] = getattr(request, name)
    if request.stop:
        data["stop"] = list(request.stop)
    if request.tools:
        data["tools"] = [{"type": "function", "function": {"name": t.name, "description": t.description,
                                                           "parameters": json.loads(t.parameters)}}
                         for t in request.tools]
    if (form := request.response_format) is not None:
        schema = {"name": "answer", "schema": json.loads(form.text)} if form.kind == "json_schema" else None
        data |= {"grammar": form.text} if schema is None else {
            "response_format": {"type": "json_schema", "json_schema": schema}}
    return data
