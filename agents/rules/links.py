"""How the junctions of a rule set link its rules, and what makes a link impossible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from typing import Final, NamedTuple

from astrocyte.agents.expressions.nodes import Field, walk
from astrocyte.agents.rules.junctions import HOPS, OF_MATCH, STRENGTH, Junction
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.rules.problems import RuleProblem
from astrocyte.schemas.registry import did_you_mean

__all__ = ["Link", "depths", "fields_of", "junction_problems", "junction_sources", "not_led_lines"]

_EVERY_EVENT: Final = frozenset({"timestamp", "key", "type"})


class Link(NamedTuple):
    """A junction and a topic to which it leads, which is partitioned by ``field`` as the rules that read it need it."""

    junction: str
    field: str
    topic: str


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


def junction_sources(ruleset: RuleSet) -> dict[str, tuple[str, ...]]:
    """By junction: the rules of the set whose matches it leads on; without those that have none here."""
    found = {each.name: tuple(rule.name for rule in _feeding(each, ruleset.rules)) for each in ruleset.junctions}
    return {name: rules for name, rules in found.items() if rules}


def depths(ruleset: RuleSet) -> Mapping[str, int]:
    """By rule, window, statistic and junction: the most junctions through which its events may have come.

    The rule set has no circle (`agents.rules.circles`).
    """
    led = junction_sources(ruleset)
    reads: dict[str, Sequence[str]] = {
        each.name: each.streams for each in (*ruleset.rules, *ruleset.windows, *ruleset.insight)
    }
    reads |= led
    reads = {name: [each for each in read if each in reads] for name, read in reads.items()}
    found: dict[str, int] = {}
    for name in TopologicalSorter(reads).static_order():
        found[name] = max((found[each] + (each in led) for each in reads[name]), default=0)
    return found


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
