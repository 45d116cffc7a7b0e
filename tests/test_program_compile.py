"""Compiling: scores, artefacts, what makes a program be compiled again, interruptions, many processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracedsl import Store, TracedslError, program
from tracedsl.autotune import Budget
from tracedsl.diagnostics import TracedslWarning
from tracedsl.programs import (
    BootstrapFewShot,
    ChainOfThought,
    Example,
    JSONAdapter,
    LabeledFewShot,
    LMError,
    LMRequest,
    Module,
    Predict,
    ScriptedLM,
    exact_match,
)

TRAIN = [Example(question=f"what is {i}?", answer=str(i * 2)).with_inputs("question") for i in range(9)]


def reply(request: LMRequest) -> str:
    """Doubles odd numbers, and all numbers if it was shown how."""
    n = int(request.messages[-1].content.split("what is ")[1].split("?")[0])
    shown = len(request.messages) > 2
    return json.dumps({"reasoning": "so", "answer": str(n * 2) if shown or n % 2 else "no"})


def make_lm() -> ScriptedLM:
    return ScriptedLM(reply, adapter=JSONAdapter())


def ask(question: str) -> str:
    return ChainOfThought("question -> answer")(question=question).answer


def make(lm: ScriptedLM, function: Callable[..., Any] = ask, **options: Any) -> Any:
    given = {"trainset": TRAIN, "metric": exact_match, "teleprompter": BootstrapFewShot(max_bootstrapped_demos=2)}
    return program(**{**given, **options}, lm=lm)(function)


def test_first_call_compiles_later_ones_do_not() -> None:
    lm = make_lm()
    answer = make(lm)
    assert answer("what is 12?") == "24"
    assert answer.uncompiled("what is 12?") == "no"
    assert "uncompiled: 33.3 %" in answer.explain() and "compiled: 100.0 %" in answer.explain()
    assert "3 of the trainset's 9 examples" in answer.explain()
    before = lm.calls
    assert answer("what is 14?") == "28" and lm.calls == before + 1
    again = make(lm)
    assert again("what is 16?") == "32" and lm.calls == before + 2
    assert "loaded from the cache" in again.explain()
    assert [len(p.demos) for _, p in again.named_predictors()] == [len(p.demos) for _, p in answer.named_predictors()]


def test_explain_says_which_part_changed() -> None:
    lm = make_lm()
    make(lm)("what is 12?")

    def other_metric(example: Example, prediction: Any) -> bool:
        return bool(example.answer == prediction)

    changes: list[tuple[str, dict[str, Any]]] = [
        ("trainset", {"trainset": TRAIN[:8]}), ("metric", {"metric": other_metric}), ("valset", {"valset": TRAIN[:2]}),
        ("teleprompter", {"teleprompter": BootstrapFewShot(max_bootstrapped_demos=3)}),
        ("passes off", {"disable": ["drop-dead"]})]
    for name, options in changes:
        changed = make(lm, **options)
        changed("what is 12?")
        assert f"changed since the nearest entry: {name}\n" in changed.explain()
    other = make(ScriptedLM(reply, model="other", adapter=JSONAdapter()))
    other("what is 12?")
    assert "changed since the nearest entry: model\n" in other.explain()


def test_changed_source_and_helper_are_seen(tmp_path: Path) -> None:
    lm = make_lm()

    def load(text: str, number: int) -> Any:
        import importlib.util

        path = tmp_path / f"v{number}.py"
        path.write_text(textwrap.dedent(text))
        spec = importlib.util.spec_from_file_location("user_module", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        made = make(lm, module.ask)
        made("what is 12?")
        return made

    text = """
        from tracedsl.programs import ChainOfThought
        def tidy(q):
            return q.strip()
        def ask(question):
            return ChainOfThought("question -> answer")(question=tidy(question)).answer
    """
    assert "nothing is stored" in load(text, 1).explain()
    assert "loaded from the cache" in load("\n\n" + text, 2).explain()      # only its place changed
    assert "nearest entry: helpers\n" in load(text.replace("q.strip()", "q.rstrip()"), 3).explain()
    assert "nearest entry: source\n" in load(text.replace("answer)", "answer)").replace(").answer", ").answer + ''"), 4
                                             ).explain()


def test_worse_program_is_not_installed() -> None:
    def spoilt(request: LMRequest) -> str:
        n = int(request.messages[-1].content.split("what is ")[1].split("?")[0])
        return json.dumps({"reasoning": "so", "answer": "no" if len(request.messages) > 2 else str(n * 2)})

    answer = make(ScriptedLM(spoilt, adapter=JSONAdapter()))
    with pytest.warns(TracedslWarning, match="not better than the uncompiled"):
        assert answer("what is 12?") == "24"
    assert "installed: uncompiled" in answer.explain()
    assert all(not p.demos for _, p in answer.named_predictors())


def test_answer_is_the_same_for_any_teleprompter_name_and_small_data() -> None:
    answer = make(make_lm(), trainset=TRAIN[:3], teleprompter=LabeledFewShot(k=1))
    assert answer("what is 12?") == "24"
    assert "too few to hold some back" in answer.explain()


def test_bad_data_and_bad_metrics() -> None:
    lm = make_lm()
    with pytest.raises(TracedslError, match="trainset is empty"):
        make(lm, trainset=[])
    with pytest.raises(TracedslError, match="needs a metric"):
        make(lm, metric=None)
    bad = [*TRAIN, Example(query="x", answer="y").with_inputs("query")]
    with pytest.raises(TracedslError, match=r"trainset\[9\] does not fit ask"):
        make(lm, trainset=bad)("what is 1?")

    def broken(example: Example, prediction: Any) -> float:
        raise ZeroDivisionError("in the metric")

    with pytest.raises(TracedslError, match=r"the metric .*broken failed: ZeroDivisionError: in the metric"):
        make(lm, metric=broken)("what is 1?")

    def without_calls(question: str) -> str:
        return question

    with pytest.raises(TracedslError, match="no call site"):
        make(lm, without_calls)("what is 1?")
    assert not list(Store().entries("program")), "nothing of all this is stored"


def test_model_that_is_down_leaves_nothing_behind() -> None:
    down = ScriptedLM(lambda request: LMError("L001", "nobody listens"), adapter=JSONAdapter())
    answer = make(down)
    with pytest.raises(LMError, match="nobody listens"):
        answer("what is 12?")
    assert down.calls == 1 and not list(Store().entries("program"))
    assert not (Store().root / "records" / "programs.jsonl").exists()


def test_budget_is_hard() -> None:
    lm = make_lm()
    answer = make(lm, budget=Budget(calls=11))
    assert answer("what is 13?") == "26"
    assert lm.calls == 11 + 1       # the call itself is not part of the compilation
    assert "the budget (calls) was spent" in answer.explain() and "installed: uncompiled" in answer.explain()


def test_interrupted_compilation_keeps_what_was_measured() -> None:
    class Interrupted(BootstrapFewShot):
        def compile(self, *args: Any, **kwargs: Any) -> Any:
            raise KeyboardInterrupt

    lm = make_lm()
    answer = make(lm, teleprompter=Interrupted())
    with pytest.raises(KeyboardInterrupt), pytest.warns(TracedslWarning, match="interrupted"):
        answer("what is 12?")
    assert not list(Store().entries("program"))
    records = (Store().root / "records" / "programs.jsonl").read_text().splitlines()
    assert len(records) == 1 and '"uncompiled"' in records[0]


def test_damaged_artefact_is_a_miss_with_a_warning_and_costs_no_scores() -> None:
    lm = make_lm()
    make(lm)("what is 12?")
    entry = next(Store().entries("program"))
    data = bytearray(entry.path.read_bytes())
    data[-20] ^= 1
    entry.path.write_bytes(bytes(data))
    before, again = lm.calls, make(lm)
    with pytest.warns(TracedslWarning, match="A001"):
        assert again("what is 12?") == "24"
    assert lm.calls - before == 6 + 1, "the call sites are met again; both scores come from the records"
    assert next(Store().entries("program")).meta["sites"] == entry.meta["sites"]


def test_artefact_of_another_shape_is_not_used() -> None:
    lm = make_lm()
    make(lm)("what is 12?")
    entry = next(Store().entries("program"))
    Store().put(entry.key, meta={**entry.meta, "sites": [{"site": 1}]})
    with pytest.warns(TracedslWarning, match="P106"):
        assert make(lm)("what is 12?") == "24"


def test_recursive_program_is_compiled_as_a_whole() -> None:
    lm = make_lm()
    cell: list[Any] = []

    def twice(question: str, again: bool = True) -> str:
        return cell[0](question, False) if again else Predict("question -> answer")(question=question).answer

    cell.append(make(lm, twice))
    assert cell[0]("what is 12?") == "24"


def test_program_in_a_teleprompter_of_the_user() -> None:
    lm = make_lm()
    plain = program(lm=lm)(ask)
    plain("what is 1?")
    compiled = LabeledFewShot(k=2).compile(plain, trainset=TRAIN)
    assert compiled("what is 12?") == "24" and plain("what is 12?") == "no"


class Doubler(Module):
    """A module of the user's, with code and state of its own."""

    def __init__(self) -> None:
        self.step = Predict("question -> answer")
        self.seen: list[str] = []

    def forward(self, question: str) -> str:
        self.seen.append(question)
        return str(self.step(question=question).answer)


