"""Rule sets with junctions drawn at random, their events, and a second implementation: the matcher in passes.

The second implementation knows no watermarks, topics and numbers. Each pass matches, over lists of dicts, the rules
whose junctions are done; what their own junctions lead on is appended to the events as dicts, for the next pass.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from astrocyte.agents.engine.matching import match
from astrocyte.agents.expressions.scalar import compile_scalar
from astrocyte.agents.loading import load_rules
from astrocyte.agents.matches.table import Match
from astrocyte.agents.rules.junctions import Junction
from astrocyte.agents.rules.model import RuleSet
from tests.support.logs import T0_US

__all__ = ["found_in_passes", "random_events", "random_linked_rules"]

STREAMS = ("axon_1", "axon_2", "axon_3")


def random_events(rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Events of three streams at distinct times, in order; few values and keys, so that most rules find some."""
    at_us = T0_US
    events = []
    for _ in range(count):
        at_us += rng.randrange(1, 400) * 1000
        events.append(
            {"stream": rng.choice(STREAMS), "timestamp": at_us, "key": str(rng.randrange(6)),
             "type": rng.choice("AB"), "value": float(rng.randrange(6))}
        )  # fmt: skip
    return events


def random_linked_rules(rng: random.Random) -> str:
    """A rule file: rules over the streams, junctions from them, rules over these, and so on."""
    rules: list[str] = []
    junctions: list[str] = []
    readable = [*STREAMS]
    for depth in range(rng.randrange(2, 4)):
        made = [f"r{depth}_{number}" for number in range(rng.randrange(1, 3))]
        rules += [_rule(rng, name, readable[-2:]) for name in made]
        for number in range(rng.randrange(1, 3)):
            name = f"j{depth}_{number}"
            # A microsecond bit of its own keeps what is led on apart from all other events.
            delay_us = rng.choice([0, 1, 250, 3000]) * 1000 + 2 ** len(junctions)
            source = rng.choice([made[-1], f"'r{depth}_*'", f"[{', '.join(made)}]"])
            options = [f"name: {name}", f"from: {source}", f"key: {rng.choice(['key', 'to'])}", f"delay: {delay_us}us"]
            options += rng.sample(
                ["where: 'to > 1 and hops < 3'", "damping: 0.5", "min_strength: 0.3", "max_hops: 2"], rng.randrange(3)
            )
            junctions.append(f"{{{', '.join(options)}}}")
            readable.append(name)
    lines = ["rules:", *(f"  - {each}" for each in rules), "junctions:", *(f"  - {each}" for each in junctions)]
    return "\n".join(lines)


def _rule(rng: random.Random, name: str, inputs: Sequence[str]) -> str:
    first = rng.choice(inputs)
    # Not of two junctions: they may lead the same match on, which the lists of dicts could not hold twice.
    mine, theirs = f"{{as: a, stream: {first}}}", f"{{as: b, stream: {rng.choice([first, *STREAMS])}}}"
    value = "a.to + 0" if first.startswith("j") else "a.value + 0"
    confidence = rng.choice(["", ", confidence: '0.75'"])
    emit = f"emit: {{to: '{value}'{confidence}}}"
    form = rng.choice(["seq", "all", "absence", "one"])
    if form == "one":
        body = f"seq: [{mine}]"
    elif form == "all":
        body = f"within: 2s, all: [{mine}, {theirs}], pairing: {rng.choice(['once', 'each', 'latest'])}"
    elif form == "seq":
        body = f"within: 2s, seq: [{mine}, {theirs}]"
    else:
        body = f"within: 1500ms, seq: [{mine}, {{not: {theirs}}}]"
    return f"{{name: {name}, {body}, {emit}}}"


def found_in_passes(text: str, events: Sequence[Mapping[str, Any]]) -> list[Match]:
    """All matches of a rule file whose rules read streams and junctions, but no other rule."""
    ruleset = load_rules(text)
    names = {junction.name for junction in ruleset.junctions}
    led: dict[str, list[dict[str, Any]]] = {}
    found: list[Match] = []
    left = {rule.name: rule for rule in ruleset.rules}
    while left:
        given = [*events, *(event for each in led.values() for event in each)]
        for rule in [rule for rule in left.values() if names.intersection(rule.streams) <= led.keys()]:
            found += match(RuleSet(rules=(rule,)), [each for each in given if each["stream"] in rule.streams])
            del left[rule.name]
        for junction in ruleset.junctions:
            feeding = {rule.name for rule in ruleset.rules if junction.names(rule.name)}
            if junction.name not in led and left.keys().isdisjoint(feeding):
                led[junction.name] = list(_led(junction, [each for each in found if each.rule in feeding], names))
    return found


def _led(junction: Junction, matches: Sequence[Match], names: set[str]) -> Iterator[dict[str, Any]]:
    holds = None if junction.where_node is None else compile_scalar(junction.where_node)
    for each in matches:
        through = [event.fields for events in each.events.values() for event in events if event.stream in names]
        hops = 1 + max((fields["hops"] for fields in through), default=0)
        strength = junction.damping * each.confidence * max((fields["strength"] for fields in through), default=1.0)
        value = each.key if junction.key == "key" else each.emit[junction.key]
        event = {
            "stream": junction.name, "timestamp": each.time_us + junction.delay_us, "event_id": each.id,
            "key": None if value is None else str(int(value)), "type": each.rule, **each.emit,
            "confidence": each.confidence, "timed_out": each.timed_out, "hops": hops, "strength": strength,
        }  # fmt: skip
        if hops > (junction.max_hops or 1000) or strength < junction.min_strength:
            continue
        if holds is None or holds(event, {}) is True:
            yield event
