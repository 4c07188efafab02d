"""Events of one time and without ids of their own are matched in the order in which they were written, wherever."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astrocyte import Engine, Frame, RuleSet, load_rules, match
from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.embed.encoding import StreamEncoder, messages_of
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.replays.shift import Shift, shift_record
from astrocyte.pipeline.roles.output_records import copy_records
from astrocyte.pipeline.topology.plan import Repartition
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.frames import encode_frame
from astrocyte.schemas.json.reader import RawRecord, frame_to_records

T0 = "2026-01-01T00:00:00Z"
T0_US = 1_767_225_600_000_000
KEYS = 8
SEQ = "within: 9s, seq: [{as: a, stream: S, where: 'value == 1'}, {as: b, stream: S, where: 'value == 2'}]"
RULES = load_rules(f"rules: [{{name: r, {SEQ}}}]")
EVENTS = [
    {"stream": "S", "timestamp": T0, "key": f"k{key}", "p": f"p{key}", "value": value}
    for key in range(KEYS)
    for value in (1, 2)
]
FRAME = Frame.from_columns(
    "S",
    "run",
    {
        "timestamp": np.full(2 * KEYS, T0_US),
        **{name: [event[name] for event in EVENTS] for name in ("key", "p", "value")},
    },
)
DIVISIONS = [(1, False), (3, True), (2 * KEYS, False)]
"""Messages in a chunk, and whether the domain is restored after each."""


def in_json() -> list[RawRecord]:
    return [
        RawRecord(at, 0, event["key"].encode(), orjson.dumps({name: event[name] for name in event if name != "stream"}))
        for at, event in enumerate(EVENTS)
    ]


def in_mixed_json() -> list[RawRecord]:
    """As above, but with a member more in some records, which the readers of whole columns leave to the general one."""
    return [
        record._replace(value=orjson.dumps(orjson.loads(record.value) | ({"more": 1} if at % 3 else {})))
        for at, record in enumerate(in_json())
    ]


def in_mono_json() -> list[RawRecord]:
    return [RawRecord(at, 0, each.key, each.value, each.headers) for at, each in enumerate(frame_to_records(FRAME))]


def published() -> list[RawRecord]:
    encoder = StreamEncoder("S")
    encoded = [
        encoder.encode({"timestamp": T0, "p": event["p"], "value": event["value"]}, event["key"], number)
        for number, event in enumerate(EVENTS)
    ]
    return [RawRecord(at, 0, each.key, each.value, each.headers) for at, each in enumerate(messages_of(encoded, "run"))]


def in_frames() -> list[RawRecord]:
    return [RawRecord(at, 0, None, encode_frame(FRAME.slice(at, at + 1))) for at in range(2 * KEYS)]


def second_lap() -> list[RawRecord]:
    records = [ConsumedRecord("mono.S", 0, each.offset, 0, each.key, each.value, each.headers) for each in published()]
    lap = [shift_record(record, Shift(lap=2)) for record in records]
    return [RawRecord(each.offset, 0, each.key, each.value, each.headers) for each in lap]


def live(
    records: Sequence[RawRecord], cut: int, *, restart: bool, rules: RuleSet = RULES, topic: str = "mono.S"
) -> int:
    """Matches of a domain that gets the messages in chunks; with ``restart`` it is restored after each."""
    by = rules.rules[0].by
    decoders = Decoders(Contracts(rules.streams))

    def new() -> Domain:
        return Domain(0, [DomainGroup(by, Engine(rules), {"S": topic})], topics=[topic], decoders=decoders)

    domain, found = new(), 0
    for first in range(0, len(records), cut):
        found += len(domain.feed(topic, records[first : first + cut]).multi_events)
        if restart:
            state = domain.snapshot()
            domain = new()
            domain.restore(state)
    return found + len(domain.flush().multi_events)


def test_in_python_by_every_entrance():
    assert len(match(RULES, EVENTS)) == KEYS
    assert len(match(RULES, [FRAME])) == KEYS
    for push in (
        lambda engine: [engine.push_event(each) for each in EVENTS],
        lambda engine: engine.push_events(EVENTS),
    ):
        engine = Engine(RULES)
        push(engine)
        assert len(engine.flush().matches) == KEYS


@pytest.mark.parametrize(("cut", "restart"), DIVISIONS)
@pytest.mark.parametrize("form", [in_json, in_mixed_json, in_mono_json, published, in_frames, second_lap])
def test_live_in_every_form_and_division_and_after_restarts(form: Callable[[], list[RawRecord]], cut, restart):
    assert live(form(), cut, restart=restart) == KEYS


def test_live_among_the_rows_of_one_message():
    rules = load_rules(
        f"streams: [{{name: S, decoder: csv, fields: {{at: string, key: string, value: int64}}, "
        f"time: {{field: at}}, key: {{field: key, partitioned: true}}}}]\nrules: [{{name: r, {SEQ}}}]"
    )
    lines = [f"{T0},{event['key']},{event['value']}" for event in EVENTS]
    records = [RawRecord(at, 0, None, "\n".join(lines[3 * at : 3 * at + 3]).encode()) for at in range(6)]
    for cut, restart in DIVISIONS:
        assert live(records, cut, restart=restart, rules=rules) == KEYS


@pytest.mark.parametrize("form", [in_json, in_mono_json, in_frames])
def test_live_in_the_copies_of_the_repartition_role(form):
    rules = load_rules(f"rules: [{{name: r, by: p, {SEQ}}}]")
    plan = Repartition("S", "mono.S", "p", "keyed.p.S")
    records = form()
    for cut, restart in DIVISIONS:
        repartitioner = Repartitioner(plan, 1, lateness_us=0)
        made = []
        for first in range(0, len(records), cut):
            for copy in repartitioner.step(0, records[first : first + cut])[0]:
                made += copy_records(plan, copy, 1)
        copies = [RawRecord(at, 0, None, each.value, tuple(each.headers)) for at, each in enumerate(made)]
        assert live(copies, 2, restart=restart, rules=rules, topic=plan.topic) == KEYS


@pytest.mark.parametrize("by", ["key", "p"])
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_in_files(tmp_path, form, by):
    path = tmp_path / f"events.{form}"
    if form == "jsonl":
        path.write_bytes(b"\n".join(map(orjson.dumps, EVENTS)))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(EVENTS), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, EVENTS[0])
            writer.writeheader()
            writer.writerows(EVENTS)
    _, outputs = run_rules(load_rules(f"rules: [{{name: r, by: {by}, {SEQ}}}]"), [path], lateness_us=0)
    assert sum(len(output.multi_events) for output in outputs) == KEYS


def test_between_partitions_the_order_does_not_depend_on_which_is_read_first():
    rules = load_rules("rules: [{name: r, by: null, within: 9s, seq: [{as: a, stream: S}, {as: b, stream: S}]}]")
    places = [("mono.S", number, in_json()[:3]) for number in range(4)]
    found = []
    for order in (places, places[::-1]):
        engine = Engine(rules)
        for topic, partition, records in order:
            frames, _ = decode_chunk(topic, partition, records)
            for each in frames:
                engine.push(each.frame)
        found.append([each.id for each in engine.flush().matches.matches()])
    assert len(found[0]) == 11
    assert found[0] == found[1]
