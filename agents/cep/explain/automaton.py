"""A rule's automaton as nodes and edges with their labels, for diagrams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from astrocyte.agents.cep.combinations.program import compile_combinations, why_not_combinations
from astrocyte.agents.cep.compiler.flatten import FlatEdge, Program, compile_rule
from astrocyte.agents.cep.compiler.formula import DYNAMIC, Term
from astrocyte.agents.cep.compiler.nfa import Kind
from astrocyte.agents.cep.operator import Atom
from astrocyte.agents.expressions.unparse import to_text
from astrocyte.agents.rules.model import Rule, Step, format_duration

__all__ = ["MATCH", "Automaton", "EdgeKind", "GraphEdge", "GraphNode", "NodeKind", "automaton"]

_MOST_TERMS: Final = 6
MATCH: Final = "match"
"""Name of the node of a match that no state stands for."""

NodeKind = Literal["start", "state", "final", "stop", "all"]
EdgeKind = Literal["take", "ignore", "time", "part", "none_of"]


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One state, or one step of an ``all``, whose match is the node of kind ``all``. ``lines`` are its label."""

    name: str
    kind: NodeKind
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """An edge. ``take`` takes the event, ``ignore`` passes it over, ``time`` needs none.

    ``part`` and ``none_of`` lead from the steps of an ``all``.
    """

    source: str
    target: str
    kind: EdgeKind
    text: str = ""


@dataclass(frozen=True, slots=True)
class Automaton:
    """Nodes and edges in order of the states; ``within`` bounds the whole match."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    remarks: tuple[str, ...]
    """What ``group`` and ``cool_down`` do to the alerts."""
    operator: str
    """Which operator runs the rule, and why."""
    within: str | None = None


def automaton(rule: Rule) -> Automaton:
    """The automaton of a rule. Raises InvalidRule for a rule that is too large."""
    remarks = tuple(_alerts(rule))
    if rule.kind == "all":
        nodes, edges = _conjunction(rule)
        return Automaton(nodes, edges, remarks, _operator(rule))
    program = compile_rule(rule)
    within = None
    if rule.within is not None and rule.skip.kind == "none":
        within = f"the whole match within {format_duration(rule.within.time)}"
    return Automaton(tuple(_nodes(program)), tuple(_edges(program)), remarks, _operator(rule), within)


def _operator(rule: Rule) -> str:
    if rule.kind == "all":
        return "operator conjunction: events wait for the others of their match"
    why_not = why_not_combinations(rule)
    if why_not is not None:
        return f"operator automaton: partial matches are kept one by one, since {why_not}"
    most = compile_combinations(rule).most_matches
    return (
        "operator combinations: events are kept by step, and an event that completes matches makes them then, "
        f"at most {most:,} (max_matches)"
    )


def _alerts(rule: Rule) -> Iterator[str]:
    if rule.group is not None:
        of = {"key": "of one key", None: "of all keys of a partition"}.get(rule.group.by, f"of one {rule.group.by}")
        yield f"alerts {of} within {format_duration(rule.group.within)} of the first become one"
    if rule.cool_down is not None:
        what = "group" if rule.group is not None else "key"
        yield f"after an alert, no other of the same {what} for {format_duration(rule.cool_down)}"


def _conjunction(rule: Rule) -> tuple[tuple[GraphNode, ...], tuple[GraphEdge, ...]]:
    assert rule.within is not None
    bound = f"{'up to' if rule.within.closed else 'less than'} {format_duration(rule.within.time)} apart"
    nodes = [GraphNode(MATCH, "all", (f"all, {bound}", f"pairing: {rule.pairing}"))]
    edges = []
    for number, step in enumerate(rule.steps):
        nodes.append(GraphNode(f"s{number}", "state", (_step(rule, step),)))
        edges.append(GraphEdge(f"s{number}", MATCH, "none_of" if step.negated else "part"))
    return tuple(nodes), tuple(edges)


def _step(rule: Rule, step: Step) -> str:
    where = rule.condition(step)
    return f"{step.name}: {'/'.join(step.stream)}" + (f" where {to_text(where)}" if where is not None else "")


def _final(program: Program) -> str:
    """The node of the match; absence alone may complete it, for which there is no state."""
    return next((f"s{number}" for number, state in enumerate(program.states) if state.kind is Kind.FINAL), MATCH)


def _nodes(program: Program) -> Iterator[GraphNode]:
    for number, state in enumerate(program.states):
        name = f"s{number}"
        if state.kind is Kind.FINAL:
            yield GraphNode(name, "final", (state.label,))
        elif state.kind is Kind.STOP:
            yield GraphNode(name, "stop", (f"forbidden {state.label}: stop",))
        elif number == program.start and state.kind is not Kind.PENDING:
            yield GraphNode(name, "start", ("start",))
        else:
            yield GraphNode(name, "state", (state.label,))
    if _final(program) == MATCH and any(state.kind is Kind.PENDING for state in program.states):
        yield GraphNode(MATCH, "final", (MATCH,))


def _edges(program: Program) -> Iterator[GraphEdge]:
    rule = program.rule
    for number, state in enumerate(program.states):
        if state.kind is Kind.PENDING:
            wait = state.deadline_us or (rule.within.time if rule.within else 0)
            since = "since the previous event" if state.deadline_us else "since the first event"
            yield GraphEdge(f"s{number}", _final(program), "time", f"{format_duration(wait)} {since}")
    for number, state in enumerate(program.states):
        for edge in state.edges:
            yield _edge(program, number, edge)


def _edge(program: Program, number: int, edge: FlatEdge) -> GraphEdge:
    text = _condition(program, edge.terms)
    if not edge.take or edge.kind is Kind.STOP:
        return GraphEdge(f"s{number}", f"s{edge.target}", "ignore", text)
    text = f"{program.rule.positive[edge.step]}: {text}"
    if edge.wait_us:
        text += f", less than {format_duration(edge.wait_us)} after the previous event"
    if edge.final:
        text += " (completes)"
    return GraphEdge(f"s{number}", f"s{edge.target}", "take", text)


def _condition(program: Program, terms: tuple[Term, ...]) -> str:
    strings = [_term(program, term) for term in terms[:_MOST_TERMS]]
    if len(terms) > _MOST_TERMS:
        strings.append(f"{len(terms) - _MOST_TERMS} more cases")
    return " or ".join(strings) if len(strings) == 1 else " or ".join(f"({text})" for text in strings)


def _term(program: Program, term: Term) -> str:
    care, want = term
    parts = []
    for bit in range(care.bit_length()):
        if care >> bit & 1:
            text = _atom(program.atoms[bit]) if bit < DYNAMIC else to_text(program.dynamic[bit - DYNAMIC])
            parts.append(text if want >> bit & 1 else f"not ({text})")
    return " and ".join(parts) if parts else "any event"


def _atom(atom: Atom) -> str:
    streams = "/".join(atom.streams)
    return streams if atom.condition is None else f"{streams}: {to_text(atom.condition)}"
