"""A rule's automaton as a Mermaid diagram, as `rules explain` prints it; documentation can embed it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from astrocyte.agents.cep.explain.automaton import MATCH, Automaton, GraphEdge, GraphNode, automaton
from astrocyte.agents.rules.graph.links import junction_sources
from astrocyte.agents.rules.junctions import Junction
from astrocyte.agents.rules.model import Rule, RuleSet, format_duration

__all__ = ["escaped", "junctions_mermaid", "mermaid"]

_SHAPES = {
    "start": '(["{}"])',
    "state": '["{}"]',
    "final": '(("{}"))',
    "stop": '{{{{"{}"}}}}',
    "all": '(("{}"))',
}
_NOBODY = "no_rule"
_ARROWS = {"take": "-->", "time": "-->", "part": "-->", "none_of": "-. none of .-x"}


def mermaid(rule: Rule) -> str:
    """A flowchart: states as boxes, taken events as solid arrows, ignored events as dotted ones."""
    graph = automaton(rule)
    remarks = [f"rule {rule.name}, version {rule.content_version}", graph.operator, *graph.remarks]
    title = [f"%% {line}" for line in remarks]
    return "\n".join([*title, "flowchart LR", *_lines(graph)]) + "\n"


def junctions_mermaid(ruleset: RuleSet) -> str:
    """A flowchart of the junctions: which rules lead to which, and what is done on the way; empty without junctions."""
    led = junction_sources(ruleset)
    by = {rule.name: rule.by or "null" for rule in ruleset.rules}
    by |= {window.name: f"{window.by}, a window" for window in ruleset.windows}
    reads: list[tuple[str, Sequence[str]]] = [(rule.name, rule.streams) for rule in ruleset.rules]
    reads += [(window.name, window.streams) for window in ruleset.windows]
    arrows: list[tuple[str, str, str | None]] = []
    for junction in (each for each in ruleset.junctions if each.name in led):
        readers: list[str | None] = [name for name, streams in reads if junction.name in streams]
        arrows += [(name, _way(junction), reader) for name in led[junction.name] for reader in readers or [None]]
    if not arrows:
        return ""
    ends = {end for first, _, last in arrows for end in (first, last)}
    nodes = _nodes(name for name in by if name in ends)
    boxes = [f'    {node}["{name}<br/>by {escaped(by[name])}"]' for name, node in nodes.items()]
    boxes += [f'    {_NOBODY}(["no rule"])'] if None in ends else []
    lines = [
        f'    {nodes[first]} -- "{escaped(way)}" --> {_NOBODY if last is None else nodes[last]}'
        for first, way, last in arrows
    ]
    return "\n".join(["%% junctions", "flowchart LR", *boxes, *lines]) + "\n"


def _nodes(names: Iterable[str]) -> dict[str, str]:
    """By name of a rule or window: that of its node."""
    nodes: dict[str, str] = {}
    taken = {_NOBODY, "end"}  # a word of Mermaid's own
    for name in names:
        node = re.sub(r"\W", "_", name)
        while node in taken:
            node += "_"
        taken.add(node)
        nodes[name] = node
    return nodes


def _way(junction: Junction) -> str:
    """Name of a junction and what it does."""
    parts = [junction.name, f"key {junction.key}"]
    parts += [f"delay {format_duration(junction.delay)}"] if junction.delay else []
    parts += [f"damping {junction.damping:g}"] if junction.damping < 1 else []
    parts += [f"from strength {junction.min_strength:g}"] if junction.min_strength else []
    parts += [f"up to {junction.max_hops} hops"] if junction.max_hops is not None else []
    parts += [junction.where] if junction.where is not None else []
    if (forms := junction.forms) is not None:
        over = format_duration(forms.over)
        parts.append(f"forms above {forms.above} of {forms.buckets} in {over}, dissolves below {forms.below}")
    return ", ".join(parts)


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
    return _SHAPES[node.kind].format("<br/>".join(map(escaped, node.lines)))


def _arrow(edge: GraphEdge, inline: dict[str, GraphNode]) -> str:
    target = edge.target + (_shape(inline[edge.target]) if edge.target in inline else "")
    if edge.kind == "ignore":
        return f'    {edge.source} -. "{escaped(edge.text)}" .-> {target}'
    if not edge.text:
        return f"    {edge.source} {_ARROWS[edge.kind]} {target}"
    return f'    {edge.source} -- "{escaped(edge.text)}" {_ARROWS[edge.kind]} {target}'


def escaped(text: str) -> str:
    """Text as a label in quotation marks holds it."""
    for char, entity in (("&", "#amp;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("|", "#124;")):
        text = text.replace(char, entity)
    return text
