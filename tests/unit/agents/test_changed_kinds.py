"""Values of another kind than the first of their field: the count is a function of the log alone."""

from __future__ import annotations

from typing import Any, Final

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.roles.output_records import copy_records
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.json.reader import RawRecord
from tests.support.logs import write_log
from tests.support.search import examples

T0_MS: Final = 1_772_359_200_000
DAY_MS: Final = 86_400_000
RULES = load_rules("""
rules:
  - {name: by_key, seq: [{as: a, stream: A, where: 'x > 0'}]}
  - {name: by_device, by: device, seq: [{as: a, stream: A, where: 'x > 0'}]}
""")
PLAN = make_plan(RULES)
(COPIED,) = PLAN.repartitions
KINDS: Final = {int: "number", float: "number", str: "text", bool: "boolean", list: "text", dict: "text"}
"""Lists and objects in JSON are their text."""

values = st.sampled_from([None, 1, 2.5, "a", "b", True, [1], {"c": 1}])
events = st.lists(st.tuples(values, st.booleans()), min_size=1, max_size=12)
"""Values, and whether the event's clock is a day ahead, so that it waits for others."""
steps = st.lists(st.sampled_from(["feed", "feed", "copy", "restart"]), max_size=30)


def records_of(given_events: list[tuple[Any, bool]]) -> list[RawRecord]:
    records = []
    for at, (value, ahead) in enumerate(given_events):
        time_ms = T0_MS + at + ahead * DAY_MS
        body = {"timestamp": time_ms, "device": f"d{at % 2}", "x": value}
        # Kafka's time goes with the event's, so that it does not say whose clock is wrong.
        records.append(RawRecord(at, time_ms, b"k%d" % (at % 3), orjson.dumps(body)))
    return records


def expected(given_events: list[tuple[Any, bool]], refused: set[int]) -> int:
    """The count of the events that were not refused for their clocks."""
    kinds = {at: KINDS[type(value)] for at, (value, _) in enumerate(given_events) if value is not None}
    return sum(kind != next(iter(kinds.values())) for at, kind in kinds.items() if at not in refused)


def new_domain() -> Domain:
    groups = [DomainGroup(each.field, Engine(each.ruleset, validated=True), each.topics) for each in PLAN.groups]
    topics = {topic for each in PLAN.groups for topic in each.topics.values()}
    return Domain(
        0, groups, topics=topics, internal=[COPIED.topic], copied_by=PLAN.copied_by, copies=PLAN.copies
    )  # fmt: skip


def live(given_events: list[tuple[Any, bool]], division: list[str], size: int) -> tuple[int, set[int]]:
    """The count of a worker that reads a stream and its copy, whenever that comes, and the offsets that it refuses."""
    domain, count = new_domain(), 0
    decoders = Decoders(Contracts(RULES.streams))
    writer = Repartitioner(COPIED, 1, lateness_us=0, decoders=decoders)
    waiting: list[RawRecord] = []
    copied = 0
    outputs = DomainOutput()

    def copies(made: Any) -> None:
        waiting.extend(
            RawRecord(len(waiting) + copied + number, 0, each.key, each.value, tuple(each.headers))
            for number, each in enumerate(each for copy in made for each in copy_records(COPIED, copy, 1))
        )

    left = records_of(given_events)
    copies(writer.step(0, left)[0])
    copies(writer.trust(None, partition=None))
    for step in [*division, *["feed", "copy"] * len(left)]:
        if step == "restart":
            count, before, domain = count + domain.unused.count("kind"), domain, new_domain()
            domain.restore(before.snapshot())
        elif step == "feed":
            outputs.extend(domain.feed("mono.A", left[:size]))
            left = left[size:]
        else:
            domain.feed(COPIED.topic, waiting[:1])
            waiting, copied = waiting[1:], copied + len(waiting[:1])
    domain.feed(COPIED.topic, waiting)
    outputs.extend(domain.trust())
    refused = {letter.offset for letter in outputs.dead_letters}
    return count + domain.unused.count("kind"), refused


@examples(25, 300)
@given(events, steps, st.sampled_from([1, 2, 3, 20]))
@example([("a", True), (1, False), (2, False)], [], 1)
@example([(1, False), ("a", False), ("b", False)], ["feed", "restart"], 1)
@example([("a", True), (1, False), (2, False)], ["copy", "feed"], 1)
def test_the_count_is_the_same_wherever_topics_are_cut_and_copies_come(given_events, division, size):
    count, refused = live(given_events, division, size)
    assert count == expected(given_events, refused)
    assert all(given_events[at][1] for at in refused)


@pytest.mark.parametrize(
    "given_events",
    [[("a", True), (1, False), (2, False)], [(1, False), ("a", False), (None, False), (True, True), ([1], False)]],
)
def test_offline_it_is_the_same(given_events, tmp_path):
    records = [
        ConsumedRecord("mono.A", 0, each.offset, each.timestamp, each.key, each.value)
        for each in records_of(given_events)
    ]
    run, outputs = run_rules(RULES, [write_log(tmp_path / "log.jsonl", records, partitions=1)], lateness_us=0)
    refused = {letter.offset for output in outputs for letter in output.dead_letters}
    assert run.unused.count("kind") == expected(given_events, refused)
    assert live(given_events, [], 1) == (run.unused.count("kind"), refused)
