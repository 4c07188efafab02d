"""Rules to which junctions lead back, laid out by generations, so that no group waits for itself.

Such rules run in several groups. That of generation 0 reads their own streams alone. That of generation n reads what
junctions led on in the n generations before as well, and emits the matches that hold an event of the last one. What it
leads on is read by generation n + 1. There are as many generations as the junctions' ``max_hops`` allow, so that every
circle ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from astrocyte.agents.rules.graph.links import Circle, circle_of, depths, junction_sources
from astrocyte.agents.rules.junctions import Junction
from astrocyte.agents.rules.model import Rule, RuleSet

__all__ = ["Layer", "layers", "with_junctions"]

_NO_RULE: Final = "-"
"""No rule has such a name."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Rules, windows and junctions of one depth, which wait for none of one another's junctions."""

    depth: int
    ruleset: RuleSet
    generation: int | None = None
    """Of rules in a circle; None for others."""
    newest: frozenset[str] = frozenset()
    """Of these streams a match must hold an event; of no stream where there are none."""


def layers(ruleset: RuleSet) -> list[Layer]:
    """The layers of a rule set without its statistics, in order of depth."""
    circle, deep = circle_of(ruleset), depths(ruleset)
    numbers = range(1, circle.generations + 2)
    # Who reads the junctions of a circle from without reads all of its generations.
    every = {name: [_stream(name, number) for number in numbers] for name in circle.junctions}
    junctions = [
        copy
        for junction in ruleset.junctions
        for copy in (
            [_foreign(junction, number) for number in numbers] if junction.name in circle.junctions else [junction]
        )
    ]
    found = []
    for depth in sorted({deep[each.name] for each in ruleset.rules} | {deep[each.name] for each in ruleset.windows}):
        part = RuleSet(
            rules=tuple(
                _reading(rule, every)
                for rule in ruleset.rules
                if deep[rule.name] == depth and rule.name not in circle.rules
            ),
            windows=tuple(window for window in ruleset.windows if deep[window.name] == depth),
            streams=ruleset.streams,
        )
        if part.rules or part.windows:
            found.append(Layer(depth, with_junctions(part, junctions)))
    first = min((deep[name] for name in circle.rules), default=0)
    return sorted([*found, *_generations(ruleset, circle, first)], key=lambda each: each.depth)


def with_junctions(ruleset: RuleSet, junctions: Sequence[Junction]) -> RuleSet:
    """The rule set with those of the junctions that it reads or feeds."""
    led = junction_sources(ruleset.model_copy(update={"junctions": tuple(junctions)}))
    near = led.keys() | ruleset.read
    return ruleset.model_copy(update={"junctions": tuple(each for each in junctions if each.name in near)})


def _generations(ruleset: RuleSet, circle: Circle, first: int) -> Iterator[Layer]:
    """The layers of the rules of a circle, of which generation 0 has the depth ``first``."""
    if not circle.rules:
        return
    inside = [each for each in ruleset.junctions if each.name in circle.junctions]
    outside = [each for each in ruleset.junctions if each.name not in circle.junctions]
    own = [rule for rule in ruleset.rules if rule.name in circle.rules]
    for number in range(circle.generations + 1):
        before = {name: [_stream(name, each) for each in range(1, number + 1)] for name in circle.inner}
        if number:
            rules = [_reading(rule, before) for rule in own if not circle.inner.isdisjoint(rule.streams)]
        else:
            rules = [found for rule in own if (found := _without(rule, circle.inner)) is not None]
        part = RuleSet(rules=tuple(rules), streams=ruleset.streams)
        led = [junction.model_copy(update={"name": _stream(junction.name, number + 1)}) for junction in inside]
        read = [_foreign(junction, each) for junction in inside for each in range(1, number + 1)]
        newest = frozenset(_stream(name, number) for name in circle.inner) if number else frozenset[str]()
        yield Layer(first + number, with_junctions(part, [*outside, *read, *led]), number, newest)


def _stream(junction: str, generation: int) -> str:
    """Stream of what a junction leads on to a generation."""
    return junction if generation == 1 else f"{junction}.hop{generation}"


def _foreign(junction: Junction, generation: int) -> Junction:
    """The junction as those know it who read what it leads on to a generation, and do not feed it."""
    return junction.model_copy(update={"name": _stream(junction.name, generation), "sources": (_NO_RULE,)})


def _without(rule: Rule, junctions: frozenset[str]) -> Rule | None:
    """The rule as it is before these junctions have led anything on; None if it then has no match."""
    if any(junctions.issuperset(step.stream) for step in rule.steps):
        return None  # such a step is needed: `agents.rules.graph.links` refuses others
    return _reading(rule, {name: [] for name in junctions})


def _reading(rule: Rule, streams: Mapping[str, list[str]]) -> Rule:
    """The rule with other streams for some that it reads. Its matches keep their ids."""
    if all(streams.get(name, [name]) == [name] for name in rule.streams):
        return rule
    body = rule.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    steps = {name: _renamed(body[name], streams) for name in ("seq", "all", "any") if body.get(name) is not None}
    return Rule.model_validate({**body, **steps, "version": rule.content_version})


def _renamed(value: Any, streams: Mapping[str, list[str]]) -> Any:
    if isinstance(value, list):
        return [_renamed(each, streams) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: _renamed(each, streams) for key, each in value.items() if key != "stream"}
    if value.get("stream") is not None:
        given = [value["stream"]] if isinstance(value["stream"], str) else value["stream"]
        found["stream"] = [each for name in given for each in streams.get(name, [name])]
    return found
