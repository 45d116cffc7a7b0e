"""The `tracedsl` command.

What holds here: a command only parses, calls the library and prints; each takes `--json` for machines. An error that
tracedsl raises on purpose ends with its own text and exit status 1, never with a traceback.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import tracedsl
from tracedsl.cache import Store
from tracedsl.diagnostics import TracedslError

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _print(data: Any, as_json: bool, text: Callable[[], str]) -> None:
    click.echo(json.dumps(data, indent=2, ensure_ascii=False) if as_json else text())


class _Group(click.Group):
    """Shows an error of tracedsl as its text, and suggests the nearest command for a wrong one."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TracedslError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from tracedsl.diagnostics import nearest

        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            hint = nearest(args[0], self.list_commands(ctx))
            raise click.UsageError(f"No such command {args[0]!r}; {hint}", ctx) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tracedsl.__version__, prog_name="tracedsl")
def main() -> None:
    """Two decorators, one compiler: @kernel for NumPy functions, @program for language-model functions."""


@main.command()
@click.option("--short", is_flag=True, help="Fewer examples: a quick check rather than a measurement.")
@click.option("--only", type=click.Choice(["kernel", "program"]), help="One half alone.")
@_json
def demo(short: bool, only: str | None, as_json: bool) -> None:
    """Speed up a NumPy function and compile a language-model program, on this machine."""
    from tracedsl import demo as job

    report = job.run(short=short, only=only, quiet=as_json)
    if as_json:
        click.echo(json.dumps(report, indent=2))


@main.command()
@_json
def doctor(as_json: bool) -> None:
    """What this machine has, what is missing, and the line that installs it."""
    from tracedsl.doctor import examine

    findings = examine()
    _print([vars(f) for f in findings], as_json, lambda: "\n".join(map(str, findings)))
    sys.exit(1 if any(f.state == "broken" for f in findings) else 0)


@main.command()
@_json
def targets(as_json: bool) -> None:
    """What kernels can be compiled for, and what this machine lacks for it."""
    from tracedsl.hw.target import names, target

    found = [(name, target(name)) for name in names()]
    rows: list[dict[str, Any]] = [{"target": name, "about": made.about, "missing": dict(made.missing())}
                                  for name, made in found]

    def text() -> str:
        lines = []
        for row in rows:
            lines.append(f"{'missing' if row['missing'] else 'ok':<8} {row['target']:<12} {row['about']}")
            lines += [f"{'':<21} {tool} -> {line}" for tool, line in row["missing"].items()]
        return "\n".join(lines)

    _print(rows, as_json, text)


@main.command("compile")
@click.argument("program")
@click.option("--dry-run", is_flag=True, help="Say what it would use, and ask no model.")
@_json
def compile_program(program: str, dry_run: bool, as_json: bool) -> None:
    """Do ahead of time what the first call of a @program would do. PROGRAM is MODULE:FUNCTION or FILE.py:FUNCTION."""
    from dataclasses import asdict

    from tracedsl.program_named import named_program

    made = named_program(program)
    if dry_run:
        estimate = made.estimate()
        _print(asdict(estimate), as_json, lambda: str(estimate))
        return
    made.compile()
    _print(made.artefact(), as_json, made.explain)


@main.command()
@click.argument("old")
@click.argument("new")
@_json
def diff(old: str, new: str, as_json: bool) -> None:
    """What differs between two compiled programs: files that were saved, or digests of the cache."""
    from tracedsl.programs.teleprompters.artefacts import difference, difference_text, read_artefact

    one, two = read_artefact(old), read_artefact(new)
    _print(difference(one, two), as_json, lambda: difference_text(one, two))


@main.group(cls=_Group)
def model() -> None:
    """The embedded language models."""


@model.command("pull")
@click.argument("name", default="smollm2-135m")
@_json
def model_pull(name: str, as_json: bool) -> None:
    """Fetch the weights of a model into the cache."""
    from tracedsl.programs.lm.models import pull

    path = pull(name)
    _print({"name": name, "path": str(path), "bytes": path.stat().st_size}, as_json, lambda: str(path))


@main.command()
@click.argument("function", metavar="MODULE:FUNCTION")
@click.option("--shape", "shapes", multiple=True, metavar="DTYPE[N,M,...]",
              help="An argument, in order: float32[512,768]. Without any, MODULE:FUNCTION_inputs() is called for them.")
@click.option("--trials", type=int, default=200, show_default=True, help="Schedules of each task, at most.")
@click.option("--minutes", type=float, default=10.0, show_default=True, help="Of searching, at most.")
@click.option("--strategy", default="auto", show_default=True, help="How schedules are searched.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a report with pictures.")
@_json
def tune(function: str, shapes: tuple[str, ...], trials: int, minutes: float, strategy: str, seed: int,
         html: Path | None, as_json: bool) -> None:
    """Search for better schedules of a kernel; it uses them from then on, in every process."""
    from tracedsl.kernel_session import arguments_for, find_kernel

    made = find_kernel(function)
    report = made.tune(*arguments_for(function, shapes), trials=trials, minutes=minutes, strategy=strategy, seed=seed,
                       progress=None if as_json else True)
    if html is not None:
        report.html(html)
    _print(report.to_json(), as_json, lambda: str(report))