def test_module_of_the_user_is_compiled_and_keeps_its_state_until_then() -> None:
    doubler, lm = Doubler(), make_lm()

    def with_module(question: str) -> str:
        return doubler(question=question)

    plain = program(lm=lm)(with_module)
    assert plain("what is 12?") == "no" and doubler.seen == ["what is 12?"]
    compiled = make(lm, with_module)
    assert compiled("what is 12?") == "24"
    assert "Doubler/step: " in compiled.explain() and doubler.seen == ["what is 12?"] and not doubler.step.demos
    again = make(lm, with_module)
    assert again("what is 12?") == "24" and "loaded from the cache" in again.explain()


def test_program_that_cannot_be_captured_is_not_compiled_but_runs() -> None:
    def hidden(question: str) -> Any:
        return sorted(locals()), Predict("question -> answer")(question=question).answer

    answer = make(make_lm(), hidden)
    with pytest.warns(TracedslWarning, match="runs as plain Python"):
        assert answer("what is 12?") == (["question"], "no")
    assert "nothing is compiled" in answer.explain()


# -- processes ----------------------------------------------------------------------------------------------------

SCRIPT = """
import json, sys, time
from pathlib import Path
from tracedsl import program
from tracedsl.programs import BootstrapFewShot, ChainOfThought, Example, JSONAdapter, ScriptedLM, exact_match

log = Path({log!r})
def reply(request):
    n = int(request.messages[-1].content.split("what is ")[1].split("?")[0])
    with log.open("a") as f:
        f.write(f"{{n}} {{len(request.messages)}}\\n")
    time.sleep({delay})
    good = len(request.messages) > 2 or n % 2
    return json.dumps({{"reasoning": "so", "answer": str(n * 2) if good else "no"}})

train = [Example(question=f"what is {{i}}?", answer=str(i * 2)).with_inputs("question") for i in range(9)]
lm = ScriptedLM(reply, adapter=JSONAdapter(), cache=True)

@program(trainset=train, metric=exact_match, teleprompter=BootstrapFewShot(max_bootstrapped_demos=2), lm=lm)
def answer(question: str) -> str:
    return ChainOfThought("question -> answer")(question=question).answer

print(answer("what is 12?"))
print(answer.explain())
"""


