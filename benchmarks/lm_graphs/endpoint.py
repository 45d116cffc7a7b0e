"""An OpenAI-compatible endpoint that answers after a settable time, for measuring when calls are made.

What holds here: the answer depends on the request alone (a digest of its messages), so that all contenders get the
same; what it counts are requests and tokens (four bytes each).
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Endpoint:
    """`latency` is the time in seconds from request to answer."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.calls = self.tokens = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def take(self) -> tuple[int, int]:
        """Calls and tokens since the last time."""
        with self._lock:
            found, self.calls, self.tokens = (self.calls, self.tokens), 0, 0
        return found

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        messages = json.dumps(body["messages"])
        text = reply(body["messages"][-1]["content"], messages)
        prompt, completion = len(messages) // 4, len(text) // 4 + 1
        with self._lock:
            self.calls += 1
            self.tokens += prompt + completion
        return {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for i in range(body.get("n") or 1)],
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                started = time.perf_counter()
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                content = json.dumps(endpoint.answer(body)).encode()
                time.sleep(max(0.0, endpoint.latency - (time.perf_counter() - started)))
                head = (f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        f"Content-Length: {len(content)}\r\n\r\n").encode()
                self.wfile.write(head + content)    # one packet: no waiting for an acknowledgement

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def process_request(self, request: Any, client_address: Any) -> None:
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().process_request(request, client_address)


def reply(last: str, messages: str) -> str:
    """What the model says: a choice where one is asked for (`Answer A or B`), else words made of a digest."""
    name = hashlib.sha256(messages.encode()).hexdigest()
    choices = re.search(r"Answer ((?:\w+, )*\w+ or \w+)", last)
    if choices:
        options = re.split(r", | or ", choices.group(1))
        return options[int(name, 16) % len(options)]
    return " ".join(name[i:i + 6] for i in range(0, 48, 6)) + "."
