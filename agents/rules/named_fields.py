"""The fields of events that rules, windows and statistics name, by stream: what must come for any effect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from astrocyte.agents.expressions.kinds import number_reads
from astrocyte.agents.expressions.nodes import Aggregate, And, Field, Node, children, walk
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.rules.problems import Location
from astrocyte.agents.rules.steps import Group, Step, leaves
from astrocyte.agents.rules.windows import Window

__all__ = [
    "FieldRead",
    "NamedField",
    "NumberRead",
    "correlated_by",
    "correlated_fields",
    "expressions_of",
    "named_fields",
    "number_reads_of",
    "reads_of",
]

_ALWAYS: Final = frozenset({"timestamp", "key", "type", "simulation_id"})
"""Fields that every event has."""


class NamedField(NamedTuple):
    """A field that a rule, window or statistic reads; one of ``streams`` has to have it."""

    reader: str
    """The rule, window or statistic, such as ``rule 'fever'``."""
    streams: tuple[str, ...]
    field: str


def named_fields(ruleset: RuleSet) -> tuple[NamedField, ...]:
    """Every field that rules, windows and statistics name, in their order, without those that every event has."""
    found: dict[NamedField, None] = {}
    for rule in ruleset.rules:
        found.update(dict.fromkeys(_of_rule(rule)))
    for window in ruleset.windows:
        found.update(dict.fromkeys(_of_window(window)))
    for spec in ruleset.insight:
        reader = f"statistic {spec.name!r}"
        found.update(dict.fromkeys(NamedField(reader, (stream,), name) for stream, name, _ in spec.reads()))
    return tuple(each for each in found if each.field not in _ALWAYS)


class NumberRead(NamedTuple):
    """A field of which a rule, window or statistic needs numbers; values of another kind are null to it.

    ``guard``: a condition over the event itself without which the value is not used; None: there is none.
    """

    reader: str
    streams: tuple[str, ...]
    field: str
    guard: Node | None = None


def number_reads_of(ruleset: RuleSet) -> tuple[NumberRead, ...]:
    """Every field of which rules, windows and statistics need numbers, in their order."""
    found: dict[NumberRead, None] = {}
    for rule in ruleset.rules:
        steps = {str(step.name): (step.stream, rule.condition(step)) for step in rule.steps}
        for each in expressions_of(rule):
            for field in number_reads(each.node):
                streams, condition = (each.own, each.node) if field.step is None else steps.get(field.step, ((), None))
                if streams:
                    guard = _guard(condition, field.name)
                    found[NumberRead(f"rule {rule.name!r}", streams, field.name, guard)] = None
    for window in ruleset.windows:
        for node in (window.where_node, *(call.as_node for call in window.parsed.calls)):
            for field in number_reads(node) if node is not None else ():
                guard = _guard(window.where_node, field.name)
                found[NumberRead(f"window {window.name!r}", (window.source,), field.name, guard)] = None
    for spec in ruleset.insight:
        for stream, name, _ in spec.reads():
            found[NumberRead(f"statistic {spec.name!r}", (stream,), name)] = None
    return tuple(each for each in found if each.field not in _ALWAYS)


def correlated_by(rulesets: Iterable[RuleSet]) -> dict[str, frozenset[str | None]]:
    """By stream: the fields by which its rules and windows correlate; None where one reads events without a field."""
    found: dict[str, set[str | None]] = {}
    for ruleset in rulesets:
        for rule in ruleset.rules:
            for stream in rule.streams:
                found.setdefault(stream, set()).add(rule.by)
        for window in ruleset.windows:
            found.setdefault(window.source, set()).add(window.by)
        for spec in ruleset.insight:
            for stream in spec.streams:
                found.setdefault(stream, set()).add(None)
    return {stream: frozenset(fields) for stream, fields in found.items()}


def _guard(condition: Node | None, name: str) -> Node | None:
    """The parts of a condition over the event itself that do not need the field to be a number."""
    parts = [] if condition is None else [*condition.parts] if isinstance(condition, And) else [condition]
    kept = tuple(
        part
        for part in parts
        if not any(isinstance(each, Aggregate) or (isinstance(each, Field) and each.step) for each in walk(part))
        and name not in {field.name for field in number_reads(part)}
    )
    return And(kept) if len(kept) > 1 else next(iter(kept), None)


def correlated_fields(ruleset: RuleSet) -> dict[str, set[str]]:
    """The fields by which rules and windows correlate, by the stream that they read."""
    return {stream: {each for each in by if each is not None} for stream, by in correlated_by([ruleset]).items()}


def _of_rule(rule: Rule) -> Iterable[NamedField]:
    reader = f"rule {rule.name!r}"
    for _, path, found in reads_of(rule):
        for read in found:
            # An event of any stream may have the key; what else is read is read of the streams of one step.
            yield NamedField(reader, rule.streams if path == ("by",) else read.streams, read.field)


def _of_window(window: Window) -> Iterable[NamedField]:
    reader, own = f"window {window.name!r}", (window.source,)
    yield NamedField(reader, own, window.by)
    for node in (window.where_node, *window.parsed.arguments):
        if node is not None:
            yield from (NamedField(reader, read.streams, read.field) for read in _fields_in(node, {}, own))


class FieldRead(NamedTuple):
    """A field that an expression reads, the streams of which it is, and its position in the text."""

    streams: tuple[str, ...]
    field: str
    at: int = 0


def reads_of(rule: Rule) -> Iterator[tuple[str, Location, list[FieldRead]]]:
    """Each expression of a rule, by name and path, and the fields that it reads."""
    streams = {str(step.name): step.stream for step in rule.steps}
    if rule.by is not None:
        yield "by", ("by",), [FieldRead(step.stream, rule.by) for step in rule.steps]
    for each in expressions_of(rule):
        yield each.name, each.path, list(_fields_in(each.node, streams, each.own))


class RuleExpression(NamedTuple):
    """An expression of a rule; ``own`` are the streams of the event that it judges, none for outputs of a match.

    The path of a step's expression begins with ``steps`` and its place in `Rule.steps`, a group's with ``groups``.
    """

    name: str
    path: Location
    node: Node
    own: tuple[str, ...] = ()


def expressions_of(rule: Rule) -> Iterator[RuleExpression]:
    """The parsed expressions of a rule, in its order."""
    for index, step in enumerate(rule.steps):
        node, until = rule.condition(step), rule.until(step)
        if node is not None:
            yield RuleExpression(f"{step.name}.where", ("steps", index, "where"), node, step.stream)
        if until is not None:
            yield RuleExpression(f"{step.name}.until", ("steps", index, "until"), until, _until_streams(step))
    for index, group in enumerate(rule.groups):
        until = rule.until(group)
        if until is not None:
            yield RuleExpression("group.until", ("groups", index, "until"), until, _until_streams(group))
    outputs: list[tuple[tuple[str, ...], Node | None]] = [
        *((("emit", name), node) for name, node in rule.emit_nodes.items()),
        *((("on_timeout", "emit", name), node) for name, node in rule.timeout_emit_nodes.items()),
        (("confidence",), None if rule.confidence is None else rule.confidence_node),
        *((("alert", "message"), node) for _, node, _ in rule.message or ()),
        *((("on_timeout", "alert", "message"), node) for _, node, _ in rule.timeout_message or ()),
    ]
    for path, output in outputs:
        if output is not None:
            yield RuleExpression(".".join(path), path, output)


def _until_streams(part: Step | Group) -> tuple[str, ...]:
    """The streams whose events can end a loop."""
    given = None if part.until is None else part.until.stream
    if given is not None:
        return (given,) if isinstance(given, str) else given
    steps = [part] if isinstance(part, Step) else leaves(part.members)
    return tuple(dict.fromkeys(stream for step in steps for stream in step.stream))


def _fields_in(node: Node, streams: Mapping[str, Sequence[str]], own: Sequence[str] = ()) -> Iterator[FieldRead]:
    """The fields that an expression reads.

    ``streams`` are those of each step, ``own`` those of the event itself.
    """
    if isinstance(node, Field):
        of = own if node.step is None else streams.get(node.step, ())
        if of:
            yield FieldRead(tuple(of), node.name, node.at)
        return
    if isinstance(node, Aggregate) and node.step is not None:
        own = streams.get(node.step, ())
    for part in children(node):
        yield from _fields_in(part, streams, own)
