"""Who may import whom (docs/architecture.md): a part imports only what stands below it, and there are no circles."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent

# part -> the parts that it may import beside itself; what is not listed here may be imported by nobody below it
BASE = {"diagnostics", "cache", "_lazy"}
SHARED = BASE | {"ir", "rewrite", "autotune", "capture"}
ALLOWED: dict[str, set[str]] = {
    "diagnostics": set(),
    "_lazy": set(),
    "cache": {"diagnostics"},
    "ir": BASE,
    "rewrite": BASE | {"ir"},
    "autotune": BASE,
    "capture": BASE,
    "programs": BASE | {"autotune"},
    "hw": BASE | {"ir", "autotune", "schedule"},
    "schedule": BASE | {"ir"},
    "capture.tensor": SHARED,
    "capture.language": SHARED | {"programs"},
    "rewrite.tensor": BASE | {"ir", "rewrite"},
    "rewrite.language": SHARED | {"programs", "capture.language"},
    "kernel": SHARED | {"capture.tensor", "rewrite.tensor", "schedule", "hw"},
    "program": SHARED | {"capture.language", "rewrite.language", "programs"},
}
TOP = {"cli", "doctor", "demo", "__main__", "", "__init__"}


def part_of(module: str) -> str:
    """`tracedsl.capture.tensor.arrays` -> `capture.tensor`."""
    names = module.split(".")[1:]
    if len(names) >= 2 and ".".join(names[:2]) in ALLOWED:
        return ".".join(names[:2])
    first = names[0] if names else ""
    return first.split("_")[0] if first.startswith(("kernel_", "program_")) else first


def modules() -> dict[str, Path]:
    found = {}
    for folder in ("tracedsl", "hw", "autotune", "programs"):
        for path in (ROOT / folder).rglob("*.py"):
            dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[dotted if folder == "tracedsl" else f"tracedsl.{dotted}"] = path
    return found


def imports(path: Path, known: dict[str, Path], *, at_load: bool) -> set[str]:
    """The modules that a file imports; `at_load`: when it is loaded, not later and not for type checkers alone."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if typing_only or (at_load and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            skipped.update(sub for body in getattr(node, "body", ()) for sub in ast.walk(body))
    found = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(names & known.keys() or {node.module})
    return found & known.keys()


def test_a_part_imports_only_what_stands_below_it() -> None:
    wrong = []
    known = modules()
    for module, path in known.items():
        part = part_of(module)
        if part in TOP:
            continue
        for name in imports(path, known, at_load=False):
            other = part_of(name)
            if other not in ALLOWED[part] | {part, ""}:
                wrong.append(f"{module} imports {name}")
    assert not wrong, "\n".join(sorted(wrong))


def test_there_are_no_circles() -> None:
    known = modules()
    edges = {module: imports(path, known, at_load=True) - {module} for module, path in known.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module):], module))
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, (*trail, module))
            done.add(module)

    for module in sorted(known):
        visit(module, ())
