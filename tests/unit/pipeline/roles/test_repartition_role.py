"""The repartition role over crashes: the reader of the copies takes each event once, whatever is written again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.agents.ingest.copies import CopiesOnce
from astrocyte.pipeline.kafka.partition_end import AtEnd
from astrocyte.pipeline.roles.repartition import RepartitionRunner
from astrocyte.pipeline.state.lost import LostState, SnapshotsLost
from astrocyte.pipeline.topology.plan import Repartition
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.topics import CLOCK

REPARTITION = Repartition("weather", "mono.weather", "place", "keyed.place.weather")
START, SECOND, HOUR = 1_750_000_000_000_000, 1_000_000, 3_600_000_000
PARTITIONS = 2
COUNT = 20


@dataclass
class Chunk:
    partition: int
    records: list[RawRecord]
    next_offset: int


class Broker:
    """What was confirmed, and a connection that breaks after some more records."""

    def __init__(self):
        self.records = []
        self.breaks_after = None

    async def deliver(self, records):
        for record in records:
            if self.breaks_after is not None:
                if self.breaks_after == 0:
                    raise ConnectionError
                self.breaks_after -= 1
            self.records.append(record)

    def states(self):
        return {each.key: each.value for each in self.records if each.topic == "state"}

    def copies(self, partition):
        found = [each for each in self.records if (each.topic, each.partition) == (REPARTITION.topic, partition)]
        return [RawRecord(at, 0, None, each.value, tuple(each.headers)) for at, each in enumerate(found)]

    def clock(self):
        return [orjson.loads(each.value) for each in self.records if each.topic == CLOCK]


def events(count, bad, *, form):
    """Messages of several keys; the key "bad" is two hours ahead, in its Kafka timestamps too, from ``bad`` on."""
    made = []
    for number in range(count):
        key = ("a", "bad", "b", "a")[number % 4]
        shift = 2 * HOUR if key == "bad" and number >= bad else 0
        rows = range(1 if form == "json" else 3)
        times = [START + number * SECOND + row * 10 + shift for row in rows]
        if form == "json":
            body = {"timestamp": times[0], "place": f"p{number % 5}", "key": key, "n": number}
            made.append(RawRecord(number, times[0] // 1000, key.encode(), orjson.dumps(body)))
        else:
            columns = {
                "timestamp": np.array(times), "key": [key] * 3, "place": [f"p{number % 5}", "p1", "p2"],
                "n": [number * 3 + row for row in rows],
            }  # fmt: skip
            value = encode_frame(Frame.from_columns("weather", "run", columns, first_seq=number * 3))
            made.append(RawRecord(number, times[0] // 1000, None, value))
    return made


def runner(broker, now_us=START):
    made = RepartitionRunner(
        Repartitioner(REPARTITION, PARTITIONS, lateness_us=SECOND), "state", broker.deliver,
        monotonic=lambda: 0.0, now_us=lambda: now_us,
    )  # fmt: skip
    return made, made.assigned([0], [0], broker.states()).get(0)


def taken(broker, cut=7):
    """Numbers of the events that the reader takes, in order; it reads in chunks and is itself restored between them."""
    found = []
    for partition in range(PARTITIONS):
        reader = CopiesOnce()
        records = broker.copies(partition)
        for first in range(0, len(records), cut):
            for record in reader.fresh(REPARTITION.topic, records[first : first + cut])[0]:
                frame = decode_frame(record.value)
                found += frame.column("n").to_pylist() if frame.num_rows else []
            again = CopiesOnce()
            again.restore(orjson.loads(orjson.dumps(reader.snapshot())))
            reader = again
    return found


async def copy_all(made, records, start, size):
    for first in range(start or 0, len(records), size):
        part = records[first : first + size]
        await made.handle(Chunk(0, part, part[-1].offset + 1))


async def uninterrupted(records):
    broker = Broker()
    made, start = runner(broker)
    await copy_all(made, records, start, 4)
    return taken(broker)


@settings(max_examples=25)
@given(
    form=st.sampled_from(["json", "frames"]),
    bad=st.integers(0, COUNT),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    breaks=st.lists(st.integers(0, 30), min_size=1, max_size=3),
)
async def test_after_crashes_the_reader_takes_what_it_takes_without_one(form, bad, sizes, breaks):
    records = events(COUNT, bad, form=form)
    broker = Broker()
    committed = 0
    for number, breaks_after in enumerate([*breaks, None]):
        broker.breaks_after = breaks_after
        made, start = runner(broker)
        size = sizes[number % len(sizes)]
        at = committed if start is None else start
        try:
            while at < len(records):
                part = records[at : at + size]
                await made.handle(Chunk(0, part, part[-1].offset + 1))
                at = part[-1].offset + 1
                committed = max(committed, at - size)  # commits lag behind
        except ConnectionError:
            continue
    found = taken(broker)
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(await uninterrupted(records))


@settings(max_examples=25)
@given(form=st.sampled_from(["json", "frames"]), crash=st.integers(0, 30), size=st.integers(1, 5))
async def test_an_event_that_waits_when_the_role_dies_is_copied_once_its_time_has_come(form, crash, size):
    records = events(2, 0, form=form)  # the event "bad" waits at the end
    broker = Broker()
    made, start = runner(broker)
    await copy_all(made, records, start, size)
    expected = await uninterrupted(records)
    assert sorted(taken(broker)) == sorted(expected)
    assert made.repartitioner.waiting
    broker.breaks_after = crash
    try:
        await made.tick()
        made, start = runner(broker, START + 3 * HOUR)
        await copy_all(made, records, start, 1)
        await made.tick()
    except ConnectionError:
        pass
    broker.breaks_after = None
    made, start = runner(broker, START + 3 * HOUR)
    await copy_all(made, records, start, 2)
    await made.tick()
    found = taken(broker)
    assert len(found) == len(set(found))
    every = 2 if form == "json" else 6
    assert sorted(found) == list(range(every))
    assert broker.clock()[-1]["repartition"] == REPARTITION.topic
    assert broker.clock()[-1]["positions"] == {REPARTITION.source: 2}


@settings(max_examples=8)
@given(
    form=st.sampled_from(["json", "frames"]),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    turns=st.lists(st.booleans(), max_size=60),
)
async def test_a_second_group_that_copies_the_same_stream_gives_a_reader_no_row_twice(form, sizes, turns):
    records = events(COUNT, COUNT, form=form)
    written = []
    for size in sizes:
        broker = Broker()
        made, start = runner(broker)
        await copy_all(made, records, start, size)
        written.append(broker.records)
    both = Broker()
    for second in turns:  # each writer in its own order, the two in any
        both.records += [written[second].pop(0)] if written[second] else []
    both.records += written[0] + written[1]
    assert sorted(taken(both)) == sorted(await uninterrupted(records))


async def test_after_a_stop_of_the_process_event_time_waits_for_partitions_that_were_idle():
    broker, clock = Broker(), {"now": 0.0, "reading": 0.0}
    made = RepartitionRunner(
        Repartitioner(REPARTITION, PARTITIONS, lateness_us=SECOND), "state", broker.deliver,
        at_end=lambda _partition: AtEnd(0, clock["reading"], clock["now"], clock["reading"]), idle_timeout_s=5.0,
        monotonic=lambda: clock["now"],
    )  # fmt: skip
    made.assigned([0, 1], [0, 1], {})
    records = events(12, 99, form="json")

    async def announced(first: int) -> int:
        """How often the other partition was announced with the next records."""
        before = len(broker.copies(0))
        await made.handle(Chunk(1, records[first : first + 3], first + 3))
        return sum(decode_frame(each.value).origin == "/0" for each in broker.copies(0)[before:])

    await announced(0)
    clock["now"] = 3.0
    await announced(3)
    clock["now"] = 6.0
    await made.tick()
    assert await announced(6) == 0
    clock |= {"now": 20.0, "reading": 19.5}
    assert await announced(9) == 1


async def test_a_damaged_state_is_refused_with_what_to_do_and_another_setting_goes_on(caplog):
    broker = Broker()
    made, start = runner(broker)
    await copy_all(made, events(6, 99, form="json"), start, 2)
    states = {key: value[:-9] + bytes([value[-9] ^ 1]) + value[-8:] for key, value in broker.states().items()}
    assert states
    everything = range(PARTITIONS)
    with pytest.raises(SnapshotsLost, match=r"repartition, mono.weather\[0\]: its state .*LOST_STATE=empty"):
        made.assigned(everything, everything, states)
    again = RepartitionRunner(
        Repartitioner(REPARTITION, PARTITIONS, lateness_us=SECOND),
        "state",
        broker.deliver,
        lost=LostState("state", "empty"),
    )
    assert again.assigned(everything, everything, states) == {}
    assert "cannot be restored" in caplog.text
