"""The fields of events that rules and windows name, by stream: what must come for them to have an effect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from astrocyte.agents.expressions.nodes import Aggregate, Field, Node, children
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.rules.windows import Window

__all__ = ["NamedField", "fields_in", "named_fields"]

_ALWAYS: Final = frozenset({"timestamp", "key", "type", "simulation_id"})
"""Fields that every event has."""


class NamedField(NamedTuple):
    """A field that a rule or window reads; one of ``streams`` has to have it."""

    reader: str
    """The rule or window, such as ``rule 'fever'``."""
    streams: tuple[str, ...]
    field: str


def named_fields(ruleset: RuleSet) -> tuple[NamedField, ...]:
    """Every field that rules and windows name, in the order of the rule set, without those that every event has."""
    found: dict[NamedField, None] = {}
    for rule in ruleset.rules:
        found.update(dict.fromkeys(_of_rule(rule)))
    for window in ruleset.windows:
        found.update(dict.fromkeys(_of_window(window)))
    return tuple(each for each in found if each.field not in _ALWAYS)


def _of_rule(rule: Rule) -> Iterable[NamedField]:
    reader = f"rule {rule.name!r}"
    streams = {str(step.name): step.stream for step in rule.steps}
    if rule.by is not None:
        yield NamedField(reader, rule.streams, rule.by)
    for step in rule.steps:
        condition = rule.condition(step)
        if condition is not None:
            yield from _named(reader, condition, streams, step.stream)
    messages = [node for template in (rule.message, rule.timeout_message) for _, node, _ in template or () if node]
    outputs: list[Mapping[str, Node]] = [rule.emit_nodes, rule.timeout_emit_nodes]
    nodes = [*(node for each in outputs for node in each.values()), rule.confidence_node, *messages]
    for node in nodes:
        if node is not None:
            yield from _named(reader, node, streams, ())


def _of_window(window: Window) -> Iterable[NamedField]:
    reader, own = f"window {window.name!r}", (window.source,)
    yield NamedField(reader, own, window.by)
    for node in (window.where_node, *window.parsed.arguments):
        if node is not None:
            yield from _named(reader, node, {}, own)


def _named(reader: str, node: Node, streams: Mapping[str, Sequence[str]], own: Sequence[str]) -> Iterable[NamedField]:
    return (NamedField(reader, of, name) for of, name in fields_in(node, streams, own))


def fields_in(
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
        yield from fields_in(part, streams, own)