def start(tmp_path: Path, delay: float) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(log=str(tmp_path / "log"), delay=delay))
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen([sys.executable, str(script)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "PYTHONPATH": path})


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []


def test_second_process_loads_the_artefact(tmp_path: Path) -> None:
    assert "made now" in finish(start(tmp_path, 0))
    made = len(calls(tmp_path))
    out = finish(start(tmp_path, 0))
    assert out.startswith("24\n") and "loaded from the cache" in out
    assert len(calls(tmp_path)) == made, "compiling and the answer itself come from the cache"


def test_two_processes_compile_once(tmp_path: Path) -> None:
    both = [start(tmp_path, 0.02) for _ in range(2)]
    outs = [finish(process) for process in both]
    assert all(out.startswith("24\n") for out in outs)
    assert sorted("loaded from the cache" in out for out in outs) == [False, True]
    compiling = [call for call in calls(tmp_path) if not call.startswith("12 ")]
    assert len(compiling) == len(set(compiling)), "no call of the compilation was paid for twice"
    assert len(list(Store().entries("program"))) == 1


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("after", [2, 8, 12])
def test_killed_compilation_goes_on_where_it_was(tmp_path: Path, after: int) -> None:
    process = start(tmp_path, 0.05)
    limit = time.monotonic() + 60
    while len(calls(tmp_path)) < after and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(Store().entries("program")), "it was killed before the end"
    assert Store().verify() == []
    under_way = len(calls(tmp_path))
    out = finish(start(tmp_path, 0))
    assert out.startswith("24\n") and "compiled: 100.0 %" in out
    repeated = len(calls(tmp_path)) - len(set(calls(tmp_path)))
    assert under_way >= after and repeated <= 8, "at most the calls that were under way are made again"
