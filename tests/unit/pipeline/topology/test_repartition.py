import numpy as np

from astrocyte.agents.event_time.sources import Source
from astrocyte.agents.event_time.watermarks import Watermarks
from astrocyte.agents.ingest.copies import Copied, Copy
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.kafka.partition_end import AtEnd
from astrocyte.pipeline.roles.output_records import copy_records
from astrocyte.pipeline.topology.plan import Repartition, make_plan
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.declarations import StreamDeclaration
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.partitioning import partition_of, split_by_partition

REPARTITION = Repartition("weather", "mono.weather", "place", "keyed.place.weather")


def frame(count: int = 6, from_us: int = 0, **meta) -> Frame:
    columns = {
        "timestamp": 1_750_000_000_000_000 + from_us + np.arange(count),
        "key": ["station"] * count,
        "place": [f"p{number % 3}" for number in range(count)],
    }
    return Frame.from_columns("weather", "run", columns, **meta)


def step(repartitioner: Repartitioner, partition: int, given: Frame, now_s: float = 0.0) -> Frame:
    frames, letters = repartitioner.step(partition, [RawRecord(0, 1_750_000_000_000, None, encode_frame(given))], now_s)
    assert letters == []
    *announced, made = frames
    assert not any(each.frame.num_rows for each in announced)
    return made.frame


def ends(until_s: float, *, reading_since_s: float = -1e9, delivered: int | None = None):
    """What the broker says of every partition: it ends where reading has come, without a gap for long."""
    return lambda _number: AtEnd(0, reading_since_s, until_s, reading_since_s, delivered)


def test_rows_keep_their_ids_and_go_where_the_field_hashes():
    given = frame(origin="run", watermark_us=7, peers=("weather",))
    made = step(Repartitioner(REPARTITION, 4, lateness_us=0), 2, given)
    ids, keys = [], []
    for record in copy_records(REPARTITION, Copy(made, Copied(2, 6, np.arange(6))), 4):
        part = decode_frame(record.value)
        assert all(partition_of(place, 4) == record.partition for place in part.column("place").to_pylist())
        keys += part.column("key").to_pylist()
        assert (part.origin, part.watermark_us) == ("run/2", 7)
        ids += part.id_strings()
    assert sorted(ids) == sorted(given.id_strings())
    assert keys == ["station"] * 6, "copies keep the events' own keys"


def test_the_reader_is_notified_of_every_input_partition():
    made = step(Repartitioner(REPARTITION, 3, lateness_us=0), 1, frame())
    assert made.peers == ("weather@/0", "weather@/1", "weather@/2")


def test_a_frame_without_a_watermark_gets_the_newest_time_less_the_lateness():
    repartitioner = Repartitioner(REPARTITION, 2, lateness_us=4)
    assert step(repartitioner, 0, frame(6)).watermark_us == 1_750_000_000_000_001
    assert step(repartitioner, 0, frame(2)).watermark_us == 1_750_000_000_000_001


def test_an_idle_partition_is_ended_once_and_returns():
    repartitioner = Repartitioner(REPARTITION, 2, lateness_us=0)
    repartitioner.assign([0, 1], now_s=0.0)
    step(repartitioner, 0, frame(), now_s=3.0)
    ended = repartitioner.silence(ends(6.0), 5.0)
    assert [(each.frame.origin, each.frame.end, each.frame.num_rows) for each in ended] == [("/1", True, 0)]
    assert repartitioner.silence(ends(7.0), 5.0) == []
    assert step(repartitioner, 1, frame(), now_s=7.5).end is False
    assert [each.frame.origin for each in repartitioner.silence(ends(9.0), 5.0)] == ["/0"]
    assert [each.frame.origin for each in repartitioner.silence(ends(16.0), 5.0)] == ["/1"]


def test_a_process_that_stood_still_or_is_behind_ends_nobody():
    repartitioner = Repartitioner(REPARTITION, 2, lateness_us=0)
    repartitioner.assign([0], now_s=0.0)
    assert repartitioner.silence(lambda _number: None, 5.0) == [], "no fetch was answered lately"
    assert repartitioner.silence(ends(20.0, reading_since_s=16.0), 5.0) == [], "none was for a while"
    assert repartitioner.silence(ends(20.0, delivered=3), 5.0) == [], "a chunk waits in the queue"
    repartitioner.carried(0, 3, 18.0, 18.0)
    assert len(repartitioner.silence(ends(20.0, delivered=3), 5.0)) == 1


