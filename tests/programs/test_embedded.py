"""The embedded model itself: SmolLM2-135M in this process."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import BaseModel

from tracedsl.programs import (
    LM,
    ChatAdapter,
    Evaluate,
    Example,
    JSONAdapter,
    LabeledFewShot,
    LMError,
    PlainAdapter,
    Predict,
    Signature,
    configure,
    context,
    exact_match,
)
from tracedsl.programs.lm import make_embedder
from tracedsl.programs.lm.base import Message
from tracedsl.programs.lm.embedder import Embedder

pytestmark = pytest.mark.local_model


class Place(BaseModel):
    name: str
    kind: Literal["city", "river"]
    size: float | None


TYPED = Signature("text -> n: int, ok: bool, when: datetime.date, kind: Literal['a b', 'c'], near: Place,"
                  " maybe: int | None, tags: list[Literal['x', 'y']]", custom_types={"Place": Place})


@pytest.mark.parametrize("adapter", [PlainAdapter(), ChatAdapter(), JSONAdapter()])
def test_typed_fields_always_parse(weights: Path, adapter: object) -> None:
    """Without a single demonstration, a model of 135 million parameters fills seven typed fields."""
    lm = LM("local/smollm2-135m", max_tokens=300)
    with context(lm=lm, adapter=adapter):  # type: ignore[arg-type]
        made = Predict(TYPED)(text="Two rivers meet in the city of Arkona.")
    assert isinstance(made.n, int) and isinstance(made.ok, bool) and isinstance(made.when, datetime.date)
    assert made.kind in ("a b", "c") and isinstance(made.near, Place) and set(made.tags) <= {"x", "y"}
    assert lm.usage.calls == 1


def test_compiled_beats_uncompiled(weights: Path) -> None:
    months = ["January", "March", "May", "July", "October", "December"]
    numbers = ["01", "03", "05", "07", "10", "12"]
    examples = [Example(text=f"It was on {d} {months[d % 6]} {1950 + d}.", date=f"{d:02}.{numbers[d % 6]}.{1950 + d}")
                .with_inputs("text") for d in range(1, 25)]
    configure(lm=LM("local/smollm2-135m", max_tokens=24))
    program = Predict(Signature("text -> date", "Write the date as DD.MM.YYYY."))
    compiled = LabeledFewShot(k=6).compile(program, trainset=examples[:12])
    evaluate = Evaluate(devset=examples[12:], metric=exact_match)
    before, after = evaluate(program).score, evaluate(compiled).score
    assert after >= before + 25, (before, after)


def test_the_same_call_gives_the_same_answer_from_many_threads(weights: Path) -> None:
    lm = LM("local/smollm2-135m", max_tokens=12, cache=False)
    predict = Predict("question -> answer")
    questions = [f"What is {i} plus {i}?" for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        many = list(pool.map(lambda q: predict(question=q, lm=lm), questions * 2))
    assert many[:4] == many[4:] and lm.usage.calls == 8


def test_seeds_and_several_answers(weights: Path) -> None:
    lm = LM("local/smollm2-135m", max_tokens=12)
    cold = LM("local/smollm2-135m", max_tokens=12, cache=False)
    hot, given = {"temperature": 1.0, "n": 3, "seed": 5}, {"topic": "the sea", "first_words": "Once upon a time"}
    signature = "topic, first_words -> story"
    one, two = Predict(signature, **hot)(**given, lm=lm), Predict(signature, **hot)(**given, lm=cold)
    rolls = [Predict(signature, temperature=1.0, rollout_id=i)(**given, lm=cold).story for i in (1, 2, 1)]
    assert rolls[0] == rolls[2] != rolls[1]
    assert one.completions.story == two.completions.story and len(set(one.completions.story)) > 1


def test_a_file_by_path_and_what_is_wrong_with_one(weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "my model.gguf"
    shutil.copy(weights, copy)
    assert LM(f"local/{copy}", max_tokens=3)(prompt="Hi")[0]
    assert LM(f"local/{copy}").endpoint != LM("local/smollm2-135m").endpoint
    copy.write_bytes(weights.read_bytes()[:200_000])
    with pytest.raises(LMError, match="L007"):
        LM(f"local/{copy}")(prompt="Hi")


def test_a_stream_is_the_answer_in_pieces(weights: Path) -> None:
    lm = LM("local/smollm2-135m", max_tokens=8, cache=False)
    request = lm.request([Message("user", "Name a colour.")], logprobs=2)
    whole = lm.complete(request)
    for chunks in (list(lm.stream(request)), asyncio.run(collect(lm.astream(request)))):
        assert "".join(c.text for c in chunks) == whole.texts[0] == chunks[-1].response.texts[0] and len(chunks) > 3
        assert chunks[-1].response.logprobs == whole.logprobs
    tokens = whole.logprobs[0]
    assert "".join(t.token for t in tokens).strip() == whole.texts[0].strip() and len(tokens) == 8
    assert all(t.logprob <= 0 and len(t.top) == 2 for t in tokens)


async def collect(chunks: Any) -> list[Any]:
    return [chunk async for chunk in chunks]


def test_who_gives_up_frees_the_slot(weights: Path) -> None:
    lm = LM("local/smollm2-135m", max_tokens=2000, cache=False)
    lm("Hi", max_tokens=1)

    async def cancelled() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(lm.acomplete(lm.request([Message("user", "Count to a thousand.")])), 0.2)

    started = time.monotonic()
    asyncio.run(cancelled())
    for _ in lm.stream(lm.request([Message("user", "Tell a very long story.")])):
        break
    assert lm("Hi", max_tokens=1) and time.monotonic() - started < 10


def test_calls_are_batched_over_slots(weights: Path) -> None:
    lm = LM("local/smollm2-135m", max_tokens=8, cache=False, slots=4, n_ctx=512)
    predict = Predict("question -> answer")
    with context(lm=lm):
        answers = predict.batch([{"question": f"What is {i}?"} for i in range(8)], num_threads=4)
    assert len(answers) == 8 and lm.usage.calls == 8


def test_embeddings(weights: Path) -> None:
    embedder = make_embedder("local/smollm2-135m", n_ctx=64)
    assert isinstance(embedder, Embedder) and "weights" in embedder.identity
    cat, kitten, tax = embedder.embed(["A cat sat.", "A kitten sat.", "Tax law of 1994, article 12, paragraph 3"])
    assert cat.dtype == np.float32 and cat @ kitten > cat @ tax and abs(float(cat @ cat) - 1) < 1e-3
    assert asyncio.run(embedder.aembed(["A cat sat."]))[0] @ cat > 0.999 and embedder.embed([]).shape == (0, 0)
    with pytest.raises(LMError, match="L010"):
        embedder.embed(["word " * 200])


def test_a_prompt_that_is_too_long(weights: Path) -> None:
    with pytest.raises(LMError, match="L010"):
        LM("local/smollm2-135m", n_ctx=64)(prompt="word " * 2000)
