"""A program's prompts as plain JSON data, to be used without this package.

What holds here: with inputs, what is exported is what would be sent, message by message; sent elsewhere, it gets the
same answer. Without inputs it is a template in which `{{name}}` stands for the input `name`. No credential is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tracedsl.programs.adapters.native import prompt_for
from tracedsl.programs.lm.wire import chat_message

if TYPE_CHECKING:
    from tracedsl.programs.adapters.base import Adapter
    from tracedsl.programs.lm.base import LM, LMRequest
    from tracedsl.programs.modules.predict import Predict

FORMAT, VERSION = "tracedsl-messages", 1


def export_prompt(predictor: Predict, inputs: Mapping[str, Any] | None, lm: LM, adapter: Adapter) -> dict[str, Any]:
    """One predictor's prompt: its messages and settings as the chat-completions protocol has them, and how to read the
    answer (the adapter's name and the outputs)."""
    if inputs is not None:
        request = predictor.prepare(inputs, lm=lm, adapter=adapter).request
    else:
        holes = {name: f"{{{{{name}}}}}" for name, field in predictor.signature.input_fields.items()
                 if field.role not in ("tool", "history")}
        holes |= {name: [] for name, field in predictor.signature.input_fields.items() if name not in holes}
        demos = [dict(demo.items()) for demo in predictor.demos]
        messages, settings = prompt_for(adapter, predictor.signature, demos, holes, lm)
        request = lm.request(messages, **{**settings, **predictor.get_config()})
    outputs = {name: field.type_name for name, field in predictor.signature.output_fields.items()}
    return {"format": FORMAT, "version": VERSION, "model": lm.model, "adapter": adapter.name,
            "signature": predictor.signature.signature, "outputs": outputs, **_request(request)}


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
