"""Grammars (GBNF, as llama.cpp reads it) that hold a model's answer to an adapter's layout and the fields' types.

What holds here: every answer that a grammar lets through parses with the same adapter, as far as the types are
structural and the answer is not cut off; constraints on values (a regular expression, a minimum) are left to
validation. The rules for JSON follow RFC 8259 without optional white space, and lists and mappings end after 24 items:
a small model that repeats itself must come to an end.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tracedsl.programs.types import json_schema

if TYPE_CHECKING:
    from tracedsl.programs.fields import Field
    from tracedsl.programs.signature import Signature

_BASE = r'''
line ::= [^\n \t] [^\n]*
text ::= ([^\[] | "[" [^\[])+
content ::= ([^<\n] | "<" [^/<\n] | "\n" [^<])+
string ::= "\"" ([^"\\\x00-\x1F] | "\\" ["\\/bfnrt])* "\""
integer ::= "-"? ("0" | [1-9] [0-9]{0,17})
number ::= integer ("." [0-9]{1,12})?
boolean ::= "true" | "false"
null ::= "null"
date ::= year "-" day | leap "-02-29"
year ::= [12] [0-9] [0-9] [0-9]
day ::= ("0" [13578] | "1" [02]) "-" (d28 | "29" | "3" [01]) | ("0" [469] | "11") "-" (d28 | "29" | "30") | "02-" d28
d28 ::= "0" [1-9] | "1" [0-9] | "2" [0-8]
leap ::= [12] [0-9] ("0" [48] | [2468] [048] | [13579] [26])
clock ::= ("0" [0-9] | "1" [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9]
moment ::= date "T" clock
anything ::= string | number | boolean | null | "[" (anything (", " anything){0,23})? "]" | mapping
mapping ::= "{" (string ": " anything (", " string ": " anything){0,23})? "}"
'''.strip()


def plain_grammar(signature: type[Signature]) -> str:
    """`Title: value` for each output, a line each."""
    g = _Grammar()
    lines = [f"{_quote(f'{f.title}: ')} {g.field(f, 'line')}" for f in signature.output_fields.values()]
    return g.finish(' "\\n" '.join(lines))


def xml_grammar(signature: type[Signature]) -> str:
    """`<name>`, the value, `</name>` for each output."""
    g = _Grammar()
    parts = [f"{_quote(f'<{f.name}>' + chr(10))} {g.field(f, 'content')} {_quote(chr(10) + f'</{f.name}>')}"
             for f in signature.output_fields.values()]
    return g.finish(' "\\n" '.join(parts))


def chat_grammar(signature: type[Signature]) -> str:
    """`[[ ## name ## ]]`, the value, for each output, then the end marker."""
    g = _Grammar()
    parts = [f"{_quote(f'[[ ## {f.name} ## ]]' + chr(10))} {g.field(f, 'text')}"
             for f in signature.output_fields.values()]
    return g.finish(' "\\n\\n" '.join([*parts, _quote("[[ ## completed ## ]]")]))


def json_grammar(signature: type[Signature]) -> str:
    """One JSON object with all outputs in order."""
    g = _Grammar()
    pairs = [f"{_quote(json.dumps(f.name) + ': ')} {g.json_field(f)}" for f in signature.output_fields.values()]
    return g.finish('"{" ' + ' ", " '.join(pairs) + ' "}"')


class _Grammar:
    """Rules as they are collected, one for each definition of the schemas."""

    def __init__(self) -> None:
        self.rules: dict[str, str] = {}

    def finish(self, root: str) -> str:
        """The grammar's text: the root and every rule that it can reach."""
        rules = {**dict(line.split(" ::= ", 1) for line in _BASE.splitlines()), **self.rules}
        reached, todo = {"root": root}, [root]
        while todo:
            for name in _names(todo.pop()):
                if name not in reached:
                    reached[name] = rules[name]
                    todo.append(rules[name])
        return "\n".join(f"{name} ::= {rule}" for name, rule in reached.items())

    def field(self, field: Field, text_rule: str) -> str:
        """The value of a field outside JSON: text is bare, numbers and choices too, the rest is JSON."""
        if field.type is str or field.type is Any:
            return text_rule
        return self.bare(self._schema(field), text_rule)

    def json_field(self, field: Field) -> str:
        return "string" if field.type is str else self.value(self._schema(field))

    def _schema(self, field: Field) -> dict[str, Any]:
        schema = json_schema(field.type)
        for name, definition in schema.pop("$defs", {}).items():
            rule = self._name(name)
            if rule not in self.rules:
                self.rules[rule] = ""  # taken before it is written: definitions may be recursive
                self.rules[rule] = self.value(definition)
            self.rules.setdefault(f"bare-{rule}", self.bare(definition, "line"))
        return schema

    def bare(self, schema: dict[str, Any], text_rule: str) -> str:
        """A value as `format_value` writes it outside JSON."""
        if "$ref" in schema:
            return "bare-" + self._name(schema["$ref"].rsplit("/", 1)[-1])
        if "const" in schema:
            return _quote(_plain(schema["const"]))
        if "enum" in schema:
            return _either(_quote(_plain(v)) for v in schema["enum"])
        if options := schema.get("anyOf") or schema.get("oneOf"):
            return _either(self.bare(o, text_rule) for o in options)
        kind = schema.get("type")
        if kind == "string":
            return self._format(schema) or text_rule
        return {"boolean": '("True" | "False")', "null": '"None"'}.get(str(kind)) or self.value(schema)

    def value(self, schema: dict[str, Any]) -> str:
        """A value as JSON."""
        if "$ref" in schema:
            return self._name(schema["$ref"].rsplit("/", 1)[-1])
        if "const" in schema:
            return _quote(json.dumps(schema["const"], ensure_ascii=False))
        if "enum" in schema:
            return _either(_quote(json.dumps(v, ensure_ascii=False)) for v in schema["enum"])
        if options := schema.get("anyOf") or schema.get("oneOf"):
            return _either(self.value(o) for o in options)
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._array(schema)
        if kind == "string":
            form = self._format(schema)
            return f'"\\"" {form} "\\""' if form else "string"
        return str(kind) if kind in ("integer", "number", "boolean", "null") else "anything"

    def _format(self, schema: dict[str, Any]) -> str:
        return {"date": "date", "date-time": "moment", "time": "clock"}.get(schema.get("format", ""), "")

    def _object(self, schema: dict[str, Any]) -> str:
        properties = schema.get("properties")
        if not properties:
            inner = schema.get("additionalProperties")
            if not isinstance(inner, dict):
                return "mapping"
            pair = f'string ": " {self.value(inner)}'
            return f'"{{" ({pair} (", " {pair}){{0,23}})? "}}"'
        pairs = [f"{_quote(json.dumps(name) + ': ')} {self.value(s)}" for name, s in properties.items()]
        return '"{" ' + ' ", " '.join(pairs) + ' "}"'

    def _array(self, schema: dict[str, Any]) -> str:
        if "prefixItems" in schema:
            return '"[" ' + ' ", " '.join(self.value(s) for s in schema["prefixItems"]) + ' "]"'
        item = self.value(schema.get("items", {}))
        return f'"[" ({item} (", " {item}){{0,23}})? "]"'

    @staticmethod
    def _name(definition: str) -> str:
        return "def-" + re.sub(r"[^a-zA-Z0-9]+", "-", definition).lower().strip("-")


def _names(rule: str) -> list[str]:
    """The rules that a rule refers to: its words outside terminals and character classes."""
    return re.findall(r"[a-z][\w-]*", re.sub(r'"(\\.|[^"\\])*"|\[(\\.|[^\]\\])*\]', "", rule))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _either(options: Any) -> str:
    return f"({' | '.join(options)})"


def _quote(text: str) -> str:
    """A terminal: the text in double quotes, with what GBNF wants escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
