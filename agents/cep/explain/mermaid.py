"""A rule's automaton as a Mermaid diagram, as `rules explain` prints it; documentation can embed it."""

from __future__ import annotations

from astrocyte.agents.cep.compiler.flatten import FlatEdge, Program, compile_rule
from astrocyte.agents.cep.compiler.formula import DYNAMIC, Term
from astrocyte.agents.cep.compiler.nfa import Kind
from astrocyte.agents.cep.operator import Atom
from astrocyte.agents.expressions.unparse import to_text
from astrocyte.agents.rules.model import Rule, Step, format_duration

__all__ = ["mermaid"]

_MOST_TERMS = 6


def mermaid(rule: Rule) -> str:
    """A flowchart: states as boxes, taken events as solid arrows, ignored events as dotted ones."""
    title = [f"%% rule {rule.name}, version {rule.content_version}", *_alerts(rule), "flowchart LR"]
    return "\n".join(title + (_conjunction(rule) if rule.kind == "all" else _sequence(compile_rule(rule)))) + "\n"


def _alerts(rule: Rule) -> list[str]:
    """What ``group`` and ``cool_down`` do to the alerts, as remarks."""
    lines = []
    if rule.group is not None:
        of = {"key": "of one key", None: "of all keys of a partition"}.get(rule.group.by, f"of one {rule.group.by}")
        lines.append(f"%% alerts {of} within {format_duration(rule.group.within)} of the first become one")
    if rule.cool_down is not None:
        what = "group" if rule.group is not None else "key"
        lines.append(f"%% after an alert, no other of the same {what} for {format_duration(rule.cool_down)}")
    return lines


def _conjunction(rule: Rule) -> list[str]:
    assert rule.within is not None
    bound = f"{'up to' if rule.within.closed else 'less than'} {format_duration(rule.within.time)} apart"
    lines = [f'    match(("all, {bound}<br/>pairing: {rule.pairing}"))']
    for number, step in enumerate(rule.steps):
        arrow = "-. none of .-x" if step.negated else "-->"
        lines += [f'    s{number}["{_escape(_step(rule, step))}"]', f"    s{number} {arrow} match"]
    return lines


def _step(rule: Rule, step: Step) -> str:
    where = rule.condition(step)
    return f"{step.name}: {'/'.join(step.stream)}" + (f" where {to_text(where)}" if where is not None else "")


def _sequence(program: Program) -> list[str]:
    rule, lines = program.rule, []
    finals = [f"s{number}" for number, state in enumerate(program.states) if state.kind is Kind.FINAL]
    final = finals[0] if finals else 'match(("match"))'  # absence alone completes
    for number, state in enumerate(program.states):
        label = _escape(state.label)
        match state.kind:
            case Kind.FINAL:
                lines.append(f'    s{number}(("{label}"))')
            case Kind.STOP:
                lines.append(f'    s{number}{{{{"forbidden {label}: stop"}}}}')
            case Kind.PENDING:
                wait = state.deadline_us or (rule.within.time if rule.within else 0)
                lines.append(f'    s{number}["{label}"]')
                since = "since the previous event" if state.deadline_us else "since the first event"
                lines.append(f'    s{number} -- "{format_duration(wait)} {since}" --> {final}')
            case _:
                start = number == program.start
                lines.append(f'    s{number}(["start"])' if start else f'    s{number}["{label}"]')
    for number, state in enumerate(program.states):
        lines += [_arrow(program, number, edge) for edge in state.edges]
    if rule.within is not None and rule.skip.kind == "none":
        lines.append(f"    %% the whole match within {format_duration(rule.within.time)}")
    return lines


def _arrow(program: Program, number: int, edge: FlatEdge) -> str:
    text = _condition(program, edge.terms)
    if edge.take and edge.kind is not Kind.STOP:
        step = program.rule.positive[edge.step]
        text = f"{step}: {text}"
        if edge.wait_us:
            text += f", less than {format_duration(edge.wait_us)} after the previous event"
        if edge.final:
            text += " (completes)"
        return f'    s{number} -- "{_escape(text)}" --> s{edge.target}'
    return f'    s{number} -. "{_escape(text)}" .-> s{edge.target}'


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


def _escape(text: str) -> str:
    for char, entity in (("&", "#amp;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("|", "#124;")):
        text = text.replace(char, entity)
    return text
