"""What a program says about itself: `explain()` and `show()`.

What holds here: only what is known already is told; nothing is captured, compiled or asked for a report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tracedsl.diagnostics import TracedslError, Unsupported, nearest
from tracedsl.ir.graph import print_graph

if TYPE_CHECKING:
    from tracedsl.program import Program


def explain(program: Program) -> str:
    """What the five stages did, and why, one paragraph a stage."""
    status = program._status
    lines = [f"program {program.__name__}", *_capture(program)]
    lines.append(f"graph     {len(program._plan.paths)} recorded path(s), {status.runs} run(s) in this process")
    lines += _rewrite(program)
    lines += _tune(program)
    lines.append(f"compile   {status.origin}")
    for row in program._sites.dump():
        for part, state in row["predictors"].items():
            instructions = state["signature"]["instructions"]
            lines.append(f"          {row['site']}/{part}: {len(state['demos'])} demonstration(s), "
                         f"instructions {_short(instructions)!r}")
    lines += [f"note      {note}" for note in status.notes]
    return "\n".join(lines)


def _capture(program: Program) -> list[str]:
    if "_captured" not in program.__dict__:
        return ["capture   not yet"]
    captured = program._captured
    if isinstance(captured, Unsupported):
        found = captured.diagnostic
        where = f" ({found.span.short()})" if found.span is not None else ""
        return [f"capture   none, it runs as plain Python: {found.what}{where}", f"          why: {found.why}"]
    asking = {row["site"] for row in program._sites.dump()} | program._status.sites.keys()
    lines = [f"capture   {len(captured.sites)} calls in the source, {len(asking)} call sites of models"]
    return lines + [f"          {name} calls models by itself: not compiled, nothing in it overlaps ({where})"
                    for name, where in sorted(program._status.eager.items())]


def _rewrite(program: Program) -> list[str]:
    calls = program._status.calls
    lines = [f"rewrite   calls in this process: {calls['asked']} asked, {calls['shared']} shared, "
             f"{calls['folded']} folded, {calls['dropped']} dropped"]
    for i, path in enumerate(program._plan.paths):
        advice = [what for what, _ in path.advice]
        lines.append(f"          path {i}: {len(advice)} call(s), saves {path.saved()}")
        lines += [f"            {record.rsplit('  ', 1)[0].rstrip()}" for record in path.passes]
    if program._options.disable:
        lines.append(f"          switched off: {', '.join(sorted(program._options.disable))}")
    return lines


def _tune(program: Program) -> list[str]:
    status = program._status
    if program._options.teleprompter is None:
        return ["tune      no teleprompter was given"]
    name = type(program._options.teleprompter).__name__
    if not status.scores:
        return [f"tune      {name}: not yet"]
    lines = [f"tune      {name}, scored on {status.held_out}"]
    lines += [f"          {candidate}: {text}" for candidate, text in status.scores.items()]
    lines += _search(status.report)
    return [*lines, f"          installed: {status.installed}"]


def _search(report: Mapping[str, Any]) -> list[str]:
    """How the compiled candidate was found."""
    cost, rows = report.get("cost", {}), report.get("search", [])
    lines = [f"          why: {report['why']}"] if report.get("why") else []
    if cost:
        lines.append(f"          search: {cost.get('metric_calls', 0):.0f} metric calls, "
                     f"{cost.get('calls', 0):.0f} model calls, {len(rows)} candidates")
    for row in [r for r in rows if r["fate"] == "best"]:
        lines.append(f"          best: {row['candidate']}, {row['score']:.1f} % of {row.get('examples', '?')} examples")
    if report.get("stopped"):
        lines.append(f"          the search ended at its budget ({report['stopped']})")
    return lines


def show(program: Program, what: str) -> str:
    """The text of one stage. Raises `TracedslError` P103 for an unknown one."""
    makers = {"graph": _graph, "plan": _plan, "sites": _costs, "prompts": _prompts, "source": _source}
    if what not in makers:
        raise TracedslError("P103", f"there is no {what!r} to show", hint=nearest(what, makers))
    return makers[what](program)


def _graph(program: Program) -> str:
    """The latest run of this process; without one, the first recorded path."""
    if program._status.last is not None:
        return print_graph(program._status.last.graph())
    return program._plan.paths[0].before if program._plan.paths else "(nothing was run yet)"


def _plan(program: Program) -> str:
    blocks = []
    for i, path in enumerate(program._plan.paths):
        steps = [f"  call {n}: {what}" + ("" if twin is None else f" with call {twin}")
                 for n, (what, twin) in enumerate(path.advice)]
        blocks.append("\n".join([f"path {i}: {' > '.join(path.events)}", *steps, path.after]))
    return "\n\n".join(blocks) or "(nothing was run yet)"


def _costs(program: Program) -> str:
    """One line for each call site that this process came by."""
    lines = []
    for name, cost in sorted(program._status.sites.items()):
        how = ", ".join(f"{count} {what}" for what, count in sorted(cost.how.items()))
        mean = cost.seconds / max(1, cost.how["asked"])
        lines.append(f"{name}: {how}; {cost.prompt_tokens} + {cost.completion_tokens} tokens; {mean:.3f} s a call")
    return "\n".join(lines) or "(nothing was run yet)"


def _prompts(program: Program) -> str:
    last = program._status.last
    blocks = []
    for call in last.calls() if last is not None else ():
        if call.prepared is not None:
            messages = [f"[{m.role}]\n{m.content}" for m in call.prepared.request.messages]
            blocks.append("\n".join([f"== {call.site}", *messages]))
    return "\n\n".join(blocks) or "(nothing was run yet)"


def _source(program: Program) -> str:
    captured = program._captured
    return captured.diagnostic.render() if isinstance(captured, Unsupported) else captured.text


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 70 else line[:67] + "..."
