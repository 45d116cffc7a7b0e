"""Partial evaluation of templates: holes that are filled with constants or with other templates become their text.

What holds here: the text that a template makes stays the same for all inputs.
"""

from __future__ import annotations

from tracedsl.ir.graph import CONSTANT, Graph, Node, Rewriter
from tracedsl.ir.language import TEMPLATE, format_part

_Parts = list[tuple[str, ...]]


def fill_templates(graph: Graph) -> Graph:
    """fill in constant holes, merge templates

        %0 = py.template(%q) {parts=(('text', 'Q: '), ('hole', '', ''))}
        %1 = py.template(%0, 3:int) {parts=(('hole', '', ''), ('text', ' x'), ('hole', '', ''))}
    ->
        %0 = py.template(%q) {parts=(('text', 'Q: '), ('hole', '', ''))}
        %1 = py.template(%q) {parts=(('text', 'Q: '), ('hole', '', ''), ('text', ' x3'))}
    """

    def rule(to: Rewriter, node: Node) -> Node | None:
        if node.op is not TEMPLATE:
            return None
        parts, inputs = _filled(node)
        merged = tuple(_merged(parts))
        if merged == node.attr("parts"):
            return None
        return to.add(TEMPLATE, inputs, {"parts": merged}, span=node.span)

    return Rewriter(graph).run(rule)


def _filled(node: Node) -> tuple[_Parts, list[Node]]:
    """The parts and inputs, with what is known put in its place."""
    parts: _Parts = []
    inputs: list[Node] = []
    rest = iter(node.inputs)
    for part in node.attr("parts"):
        if part[0] == "text":
            parts.append(part)
            continue
        source = next(rest)
        if source.op is CONSTANT:
            parts.append(("text", format_part(source.attr("value").value, part[1], part[2])))
        elif source.op is TEMPLATE and part[1] in ("", "s") and not part[2]:
            parts += source.attr("parts")
            inputs += source.inputs
        else:
            parts.append(part)
            inputs.append(source)
    return parts, inputs


def _merged(parts: _Parts) -> _Parts:
    """Neighbouring texts as one, empty ones left out."""
    made: _Parts = []
    for part in parts:
        if part[0] == "text" and made and made[-1][0] == "text":
            made[-1] = ("text", made[-1][1] + part[1])
        elif part != ("text", ""):
            made.append(part)
    return made
