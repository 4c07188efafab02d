"""How the junctions of a rule set link its rules, and what makes a link impossible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from typing import Final, NamedTuple

from astrocyte.agents.expressions.nodes import Field, walk
from astrocyte.agents.rules.junctions import HOPS, OF_MATCH, STRENGTH, Junction
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.rules.problems import RuleProblem
from astrocyte.schemas.catalog import FieldType
from astrocyte.schemas.registry import did_you_mean

__all__ = [
    "Circle",
    "Link",
    "circle_of",
    "depths",
    "fields_of",
    "junction_problems",
    "junction_sources",
    "needed_for",
    "not_led_lines",
    "sources_of",
    "types_of_match",
]

_EVERY_EVENT: Final = frozenset({"timestamp", "key", "type"})


class Link(NamedTuple):
    """A junction and a topic to which it leads, which is partitioned by ``field`` as the rules that read it need it."""

    junction: str
    field: str
    topic: str
    feeders: tuple[str, ...] = ("",)
    """Names of the groups whose rules are led on, each of which every domain has."""


_CIRCLE: Final = "\0circle"
"""Stands for the rules of a circle where depths are counted."""


def _feeding(junction: Junction, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules whose matches a junction leads on."""
    return tuple(rule for rule in rules if junction.names(rule.name))


def _emitted(rule: Rule) -> set[str]:
    return {*rule.emit, *(rule.on_timeout.emit if rule.on_timeout else ())}


def fields_of(junction: Junction, rules: Sequence[Rule]) -> set[str]:
    """The fields that events of a junction may have, beside those that every event has; none without rules."""
    feeding = _feeding(junction, rules)
    if not feeding:
        return set()
    return set(OF_MATCH).union(*(_emitted(rule) for rule in feeding), {rule.by for rule in feeding if rule.by})


def types_of_match(junction: Junction, rules: Sequence[Rule]) -> Mapping[str, FieldType]:
    """Types of the fields of a match that events of a junction have; without those whose names rules emit."""
    emitted = set[str]().union(*(_emitted(rule) for rule in _feeding(junction, rules)))
    return {name: kind for name, kind in OF_MATCH.items() if name not in emitted}


def junction_sources(ruleset: RuleSet) -> dict[str, tuple[str, ...]]:
    """By junction: the rules of the set whose matches it leads on; without those that have none here."""
    found = {each.name: tuple(rule.name for rule in _feeding(each, ruleset.rules)) for each in ruleset.junctions}
    return {name: rules for name, rules in found.items() if rules}


def sources_of(ruleset: RuleSet) -> dict[str, tuple[str, ...]]:
    """By window, statistic, rule and junction: what it reads; without junctions that have no rule here."""
    makers = (*ruleset.windows, *ruleset.insight, *ruleset.rules)
    return {each.name: each.streams for each in makers} | junction_sources(ruleset)


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


def junction_problems(ruleset: RuleSet) -> Iterator[RuleProblem]:
    """What makes junctions impossible although each is valid by itself: rules and fields that are not there."""
    for junction in ruleset.junctions:
        for field, message in _problems(junction, ruleset):
            yield RuleProblem(message, rule=junction.name, field=field, kind="junction")
    names = {junction.name for junction in ruleset.junctions}
    for spec in ruleset.insight:
        for stream in sorted(names.intersection(spec.streams)):
            message = f"reads the junction {stream!r}; a statistic reads the events of a run: make a window over it"
            yield RuleProblem(message, rule=spec.name, kind="statistic")
    yield from _of_circle(ruleset)


