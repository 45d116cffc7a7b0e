"""Small programs for the soundness gate: every construct of Python that can come between two model calls.

Each takes a question and a log. Whatever a program does to the outside goes into the log, in order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from tracedsl import pure
from tracedsl.programs import ChainOfThought, Module, Predict, Prediction

Log = list[Any]
PROGRAMS: list[Callable[[str, Log], Any]] = []

shared_module = Predict("question -> answer")
reasoner = ChainOfThought("question -> score: int")


def entry(function: Callable[[str, Log], Any]) -> Callable[[str, Log], Any]:
    PROGRAMS.append(function)
    return function


def helper(question: str) -> str:
    return Predict("question -> answer")(question=question).answer.upper()


@pure
def clean(text: str) -> str:
    return text.strip().lower()


@pure
def boom(text: str) -> str:
    if len(text) % 2:
        raise KeyError(text)
    return text


@dataclasses.dataclass
class Note:
    title: str
    tags: list[str] = dataclasses.field(default_factory=list)

    @property
    def loud(self) -> str:
        SINK.append(("property", self.title))
        return self.title.upper()


SINK: Log = []      # the log of the run under way, for code that cannot be given one


class Box:
    """Every operation of it is an effect."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __add__(self, other: Any) -> Box:
        SINK.append(("add", str(other)))
        return Box(f"{self.value}{other}")

    def __eq__(self, other: object) -> bool:
        SINK.append(("eq", str(other)))
        return True

    def __hash__(self) -> int:
        SINK.append("hash")
        return 1

    def __bool__(self) -> bool:
        SINK.append("bool")
        return True

    def __iter__(self) -> Iterator[Any]:
        for c in str(self.value)[:2]:
            SINK.append(("next", c))
            yield c

    def __format__(self, spec: str) -> str:
        SINK.append(("format", spec))
        return f"<{self.value}>"

    def __getattr__(self, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        SINK.append(("getattr", name))
        return name

    def __getitem__(self, key: Any) -> str:
        SINK.append(("getitem", key))
        return str(key)

    def __contains__(self, key: Any) -> bool:
        SINK.append(("contains", key))
        return False

    def __call__(self, *args: Any) -> str:
        SINK.append(("call", args))
        return "called"


class Pipeline(Module):
    def __init__(self) -> None:
        self.first = Predict("question -> answer")

    def forward(self, question: str) -> Any:
        SINK.append("pipeline")
        return self.first(question=question)


pipeline = Pipeline()


@entry
def straight(q: str, log: Log) -> Any:
    a = Predict("question -> answer")(question=q)
    b = Predict("text -> summary")(text=a.answer)
    return b.summary


@entry
def independent(q: str, log: Log) -> Any:
    a, b = Predict("question -> answer")(question=q), Predict("question -> topic")(question=q)
    c = shared_module(question=q)
    return a.answer, b.topic, [c.answer, {"k": a}]


@entry
def effects_between(q: str, log: Log) -> Any:
    log.append("start")
    a = Predict("question -> answer")(question=q)
    log.append("asked")
    b = Predict("question -> topic")(question=q + "!")
    log.append(a.answer)
    log.append(b)
    return b


@entry
def branch(q: str, log: Log) -> Any:
    a = reasoner(question=q)
    if a.score > 500:
        log.append("high")
        return Predict("question -> answer")(question=f"high {a.score}").answer
    elif a.score % 2:
        log.append("odd")
    else:
        log.append("even")
    return "low" if a.score < 100 else a.reasoning


@entry
def bool_operators(q: str, log: Log) -> Any:
    a = Predict("question -> flag: bool")(question=q)
    b = Predict("question -> flag: bool")(question=q + "2")
    c = a.flag and b.flag
    d = a.flag or b.flag or log.append("neither")
    return c, d, not a.flag, a.flag is True, b.flag is not None


@entry
def comparisons(q: str, log: Log) -> Any:
    a = Predict("question -> n: int")(question=q)
    b = Predict("question -> n: int")(question=q + "x")
    return a.n < b.n, a.n == b.n, 0 <= a.n < 1000, a.n in [1, b.n], [a.n != 5, a == b]


@entry
def while_loop(q: str, log: Log) -> Any:
    n, texts = 0, []
    while n < 1500 and len(texts) < 6:
        step = Predict("question, i: int -> n: int, note")(question=q, i=len(texts))
        n += step.n
        texts.append(step.note)
        if step.n % 3 == 0:
            continue
        if step.n % 7 == 0:
            break
    else:
        log.append("done")
    return n, texts


@entry
def for_loop(q: str, log: Log) -> Any:
    answers = []
    for i, word in enumerate(q.split()):
        answers.append(Predict("word -> meaning")(word=word))
        if i > 3:
            break
    log.append(len(answers))
    return " ".join(a.meaning for a in answers)


@entry
def loop_over_answer(q: str, log: Log) -> Any:
    items = Predict("question -> items: list[str]")(question=q).items
    found = {}
    for item in items:
        found[item] = Predict("item -> price: float")(item=item).price
    for key, value in found.items():
        log.append((key, value))
    return sorted(found), sum(found.values())


@entry
def comprehension(q: str, log: Log) -> Any:
    answers = [shared_module(question=f"{q} {i}") for i in range(4)]
    texts = {a.answer for a in answers}
    table = {a.answer: i for i, a in enumerate(answers)}
    pairs = [(a.answer, b) for a in answers for b in "xy" if a.answer]
    return sorted(texts), table, pairs


@entry
def generator_expression(q: str, log: Log) -> Any:
    total = sum(Predict("question -> n: int")(question=f"{q}{i}").n for i in range(3))
    first = next(Predict("question -> answer")(question=f"{q} {w}").answer for w in "ab")
    log.append(total)
    return total, first, any(shared_module(question=w).answer == "no" for w in ["1", "2"])


@entry
def try_except(q: str, log: Log) -> Any:
    before = shared_module(question=q)
    try:
        log.append("in")
        a = Predict("question -> n: int")(question=q)
        log.append("asked")
        if a.n % 2:
            raise ValueError(f"odd {a.n}")
        b = Predict("question -> answer")(question=q + "?")
        return b.missing
    except (ValueError, AttributeError) as error:
        log.append(type(error).__name__)
        return str(error)[:30], before.answer
    finally:
        log.append("out")


@entry
def try_around_failing_calls(q: str, log: Log) -> Any:
    results = []
    for i in range(3):
        try:
            results.append(Predict("question -> answer")(question=f"{q} {i}").answer)
        except RuntimeError as error:
            log.append(str(error)[:60])
            results.append(None)
        else:
            log.append("fine")
    return results


@entry
def with_statement(q: str, log: Log) -> Any:
    a = shared_module(question=q)
    with contextlib.ExitStack() as stack:
        stack.callback(log.append, "closed")
        log.append(a.answer)
        b = Predict("question -> answer")(question=a.answer)
        log.append("inside")
    with contextlib.suppress(ZeroDivisionError):
        log.append(len(b.answer) / (len(b.answer) % 2))
    return b.answer


@entry
def recursion(q: str, log: Log) -> Any:
    a = Predict("question -> n: int")(question=q)
    log.append(a.n)
    if a.n % 3 and len(q) < 40:
        return [a.n, RECURSE["recursion"](q + "*", log)]
    return [a.n]


RECURSE: dict[str, Callable[[str, Log], Any]] = {"recursion": recursion}


@entry
def nested_function(q: str, log: Log) -> Any:
    a = shared_module(question=q)
    seen = []

    def note(text: str) -> str:
        seen.append(text)
        log.append((text, a.answer, isinstance(a.answer, str)))
        return text + a.answer

    b = Predict("question -> answer")(question=note("x"))
    note(b.answer)
    return seen


@entry
def closure_and_lambda(q: str, log: Log) -> Any:
    a = Predict("question -> items: list[str]")(question=q)
    count = 0

    def bump() -> int:
        nonlocal count
        count += 1
        return count

    items = sorted(a.items, key=lambda item: (len(item), bump()))
    mapped = list(map(lambda item: item + a.items[0], items))  # noqa: C417
    return items, mapped, count


@entry
def early_return(q: str, log: Log) -> Any:
    for i in range(5):
        a = Predict("question, i: int -> done: bool, answer")(question=q, i=i)
        log.append(i)
        if a.done:
            return a.answer
    return None


@entry
def list_mutation(q: str, log: Log, out: Log | None = None) -> Any:
    out = log if out is None else out
    mine: list[Any] = []
    for i in range(3):
        a = Predict("question -> answer")(question=f"{q} {i}")
        mine.append(a.answer)
        mine.insert(0, i)
        out.append(a.answer)
    mine[0] = shared_module(question=q)
    del mine[1]
    mine += ["tail", mine[0].answer]
    other = mine
    other.extend(mine[:2])
    return mine, mine is other, len(mine), mine.index("tail")


KEPT: list[Any] = []


def keep(value: Any) -> None:
    KEPT[:] = [value]


def kept_types() -> list[str]:
    return [type(inner).__name__ for inner in KEPT[0]]


@entry
def escaped_container(q: str, log: Log) -> Any:
    mine: list[Any] = []
    keep(mine)
    mine.append(shared_module(question=q).answer)
    mine.append(shared_module(question=q))
    log.append(kept_types())
    return mine


@entry
def dict_mutation(q: str, log: Log) -> Any:
    table: dict[str, Any] = {"q": q}
    table["a"] = Predict("question -> answer")(question=q)
    table["n"] = Predict("question -> n: int")(question=q).n
    table["n"] += 1
    table.setdefault("z", table["a"].answer)
    copy = {**table, "more": 1}
    view = table.items()
    table["late"] = shared_module(question=q).answer
    log.append([(k, type(v).__name__) for k, v in view])
    return copy, table.pop("z"), table.get("none"), "late" in table


@entry
def dataclass_values(q: str, log: Log) -> Any:
    a = Predict("question -> answer, items: list[str]")(question=q)
    note = Note(a.answer, a.items)
    note.tags.append(Predict("text -> tag")(text=note.loud).tag)
    note.title += "!"
    changed = dataclasses.replace(note, title=a.answer)
    return note, changed, note.tags is a.items


@entry
def globals_and_state(q: str, log: Log) -> Any:
    global COUNTER
    a = Predict("question -> n: int")(question=q)
    COUNTER = a.n
    log.append(read_counter())
    b = Predict("question -> answer")(question=str(COUNTER))
    a.n = 5
    return b.answer, a.n, COUNTER


COUNTER: Any = 0


def read_counter() -> str:
    return f"{type(COUNTER).__name__} {COUNTER}"


@entry
def templates(q: str, log: Log) -> Any:
    a = Predict("question -> answer, n: int, x: float")(question=q)
    width = Predict("question -> n: int")(question="width").n % 7
    text = f"{a.answer!r:>{width + 20}}|{a.n:05d}|{a.x:.1f}|{q=}|{[a.answer]}|{a.answer}"
    b = Predict("text -> summary")(text=text)
    return text, "%s and %s" % (a.answer, b.summary), f"{b.summary} {a.n}", text.upper()[:9], a.answer + "!"  # noqa: UP031


@entry
def arithmetic(q: str, log: Log) -> Any:
    a = Predict("question -> n: int, x: float")(question=q)
    b = Predict("question -> n: int")(question=q + "b")
    total = a.n + b.n * 2 - 1
    total -= b.n
    return total, -a.n, a.n // (b.n + 1), 2 ** (a.n % 5), divmod(a.n, 7), abs(a.x), round(a.x), max(a.n, b.n), a.n & 3


@entry
def division_by_answer(q: str, log: Log) -> Any:
    a = Predict("question -> n: int")(question=q)
    log.append("dividing")
    b = shared_module(question=q)
    return 1 / (a.n % 2), b.answer


@entry
def unknown_objects(q: str, log: Log) -> Any:
    box = Box(q)
    a = Predict("question -> answer")(question=q)
    one = box + a.answer
    b = shared_module(question=q)
    two = [box == b.answer, b.answer in box, bool(box), box.name, box[b.answer], box(a.answer)]
    c = Predict("question -> topic")(question=q)
    three = {box: c.topic}
    four = [letter for letter in box]  # noqa: C416
    d = Predict("question -> mood")(question=q)
    return f"{one:x} {d.mood}", two, len(three), four


@entry
def properties(q: str, log: Log) -> Any:
    note = Note(q)
    a = Predict("question -> answer")(question=q)
    loud = note.loud
    b = Predict("question -> topic")(question=loud)
    note.title = b.topic
    return note.loud, a.answer


@entry
def user_module_and_helper(q: str, log: Log) -> Any:
    a = Predict("question -> answer")(question=q)
    b = pipeline(question=q)
    c = helper(a.answer)
    log.append(c)
    return b.answer, c, list(map(helper, [q, b.answer]))


@entry
def pure_functions(q: str, log: Log) -> Any:
    a = Predict("question -> answer")(question=q)
    b = clean(a.answer)
    c = Predict("question -> answer")(question=clean(f"  {b} X"))
    log.append("pure")
    return b, c.answer, clean("  Y ")


@entry
def failing_pure(q: str, log: Log) -> Any:
    a = Predict("question -> answer")(question=q)
    b = boom(a.answer)
    c = Predict("question -> topic")(question=q)
    log.append(b)
    return c.topic


@entry
def equal_and_dead_calls(q: str, log: Log) -> Any:
    Predict("question -> mood")(question=q)
    a = shared_module(question=q)
    b = shared_module(question=q)
    c = Predict("question -> answer")(question="What is a list?")
    b.answer = "changed"
    unused = ChainOfThought("question -> answer")(question=c.answer)
    d = Predict("question -> items: list[str]")(question=q)
    e = Predict("question -> items: list[str]")(question=q)
    d.items.append("more")
    return a.answer, b.answer, c.answer, d.items, e.items, type(unused).__name__


@entry
def wrong_inputs(q: str, log: Log) -> Any:
    log.append("first")
    a = Predict("question -> answer")(question=q)
    b = Predict("question, n: int -> answer")(question=q, n="many")
    log.append("never")
    return a, b


@entry
def wrong_inputs_unused(q: str, log: Log) -> Any:
    Predict("question -> answer")(query=q)
    log.append("never")
    return q


@entry
def missing_field(q: str, log: Log) -> Any:
    a = Predict("question -> answer")(question=q)
    text = a.nothing
    log.append("never")
    return text


@entry
def missing_item(q: str, log: Log) -> Any:
    a = Predict("question -> items: list[str]")(question=q)
    third = a.items[2]
    b = shared_module(question=q)
    log.append("late")
    return third, b["answer"], a["items"][0]


@entry
def raising(q: str, log: Log) -> Any:
    a = Predict("question -> n: int")(question=q)
    b = Predict("question -> answer")(question=q)
    if a.n > 300:
        raise ValueError(f"too many: {a.n}") from KeyError(b.answer)
    assert a.n % 2, f"even {a.n} {b.answer}"
    return b.answer


@entry
def failing_late(q: str, log: Log) -> Any:
    calls = [Predict("question -> answer")(question=f"{q} fail {i}") for i in range(5)]
    table = {"a": 1}
    value = table["b" if len(q) % 2 else "a"]
    log.append(value)
    return [c.answer for c in calls]


@entry
def match_statement(q: str, log: Log) -> Any:
    a = Predict("question -> kind: Literal['red', 'green'], n: int")(question=q)
    match (a.kind, a.n):
        case ("red", n) if n > 500:
            log.append("big red")
        case ("red", _):
            return shared_module(question="red").answer
        case (other, n):
            log.append((other, n))
    match a:
        case Prediction(kind=kind):
            return kind
    return None


@entry
def unpacking(q: str, log: Log) -> Any:
    a = Predict("question -> pair: tuple[int, str], items: list[str]")(question=q)
    n, text = a.pair
    first, *rest = a.items
    x, (y, z) = 1, (text, n)
    log[len(log):], state = [n], {}
    state["k"], state["j"] = first, rest
    one = two = [shared_module(question=text)]
    one.append(*rest[:1]) if rest else None
    return n, text, first, rest, x, y, z, state, one is two, two[0].answer


@entry
def identity(q: str, log: Log) -> Any:
    a = shared_module(question=q)
    pair = (a, a.answer)
    same = pair
    log.append(pair)
    return pair is same, pair is log[-1], pair[0] is a, a.answer is None, a is not None, (n := len(pair)), n


@entry
def walrus_and_conditional(q: str, log: Log) -> Any:
    if (a := shared_module(question=q)) and (n := len(a.answer)) > 5:
        log.append(n)
    return [y for x in a.answer.split() if (y := x.upper()) != "NO"], a.answer if a else None


@entry
def iterators(q: str, log: Log) -> Any:
    calls = [shared_module(question=f"{q} {i}") for i in range(3)]
    pairs = [(i, c.answer) for i, c in enumerate(calls)]
    zipped = {c.answer: w for c, w in zip(calls, q.split())}
    back = [c.answer for c in reversed(calls)]
    chained = list(itertools.chain(calls, [q]))
    it = iter(calls)
    head = next(it)
    rest = [c.answer for c in it]
    return pairs, zipped, back, len(chained), head.answer, rest, functools.reduce(lambda a, c: a + c.answer, calls, "")


@entry
def generator_helper(q: str, log: Log) -> Any:
    def produce() -> Iterator[str]:
        for i in range(3):
            log.append(("produce", i))
            yield f"{q} {i}"

    answers = []
    for text in produce():
        answers.append(Predict("question -> answer")(question=text))
        log.append("taken")
    return [a.answer for a in answers]


@entry
def late_looks_at_container(q: str, log: Log) -> Any:
    holder: list[Any] = []
    holder.append(holder)
    holder.append(shared_module(question=q))
    table = {"list": holder[1:], "n": Predict("question -> n: int")(question=q).n}
    log.append(table)
    table["later"] = shared_module(question=q + "later").answer
    log.append(sorted(map(str, table)))
    return len(holder), table


@entry
def annotated(q: str, log: Log) -> Any:
    answer: str
    count: int = Predict("question -> n: int")(question=q).n
    answer = shared_module(question=str(count)).answer
    del q
    try:
        return q  # noqa: F821
    except UnboundLocalError:
        return answer, count


@entry
def settings_in_call(q: str, log: Log) -> Any:
    a = Predict("question -> answer")(question=q, config={"temperature": 0.7, "rollout_id": 1})
    b = Predict("question -> answer")(question=q, config={"temperature": 0.7, "rollout_id": 2})
    c = Predict("question -> answer", temperature=0.5)(question=q)
    d = Predict("question -> answer", temperature=0.5)(question=q)
    log.append(a.answer == b.answer)
    return a.answer, b.answer, c.answer, d.answer


@entry
def finally_and_return(q: str, log: Log) -> Any:
    a = shared_module(question=q)
    try:
        return Predict("question -> answer")(question=a.answer).answer
    finally:
        log.append(("finally", a.answer))


@entry
def nested_try_in_loop(q: str, log: Log) -> Any:
    total = 0
    for i in range(4):
        a = Predict("question -> n: int")(question=f"{q}{i}")
        try:
            if a.n % 4 == 0:
                continue
            if a.n % 5 == 0:
                break
            total += 10 // (a.n % 3)
        except ZeroDivisionError:
            log.append(i)
        finally:
            log.append("f")
    return total
