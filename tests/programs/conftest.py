"""Fixtures: a cache of one's own, unchanged process settings, and an OpenAI-compatible endpoint that misbehaves on
request."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tracedsl.programs.context import Settings, _process


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    """No settings of one test reach the next."""
    kept = _process.settings
    _process.settings = Settings()
    yield
    _process.settings = kept


Reply = tuple[int, dict[str, str], bytes] | str | Callable[[BaseHTTPRequestHandler], None]


class Endpoint:
    """A local HTTP server. `replies` are served in turn, the last one for ever: (status, headers, body) or the name of
    a misbehaviour. What was asked is in `requests`, with the headers in `headers`."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.delay: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, request: dict[str, Any], headers: dict[str, str]) -> Reply:
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.asked = json.loads(body)
                reply = endpoint.take(self.asked, {k.lower(): v for k, v in self.headers.items()})
                endpoint.delay()
                if isinstance(reply, str):
                    self._misbehave(reply)
                    return
                if callable(reply):
                    with contextlib.suppress(OSError):      # the client has gone
                        reply(self)
                    self.close_connection = True
                    return
                status, headers, content = reply
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _misbehave(self, how: str) -> None:
                if how == "drop":  # close at once, with a reset
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif how == "cut":  # promise more than is sent
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b'{"id": "x", "choices": [')
                self.close_connection = True
                self.connection.close()

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


def streamed(*events: Any, end: bytes = b"data: [DONE]\n\n", pause: float = 0.0) -> Reply:
    """Server-sent events, one after the other; `end` is written as it is."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for event in events:
            text = event if isinstance(event, bytes) else json.dumps(event).encode()
            handler.wfile.write(b"data: " + text + b"\n\n")
            handler.wfile.flush()
            time.sleep(pause)
        handler.wfile.write(end)

    return reply


def dripping(body: bytes, pause: float) -> Reply:
    """A body that comes one byte at a time."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        for byte in body:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(pause)

    return reply


def chat_reply(*texts: str, finish: str = "stop") -> Reply:
    """A well-formed chat completion."""
    choices = [{"index": i, "finish_reason": finish, "message": {"role": "assistant", "content": t}}
               for i, t in enumerate(texts)]
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices,
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}
    return 200, {}, json.dumps(body).encode()


def error_reply(status: int, message: str, **headers: str) -> Reply:
    """An error as OpenAI writes it."""
    return status, headers, json.dumps({"error": {"message": message, "type": "x", "code": None}}).encode()


@pytest.fixture
def endpoint() -> Iterator[Any]:
    made = Endpoint()
    made.reply, made.error = chat_reply, error_reply  # type: ignore[attr-defined]
    made.streamed, made.dripping = streamed, dripping  # type: ignore[attr-defined]
    yield made
    made.close()
