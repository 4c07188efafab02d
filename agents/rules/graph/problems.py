"""What makes the junctions of a rule set impossible, although each is valid by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final

from astrocyte.agents.expressions.nodes import Field, walk
from astrocyte.agents.rules.graph.links import circle_of, depths, emitted_by, feeding_rules, fields_of, readers_of
from astrocyte.agents.rules.junctions import Junction
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.rules.problems import RuleProblem
from astrocyte.schemas.registry import did_you_mean

__all__ = ["junction_problems"]

_EVERY_EVENT: Final = frozenset({"timestamp", "key", "type"})


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
    yield from _of_formation(ruleset)


def _of_formation(ruleset: RuleSet) -> Iterator[RuleProblem]:
    """What a junction that forms needs: readers that decide alike, and streams that show when they are active."""
    deep, circle, made = depths(ruleset), circle_of(ruleset), ruleset.made
    for junction in ruleset.junctions:
        if (forms := junction.forms) is None:
            continue

        def problem(message: str, field: str = "forms", junction: Junction = junction) -> RuleProblem:
            return RuleProblem(message, rule=junction.name, field=field, kind="junction")

        if junction.name in circle.junctions:
            yield problem("comes from rules in a circle; such a junction is always there: leave forms out")
        for stream in sorted(made.intersection(forms.streams)):
            yield problem(f"{stream!r} is made by this file; name a stream of events that others send", "forms.with")
        reading = readers_of(junction, ruleset)
        fields = {each.name: each.by or "null" for each in reading}
        if len(set(fields.values())) > 1:
            listed = ", ".join(f"{name} by {field}" for name, field in fields.items())
            yield problem(f"what reads it correlates by different fields ({listed}); write a junction for each field")
        depth = {each.name: deep[each.name] for each in reading}
        if len(set(depth.values())) > 1:
            listed = ", ".join(f"{name} behind {count}" for name, count in depth.items())
            yield problem(
                f"what reads it is behind different numbers of junctions ({listed}); write a junction for each"
            )


def _of_circle(ruleset: RuleSet) -> Iterator[RuleProblem]:
    """What a circle may not hold: its rules meet in junctions alone, of which each bounds it."""
    circle = circle_of(ruleset)
    for junction in ruleset.junctions:
        if junction.name in circle.inner and not junction.is_bounded:
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
    feeding = feeding_rules(junction, ruleset.rules)
    yield from _of_rules(junction, feeding)
    known = fields_of(junction, ruleset.rules)
    if feeding and junction.where_node is not None:
        for part in walk(junction.where_node):
            if isinstance(part, Field) and part.name not in known | _EVERY_EVENT:
                hint = did_you_mean(part.name, known | _EVERY_EVENT) or f"; its fields: {', '.join(sorted(known))}"
                yield "where", f"events of the junction have no field {part.name!r}{hint}"


def _of_rules(junction: Junction, feeding: Sequence[Rule]) -> Iterator[tuple[str, str]]:
    fields = {rule.by or "null" for rule in feeding}
    if len(fields) > 1:
        listed = ", ".join(f"{rule.name} by {rule.by or 'null'}" for rule in feeding)
        yield "from", f"its rules correlate by different fields ({listed}); write a junction for each field"
    keys = {"key", *fields - {"null"}}.union(set.intersection(*map(emitted_by, feeding)) if feeding else ())
    for rule in feeding:
        if rule.holds_matches:
            yield (
                "from",
                (
                    f"rule {rule.name!r} has skip {rule.skip.kind}, so that a match may wait for earlier ones and come "
                    "after later ones; write emit: eager there (emit_mode: eager where it emits values)"
                ),
            )
        taken = sorted(emitted_by(rule) & junction.sets)
        if taken:
            yield "from", f"rule {rule.name!r} emits {taken[0]!r}, which the junction sets; name it otherwise there"
        if junction.key not in {"key", rule.by} | emitted_by(rule):
            hint = did_you_mean(junction.key, keys) or "; add it to its emit, or use one of its values"
            yield (
                "key",
                (f"rule {rule.name!r} emits no {junction.key!r}{hint}"),
            )