@main.group(cls=_Group)
def records() -> None:
    """What tuning has measured."""


def _records() -> Any:
    from tracedsl.autotune.records import Records

    return Records(Store().root / "records" / "kernels.jsonl")


@records.command("ls")
@_json
def records_ls(as_json: bool) -> None:
    """For each task and machine: how many measurements, and the best of them."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for row in _records().rows():
        groups.setdefault((row.task, json.dumps(row.where, sort_keys=True)), []).append(row)
    rows = []
    for (task, where), found in groups.items():
        good = [row for row in found if row.measurement.ok]
        best = min(good, key=lambda row: row.measurement.value, default=None)
        rows.append({"task": task, "where": json.loads(where), "measurements": len(found),
                     "failures": len(found) - len(good), "best_seconds": best and best.measurement.value,
                     "point": best and dict(best.point)})

    def text() -> str:
        return "\n".join(f"{r['task']}  {r['where'].get('target', ''):<6} {r['where'].get('machine', ''):<16} "
                         f"{r['measurements']:>6} measured, {r['failures']} failed, best {r['best_seconds']}"
                         for r in rows) or "nothing was measured yet"

    _print(rows, as_json, text)


@records.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_json
def records_export(file: Path, as_json: bool) -> None:
    """Add all measurements to a file that other machines can import."""
    from tracedsl.autotune.records import Records

    count = Records(file).merge(_records())
    _print({"file": str(file), "written": count}, as_json, lambda: f"{count} measurements written to {file}")


@records.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@_json
def records_import(file: Path, as_json: bool) -> None:
    """Take over the measurements of a file that are not here yet."""
    count = _records().merge(file)
    _print({"file": str(file), "taken": count}, as_json, lambda: f"{count} measurements taken over from {file}")


@main.group(cls=_Group)
def cache() -> None:
    """The store of compiled kernels, programs and answers."""


def _rows(store: Store, kind: str | None) -> list[dict[str, Any]]:
    return [{"kind": e.key.kind, "subject": e.key.subject, "digest": e.key.digest, "bytes": e.size,
             "created": e.created} for e in store.entries(kind)]


@cache.command("ls")
@click.option("--kind", help="One kind alone: kernel, program, lm, runtime.")
@_json
def cache_ls(kind: str | None, as_json: bool) -> None:
    """List the entries."""
    store = Store()
    rows = _rows(store, kind)

    def text() -> str:
        lines = [f"{r['kind']:<8} {r['bytes']:>10,}  {r['digest'][:12]}  {r['subject']}" for r in rows]
        return "\n".join([*lines, f"{len(rows)} entries, {sum(r['bytes'] for r in rows):,} bytes in {store.root}"])

    _print(rows, as_json, text)


@cache.command("why")
@click.argument("digest")
@_json
def cache_why(digest: str, as_json: bool) -> None:
    """Show what an entry depends on: the parts of its key, and its neighbours of the same subject."""
    store = Store()
    found = [e for e in store.entries() if e.key.digest.startswith(digest)]
    if len(found) != 1:
        raise click.ClickException(f"{len(found)} entries start with {digest!r}: see `tracedsl cache ls`")
    key = found[0].key
    others = {e.key.digest[:12]: sorted(n for n in {*e.key.parts, *key.parts} if e.key.parts.get(n) != key.parts.get(n))
              for e in store.entries(key.kind, key.subject) if e.key.digest != key.digest}
    data = {"kind": key.kind, "subject": key.subject, "parts": dict(key.parts), "differs_from": others}

    def text() -> str:
        lines = [f"{key.kind} {key.subject}", *(f"  {name} = {value}" for name, value in key.parts.items())]
        return "\n".join(lines + [f"differs from {other} in {', '.join(names)}" for other, names in others.items()])

    _print(data, as_json, text)


@cache.command("verify")
@_json
def cache_verify(as_json: bool) -> None:
    """Check every entry; damaged ones are set aside."""
    bad = [str(path) for path in Store().verify()]
    _print({"damaged": bad}, as_json, lambda: "\n".join(bad) or "every entry is sound")
    sys.exit(1 if bad else 0)


@cache.command("prune")
@click.option("--kind", help="One kind alone.")
@click.option("--days", type=float, default=0.0, show_default=True, help="Only entries older than this.")
@_json
def cache_prune(kind: str | None, days: float, as_json: bool) -> None:
    """Remove entries. Models and measurement records stay."""
    freed = Store().prune(kind=kind, older_than=days * 86400)
    _print({"freed_bytes": freed}, as_json, lambda: f"{freed:,} bytes freed")


@cache.command("path")
def cache_path() -> None:
    """Print the cache folder."""
    click.echo(str(Path(Store().root)))


if __name__ == "__main__":
    main()
