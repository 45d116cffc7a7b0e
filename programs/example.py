"""Examples and predictions: records with named fields, read as attributes or as a mapping.

What holds here: two examples with the same fields are equal, whatever is marked as input. A prediction is an example
that a program made; `.completions` holds all answers if several were asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from tracedsl.diagnostics import nearest
from tracedsl.programs.types import FieldError, to_json


class Example:
    """One record of a data set: `Example(question="...", answer="...").with_inputs("question")`.

    Args:
        base: another example or a mapping to start from.
        **fields: the fields; they win over `base`.
    """

    _store: dict[str, Any]
    _input_keys: frozenset[str] | None

    def __init__(self, base: Example | Mapping[str, Any] | None = None, **fields: Any) -> None:
        start = base._store if isinstance(base, Example) else dict(base or {})
        object.__setattr__(self, "_store", {**start, **fields})
        object.__setattr__(self, "_input_keys", base._input_keys if isinstance(base, Example) else None)

    # -- fields --------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # Dunder and private names must fail the ordinary way: copy and pickle look for them before `_store` is there.
        if not name.startswith("_") and name in self._store:
            return self._store[name]
        hint = "" if name.startswith("_") else nearest(name, self._store)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}" + (f"; {hint}" if hint else ""))

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self._store[name] = value

    def __delattr__(self, name: str) -> None:
        self._store.pop(name)

    def __getitem__(self, name: str) -> Any:
        return self._store[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._store[name] = value

    def __delitem__(self, name: str) -> None:
        del self._store[name]

    def __contains__(self, name: object) -> bool:
        return name in self._store

    def __len__(self) -> int:
        return len(self._store)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._store))

    def keys(self) -> list[str]:
        return list(self._store)

    def values(self) -> list[Any]:
        return list(self._store.values())

    def items(self) -> list[tuple[str, Any]]:
        return list(self._store.items())

    def get(self, name: str, default: Any = None) -> Any:
        return self._store.get(name, default)

    # -- inputs and labels ---------------------------------------------------------------------------------------

    def with_inputs(self, *names: str) -> Self:
        """A copy in which these fields are the inputs; the others are labels."""
        for name in names:
            if name not in self._store:
                raise FieldError("P003", f"the example has no field {name!r} to be an input",
                                 hint=nearest(name, self._store))
        made = self.copy()
        made._input_keys = frozenset(names)
        return made

    def inputs(self) -> Example:
        """The input fields; raises `FieldError` if `with_inputs` was never called."""
        if self._input_keys is None:
            raise FieldError("P011", "the example does not say which fields are inputs",
                             hint="call example.with_inputs('question', ...) when the data set is made")
        return Example({k: v for k, v in self._store.items() if k in self._input_keys})._with_keys(self._input_keys)

    def labels(self) -> Example:
        """The fields that are no inputs."""
        inputs = self.inputs()
        return Example({k: v for k, v in self._store.items() if k not in inputs})

    # -- copies --------------------------------------------------------------------------------------------------

    def copy(self, **fields: Any) -> Self:
        """A shallow copy, with these fields set."""
        made = object.__new__(type(self))
        for name, value in self.__dict__.items():
            object.__setattr__(made, name, value)
        object.__setattr__(made, "_store", {**self._store, **fields})
        return made

    def without(self, *names: str) -> Self:
        """A copy without these fields."""
        made = self.copy()
        for name in names:
            made._store.pop(name, None)
        return made

    def _with_keys(self, keys: frozenset[str] | None) -> Self:
        self._input_keys = keys
        return self

    def toDict(self) -> dict[str, Any]:
        """The fields as plain data that `json.dumps` takes."""
        return {name: to_json(value) for name, value in self._store.items()}

    def dump(self) -> dict[str, Any]:
        """The whole example as JSON data, with its inputs; `Example.load` reads it back."""
        keys = self._input_keys
        return {"fields": self.toDict(), "inputs": None if keys is None else [k for k in self._store if k in keys]}

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Example:
        return Example(data["fields"])._with_keys(None if data["inputs"] is None else frozenset(data["inputs"]))

    # -- comparison ----------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Example) and self._store == other._store

    def __hash__(self) -> int:
        return hash(json.dumps(self.toDict(), sort_keys=True))

    def __repr__(self) -> str:
        fields = ", ".join(f"{k}={v!r}" for k, v in self._store.items())
        inputs = "" if self._input_keys is None else f" (inputs: {', '.join(sorted(self._input_keys))})"
        return f"{type(self).__name__}({fields}){inputs}"


class Completions:
    """All answers to one call, by field: `completions.answer` is a list; `completions[0]` is one prediction."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = [dict(row) for row in rows]

    def __getattr__(self, name: str) -> list[Any]:
        if name.startswith("_") or not self._rows or name not in self._rows[0]:
            raise AttributeError(f"no field {name!r} in these completions")
        return [row[name] for row in self._rows]

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, int):
            return Prediction(self._rows[key])
        return [row[key] for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def items(self) -> list[tuple[str, list[Any]]]:
        return [(name, [row[name] for row in self._rows]) for name in (self._rows[0] if self._rows else ())]


class Prediction(Example):
    """What a program answered. `usage` is what the call cost, where it is known."""

    _completions: Completions | None
    _usage: Any

    def __init__(self, base: Example | Mapping[str, Any] | None = None, **fields: Any) -> None:
        super().__init__(base, **fields)
        object.__setattr__(self, "_completions", None)
        object.__setattr__(self, "_usage", None)

    @classmethod
    def from_completions(cls, rows: Iterable[Mapping[str, Any]], usage: Any = None) -> Prediction:
        """The first row as a prediction that knows all rows."""
        completions = Completions(rows)
        made = cls(completions._rows[0])
        made._completions = completions
        made._usage = usage
        return made

    @property
    def completions(self) -> Completions:
        return self._completions if self._completions is not None else Completions([self._store])

    def get_lm_usage(self) -> Any:
        """The `Usage` of the call that made this, or None."""
        return self._usage
