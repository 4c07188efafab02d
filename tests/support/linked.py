"""Rule sets with junctions drawn at random, their events, and a second implementation: the matcher in passes.

The second implementation knows no watermarks, topics and numbers. Each pass matches, over lists of dicts, the rules
whose junctions are done; what their own junctions lead on is appended to the events as dicts, for the next pass.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from astrocyte.agents.engine.matching import match
from astrocyte.agents.expressions.scalar import compile_scalar
from astrocyte.agents.loading import load_rules
from astrocyte.agents.matches.table import Match
from astrocyte.agents.rules.junctions import Junction
from astrocyte.agents.rules.model import RuleSet
from tests.support.logs import T0_US

__all__ = [
    "found_in_generations",
    "found_in_passes",
    "random_circle",
    "random_events",
    "random_linked_rules",
    "rules_of",
]

STREAMS = ("axon_1", "axon_2", "axon_3")

rules_of = lru_cache(maxsize=64)(load_rules)
"""`load_rules`, which reads each text once: an example runs its rules many times."""


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
                [
                    "where: 'to > 1 and hops < 2'",
                    "damping: 0.5",
                    "min_strength: 0.3",
                    f"max_hops: {rng.choice([1, 2])}",
                ],
                rng.randrange(3),
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


def found_in_passes(
    text: str, events: Sequence[Mapping[str, Any]], there: Callable[[Junction, list[Any]], list[Any]] | None = None
) -> list[Match]:
    """All matches of a rule file whose rules read streams and junctions, but no other rule.

    ``there`` gives those of the events of a junction that come while it is there; None: all.
    """
    ruleset = rules_of(text)
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
                made = list(_led(junction, [each for each in found if each.rule in feeding], names))
                led[junction.name] = made if there is None else there(junction, made)
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
        if junction.forms is not None:
            event["led_from"] = each.key
        if hops > (junction.max_hops or 1000) or strength < junction.min_strength:
            continue
        if holds is None or holds(event, {}) is True:
            yield event


def random_circle(rng: random.Random) -> str:
    """A rule file with a circle, in which WAVE stands for what its junction leads on."""
    rules = [
        f"{{name: seed, version: v, seq: [{{as: a, stream: {rng.choice(STREAMS)}}}], emit: {{to: 'a.value + 0'}}}}"
    ]
    for number in range(rng.randrange(1, 3)):
        other = f"{{as: b, stream: {rng.choice(STREAMS)}}}"
        mine = rng.choice(["{as: a, stream: [WAVE]}", f"{{as: a, stream: [WAVE, {rng.choice(STREAMS)}]}}"])
        body = rng.choice(
            [f"within: 1s, seq: [{mine}, {other}]", f"within: 1s, all: [{mine}, {other}]",
             f"within: 700ms, seq: [{mine}, {{not: {other}}}]", f"seq: [{mine}]"]
        )  # fmt: skip
        value = rng.choice(["a.value + 0", "a.to + 1"]) if "axon" in mine else "a.to + 1"
        rules.append(f"{{name: relay_{number}, version: v, {body}, emit: {{to: '{value}'}}}}")
    rules.append("{name: heard, version: v, within: 1s, seq: [{as: a, stream: [WAVE]}, {as: b, stream: [WAVE]}]}")
    options = f"key: {rng.choice(['key', 'to'])}, delay: {rng.choice([1, 250]) * 1000 + 1}us, damping: 0.5"
    bounds = f"max_hops: {rng.randrange(1, 4)}, min_strength: {rng.choice([0, 0.2])}"
    wave = f"{{name: wave, from: [seed, 'relay_*'], {options}, {bounds}}}"
    return "\n".join(["rules:", *(f"  - {each}" for each in rules), "junctions:", f"  - {wave}"])


def found_in_generations(text: str, events: Sequence[Mapping[str, Any]]) -> list[Match]:
    """All matches of a file of `random_circle`, generation by generation."""
    (junction,) = rules_of(text.replace("WAVE", "wave")).junctions
    names: list[str] = []
    given: list[Mapping[str, Any]] = list(events)
    found: list[Match] = []
    newest: set[str] = set()

    def matches(of: str) -> list[Match]:
        ruleset = rules_of(text.replace("WAVE", ", ".join(names) or "nothing").split("junctions:")[0])
        rules = [rule for rule in ruleset.rules if (rule.name == "heard") == (of == "heard")]
        return [
            each
            for rule in rules
            for each in match(RuleSet(rules=(rule,)), [event for event in given if event["stream"] in rule.streams])
        ]

    while not names or newest:
        made = [
            each
            for each in matches("circle")
            if not names or newest & {event.id for events in each.events.values() for event in events}
        ]
        found += made
        stream = f"wave.hop{len(names) + 1}" if names else "wave"
        led = [{**event, "stream": stream} for event in _led(junction, made, {*names})]
        names.append(stream)
        given += led
        newest = {str(event["event_id"]) for event in led}
    return found + matches("heard")
