"""A rule's automaton as a Mermaid diagram, as `rules explain` prints it; documentation can embed it."""

from __future__ import annotations

from collections.abc import Iterator

from astrocyte.agents.cep.explain.automaton import MATCH, Automaton, GraphEdge, GraphNode, automaton
from astrocyte.agents.rules.model import Rule

__all__ = ["mermaid"]

_SHAPES = {
    "start": '(["{}"])',
    "state": '["{}"]',
    "final": '(("{}"))',
    "stop": '{{{{"{}"}}}}',
    "all": '(("{}"))',
}
_ARROWS = {"take": "-->", "time": "-->", "part": "-->", "none_of": "-. none of .-x"}


def mermaid(rule: Rule) -> str:
    """A flowchart: states as boxes, taken events as solid arrows, ignored events as dotted ones."""
    graph = automaton(rule)
    title = [f"%% rule {rule.name}, version {rule.content_version}", *(f"%% {line}" for line in graph.remarks)]
    return "\n".join([*title, "flowchart LR", *_lines(graph)]) + "\n"


def _lines(graph: Automaton) -> Iterator[str]:
    inline = {node.name: node for node in graph.nodes if node.name == MATCH and node.kind == "final"}
    of_steps = any(edge.kind in ("part", "none_of") for edge in graph.edges)
    at_node = {edge for edge in graph.edges if of_steps or edge.kind == "time"}
    for node in graph.nodes:
        if node.name not in inline:
            yield f"    {node.name}{_shape(node)}"
            # Where no event is needed, and what a step is a part of, is said beside the node.
            yield from (_arrow(edge, inline) for edge in graph.edges if edge in at_node and edge.source == node.name)
    yield from (_arrow(edge, inline) for edge in graph.edges if edge not in at_node)
    if graph.within is not None:
        yield f"    %% {graph.within}"


def _shape(node: GraphNode) -> str:
    return _SHAPES[node.kind].format("<br/>".join(map(_escape, node.lines)))


def _arrow(edge: GraphEdge, inline: dict[str, GraphNode]) -> str:
    target = edge.target + (_shape(inline[edge.target]) if edge.target in inline else "")
    if edge.kind == "ignore":
        return f'    {edge.source} -. "{_escape(edge.text)}" .-> {target}'
    if not edge.text:
        return f"    {edge.source} {_ARROWS[edge.kind]} {target}"
    return f'    {edge.source} -- "{_escape(edge.text)}" {_ARROWS[edge.kind]} {target}'


def _escape(text: str) -> str:
    for char, entity in (("&", "#amp;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("|", "#124;")):
        text = text.replace(char, entity)
    return text
