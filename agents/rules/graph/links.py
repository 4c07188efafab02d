"""How the junctions of a rule set link its rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Final, NamedTuple

from astrocyte.agents.rules.junctions import OF_MATCH, Junction
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.rules.windows import Window
from astrocyte.schemas.catalog import FieldType

__all__ = [
    "EVENTS",
    "MATCHES",
    "Circle",
    "Link",
    "circle_of",
    "depths",
    "emitted_by",
    "feeding_rules",
    "fields_of",
    "junction_sources",
    "needed_for",
    "not_led_lines",
    "readable_by",
    "readers_of",
    "sources_of",
    "types_of_match",
]


MATCHES: Final = ("led", "filtered", "weak", "far")
"""What becomes of the matches of a junction's rules: led on, ``where`` does not hold, below ``min_strength``, beyond
``max_hops``."""
EVENTS: Final = ("joined", "closed")
"""What becomes of the events of a junction that forms, where they arrive: it was there, it was not."""


class Link(NamedTuple):
    """A junction and a topic to which it leads, which is partitioned by ``field`` as the rules that read it need it."""

    junction: str
    field: str
    topic: str
    feeders: tuple[str, ...] = ("",)
    """Names of the groups whose rules are led on, each of which every domain has."""


_CIRCLE: Final = "\0circle"
"""Stands for the rules of a circle where depths are counted."""


def feeding_rules(junction: Junction, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules whose matches a junction leads on."""
    return tuple(rule for rule in rules if junction.names(rule.name))


def emitted_by(rule: Rule) -> set[str]:
    """Fields that a rule emits, also where it times out."""
    return {*rule.emit, *(rule.on_timeout.emit if rule.on_timeout else ())}


def fields_of(junction: Junction, rules: Sequence[Rule]) -> set[str]:
    """The fields that events of a junction may have, beside those that every event has; none without rules."""
    feeding = feeding_rules(junction, rules)
    if not feeding:
        return set()
    return set(OF_MATCH).union(
        junction.sets, *(emitted_by(rule) for rule in feeding), {rule.by for rule in feeding if rule.by}
    )


def types_of_match(junction: Junction, rules: Sequence[Rule]) -> Mapping[str, FieldType]:
    """Types of the fields of a match that events of a junction have; without those whose names rules emit."""
    emitted = set[str]().union(*(emitted_by(rule) for rule in feeding_rules(junction, rules)))
    return {name: kind for name, kind in OF_MATCH.items() if name not in emitted}


def junction_sources(ruleset: RuleSet) -> dict[str, tuple[str, ...]]:
    """By junction: the rules of the set whose matches it leads on; without those that have none here."""
    found = {each.name: tuple(rule.name for rule in feeding_rules(each, ruleset.rules)) for each in ruleset.junctions}
    return {name: rules for name, rules in found.items() if rules}


def readers_of(junction: Junction, ruleset: RuleSet) -> list[Rule | Window]:
    """The rules and windows that read a junction."""
    makers: tuple[Rule | Window, ...] = (*ruleset.rules, *ruleset.windows)
    return [each for each in makers if junction.name in each.streams]


def sources_of(ruleset: RuleSet) -> dict[str, tuple[str, ...]]:
    """By window, statistic, rule and junction: what it reads; without junctions that have no rule here."""
    makers = (*ruleset.windows, *ruleset.insight, *ruleset.rules)
    return {each.name: each.streams for each in makers} | junction_sources(ruleset)


def readable_by(name: str, ruleset: RuleSet) -> set[str]:
    """What the rule set makes and one of its parts may read: not what it makes itself, nor what is made of that."""
    if any(rule.name == name and rule.consistency == "eventual" for rule in ruleset.rules):
        return set()
    bounded = {each.name for each in ruleset.junctions if each.is_bounded}
    after = {name}
    sources = {maker: set(read) for maker, read in sources_of(ruleset).items() if maker not in bounded}
    while more := {maker for maker, read in sources.items() if read & after} - after:
        after |= more
    is_statistic = any(spec.name == name for spec in ruleset.insight)
    unread = {each.name for each in ruleset.junctions} if is_statistic else set[str]()
    return set(ruleset.made) - after - unread


