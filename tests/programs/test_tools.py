"""Tools: schemas from functions, checked arguments, calls and their results."""

from __future__ import annotations

import asyncio
import enum
import functools
import json
import warnings
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tracedsl.programs import Predict, ScriptedLM, Signature, Tool, ToolCalls
from tracedsl.programs.lm.base import LMResponse
from tracedsl.programs.lm.base import ToolCall as WireCall
from tracedsl.programs.tools.tool import ToolError, as_tools, error_text
from tracedsl.programs.types import FieldError


class Place(BaseModel):
    city: str
    zip: int = 0


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


def weather(place: Place, unit: Unit = Unit.C, days: Annotated[int, "how many"] = 1) -> str:
    """Tell the weather.

    It is mostly good.

    Args:
        place: where, with
            its zip code.
        unit (Unit): of the temperature.

    Returns:
        one line.
    """
    return f"{place.city} {unit.name} {days}"


def test_the_schema_comes_from_signature_annotations_and_docstring() -> None:
    tool = Tool(weather)
    assert (tool.name, tool.desc) == ("weather", "Tell the weather.\n\nIt is mostly good.")
    assert tool.args["place"]["description"] == "where, with its zip code."
    assert tool.args["place"]["properties"]["city"] == {"type": "string"}
    assert tool.args["unit"]["enum"] == ["celsius", "fahrenheit"] and tool.args["unit"]["default"] == "celsius"
    spec = tool.spec
    parameters = json.loads(spec.parameters)
    assert parameters["required"] == ["place"] and "$defs" not in parameters and spec.name == "weather"
    assert tool.arg_types["place"] is Place


def test_arguments_are_converted_and_checked_before_the_function_sees_them() -> None:
    tool = Tool(weather)
    assert tool(place={"city": "Ulm"}, days="3") == "Ulm C 3"
    assert tool(place=Place(city="Bonn"), unit="fahrenheit") == "Bonn F 1"
    for wrong in ({"place": 3}, {}, {"place": {"city": "x"}, "days": "many"}, {"place": {"city": "x"}, "unit": "K"}):
        with pytest.raises(ToolError, match="P041"):
            tool(**wrong)
    with pytest.raises(ToolError, match="did you mean 'place'"):
        tool(plce={"city": "x"})


def test_a_recursive_type_keeps_its_definition() -> None:
    tool = Tool(lambda t: t, name="walk", arg_types={"t": Tree})
    assert "Tree" in json.loads(tool.spec.parameters)["$defs"]
    assert tool(t={"value": 1, "children": [{"value": 2}]}).children[0].value == 2


def test_awkward_functions() -> None:
    def odd(_x: int, model_config: str = "a", copy: bool = False, **more: Any) -> Any:
        return _x, model_config, copy, more

    assert Tool(odd)(_x="1", copy="yes", z=3) == (1, "a", True, {"z": 3})
    assert Tool(functools.partial(odd, 5), name="p")(copy=True) == (5, "a", True, {})

    def placed(a: int, /, b: int) -> int:
        return a - b

    assert Tool(placed)(a=3, b=1) == 2 and Tool(placed)(3, 1) == 2

    class Callable_:
        """Counts."""

        def __call__(self, n: int) -> int:
            return n + 1

    tool = Tool(Callable_())
    assert (tool.name, tool.desc, tool.args) == ("Callable_", "Counts.", {"n": {"type": "integer"}})
    assert tool(n="4") == 5

    def hidden(x: "NotThere", y: int = 0) -> int:  # type: ignore[name-defined] # noqa: F821, UP037
        return y

    assert Tool(hidden)(x=object(), y=2) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Tool(lambda x=print: 1, name="f").args.keys() == {"x"}
    with pytest.raises(ToolError, match="lambda"):
        Tool(lambda: 1)
    with pytest.raises(ToolError, match="P040"):
        Tool(3)  # type: ignore[arg-type]
    assert Tool(max, args={"a": {"type": "integer"}}).required == ["a"]


def test_what_the_caller_says_wins() -> None:
    tool = Tool(lambda x: x, name="n", desc="d", arg_types={"x": Literal["a", "b"]}, arg_desc={"x": "which"})
    assert (tool.name, tool.desc) == ("n", "d")
    assert tool.args["x"] == {"enum": ["a", "b"], "type": "string", "description": "which"}
    given_ = Tool(lambda **k: k, name="g", args={"q": {"type": "string"}, "n": {"type": "integer", "default": 3}})
    assert given_.required == ["q"] and given_(q="x") == {"q": "x"}
    with pytest.raises(ToolError, match="P041"):
        given_(z=1)


