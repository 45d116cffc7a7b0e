"""Random programs for the gate: branches, loops, exceptions, helpers, containers around calls of modules and clients.

What holds here: the text of a program depends on its seed alone, and every program ends.
"""

from __future__ import annotations

import linecache
import random
from collections.abc import Callable, Mapping
from typing import Any


class Writer:
    """Writes one program: statements over texts `t0..`, lists `xs`, and the log."""

    def __init__(self, seed: int) -> None:
        self.source, self.lines, self.depth, self.names, self.loops = random.Random(seed), list[str](), 1, ["q"], 0

    def put(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def text(self, deep: int = 0) -> str:
        name = self.source.choice(self.names)
        made = [name, f"f'{{{name}}} {self.source.randrange(9)}'", f"{name} + '!'", f"{name}.upper()",
                f"{name}[:{self.source.randrange(1, 9)}]", f"str(len({name}))", "'word'"]
        if deep < 2:
            inner = self.text(deep + 1)
            made += [f"Predict('question -> answer')(question={inner}).answer", f"ask({inner})",
                     f"helper({inner}, log)", f"'-'.join([{inner}, {name}])",
                     f"(xs[-1] if xs else {inner})", f"ask({inner}, 0.0).strip()"]
        return self.source.choice(made)

    def test(self) -> str:
        name = self.source.choice(self.names)
        return self.source.choice([f"{name} < {self.text(1)}", f"'a' in {name}", f"len({name}) % 2", f"{name}", "xs",
                                   f"not {self.text(1)}", f"{name} == {self.text(1)} or {self.text(1)} > 'm'"])

    def block(self, size: int) -> None:
        self.depth += 1
        known = list(self.names)
        for _ in range(size):
            self.statement()
        self.names = known
        self.depth -= 1

    def statement(self) -> None:
        kinds = ["assign"] * 5 + ["log", "log", "append", "append", "if", "for", "try", "raise", "with", "return",
                                  "while", "comprehension", "mutate"]
        getattr(self, "_" + self.source.choice(kinds if self.depth < 4 else kinds[:9]))()

    def _assign(self) -> None:
        name = f"t{self.source.randrange(4)}"
        self.put(f"{name} = {self.text()}")
        if name not in self.names:
            self.names.append(name)

    def _log(self) -> None:
        self.put(f"log.append({self.text(1)})")

    def _append(self) -> None:
        self.put(f"xs.append({self.text(1)})")

    def _mutate(self) -> None:
        self.put(self.source.choice(["xs.reverse()", "xs[:] = xs[:3]", "xs += ['z']", "xs = [*xs, q]",
                                     "xs.pop() if xs else None"]))

    def _comprehension(self) -> None:
        self.put(f"xs = [ask(x + {self.text(2)}) for x in xs[:3] if x != 'word']")

    def _if(self) -> None:
        self.put(f"if {self.test()}:")
        self.block(self.source.randrange(1, 3))
        if self.source.random() < 0.5:
            self.put("else:")
            self.block(1)

    def _for(self) -> None:
        self.put(f"for i in range({self.source.randrange(1, 4)}):")
        self.block(self.source.randrange(1, 3))

    def _while(self) -> None:
        self.loops += 1
        self.put(f"n{self.loops} = 0")
        self.put(f"while n{self.loops} < 3 and ({self.test()}):")
        self.depth += 1
        self.put(f"n{self.loops} += 1")
        self.depth -= 1
        self.block(1)

    def _try(self) -> None:
        self.put("try:")
        self.block(self.source.randrange(1, 3))
        self.put("except (RuntimeError, ValueError, openai.OpenAIError) as error:")
        self.block(1)
        if self.source.random() < 0.4:
            self.put("finally:")
            self.block(1)

    def _with(self) -> None:
        self.put("with contextlib.suppress(ValueError):")
        self.block(1)

    def _raise(self) -> None:
        self.put(f"if len({self.text(1)}) % 5 == 0:")
        self.put(f"    raise ValueError({self.text(1)})")

    def _return(self) -> None:
        self.put(f"if {self.test()}:")
        self.put(f"    return {self.text(1)}, xs")


def make(seed: int, world: Mapping[str, Any]) -> tuple[str, Callable[..., Any]]:
    """The text of a program and the program; `world` has what it calls."""
    lines = []
    for name in ("helper", "fuzzed"):
        writer = Writer(seed * 2 + (name == "fuzzed"))
        if name == "helper":
            writer.names = ["q"]
            plain = writer.text
            writer.text = lambda deep=0, plain=plain: plain(deep).replace(      # type: ignore[method-assign,misc]
                "helper(", "(lambda a, b: a)(")
        for _ in range(2 if name == "helper" else 6):
            writer.statement()
        result = writer.names[-1] if name == "helper" else f"({', '.join(writer.names)}, xs)"
        lines += [f"def {name}(q, log):", "    xs = []", *writer.lines, f"    return {result}", ""]
    text = "\n".join(lines)
    file = f"<fuzz {seed}>"
    linecache.cache[file] = (len(text), None, [line + "\n" for line in text.split("\n")], file)
    space = dict(world)
    exec(compile(text, file, "exec"), space)    # noqa: S102 - text that this module wrote
    return text, space["fuzzed"]
