"""The fields of events that rules, windows and statistics name, by stream: what must come for any effect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from astrocyte.agents.expressions.nodes import Aggregate, Field, Node, children
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.rules.windows import Window

__all__ = ["NamedField", "correlated_fields", "named_fields", "reads_of"]

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


def correlated_fields(ruleset: RuleSet) -> dict[str, set[str]]:
    """The fields by which rules and windows correlate, by the stream that they read."""
    found: dict[str, set[str]] = {}
    readers = [(rule.by, rule.streams) for rule in ruleset.rules]
    for by, streams in (*readers, *((window.by, (window.source,)) for window in ruleset.windows)):
        for stream in streams if by is not None else ():
            found.setdefault(stream, set()).add(str(by))
    return found


def _of_rule(rule: Rule) -> Iterable[NamedField]:
    reader = f"rule {rule.name!r}"
    for _, path, found in reads_of(rule):
        for streams, name in found:
            # An event of any stream may have the key; what else is read is read of the streams of one step.
            yield NamedField(reader, rule.streams if path == ("by",) else streams, name)


def _of_window(window: Window) -> Iterable[NamedField]:
    reader, own = f"window {window.name!r}", (window.source,)
    yield NamedField(reader, own, window.by)
    for node in (window.where_node, *window.parsed.arguments):
        if node is not None:
            yield from (NamedField(reader, of, name) for of, name in _fields_in(node, {}, own))


def reads_of(rule: Rule) -> Iterator[tuple[str, tuple[str, ...], list[tuple[tuple[str, ...], str]]]]:
    """Each expression of a rule, by name and path, and the fields that it reads, each with its streams.

    The path of a step's condition is empty: a step may be in groups.
    """
    streams = {str(step.name): step.stream for step in rule.steps}
    if rule.by is not None:
        yield "by", ("by",), [(step.stream, rule.by) for step in rule.steps]
    for step in rule.steps:
        node = rule.condition(step)
        if node is not None:
            yield f"{step.name}.where", (), list(_fields_in(node, streams, step.stream))
    outputs: list[tuple[tuple[str, ...], Node | None]] = [
        *((("emit", name), node) for name, node in rule.emit_nodes.items()),
        *((("on_timeout", "emit", name), node) for name, node in rule.timeout_emit_nodes.items()),
        (("confidence",), None if rule.confidence is None else rule.confidence_node),
        *((("alert", "message"), node) for _, node, _ in rule.message or ()),
        *((("on_timeout", "alert", "message"), node) for _, node, _ in rule.timeout_message or ()),
    ]
    for path, output in outputs:
        if output is not None:
            yield ".".join(path), path, list(_fields_in(output, streams))


def _fields_in(
    node: Node, streams: Mapping[str, Sequence[str]], own: Sequence[str] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The fields that an expression reads, each with the streams of which it is.

    ``streams`` are those of each step, ``own`` those of the event itself.
    """
    if isinstance(node, Field):
        of = own if node.step is None else streams.get(node.step, ())
        if of:
            yield tuple(of), node.name
        return
    if isinstance(node, Aggregate) and node.step is not None:
        own = streams.get(node.step, ())
    for part in children(node):
        yield from _fields_in(part, streams, own)
