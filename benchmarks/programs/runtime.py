"""The runtime of programs beside DSPy, in one interleaved run.

    python -m benchmarks.programs                              # everything: about a minute
    python -m benchmarks.programs --only predict,hits --json run.json

What holds here: both libraries do the same work with a model that answers at once (or after 10 ms), in one process, in
turns, the order turning round; medians and minima over the rounds are kept. Nothing leaves the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import gc
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MET = {True: "yes", False: "no", None: ""}
SLOTS, CALLS, WAIT = 32, 1000, 0.010
TYPED = "document: str, question: str -> name: str, amount: int, ratio: float, paid: bool"
VALUES = {"name": "Arkona", "amount": 12, "ratio": 0.5, "paid": True}
DEMO = {"document": "Invoice of Arkona over 12 crates, half of them paid.", "question": "Who, how much?", **VALUES}


@dataclass
class Row:
    """One workload: seconds a call for each contender, by round; the target for the ratio ours / theirs, or for our
    time in seconds."""

    name: str
    times: dict[str, list[float]] = field(default_factory=dict)
    ratio: float | None = None
    seconds: float | None = None
    note: str = ""

    def median(self, who: str) -> float:
        return statistics.median(self.times[who])

    def met(self) -> bool | None:
        ours = self.median("tracedsl")
        if self.seconds is not None:
            return ours <= self.seconds
        return ours <= self.ratio * self.median("dspy") if self.ratio is not None and "dspy" in self.times else None


def in_turns(row: Row, contenders: dict[str, Callable[[], Any]], calls: int, rounds: int, per: int = 1) -> Row:
    """Time blocks of `calls` calls of each contender, in turns; each call does the work `per` times."""
    order = list(contenders)
    for who in order:
        for _ in range(max(1, calls // 5)):
            contenders[who]()
    for i in range(rounds):
        for who in order if i % 2 else order[::-1]:
            call = contenders[who]
            gc.collect()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            row.times.setdefault(who, []).append((time.perf_counter() - start) / calls / per)
    return row


# -- the contenders ----------------------------------------------------------------------------------------------------


def our_stub(text: str, wait: float = 0.0, **settings: Any) -> Any:
    from tracedsl.programs.driving import current_io
    from tracedsl.programs.lm.base import LMRequest, LMResponse, Usage
    from tracedsl.programs.lm.client import LMClient

    class Stub(LMClient):
        calls = 0

        async def _asend(self, request: LMRequest) -> LMResponse:
            with self._lock:
                self.calls += 1
            if wait:
                await current_io().sleep(wait)
            return LMResponse((text,), Usage(10, 5, 1))

    return Stub("stub", **{"cache": False, **settings})


def their_stub(dspy: Any, text: str, wait: float = 0.0, **settings: Any) -> Any:
    from dspy import lm15

    answer = lm15.Response(None, "stub", lm15.Message("assistant", (lm15.TextPart(text),)), "stop", lm15.Usage())

    class Engine:
        calls = 0
        lock = threading.Lock()

        def complete(self, request: Any) -> Any:
            with self.lock:
                self.calls += 1
            if wait:
                time.sleep(wait)
            return answer

    class AsyncEngine(Engine):
        async def complete(self, request: Any) -> Any:
            return Engine.complete(self, request)

    engine = Engine()
    lm = dspy.LM("openai/stub", engine=engine, async_engine=AsyncEngine(), **{"cache": False, **settings})
    return lm, engine


def chat_text(values: dict[str, Any]) -> str:
    parts = [f"[[ ## {name} ## ]]\n{value}" for name, value in values.items()]
    return "\n\n".join([*parts, "[[ ## completed ## ]]"])


@contextmanager
def their_cache(dspy: Any) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        dspy.configure_cache(enable_disk_cache=True, enable_memory_cache=True, disk_cache_dir=folder)
        yield


# -- the workloads -----------------------------------------------------------------------------------------------------


def imports(dspy: Any, rounds: int) -> Iterator[Row]:
    """In a process of its own each time; the second row also makes a predictor."""
    for name, ours, theirs, target in (
            ("import", "import tracedsl.programs", "import dspy", 0.150),
            ("import, make a Predict", "from tracedsl.programs import Predict; Predict('a -> b')",
             "import dspy; dspy.Predict('a -> b')", None)):
        row = Row(name, seconds=target)
        for i in range(min(rounds, 7)):
            for who, code in sorted((("tracedsl", ours), ("dspy", theirs)), reverse=bool(i % 2)):
                timed = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)\n"
                more = "import sys; print(len({m.partition('.')[0] for m in sys.modules}), 'openai' in sys.modules)"
                out = subprocess.run([sys.executable, "-c", timed + more], check=True, capture_output=True, text=True,
                                     ).stdout.split()
                row.times.setdefault(who, []).append(float(out[0]))
                row.note += f"{who}: {out[1]} packages, an SDK loaded: {out[2]}; " if i == 0 else ""
        yield row


def predict(dspy: Any, rounds: int) -> Iterator[Row]:
    from tracedsl.programs import ChatAdapter, Predict, configure

    text = chat_text({"answer": "Paris"})
    configure(lm=our_stub(text), adapter=ChatAdapter())
    dspy.configure(lm=their_stub(dspy, text)[0], adapter=dspy.ChatAdapter())
    ours, theirs = Predict("question -> answer"), dspy.Predict("question -> answer")
    assert ours(question="x").answer == theirs(question="x").answer == "Paris"
    yield in_turns(Row("one Predict, stub model", ratio=0.2), {
        "tracedsl": lambda: ours(question="Capital of France?"),
        "dspy": lambda: theirs(question="Capital of France?")}, 200, rounds)

    async def many(program: Any) -> None:
        for _ in range(200):
            await program.acall(question="Capital of France?")

    yield in_turns(Row("one await Predict.acall", ratio=0.2), {
        "tracedsl": lambda: asyncio.run(many(ours)), "dspy": lambda: asyncio.run(many(theirs))}, 1, rounds, per=200)


def demos(dspy: Any, rounds: int) -> Iterator[Row]:
    from tracedsl.programs import ChatAdapter, Example, JSONAdapter, Signature

    ours, theirs = Signature(TYPED), dspy.Signature(TYPED)
    our_demos, their_demos = [Example(DEMO)] * 8, [dspy.Example(**DEMO)] * 8
    plain = [dict(demo.items()) for demo in our_demos]
    inputs = {"document": "a text", "question": "what?"}
    for name, text, mine, yours in (
            ("chat", chat_text(VALUES), ChatAdapter(), dspy.ChatAdapter()),
            ("JSON", json.dumps(VALUES), JSONAdapter(), dspy.JSONAdapter())):
        assert mine.parse(ours, text) == yours.parse(theirs, text) == VALUES

        def one(mine: Any = mine, text: str = text) -> None:
            mine.format(ours, plain, inputs)
            mine.parse(ours, text)

        def other(yours: Any = yours, text: str = text) -> None:
            yours.format(theirs, their_demos, inputs)
            yours.parse(theirs, text)

        yield in_turns(Row(f"8 demonstrations, 4 typed fields: format and parse, {name}", ratio=0.2),
                       {"tracedsl": one, "dspy": other}, 50, rounds)


def hits(dspy: Any, rounds: int) -> Iterator[Row]:
    """A known answer, asked of the model itself: from memory, and from disk by a client that has it in no memory."""
    from tracedsl.cache import Store
    from tracedsl.programs.lm.base import Message

    prompts = [f"Question {i}: " + "what is the capital of France? " * 20 for i in range(100)]
    with tempfile.TemporaryDirectory() as folder, their_cache(dspy):
        store = Store(Path(folder) / "cache")
        lm = our_stub("Paris", cache=True, store=store)
        other, engine = their_stub(dspy, "Paris", cache=True)
        requests = [lm.request([Message("user", p)]) for p in prompts]
        for p, request in zip(prompts, requests):
            lm.complete(request)
            other(messages=[{"role": "user", "content": p}])
        first = engine.calls
        yield in_turns(Row("known answer, memory", seconds=40e-6), {
            "tracedsl": lambda: [lm.complete(lm.request([Message("user", p)])) for p in prompts],
            "dspy": lambda: [other(messages=[{"role": "user", "content": p}]) for p in prompts]},
            2, rounds, per=len(prompts))
        assert (lm.calls, engine.calls) == (100, first)

        def fresh() -> None:
            cold = our_stub("Paris", cache=True, store=store)
            for request in requests:
                cold.complete(request)
            assert cold.calls == 0

        def theirs() -> None:
            dspy.cache.reset_memory_cache()
            for p in prompts:
                other(messages=[{"role": "user", "content": p}])

        yield in_turns(Row("known answer, disk", seconds=120e-6), {"tracedsl": fresh, "dspy": theirs}, 1, rounds,
                       per=len(prompts))
        assert engine.calls == first


def parallel(dspy: Any, rounds: int) -> Iterator[Row]:
    from tracedsl.programs import ChatAdapter, Predict, configure

    text = chat_text({"answer": "Paris"})
    configure(lm=our_stub(text, WAIT), adapter=ChatAdapter())
    dspy.configure(lm=their_stub(dspy, text, WAIT)[0], adapter=dspy.ChatAdapter())
    ours, theirs = Predict("question -> answer"), dspy.Predict("question -> answer")
    inputs = [{"question": f"What is {i}?"} for i in range(CALLS)]
    examples = [dspy.Example(**i).with_inputs("question") for i in inputs]
    ideal = CALLS * WAIT / SLOTS
    row = Row(f"{CALLS} calls of 10 ms on {SLOTS} slots", seconds=1.1 * ideal, note=f"ideal {ideal:.3f} s")
    yield in_turns(row, {
        "bare, threads that sleep": sleepers,
        "tracedsl": lambda: ours.batch(inputs, num_threads=SLOTS),
        "tracedsl, asyncio": lambda: asyncio.run(ours.abatch(inputs, num_threads=SLOTS)),
        "dspy": lambda: theirs.batch(examples, num_threads=SLOTS, disable_progress_bar=True)}, 1, min(rounds, 5))


def sleepers() -> None:
    """The same waits in bare threads: what this machine can do at best."""
    todo = iter(range(CALLS))

    def work() -> None:
        while next(todo, None) is not None:
            time.sleep(WAIT)

    crew = [threading.Thread(target=work) for _ in range(SLOTS)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()


def flights(dspy: Any, rounds: int) -> Iterator[Row]:
    """How often the model is asked when ten ask the same at the same time; "seconds" are calls here."""
    from tracedsl.cache import Store

    with tempfile.TemporaryDirectory() as folder, their_cache(dspy), ThreadPoolExecutor(10) as pool:
        lm = our_stub("Paris", 0.05, cache=True, store=Store(Path(folder) / "cache"))
        other, engine = their_stub(dspy, "Paris", 0.05, cache=True)
        list(pool.map(lambda _: lm("the same question"), range(10)))
        list(pool.map(lambda _: other("the same question"), range(10)))
        yield Row("calls for ten identical requests at once", {"tracedsl": [lm.calls], "dspy": [engine.calls]},
                  seconds=1)


WORKLOADS: dict[str, Callable[[Any, int], Iterator[Row]]] = {
    "import": imports, "predict": predict, "demos": demos, "hits": hits, "parallel": parallel, "flights": flights}


# -- the run -----------------------------------------------------------------------------------------------------------


def shown(name: str, value: float) -> str:
    if name.startswith("calls for"):
        return f"{value:.0f}"
    return f"{value * 1e6:.1f} us" if value < 1e-3 else f"{value * 1e3:.1f} ms" if value < 0.1 else f"{value:.3f} s"


def table(rows: list[Row]) -> str:
    lines = ["| workload | tracedsl | DSPy | DSPy / tracedsl (of minima) | target | met |", "| --- " * 6 + "|"]
    for row in rows:
        ours, theirs = row.median("tracedsl"), row.median("dspy")
        least = min(row.times["dspy"]) / min(row.times["tracedsl"])
        target = f"<= 1/{1 / row.ratio:.0f}" if row.ratio else ""
        target = f"<= {shown(row.name, row.seconds)}" if row.seconds else target
        others = [who for who in row.times if ", " in who]
        extra = "".join(f"; {who.split(', ')[1]} {shown(row.name, row.median(who))}" for who in others)
        lines.append(f"| {row.name} | {shown(row.name, ours)}{extra} | {shown(row.name, theirs)} | "
                     f"{theirs / ours:.1f} ({least:.1f}) | {target} | {MET[row.met()]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="The runtime of programs beside DSPy.")
    parser.add_argument("--only", default="", help=f"some of: {', '.join(WORKLOADS)}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write all times there")
    options = parser.parse_args()
    names = [n for n in options.only.split(",") if n] or list(WORKLOADS)
    if unknown := [n for n in names if n not in WORKLOADS]:
        parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    import dspy

    rows: list[Row] = []
    for name in names:
        print(f"measuring: {name}", file=sys.stderr)
        rows += WORKLOADS[name](dspy, options.rounds)
    print(table(rows))
    if options.json:
        import tracedsl

        whole = {"command": " ".join(["python -m benchmarks.programs", *sys.argv[1:]]), "dspy": dspy.__version__,
                 "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                 "tracedsl": tracedsl.__version__, "python": platform.python_version(), "machine": platform.machine(),
                 "rows": [{**vars(row), "met": row.met()} for row in rows]}
        options.json.write_text(json.dumps(whole, indent=1) + "\n")
