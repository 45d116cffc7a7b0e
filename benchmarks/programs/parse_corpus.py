"""The parse corpus of the tests, read by our adapters and by DSPy's: right, refused, or wrong without a word.

    python -m benchmarks.programs.parse_corpus

Each answer is read once, without a model. "right" is the value that the corpus names, or an error where it names none;
"refused" is an error where a value could have been read; "wrong" is any other value, and nobody is told of it. DSPy's
JSON adapter reads through `json_repair`.
"""

from __future__ import annotations

import datetime
import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from tracedsl.programs import InputField, OutputField, Signature
from tracedsl.programs.adapters import adapter_by_name
from tracedsl.programs.types import to_json

CORPUS = Path(__file__).parents[2] / "tests" / "programs" / "corpus"


class Item(BaseModel):
    name: str
    price: float


class Person(BaseModel):
    name: str
    age: int


TYPES: Mapping[str, Any] = {
    "city": str, "count": int, "answer": str, "queue": Literal["billing", "returns", "technical support"],
    "urgent": bool, "items": list[Item], "total": float, "when": datetime.date, "price": Decimal, "person": Person}


def verdict(read: Callable[[str], Mapping[str, Any]], case: Mapping[str, Any]) -> str:
    """How one answer was read."""
    try:
        got = {name: to_json(value) for name, value in read(case["text"]).items()}
    except Exception as error:  # noqa: BLE001 - what DSPy raises is of many kinds
        if "expect" not in case:
            return "right"
        return "refused" if "ParseError" in type(error).__name__ else "refused, error of another kind"
    return "right" if got == case.get("expect") else "wrong"


def main() -> None:
    import dspy

    warnings.simplefilter("ignore")
    theirs = {"chat": dspy.ChatAdapter(), "json": dspy.JSONAdapter(), "xml": dspy.XMLAdapter()}
    print("| corpus | adapter | answers | right | refused | wrong |\n|---|---|---|---|---|---|")
    for name in ("chat", "json", "xml", "plain"):
        cases = [json.loads(line) for line in (CORPUS / f"{name}.jsonl").read_text().splitlines()]
        for who, adapter, make, field in (
                ("tracedsl", adapter_by_name(name), Signature, (InputField, OutputField)),
                ("dspy", theirs.get(name), dspy.Signature, (dspy.InputField, dspy.OutputField))):
            if adapter is None:
                continue
            counts = Counter(verdict(_reader(adapter, make, field, case), case) for case in cases)
            refused = counts["refused"] + counts["refused, error of another kind"]
            print(f"| {name} | {who} | {len(cases)} | {counts['right']} | {refused} | {counts['wrong']} |")


def _reader(adapter: Any, make: Any, field: tuple[Any, Any], case: Mapping[str, Any]) -> Callable[[str], Any]:
    outputs = {name: (TYPES[name], field[1]()) for name in case["signature"].split(", ")}
    signature = make({"q": (str, field[0]()), **outputs}, "Answer.")
    return lambda text: adapter.parse(signature, text)


if __name__ == "__main__":
    main()