def test_the_time_that_a_broker_takes_for_what_was_carried_over_is_no_silence():
    repartitioner = Repartitioner(REPARTITION, 1, lateness_us=0)
    repartitioner.assign([0], now_s=0.0)
    step(repartitioner, 0, frame(), now_s=1.0)
    repartitioner.carried(0, 1, 1.0, 30.0)
    assert repartitioner.silence(ends(34.0, delivered=1), 5.0) == []
    assert len(repartitioner.silence(ends(35.5, delivered=1), 5.0)) == 1


def test_the_end_of_an_idle_partition_does_not_concern_the_others():
    repartitioner = Repartitioner(REPARTITION, 2, lateness_us=0)
    repartitioner.assign([0], now_s=0.0)
    (ended,) = repartitioner.silence(ends(6.0), 5.0)
    assert ended.frame.peers == ()


def test_when_one_of_all_idle_partitions_resumes_the_reader_waits_for_all_until_they_are_idle_again():
    repartitioner = Repartitioner(REPARTITION, 3, lateness_us=0)
    repartitioner.assign([0, 1], now_s=0.0)  # the third is another worker's
    assert len(repartitioner.silence(ends(6.0), 5.0)) == 2
    frames, _ = repartitioner.step(0, [RawRecord(0, 1_750_000_000_000, None, encode_frame(frame()))], 10.0)
    assert [(each.frame.origin, each.frame.end, each.frame.num_rows) for each in frames] == [
        ("/1", False, 0),
        ("/0", False, 6),
    ]
    assert [each.frame.origin for each in repartitioner.silence(ends(16.0), 5.0)] == ["/0", "/1"]


def test_after_a_restart_the_reader_waits_again_for_partitions_that_were_idle_before():
    before = Repartitioner(REPARTITION, 2, lateness_us=0)
    before.assign([0, 1], now_s=0.0)
    copies = before.silence(ends(6.0), 5.0)
    assert len(copies) == 2
    after = Repartitioner(REPARTITION, 2, lateness_us=0)
    after.assign([0, 1], now_s=0.0)
    for offset, partition in enumerate([1, 0, 1]):
        given = frame() if partition == 0 else frame(first_seq=10 * offset + 10, from_us=1_000_000 * (offset + 1))
        made, _ = after.step(partition, [RawRecord(offset, 1_750_000_000_000, None, encode_frame(given))], 1.0)
        copies += made
    reader, late = Watermarks(), 0
    for each in copies:
        peers = [Source("keyed", 0, peer.partition("@")[2]) for peer in each.frame.peers]
        seen = reader.observe(
            Source("keyed", 0, each.frame.origin), each.frame.timestamps(), watermark_us=each.frame.watermark_us,
            end=each.frame.end, peers=peers,
        )  # fmt: skip
        late += int(seen.late.sum())
    assert late == 0
    assert len(copies) == 2 + 1 + 3, "the other partition is announced once"


def test_a_partition_that_was_idle_is_announced_where_this_is_not_proven_any_more():
    repartitioner = Repartitioner(REPARTITION, 2, lateness_us=0)
    repartitioner.assign([0, 1], now_s=0.0)

    def origins(now_s: float) -> list[str]:
        made, _ = repartitioner.step(1, [RawRecord(0, 1_750_000_000_000, None, encode_frame(frame()))], now_s)
        return [each.frame.origin for each in made]

    assert origins(1.0) == ["/0", "/1"], "at the start"
    assert [each.frame.origin for each in repartitioner.silence(ends(5.5), 5.0)] == ["/0"]
    repartitioner.recheck(ends(6.0), 5.0)
    assert origins(6.0) == ["/1"], "the broker has answered all the time"
    repartitioner.recheck(ends(20.0, reading_since_s=19.0), 5.0)
    assert origins(20.0) == ["/0", "/1"], "this process stood still"
    repartitioner.recheck(ends(20.5, reading_since_s=19.0), 5.0)
    assert origins(20.5) == ["/1"], "once is enough"
    assert [each.frame.origin for each in repartitioner.silence(ends(25.4), 5.0)] == ["/0"]
    repartitioner.assign([1], now_s=26.0)  # another worker has the first one now
    repartitioner.recheck(lambda _number: None, 5.0)
    assert origins(26.0) == ["/1"]


def test_one_producer_that_asserts_watermarks_does_not_hide_that_another_is_idle():
    repartitioner = Repartitioner(REPARTITION, 2, lateness_us=0)
    repartitioner.assign([0, 1], now_s=0.0)
    step(repartitioner, 0, frame(), now_s=4.0)
    step(repartitioner, 1, frame(origin="run", watermark_us=9), now_s=5.0)
    assert [each.frame.origin for each in repartitioner.silence(ends(6.0), 5.0)] == ["/1"]


