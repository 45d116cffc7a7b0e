"""Programs of the gate that call the `openai` client, as people write them: helpers, classes, conversations, agents.

The client's answers come from the oracle of the run (`ORACLE`), through the client package's own HTTP package.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import openai

Log = list[Any]
PROGRAMS: list[Callable[[str, Log], Any]] = []
ORACLE: Any = None


def _answer(request: Any) -> Any:
    status, text = ORACLE(json.loads(request.content))
    if status != 200:
        return _HTTP.Response(status, json={"error": {"message": text}})
    choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]
    return _HTTP.Response(200, json={"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                                     "choices": choices})


_HTTP = sys.modules[next(c for c in openai.DefaultHttpxClient.__mro__ if c.__name__ == "Client"
                         ).__module__.partition(".")[0]]
client = openai.OpenAI(api_key="k", base_url="http://oracle.test/v1", max_retries=0,
                       http_client=_HTTP.Client(transport=_HTTP.MockTransport(_answer)))


def entry(function: Callable[[str, Log], Any]) -> Callable[[str, Log], Any]:
    PROGRAMS.append(function)
    return function


def ask(text: str, temperature: float = 0.7, system: str | None = None) -> str:
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    response = client.chat.completions.create(model="m", messages=messages, temperature=temperature)  # type: ignore
    return response.choices[0].message.content or ""


def number(text: str) -> int:
    return sum(map(ord, ask(text)))


@entry
def helpers(q: str, log: Log) -> Any:
    parts = [ask(f"{q} {i}") for i in range(4)]
    log.append(len(parts))
    return ask("join " + " ".join(parts)), parts


@entry
def effects_in_helpers(q: str, log: Log) -> Any:
    def noted(text: str) -> str:
        log.append(("ask", text))
        found = ask(text)
        log.append(("got", found))
        return found

    return [noted(q + w) for w in "ab"], noted("end").upper()


@entry
def nested_helpers(q: str, log: Log) -> Any:
    def inner(text: str, depth: int) -> str:
        if depth == 0:
            return ask(text)
        return inner(ask(text) + "?", depth - 1) + ask("side")

    found = inner(q, 2)
    log.append(found)
    return found.split(), number(q) % 7


@entry
def branching_helpers(q: str, log: Log) -> Any:
    def route(text: str) -> str:
        kind = ask(f"kind of {text}").strip().lower()
        if kind < "m":
            return "low " + ask(f"low {text}", system="Be brief.")
        elif "e" in kind:
            log.append(kind)
            return "e"
        return kind

    return [route(f"{q} {i}") for i in range(3)]


@entry
def failing_helpers(q: str, log: Log) -> Any:
    def careful(text: str) -> str:
        try:
            return ask(text)
        except openai.BadRequestError as error:
            log.append(error.status_code)
            return "failed"
        finally:
            log.append("finally")

    first = ask(q + " first")
    found = [careful(f"{q} {i}") for i in range(3)]
    return first, found, careful(first)


@entry
def first_error_wins(q: str, log: Log) -> Any:
    parts = [ask(f"{q} part {i}") for i in range(5)]
    log.append("never, if one failed")
    return parts[0] + parts[-1], 1 // (len(parts[2]) % 2)


class Agent:
    def __init__(self, log: Log) -> None:
        self.log, self.turns, self.memory = log, 0, list[dict[str, Any]]()

    def say(self, text: str) -> str:
        self.memory.append({"role": "user", "content": text})
        response = client.chat.completions.create(model="m", messages=self.memory, temperature=0)   # type: ignore
        self.memory.append({"role": "assistant", "content": response.choices[0].message.content})
        self.turns += 1
        return response.choices[0].message.content or ""

    def run(self, goal: str) -> str:
        found = goal
        while self.turns < 4:
            found = self.say(found)
            if len(found) % 3 == 0:
                break
            self.log.append(("turn", self.turns, found))
        return found


@entry
def agents(q: str, log: Log) -> Any:
    agent = Agent(log)
    other = Agent(log)
    return agent.run(q), other.say("hi"), agent.memory, agent.turns


@entry
def conversation(q: str, log: Log) -> Any:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Talk."}]
    for word in q.split()[:3]:
        messages += [{"role": "user", "content": word}]
        reply = client.chat.completions.create(model="m", messages=messages, temperature=0).choices[0]  # type: ignore
        messages.append(reply.message)      # type: ignore[arg-type]
    log.append(len(messages))
    return [m if isinstance(m, dict) else m.content for m in messages]


@entry
def voting(q: str, log: Log) -> Any:
    votes = [ask(q, temperature=1.0)[:1] for _ in range(5)]
    best = max(sorted(set(votes)), key=votes.count)
    log.append(best)
    return best, {v: votes.count(v) for v in votes}


@entry
def default_and_keyword_helpers(q: str, log: Log) -> Any:
    def tagged(text: str, *more: str, tag: str = "t", seen: Log = log) -> tuple[str, ...]:
        answer = ask(f"{tag}: {text}")
        seen.append(tag)
        return (answer, *more, tag)

    return tagged(q), tagged(ask(q), ask("m"), tag=ask("tag")), tagged(text=q, tag="z")


@entry
def texts_of_texts(q: str, log: Log) -> Any:
    a = ask(q)
    b = a.upper().replace("A", q[:1]) + "|" + a
    c = ask(b.strip()) + a
    words = c.split()
    words.append("end")
    shown = f"{words} {len(words)}"
    log.append(shown)
    return b, words, a.startswith("x"), a.missing_method if len(a) > 999 else "fine"    # type: ignore[attr-defined]


@entry
def unused_and_equal(q: str, log: Log) -> Any:
    ask(q + "unused", 0.0)
    rules = ask("What are the rules?", 0.0)
    log.append("x")
    return ask(f"{rules} {q}", 0.0), ask(f"{rules} {q}", 0.0), client.models is not None


@entry
def closures_over_state(q: str, log: Log) -> Any:
    count, found = 0, {}

    def bump(text: str) -> str:
        nonlocal count
        count += 1
        found[text] = ask(f"{count} {text}")
        return found[text]

    first = bump(q)
    log.append((count, first))
    return bump(first), count, sorted(found)


@entry
def missing_attributes(q: str, log: Log) -> Any:
    response = client.chat.completions.create(model="m", temperature=0,
                                              messages=[{"role": "user", "content": q}])
    text = response.choices[0].message.nothing      # type: ignore[attr-defined]
    log.append("never")
    return text


@entry
def wrong_arguments(q: str, log: Log) -> Any:
    first = ask(q)
    log.append("asked")
    client.chat.completions.create(model="m")       # type: ignore[call-overload]
    return first
