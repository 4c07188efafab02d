"""Junctions that form, a second time: over lists of dicts, boundary by boundary, as the definition is written."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from astrocyte.agents.rules.junctions import Forms, Junction
from tests.support.linked import STREAMS

__all__ = ["joined_buckets", "let_through", "random_forming_rules"]

Event = Mapping[str, Any]
Decided = tuple[int, str, str, str, str, int]
"""A decision: time, junction, sender, receiver, kind, co-activity."""


def joined_buckets(forms: Forms, came: set[int], active: set[int]) -> tuple[set[int], list[tuple[int, bool, int]]]:
    """The buckets at whose start a pair is joined, and its decisions (boundary, formed, co-activity)."""
    both, joined, decisions = came & active, False, []
    buckets = set()
    for boundary in range(min(both, default=0), max(both, default=-1) + forms.buckets + 2):
        count = sum(boundary - forms.buckets <= each < boundary for each in both)
        if (count < forms.below) if joined else (count > forms.above):
            joined = not joined
            decisions.append((boundary, joined, count))
        if joined:
            buckets.add(boundary)
    return buckets, decisions


def let_through(
    junction: Junction, led: Sequence[Event], events: Iterable[Event], decided: list[Decided]
) -> list[Event]:
    """Those of the events of a junction that come while it is there; adds its decisions to ``decided``."""
    forms = junction.forms
    if forms is None:
        return list(led)
    own = [each for each in events if each["stream"] in forms.streams]

    def pair_of(event: Event) -> tuple[str, str]:
        return event["led_from"] or "", event["key"]

    open_in: dict[tuple[str, str], set[int]] = {}
    for pair in {pair_of(each) for each in led if each["key"] is not None}:
        came = {each["timestamp"] // forms.every_us for each in led if pair_of(each) == pair}
        active = {each["timestamp"] // forms.every_us for each in own if each["key"] == pair[1]}
        open_in[pair], decisions = joined_buckets(forms, came, active)
        decided += [
            (at * forms.every_us, junction.name, *pair, "formed" if formed else "dissolved", count)
            for at, formed, count in decisions
        ]
    return [each for each in led if each["timestamp"] // forms.every_us in open_in.get(pair_of(each), ())]


def random_forming_rules(rng: random.Random) -> str:
    """A rule file: rules over the streams, a junction that forms, rules behind it, and perhaps another such one."""
    rules = [_rule(rng, f"first_{number}", rng.choice(STREAMS), "value") for number in range(rng.randrange(1, 3))]
    junctions = [_junction(rng, "one", "'first_*'")]
    rules += [_rule(rng, f"behind_{number}", "one", "to") for number in range(rng.randrange(1, 3))]
    if rng.random() < 0.5:
        junctions.append(_junction(rng, "two", "behind_0"))
        rules.append(_rule(rng, "far", "two", "to"))
    return "\n".join(
        ["rules:", *(f"  - {each}" for each in rules), "junctions:", *(f"  - {each}" for each in junctions)]
    )


def _rule(rng: random.Random, name: str, stream: str, field: str) -> str:
    other = f"{{as: b, stream: {rng.choice(STREAMS)}}}"
    mine = f"{{as: a, stream: {stream}}}"
    body = rng.choice(
        [f"seq: [{mine}]", f"within: 2s, seq: [{mine}, {other}]", f"within: 2s, all: [{mine}, {other}]",
         f"within: 900ms, seq: [{mine}, {{not: {other}}}]"]
    )  # fmt: skip
    return f"{{name: {name}, {body}, emit: {{to: 'a.{field} + 0'}}}}"


def _junction(rng: random.Random, name: str, sources: str) -> str:
    above = rng.randrange(3)
    streams = ", ".join(rng.sample(STREAMS, rng.randrange(1, 3)))
    every, buckets = rng.choice([300, 700]), rng.randrange(3, 9)
    forms = f"with: [{streams}], over: {every * buckets}ms, every: {every}ms, above: {above}, "
    forms += f"below: {rng.randrange(1, above + 2)}"
    # A microsecond bit of its own keeps what is led on apart from all other events.
    delay_us = rng.choice([0, 250, 1300]) * 1000 + (1 if name == "one" else 2)
    return f"{{name: {name}, from: {sources}, key: to, delay: {delay_us}us, forms: {{{forms}}}}}"