def _of_circle(ruleset: RuleSet) -> Iterator[RuleProblem]:
    """What a circle may not hold: its rules meet in junctions alone, of which each bounds it."""
    circle = circle_of(ruleset)
    for junction in ruleset.junctions:
        if junction.name in circle.inner and (junction.max_hops is None or junction.damping == 1.0):
            message = "leads back to rules from which it comes; bound it: give it max_hops, and a damping below 1"
            yield RuleProblem(message, rule=junction.name, field="from", kind="junction")
    for rule in ruleset.rules:
        for step in rule.steps if rule.name in circle.rules else ():
            alone = circle.inner.issuperset(step.stream)
            spared = (
                step.negated or step.may_be_absent or bool(rule.groups) or (rule.kind == "any" and len(rule.steps) > 1)
            )
            if alone and spared:
                message = (
                    f"reads junction {step.stream[0]!r} of a circle alone; such a step may be neither negated nor "
                    "optional, and none of several of any or in a group: write a rule for it"
                )
                yield RuleProblem(message, rule=rule.name, field=f"{step.name}.stream")
    makers: list[tuple[str, str, Sequence[str]]] = [("rule", rule.name, rule.streams) for rule in ruleset.rules]
    makers += [("window", window.name, window.streams) for window in ruleset.windows]
    for kind, name, streams in makers:
        for stream in sorted(circle.rules.intersection(streams)):
            message = f"reads rule {stream!r}, to which a junction leads back; read a junction from it instead"
            yield RuleProblem(message, rule=name, kind=kind)
        if kind == "window":
            for stream in sorted(circle.junctions.intersection(streams)):
                message = (
                    f"reads junction {stream!r} of rules in a circle; make a rule that reads it, and a window of that"
                )
                yield RuleProblem(message, rule=name, field="from", kind=kind)


def _problems(junction: Junction, ruleset: RuleSet) -> Iterator[tuple[str, str]]:
    rules = [rule.name for rule in ruleset.rules]
    others = {each.name: "window" for each in ruleset.windows} | {each.name: "statistic" for each in ruleset.insight}
    others |= {each.name: "junction" for each in ruleset.junctions}
    for source in junction.sources:
        if any(fnmatchcase(rule, source) for rule in rules):
            continue
        if source in others:
            yield "from", f"{source!r} is a {others[source]}; a junction leads matches on: name a rule that reads it"
        elif set("*?") & set(source):
            yield "from", f"no rule of the file has a name like {source!r}"
        else:
            yield "from", f"there is no rule {source!r} in the file{did_you_mean(source, rules)}"
    feeding = _feeding(junction, ruleset.rules)
    yield from _of_rules(junction, feeding)
    known = fields_of(junction, ruleset.rules)
    if feeding and junction.where_node is not None:
        for part in walk(junction.where_node):
            if isinstance(part, Field) and part.name not in known | _EVERY_EVENT:
                hint = did_you_mean(part.name, known) or f"; its fields: {', '.join(sorted(known))}"
                yield "where", f"events of the junction have no field {part.name!r}{hint}"


def _of_rules(junction: Junction, feeding: Sequence[Rule]) -> Iterator[tuple[str, str]]:
    fields = {rule.by or "null" for rule in feeding}
    if len(fields) > 1:
        listed = ", ".join(f"{rule.name} by {rule.by or 'null'}" for rule in feeding)
        yield "from", f"its rules correlate by different fields ({listed}); write a junction for each field"
    for rule in feeding:
        if rule.holds_matches:
            yield (
                "from",
                (
                    f"rule {rule.name!r} has skip {rule.skip.kind}, so that a match may wait for earlier ones and come "
                    "after later ones; write emit: eager there (emit_mode: eager where it emits values)"
                ),
            )
        taken = sorted(_emitted(rule) & {HOPS, STRENGTH})
        if taken:
            yield "from", f"rule {rule.name!r} emits {taken[0]!r}, which the junction sets; name it otherwise there"
        if junction.key not in {"key", rule.by} | _emitted(rule):
            hint = did_you_mean(junction.key, _emitted(rule)) or "; add it to its emit, or use one of its values"
            yield (
                "key",
                (f"rule {rule.name!r} emits no {junction.key!r}{hint}"),
            )


def not_led_lines(led: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Sentences on the matches that junctions dropped, by their counts (`agents.engine.junctions`)."""
    reasons = {"weak": "below min_strength", "far": "beyond max_hops"}
    return [
        f"junction {name!r} did not lead on {counts[cause]:,} of {sum(counts.values()):,} matches: {reason}"
        for name, counts in sorted(led.items())
        for cause, reason in reasons.items()
        if counts.get(cause)
    ]
