"""Texts with a meaning: code in a language, and what a model thought before it answered.

What holds here: both are strings, with everything that strings can do; `format` without arguments is the text as it
stands in a prompt.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, ClassVar, Self

_FENCE = re.compile(r"[ \t]{0,8}(`{3,})[ \t]*([\w+#.-]*)[^`]*")
_OPEN = re.compile(r"\s*```[ \t]*[\w+#.-]*[ \t]*\n")
_INLINE = re.compile(r"\s*```([^`]+)```\s*|\s*`([^`\n]+)`\s*")


class _Text(str):
    """A string that pydantic checks as one."""

    __slots__ = ()
    field_role: ClassVar[str] = ""

    def format(self, *args: Any, **kwargs: Any) -> str:
        return super().format(*args, **kwargs) if args or kwargs else self._in_prompt()

    def _in_prompt(self) -> str:
        return str(self)

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(text)

    @classmethod
    def description(cls) -> str:
        return ""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


class Reasoning(_Text):
    """What a model thought. An endpoint that reports its reasoning fills this field by itself; any other is asked for
    it like for a text."""

    __slots__ = ()
    field_role: ClassVar[str] = "reasoning"

    def __new__(cls, content: str = "") -> Self:
        return super().__new__(cls, content)

    @property
    def content(self) -> str:
        return str(self)


class Code(_Text):
    """Source code: `Code` is Python, `Code["java"]` is Java. A code fence around it is taken off.

    >>> Code["sql"].parse("```sql\\nselect 1\\n```")
    'select 1'
    """

    __slots__ = ()
    language: ClassVar[str] = "python"

    def __new__(cls, code: str = "") -> Self:
        return super().__new__(cls, code)

    def __class_getitem__(cls, language: str) -> type[Code]:
        if not isinstance(language, str):
            raise TypeError(f"the language of code is text, as in Code['python'], not {language!r}")
        return _code_in(language)

    @property
    def code(self) -> str:
        return str(self)

    @classmethod
    def description(cls) -> str:
        return f"{cls.language} code in a code fence: ```{cls.language.lower()}"

    def _in_prompt(self) -> str:
        fence = "```" if "```" not in self else "````"
        return f"{fence}{self.language.lower()}\n{self}\n{fence}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The code, without its fence and the prose around it. Raises `ValueError` if there is more than one block and
        not exactly one of the right language."""
        blocks = _blocks(text)
        own = [code for language, code in blocks if language in (cls.language.casefold(), _SHORT.get(cls.language, ""))]
        if len(blocks) == 1 or len(own) == 1:
            return cls((own or [blocks[0][1]])[0].strip("\n"))
        if blocks:
            raise ValueError(f"expected one block of {cls.language} code, found {len(blocks)}")
        if inline := _INLINE.fullmatch(text):
            return cls(inline.group(1) or inline.group(2))
        if opening := _OPEN.match(text):
            text = text[opening.end():]
        if not text.strip():
            raise ValueError(f"expected {cls.language} code, got nothing")
        return cls(text.strip("\n"))


def _blocks(text: str) -> list[tuple[str, str]]:
    """The closed code blocks: language and content. A fence is closed by one of the same length."""
    blocks, fence, language, content = [], "", "", list[str]()
    for line in text.split("\n"):
        if fence and line.strip() == fence:
            blocks.append((language, "\n".join(content)))
            fence = ""
        elif fence:
            content.append(line)
        elif opening := _FENCE.fullmatch(line):
            fence, language, content = opening.group(1), opening.group(2).casefold(), []
    return blocks


_SHORT = {"python": "py", "javascript": "js", "typescript": "ts", "bash": "sh", "rust": "rs"}


@lru_cache(maxsize=64)
def _code_in(language: str) -> type[Code]:
    return type(f"Code[{language!r}]", (Code,), {"language": language, "__slots__": (), "__module__": __name__})