def needed_for(ruleset: RuleSet, names: Iterable[str]) -> RuleSet:
    """The rule set without the rules, windows, statistics and junctions that those of these names do not need.

    They need what they read, directly or not.
    """
    sources, found, todo = sources_of(ruleset), set[str](), [*names]
    while todo:
        name = todo.pop()
        if name in sources and name not in found:
            found.add(name)
            todo += sources[name]
    return ruleset.model_copy(
        update={
            "rules": tuple(each for each in ruleset.rules if each.name in found),
            "windows": tuple(each for each in ruleset.windows if each.name in found),
            "insight": tuple(each for each in ruleset.insight if each.name in found),
            "junctions": tuple(each for each in ruleset.junctions if each.name in found),
        }
    )


class Circle(NamedTuple):
    """The rules of a rule set to which junctions lead back, and the others that feed the same junctions."""

    rules: frozenset[str]
    junctions: frozenset[str]
    """All junctions that come from these rules."""
    inner: frozenset[str]
    """Those of them that lead to these rules."""
    generations: int
    """The most times that one of them leads an event on; 0 without a circle."""


def circle_of(ruleset: RuleSet) -> Circle:
    """The circle of a rule set; several of them are one."""
    led = junction_sources(ruleset)
    reads = {rule.name: set(rule.streams) for rule in ruleset.rules}
    before = {
        name: {each for stream in streams for each in led.get(stream, (stream,)) if each in reads}
        for name, streams in reads.items()
    }

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        todo = [*before[start]]
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += before[name]
        return found

    rules = {name for name in before if name in reached(name)} if led else set()
    while True:
        junctions = {name for name, feeding in led.items() if rules.intersection(feeding)}
        more = rules.union(*(led[name] for name in junctions))
        if more == rules:
            break
        rules = more
    inner = {name for name in junctions if any(name in reads[rule] for rule in rules)}
    bounds = [junction.max_hops or 0 for junction in ruleset.junctions if junction.name in inner]
    return Circle(frozenset(rules), frozenset(junctions), frozenset(inner), max(bounds, default=0))


def depths(ruleset: RuleSet) -> Mapping[str, int]:
    """By rule, window, statistic and junction: the most junctions through which its events may have come.

    Of rules in a circle, before it. What no circle allows was refused before (`agents.rules.graph.circles`).
    """
    led, reads, circle = junction_sources(ruleset), sources_of(ruleset), circle_of(ruleset)
    inside = circle.rules | circle.junctions
    graph = {name: [each for each in read if each in reads and each not in inside] for name, read in reads.items()}
    graph[_CIRCLE] = [each for name in circle.rules for each in graph[name]]
    for name in reads.keys() - inside:
        graph[name] += [_CIRCLE] if inside.intersection(reads[name]) else []
    found: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        found[name] = max((found[each] + (each in led) for each in graph[name] if each != _CIRCLE), default=0)
        if _CIRCLE in graph[name]:
            found[name] = max(found[name], found[_CIRCLE] + circle.generations + 1)
    first = found.pop(_CIRCLE)
    return found | dict.fromkeys(circle.rules, first) | dict.fromkeys(circle.junctions, first + circle.generations)


def not_led_lines(led: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Sentences on what junctions dropped, by their counts (`agents.engine.junctions`, `agents.engine.gates`)."""
    reasons = {"weak": "below min_strength", "far": "beyond max_hops"}
    lines = []
    for name, counts in sorted(led.items()):
        matches = sum(counts.get(cause, 0) for cause in MATCHES)
        lines += [
            f"junction {name!r} did not lead on {counts[cause]:,} of {matches:,} matches: {reason}"
            for cause, reason in reasons.items()
            if counts.get(cause)
        ]
        if counts.get("closed"):
            came = sum(counts.get(cause, 0) for cause in EVENTS)
            lines.append(f"junction {name!r} was not formed for {counts['closed']:,} of {came:,} events: dropped")
    return lines
