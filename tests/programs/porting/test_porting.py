"""Programs as DSPy's users write them run with `import tracedsl.programs as dspy`, and give the same where DSPy is
installed beside us. Both ask one local endpoint over HTTP, which answers by the layout that it is asked in.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import tracedsl.programs as ours

_spec = importlib.util.spec_from_file_location("porting_scripts", Path(__file__).parent / "scripts.py")
assert _spec is not None and _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _module
_spec.loader.exec_module(_module)
SCRIPTS: tuple[Callable[..., Any], ...] = _module.SCRIPTS

VALUES = {"sentiment": "positive", "confidence": "0.9", "reasoning": "it is known", "rationale": "they agree",
          "next_thought": "look", "why": "so"}


def value_of(field: str, system: str, text: str) -> str:
    """The value of an output field, from what was asked."""
    if field in VALUES:
        return VALUES[field]
    if field == "next_tool_name":
        return "finish" if "is sunny" in text else "get_weather"
    if field == "next_tool_args":
        return "{}" if "is sunny" in text else '{"city": "Tokyo"}'
    product = re.search(r"What is (\d+) times (\d+)", text)
    if product:
        return str(int(product.group(1)) * int(product.group(2)))
    return "sunny" if "weather" in text else next(c for p, c in (("Rome", "Italy"), ("Paris", "France"), ("", "yes"))
                                                   if p in text)


def answer(messages: list[dict[str, Any]]) -> str:
    """An answer in the layout of the chat adapters: the fields that the system's text names and the question lacks."""
    system, text = messages[0]["content"], messages[-1]["content"]
    text = text.rsplit("Respond with", 1)[0]
    inputs = set(re.findall(r"\[\[ ## (\w+) ## \]\]", text))
    fields = [f for f in dict.fromkeys(re.findall(r"\[\[ ## (\w+) ## \]\]", system)) if f not in inputs | {"completed"}]
    return "\n\n".join(f"[[ ## {f} ## ]]\n{value_of(f, system, text)}" for f in fields) + "\n\n[[ ## completed ## ]]"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text, usage = answer(asked["messages"]), {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        whole = {"id": "c", "created": 1, "model": "m"}
        if asked.get("stream"):
            pieces = [{**whole, "object": "chat.completion.chunk", "choices": [
                {"index": 0, "delta": {"role": "assistant", "content": text[i:i + 7]}, "finish_reason": None}]}
                for i in range(0, len(text), 7)]
            pieces.append({**whole, "object": "chat.completion.chunk", "usage": usage, "choices": [
                {"index": 0, "delta": {}, "finish_reason": "stop"}]})
            body = "".join(f"data: {json.dumps(p)}\n\n" for p in pieces) + "data: [DONE]\n\n"
            self._send(body, "text/event-stream")
            return
        choices = [{"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                   for i in range(asked.get("n") or 1)]
        self._send(json.dumps({**whole, "object": "chat.completion", "choices": choices, "usage": usage}),
                   "application/json")

    def _send(self, body: str, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_it_runs_with_a_changed_import(script: Callable[..., Any], base: str, tmp_path: Path) -> None:
    ours.configure(lm=ours.LM("openai/m", api_base=base, api_key="sk-test"))
    result = script(ours, tmp_path)
    assert result is not None and result == EXPECTED.get(script.__name__, result)


EXPECTED = {
    "signatures": ("positive", 0.9, ["sentence"], ["sentiment", "why"], "Be quick."),
    "chain_of_thought": (42, True, ["reasoning", "answer"]),
    "several_completions": (3, "France", "France"),
    "react": ("sunny", "get_weather", "The weather in Tokyo is sunny.", 8),
    "module_save_load": ("Italy", ["respond.predict"], "a"),
    "evaluate": 100.0, "bootstrap": (2, "42"), "best_of_n_and_refine": ("France", "Italy"),
    "parallel_and_batch": (["14", "21", "28"],) * 2, "knn": ["aaa", "mmm"],
    "contexts_and_async": ("Italy", ["14", "21"]), "streaming": "Italy",
    "embeddings_retrieval": ("zzz", "mmm nnn", [2]),
    "tools": ("search", "Search for something.", "string", "cats x 3", ["cats x 3"]), "usage_and_history": True,
}


@pytest.fixture(scope="module")
def theirs() -> Any:
    return pytest.importorskip("dspy", reason="DSPy is not installed")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_dspy_gives_the_same(script: Callable[..., Any], theirs: Any, base: str, tmp_path: Path) -> None:
    theirs.configure(lm=theirs.LM("openai/m", api_base=base, api_key="sk-test", cache=False))
    assert script(theirs, tmp_path) == EXPECTED[script.__name__]