def test_state_of_runs_is_removed_at_their_ends():
    repartitioner = Repartitioner(REPARTITION, 1, lateness_us=0)
    repartitioner.assign([0], now_s=0.0)
    for number in range(50):
        step(repartitioner, 0, frame(origin=f"run{number}"), now_s=1.0)
        step(repartitioner, 0, frame(origin=f"run{number}", watermark_us=9, end=number % 2 == 0), now_s=1.0)
        if number % 2:
            step(repartitioner, 0, frame(origin=f"run{number}", end=True), now_s=2.0)
    assert [each.frame.origin for each in repartitioner.silence(ends(60.0), 5.0)] == ["/0"]
    assert repartitioner._newest_us == {}
    assert repartitioner._heard_s == {0: {}}


def test_a_producer_that_asserts_watermarks_is_not_ended_for_being_slow():
    repartitioner = Repartitioner(REPARTITION, 1, lateness_us=0)
    repartitioner.assign([0], now_s=0.0)
    step(repartitioner, 0, frame(origin="run", watermark_us=9), now_s=0.0)
    assert [each.frame.origin for each in repartitioner.silence(ends(60.0), 5.0)] == ["/0"], (
        "an origin without name may yet come"
    )


def test_an_event_with_a_clock_that_is_ahead_waits_until_it_is_trusted():
    repartitioner = Repartitioner(REPARTITION, 2, lateness_us=0)
    start, hour = 1_750_000_000_000_000, 3_600_000_000
    made = []
    for offset, (key, at) in enumerate([("a", 0), ("b", 1), ("a", 2 * hour), ("b", 2)]):
        columns = {"timestamp": np.array([start + at]), "key": [key], "place": ["p"]}
        given = Frame.from_columns("weather", "run", columns, first_seq=offset)
        # Kafka's time jumped with the event's, so it does not say which of the two clocks is wrong.
        stamp_ms = (start + at) // 1000
        frames, _ = repartitioner.step(0, [RawRecord(offset, stamp_ms, None, encode_frame(given))])
        made += [row["timestamp"] - start for copy in frames for row in copy.frame.rows()]
    assert made == [0, 1, 2]
    assert repartitioner.trust(start + hour // 2) == []
    (copy,) = repartitioner.trust(start + 2 * hour)
    assert [row["timestamp"] - start for row in copy.frame.rows()] == [2 * hour]


def test_rules_by_null_get_every_event_in_one_partition_whatever_fields_are_called():
    rules = load_rules(
        "rules: [{name: r, by: null, seq: [{as: a, stream: S}]}, {name: q, by: all, seq: [{as: a, stream: S}]}]"
    )
    plan = make_plan(rules)
    together = next(each for each in plan.repartitions if each.topic != "keyed.all.S")
    assert plan.copied_by == {"mono.S": ("all",)}
    columns = {"timestamp": np.arange(8), "key": list("abcdefgh"), "all": list("stuvwxyz"), "": list("stuvwxyz")}
    copies, letters = Repartitioner(together, 4, lateness_us=0).step(
        0, [RawRecord(0, 1_750_000_000_000, None, encode_frame(Frame.from_columns("S", "run", columns)))]
    )
    assert not letters
    parts = [part for copy in copies for part in split_by_partition(copy.frame, 4, by=together.field)]
    assert [(partition, part.num_rows) for partition, part in parts if part.num_rows] == [(0, 8)]


def test_messages_of_one_event_each_that_are_fetched_together_cost_one_copy_for_each_domain():
    csv = {"name": "csv", "columns": ["timestamp", "place"]}
    declared = StreamDeclaration.model_validate({"name": "weather", "decoder": csv})
    repartitioner = Repartitioner(REPARTITION, 4, 1_000_000, decoders=Decoders(Contracts([declared])))
    messages = [
        RawRecord(offset, 1_750_000_000_000, b"station", f"{1_750_000_000_000 + offset},p{offset % 40}".encode())
        for offset in range(200)
    ]
    copies, letters = repartitioner.step(0, messages)
    records = [record for copy in copies for record in copy_records(REPARTITION, copy, 4)]
    assert letters == []
    assert sum(decode_frame(record.value).num_rows for record in records) == 200
    assert sorted(record.partition for record in records) == [0, 1, 2, 3]