def test_asynchronous_functions_work_from_everywhere() -> None:
    async def slow(n: int) -> int:
        await asyncio.sleep(0)
        return n * 2

    tool = Tool(slow)
    assert tool(n="2") == 4 and asyncio.run(tool.acall(n=3)) == 6

    async def inside() -> Any:
        return tool(n=4), await Tool(lambda n: n, name="plain").acall(n=1)

    assert asyncio.run(inside()) == (8, 1)


def test_sphinx_docstrings() -> None:
    def f(a: int, b: str) -> None:
        """Do it.

        :param a: the first
        :param str b: the second
        :return: nothing
        """

    assert Tool(f).desc == "Do it." and Tool(f).args["b"]["description"] == "the second"


FORMS = [
    {"tool_calls": [{"name": "f", "args": {"x": 1}}]}, [{"name": "f", "args": {"x": 1}}],
    {"name": "f", "arguments": '{"x": 1}'}, {"name": "f", "args": {"x": 1}},
    [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
]


@pytest.mark.parametrize("form", FORMS)
def test_calls_are_read_from_every_form(form: Any) -> None:
    calls = ToolCalls.model_validate(form)
    assert (calls.tool_calls[0].name, calls.tool_calls[0].args) == ("f", {"x": 1})
    assert calls.model_dump() == {"tool_calls": [{"name": "f", "args": {"x": 1}}]}
    assert ToolCalls.from_calls(calls.to_wire()).tool_calls[0].args == {"x": 1}


@pytest.mark.parametrize("form", [{"tool_calls": [{"args": {}}]}, "text", 3, {"name": "f", "args": "[1"}, [[1]]])
def test_what_is_no_call_is_refused(form: Any) -> None:
    with pytest.raises(ValueError):
        ToolCalls.model_validate(form)


def test_results_stand_in_order_and_errors_are_kept() -> None:
    def f(x: int) -> int:
        return 10 // x

    calls = ToolCalls.from_dict_list([{"name": "f", "args": {"x": n}, "id": f"i{n}"} for n in (5, 0, 2)]
                                     + [{"name": "g", "args": {}}, {"name": "f", "args": {"y": 1}}])
    for results in (calls.execute([f]), asyncio.run(calls.aexecute({"f": f}))):
        found = results.tool_call_results
        assert [r.is_error for r in found] == [False, True, False, True, True]
        assert [found[0].value, found[2].value] == [2, 5] and found[0].call_id == "i5"
        assert "ZeroDivisionError" in found[1].text and isinstance(found[1].error, ZeroDivisionError)
        assert "no tool 'g'" in found[3].text and "no argument 'y'" in found[4].text
        with pytest.raises(ZeroDivisionError):
            results.raise_first()
    with pytest.raises(ZeroDivisionError):
        calls.tool_calls[1].execute([f])


def test_two_tools_of_one_name() -> None:
    with pytest.raises(ToolError, match="two tools"):
        as_tools([weather, Tool(print, name="weather", args={})])


def test_an_answers_calls() -> None:
    response = LMResponse(("",), tool_calls=((WireCall("1", "f", '{"a": 2}'),),))
    assert ToolCalls.from_response(response).tool_calls[0].id == "1" and not ToolCalls.from_response(response, 1)


def test_as_types_of_fields() -> None:
    sent = ScriptedLM(lambda request: '[[ ## calls ## ]]\n{"name": "weather", '
                      '"args": {"place": {"city": "Ulm"}}}')
    asks = Signature("question, tools: list[Tool] -> calls: ToolCalls",
                     custom_types={"Tool": Tool, "ToolCalls": ToolCalls})
    made = Predict(asks)(question="Rain in Ulm?", tools=[Tool(weather)], lm=sent)
    assert made.calls.execute([weather]).tool_call_results[0].value == "Ulm C 1"
    assert "zip" in sent.requests[0].messages[-1].text
    with pytest.raises(FieldError):
        Predict(asks)(question="Rain?", tools=[weather], lm=sent)


def test_errors_as_text() -> None:
    assert error_text(KeyError("x")) == "KeyError: 'x'" and error_text(ValueError()) == "ValueError"


@given(st.dictionaries(st.text("abcxyz", min_size=1, max_size=4), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    max_leaves=5)))
def test_any_json_passes_through_unharmed(args: dict[str, Any]) -> None:
    call = ToolCalls.model_validate([{"name": "f", "args": args}])
    assert ToolCalls.from_calls(call.to_wire()).tool_calls[0].args == args
    assert call.tool_calls[0].execute([Tool(lambda **k: k, name="f")]) == args
