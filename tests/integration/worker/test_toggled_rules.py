"""Rules that are published, changed and removed five times a second while events flow disturb nothing else."""

import asyncio
import json
from collections import Counter
from itertools import cycle, islice

import orjson
import pytest

from astrocyte import Engine, load_rules
from astrocyte.pipeline.kafka.client import producer_client
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS, LATE, MULTI_EVENTS, RULES
from tests.support.live import running
from tests.support.waiting import wait_until

EVERY_S = 0.2
CHANGES = 45
TOGGLED = ("single", "pair", "rise")


def toggled(threshold: float) -> str:
    """A rule file; each threshold is another version of its rules."""
    any_a = {"as": "a", "stream": "quiet_a"}
    high = {"as": "b", "stream": "quiet_b", "where": f"value > {threshold}"}
    rules = [
        {"name": "single", "seq": [high], "alert": {"severity": "warning", "message": "{b.value}"}},
        {"name": "pair", "within": "100ms", "all": [any_a, high]},
        {"name": "rise", "within": "200ms", "seq": [any_a, high]},
    ]
    emit = {"value": "b.value", "threshold": str(threshold)}
    return json.dumps({"rules": [rule | {"emit": emit} for rule in rules]})


THRESHOLDS = (0.2, 0.5, 0.8)
VERSIONS = [toggled(threshold) for threshold in THRESHOLDS]
STEPS = [*VERSIONS[:2], None, VERSIONS[2], None]
"""What is published: rules, rules that are changed, and nothing, which removes them."""


def toggle(live) -> None:
    """Publish the steps again and again, each a fifth of a second of events after the one before."""

    async def publish() -> None:
        async with producer_client(live.settings.broker) as producer:
            for text in (*islice(cycle(STEPS), CHANGES), None):
                await producer.send_and_wait(RULES, text and text.encode(), key=b"toggled", partition=0)
                await asyncio.to_thread(live.sending.wait, EVERY_S)

    asyncio.run(publish())


def found_in(live, topic: str, identity: str) -> Counter[tuple[str, str]]:
    """How often each rule and id is in a topic."""
    bodies = (orjson.loads(each.value) for each in live.records(topic))
    return Counter((each.get("correlation_rule") or each["rule"], each[identity]) for each in bodies)


def matches_of(live, text: str) -> set[tuple[str, str]]:
    """Rules and ids that an engine makes of the events alone."""
    engine = Engine(load_rules(text))
    for frame in live.sending.right:
        engine.push(frame)
    return {(match.rule, match.id) for match in engine.flush().matches}


@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "killed"])
def test_rules_that_do_not_change_match_as_if_no_other_was_published(own_embedded, tmp_path, killed):
    with running(own_embedded, tmp_path, lateness="200ms", idle_timeout="1s") as live:
        toggle(live)
        if killed:
            live.worker.kill()
            live.worker.start()
            toggle(live)
        live.sending.wait(1)
        live.sending.stop()
        wait_until(lambda: live.counters()["received"] >= live.sending.events, 120, lambda: str(live.counters()))
        wait_until(lambda: live.lag("correlate") == 0, 120, "all events to be processed")
        wanted = matches_of(live, live.settings.rules[0].read_text())
        assert len(wanted) > 300

        def stays() -> Counter[tuple[str, str]]:
            found = found_in(live, MULTI_EVENTS, "event_id")
            return Counter({each: count for each, count in found.items() if each[0] not in TOGGLED})

        wait_until(lambda: len(stays()) >= len(wanted), 120, lambda: f"{len(stays())} of {len(wanted)}")
        found, alerts = found_in(live, MULTI_EVENTS, "event_id"), found_in(live, ALERTS, "alert_id")
        counters = live.counters()
        assert (live.records(LATE), live.records(DEAD_LETTERS)) == ([], [])
        assert counters["processed"] == counters["received"] == live.sending.events
        assert set(stays()) == wanted
        assert killed or set(found.values()) == set(alerts.values()) == {1}
        changes = {each for each in found if each[0] in TOGGLED}
        assert {rule for rule, _ in changes} == set(TOGGLED)
        # What a pattern matches depends on where it began; a single event has to fulfil one of the versions alone.
        singles = {each for each in changes if each[0] == "single"}
        assert singles <= set.union(*(matches_of(live, text) for text in VERSIONS))
        bodies = [orjson.loads(each.value) for each in live.records(MULTI_EVENTS)]
        emitted = [each["metadata"] for each in bodies if each["correlation_rule"] in TOGGLED]
        assert {each["threshold"] for each in emitted} == set(THRESHOLDS)
        assert all(each["value"] > each["threshold"] for each in emitted), "no version judges by another's condition"
        assert live.worker.said.count("rules changed: ") > CHANGES / 3
        assert live.worker.ended is None
