"""Replaying logs into Kafka: the same messages, partitions, order and spacing, or those of the options."""

from __future__ import annotations

import asyncio
import json
import math
import os
import pty
import select
import subprocess
import sys
import time

import orjson
import pytest
import typer
from typer.testing import CliRunner

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.cli import log as cli_log
from astrocyte.pipeline.kafka.client import BrokerUnavailable, ensure_topics, topic_partitions
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog, LogHeader
from astrocyte.pipeline.recording.frames import chunks_of
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.recording.record import record
from astrocyte.pipeline.recording.replays.pacing import Tempo
from astrocyte.pipeline.recording.replays.replay import (
    Selection,
    make_plan,
    newer_events,
    parse_remap,
    replay,
    shift_to_now,
)
from astrocyte.pipeline.recording.replays.shift import Shift
from astrocyte.pipeline.recording.writer import LogWriter
from astrocyte.pipeline.topology.plan import contracts_of
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from astrocyte.schemas.frames import decode_frame
from astrocyte.schemas.partitioning import partition_of
from tests.support import match_command
from tests.support.broker import BrokerProcess, BrokerThread
from tests.support.logs import T0_US, axon_frame, frame_messages, json_messages, read_topics, write_log

app = typer.Typer()
cli_log.register(app)
SCRIPT = (
    "import typer; from astrocyte.pipeline.cli import log as cli_log; app = typer.Typer(); cli_log.register(app); app()"
)


class VirtualClock:
    """A virtual clock: waiting advances it."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    async def wait(self, changed: asyncio.Event, seconds: float | None) -> None:
        assert seconds is not None
        self.time += seconds


def as_fast_as_possible() -> Tempo:
    return Tempo(math.inf)


def recorded_run(streams: tuple[str, ...] = ("axon_1", "axon_2"), steps: int = 5) -> list[ConsumedRecord]:
    """Frames of each stream over two partitions, one second apart, with watermarks."""
    offsets: dict[tuple[str, int], int] = {}
    records = []
    for step in range(steps):
        times = [step * 1_000_000 + i for i in range(8)]
        for stream in streams:
            frame = axon_frame(stream, [f"d{i}" for i in range(8)], times, seq=step * 8, watermark_us=T0_US + times[-1])
            records += frame_messages(frame, 2, offsets)
    return records


@pytest.fixture
def broker(tmp_path):
    with BrokerThread(tmp_path / "broker") as running:
        yield running.address


async def test_a_replayed_log_recorded_again_is_the_same(broker, tmp_path):
    records = recorded_run()
    records += [ConsumedRecord("odd", 0, 0, T0_US // 1000 + 9000, b"\xff", b"\x00", (("h", b"\xfe"), ("n", None)))]
    records += [ConsumedRecord("odd", 1, 0, T0_US // 1000 + 9001, None, None)]
    path = write_log(tmp_path / "a.jsonl.zst", records)
    done = await replay(make_plan([path], Selection()), broker, tempo=as_fast_as_possible())
    assert done.messages == len(records)
    again = tmp_path / "again.jsonl.zst"
    await record(broker, ["mono.*", "odd"], again)
    assert sorted(read_log(again), key=str) == sorted(records, key=str)
    assert (await topic_partitions(broker))["mono.axon_1"] == 2


async def test_a_replay_that_begins_before_events_of_its_topics_is_noticed(broker, tmp_path):
    old = make_plan([write_log(tmp_path / "old.jsonl", recorded_run(steps=2))], Selection())
    end = axon_frame("axon_1", [], [], end=True)
    newer = [*recorded_run(steps=3)[4:], *frame_messages(end, 2, {})]
    assert await newer_events(old, broker) is None
    await replay(
        make_plan([write_log(tmp_path / "new.jsonl", newer)], Selection()), broker, tempo=as_fast_as_possible()
    )
    first_us, newest_us = await newer_events(old, broker)
    assert (first_us, newest_us // 1000) == (T0_US, T0_US // 1000 + 2000)
    assert await newer_events(old, broker, Shift(3_000_000, 3000)) is None
    moved = Selection(remap={"mono.axon_1": "mono.axon_8", "mono.axon_2": "mono.axon_9"})
    assert await newer_events(make_plan([tmp_path / "old.jsonl"], moved), broker) is None


def test_the_command_warns_of_a_replay_before_newer_events(broker, tmp_path):
    asyncio.run(ensure_topics(broker, {"mono.axon_1": 2}))
    old = write_log(tmp_path / "old.jsonl", recorded_run(("axon_1",), 1))
    new = write_log(tmp_path / "new.jsonl", recorded_run(("axon_1",), 3)[4:])
    outputs = []
    for arguments in ([str(new)], [str(old)], [str(old), "--shift"]):
        result = CliRunner().invoke(app, ["replay", *arguments, "-b", broker, "--rate", "max"], catch_exceptions=False)
        outputs.append(result.stderr)
    assert "count older ones as late" not in outputs[0] + outputs[2]
    assert "workers that have read the newer events count older ones as late" in outputs[1]
    assert "--shift moves the events to now" in outputs[1]


async def test_messages_keep_their_spacing(broker, tmp_path):
    path = write_log(tmp_path / "a.jsonl", recorded_run())
    clock = VirtualClock()
    await replay(make_plan([path], Selection()), broker, tempo=Tempo(2.0, clock=clock))
    assert clock.time == pytest.approx(2.0)


async def test_a_message_is_delivered_before_the_next_is_waited_for(broker, tmp_path):
    path = write_log(tmp_path / "a.jsonl", recorded_run(("axon_1",), 3))
    seen: list[int] = []

    class Watching(VirtualClock):
        async def wait(self, changed: asyncio.Event, seconds: float | None) -> None:
            seen.append(len(await read_topics(broker, "mono.axon_1")))
            await super().wait(changed, seconds)

    await replay(make_plan([path], Selection()), broker, tempo=Tempo(1.0, clock=Watching()))
    assert seen == [2, 4]


async def test_frames_are_repartitioned_over_another_number_of_partitions(broker, tmp_path):
    records = recorded_run(("axon_1",))
    path = write_log(tmp_path / "a.jsonl.zst", records)
    await ensure_topics(broker, {"mono.axon_1": 5})
    await replay(make_plan([path], Selection()), broker, tempo=as_fast_as_possible())
    after = await read_topics(broker, "mono.axon_1")
    for item in after:
        keys = decode_frame(item.value).column("key").to_pylist()
        assert {partition_of(key, 5) for key in keys} <= {item.partition}

    def ids(messages: list[ConsumedRecord]) -> list[str]:
        return sorted(text for chunk in chunks_of(messages) for text in chunk.frame.id_strings())

    assert ids(after) == ids(records)
    per_partition = [item for item in after if item.partition == 3]
    watermarks = [(decode_frame(item.value).origin, decode_frame(item.value).watermark_us) for item in per_partition]
    for origin in {origin for origin, _ in watermarks}:
        own = [watermark for other, watermark in watermarks if other == origin]
        assert own == sorted(own)
        assert own[-1] == T0_US + 4_000_007


async def test_json_records_go_to_the_partition_of_their_key(broker, tmp_path):
    path = write_log(tmp_path / "a.jsonl", json_messages(axon_frame("axon_1", ["a", "b", "c"], [0, 1, 2])))
    await ensure_topics(broker, {"mono.axon_1": 7})
    await replay(make_plan([path], Selection()), broker, tempo=as_fast_as_possible())
    after = await read_topics(broker, "mono.axon_1")
    assert {item.key: item.partition for item in after} == {key: partition_of(key, 7) for key in (b"a", b"b", b"c")}


async def test_a_remapped_topic_carries_the_other_stream(broker, tmp_path):
    records = recorded_run(("axon_1",), 1)
    path = write_log(tmp_path / "a.jsonl", records)
    selection = Selection(remap=parse_remap(["mono.axon_1:=mono.axon_9"]))
    await replay(make_plan([path], selection), broker, tempo=as_fast_as_possible())
    assert list(await topic_partitions(broker)) == ["mono.axon_9"]
    chunks = list(chunks_of(await read_topics(broker, "mono.axon_9")))
    assert {chunk.frame.stream for chunk in chunks} == {"axon_9"}
    before = {text for chunk in chunks_of(records) for text in chunk.frame.id_strings()}
    assert {text for chunk in chunks for text in chunk.frame.id_strings()} == before


async def test_a_stretch_and_some_topics_are_replayed(broker, tmp_path):
    path = write_log(tmp_path / "a.jsonl.zst", recorded_run())
    at = T0_US // 1000
    selection = Selection(start_ms=at + 1000, until_ms=at + 3000, topics=("mono.*",), exclude=("*_2",))
    await replay(make_plan([path], selection), broker, tempo=as_fast_as_possible())
    assert list(await topic_partitions(broker)) == ["mono.axon_1"]
    after = await read_topics(broker, "mono.axon_1")
    assert {item.timestamp_ms - at for item in after} == {1000, 2000}


async def test_several_logs_are_merged_by_time(broker, tmp_path):
    first = write_log(
        tmp_path / "1.jsonl", [ConsumedRecord("t", 0, 0, 1000, None, b"a"), ConsumedRecord("t", 0, 1, 3000, None, b"c")]
    )
    second = write_log(tmp_path / "2.jsonl", [ConsumedRecord("t", 0, 0, 2000, None, b"b")])
    await replay(make_plan([first, second], Selection()), broker, tempo=as_fast_as_possible())
    assert [item.value for item in await read_topics(broker, "t")] == [b"a", b"b", b"c"]


async def test_shift_moves_everything_to_now(broker, tmp_path):
    path = write_log(tmp_path / "a.jsonl", recorded_run(("axon_1",), 2))
    plan = make_plan([path], Selection())
    now = T0_US + 10**12
    await replay(plan, broker, tempo=as_fast_as_possible(), shift=shift_to_now(plan, now_us=now))
    after = await read_topics(broker, "mono.axon_1")
    assert min(int(chunk.frame.timestamps()[0]) for chunk in chunks_of(after)) == now
    assert min(item.timestamp_ms for item in after) == now // 1000
    assert all("ce_originaltime" in dict(item.headers) for item in after)


async def test_a_loop_continues_in_time_with_new_event_ids(broker, tmp_path):
    path = write_log(tmp_path / "a.jsonl", recorded_run(("axon_1",), 2))
    stop, clock = asyncio.Event(), VirtualClock()
    plan = make_plan([path], Selection())

    def after_three_laps(sent: int, _: int) -> None:
        if sent == 12:
            stop.set()

    done = await replay(
        plan, broker, tempo=Tempo(1.0, clock=clock), shift=Shift(), loop=True, stop=stop, progress=after_three_laps
    )
    assert done.messages == 12
    assert done.laps == 3
    after = await read_topics(broker, "mono.axon_1")
    ids = [text for chunk in chunks_of(after) for text in chunk.frame.id_strings()]
    assert len(ids) == len(set(ids)) == 3 * 16
    times = [item.timestamp_ms for item in after if item.partition == 0]
    assert times == sorted(times)
    assert len(set(times)) == 6


BULK = """
streams:
  - {name: orders, topic: orders, key: cust, time: {field: at, unit: ms}, fields: {at: int64, oid: int64}}
  - {name: pays, topic: pays, key: cust, time: {field: paid_at, unit: s}, fields: {paid_at: int64, oid: int64}}
rules:
  - {name: paid, by: oid, within: 30s, seq: [{as: o, stream: orders}, {as: p, stream: pays}], emit: {oid: o.oid}}
"""


def loaded_in_bulk() -> list[ConsumedRecord]:
    """Orders and payments over twenty seconds, which Kafka received within half of one."""
    records, start = [], T0_US // 1_000_000
    for i in range(20):
        order = {"oid": i, "cust": "c", "at": (start + i) * 1000}
        pay = {"oid": i, "cust": "c", "paid_at": start + i + 2}
        records.append(ConsumedRecord("orders", 0, i, start * 1000 + i * 25, b"c", orjson.dumps(order)))
        records.append(ConsumedRecord("pays", 0, i, start * 1000 + i * 25 + 10, b"c", orjson.dumps(pay)))
    return records


@pytest.mark.parametrize("now", [None, T0_US + 10**12 + 806_492])
async def test_laps_of_a_topic_loaded_in_bulk_are_in_time_with_whole_numbers_and_match_as_the_first(
    broker, tmp_path, now
):
    rules = load_rules(BULK)
    path = write_log(tmp_path / "a.jsonl", loaded_in_bulk(), partitions=1)
    plan = make_plan([path], Selection(), contracts_of(rules))
    stop, clock = asyncio.Event(), VirtualClock()

    def after_two_laps(sent: int, _: int) -> None:
        if sent == 80:
            stop.set()

    shift = None if now is None else shift_to_now(plan, now_us=now)
    tempo = Tempo(1.0, clock=clock)
    done = await replay(plan, broker, tempo=tempo, shift=shift, loop=True, stop=stop, progress=after_two_laps)
    assert (done.laps, done.messages) == (2, 80)
    after = await read_topics(broker, "orders", "pays")
    pays = [orjson.loads(item.value)["paid_at"] for item in after if item.topic == "pays"]
    assert all(type(time) is int for time in pays)
    assert [pays[i + 20] - pays[i] for i in range(20)] == [22] * 20
    if now is not None:
        first = min(orjson.loads(item.value)["at"] for item in after if item.topic == "orders")
        assert now <= first * 1000 < now + 1_000_000
    found = await asyncio.to_thread(match_command.run, "match", *match_command.files(tmp_path, BULK, *after))
    assert match_command.lines(found)[0] == "40 multi events of 80 events (0 late, 0 refused)"
    assert clock.time == pytest.approx(1.485)  # by Kafka's times a lap is a second


def test_a_shift_by_a_fraction_of_the_unit_is_refused(tmp_path):
    path, rules = write_log(tmp_path / "a.jsonl", loaded_in_bulk(), partitions=1), tmp_path / "rules.yaml"
    rules.write_text(BULK)
    arguments = [str(path), "--dry-run", "--rules", str(rules)]
    with pytest.raises(InvalidSettings, match=r"by 1\.5 s .* of topic 'pays', which are whole seconds"):
        run(*arguments, "--shift-by", "1500ms")
    assert "20 messages" in run(*arguments, "--shift-by", "1500ms", "--exclude", "pays")
    assert "40 messages" in run(*arguments, "--shift-by=-2s")


async def test_output_of_kcat_without_a_header_is_replayed(broker, tmp_path):
    path = tmp_path / "kcat.jsonl"
    line = (
        '{"topic":"t","partition":2,"offset":0,"tstype":"create","ts":5,"headers":["h","v"],"key":"k","payload":"p"}\n'
    )
    path.write_text(line)
    await replay(make_plan([path], Selection()), broker, tempo=as_fast_as_possible())
    assert (await topic_partitions(broker))["t"] == 3
    (after,) = await read_topics(broker, "t")
    assert after == ConsumedRecord("t", 2, 0, 5, b"k", b"p", (("h", b"v"),))


async def test_a_torn_log_is_replayed_up_to_the_damage(broker, tmp_path, caplog):
    path = write_log(tmp_path / "a.jsonl", recorded_run(("axon_1",), 2))
    path.write_bytes(path.read_bytes()[:-30])
    done = await replay(make_plan([path], Selection()), broker, tempo=as_fast_as_possible())
    assert done.messages == 3
    assert "ends inside a record" in caplog.text


async def test_replayed_old_logs_survive_a_retention_by_age(broker, tmp_path):
    plan = make_plan([write_log(tmp_path / "a.jsonl", recorded_run(("axon_1",), 1))], Selection())
    assert plan.target_config(T0_US // 1000 + 10)["mono.axon_1"].get("retention.ms") is None if plan.config else True
    assert plan.target_config(T0_US // 1000 + 10 * 86_400_000)["mono.axon_1"]["retention.ms"] == "-1"


async def test_a_large_message_is_replayed(broker, tmp_path):
    path = write_log(
        tmp_path / "a.jsonl.zst", [ConsumedRecord("big", 0, 0, 1, None, os.urandom(20 << 20))], partitions=1
    )
    done = await replay(make_plan([path], Selection()), broker, tempo=as_fast_as_possible())
    assert done.bytes == 20 << 20
    assert len((await read_topics(broker, "big"))[0].value) == 20 << 20


async def test_an_unreachable_broker_and_an_empty_log_are_one_sentence(tmp_path):
    path = write_log(tmp_path / "a.jsonl", recorded_run(("axon_1",), 1))
    with pytest.raises(BrokerUnavailable, match=r"no Kafka broker answers at 127\.0\.0\.1:1"):
        await replay(make_plan([path], Selection()), "127.0.0.1:1", tempo=as_fast_as_possible())
    with pytest.raises(InvalidLog, match="no message to replay"):
        await replay(make_plan([path], Selection(topics=("x",))), "127.0.0.1:1", tempo=as_fast_as_possible())


async def test_an_outage_of_the_broker_ends_it_with_the_number_delivered(tmp_path):
    records = [ConsumedRecord("t", 0, i, 1000 + i, None, b"%d" % i) for i in range(5)]
    plan = make_plan([write_log(tmp_path / "a.jsonl", records, partitions=1)], Selection())
    with BrokerProcess(tmp_path / "broker") as running:

        class Killing(VirtualClock):
            async def wait(self, changed: asyncio.Event, seconds: float | None) -> None:
                if self.time > 0.001:
                    running.kill()
                await super().wait(changed, seconds)

        expected = r"became unavailable \(nothing was confirmed for 1 s\); 3 messages"
        with pytest.raises(BrokerUnavailable, match=expected):
            await replay(plan, running.address, tempo=Tempo(1.0, clock=Killing()), timeout_s=1.0)


@pytest.mark.parametrize("option", ["a", ":=b", "a:=", "a=b"])
def test_an_invalid_remap_is_refused(option):
    with pytest.raises(InvalidSettings, match="OLD:=NEW"):
        parse_remap([option])


def test_a_remap_of_an_absent_topic_is_refused(tmp_path):
    path = write_log(tmp_path / "a.jsonl", recorded_run(("axon_1",), 1))
    with pytest.raises(InvalidSettings, match=r"'x', which the log does not hold; it has mono\.axon_1"):
        make_plan([path], Selection(remap={"x": "y"}))


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["replay", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_a_dry_run_says_what_would_be_sent_and_needs_no_broker(tmp_path):
    path = str(write_log(tmp_path / "a.jsonl.zst", recorded_run()))
    plan = json.loads(run(path, "--dry-run", "--json", "--rate", "2", "-b", "127.0.0.1:1"))
    assert plan["messages"] == 20
    assert plan["seconds"] == 2
    assert plan["topics"][0]["frames"] == 10
    assert "nothing was sent" in run(path, "--dry-run", "--remap", "mono.axon_1:=mono.x")
    assert json.loads(run(path, "--dry-run", "--json", "--start", "1s", "--duration", "2s"))["messages"] == 8


def test_the_command_replays_and_says_how_much(broker, tmp_path):
    path = str(write_log(tmp_path / "a.jsonl.zst", recorded_run()))
    done = json.loads(run(path, "-b", broker, "--rate", "max", "--json"))
    assert (done["messages"], done["laps"]) == (20, 1)
    assert done["topics"] == {"mono.axon_1": 10, "mono.axon_2": 10}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rate", "0"], "positive factor"),
        (["--shift", "--shift-by", "1h"], "give one of them"),
        (["--start", "soon"], "expected a time, got .soon."),
        (["--duration", "soon"], "duration"),
        (["--start-paused"], "not a terminal"),
    ],
)
def test_wrong_use_says_what_to_do(tmp_path, arguments, said):
    path = str(write_log(tmp_path / "a.jsonl", recorded_run(("axon_1",), 1)))
    with pytest.raises(InvalidSettings, match=said):
        run(path, "-b", "127.0.0.1:1", *arguments)
    with pytest.raises(AstrocyteError, match="No such file"):
        run(str(tmp_path / "none.jsonl"), "-b", "127.0.0.1:1")


async def test_keys_pause_and_step_and_the_terminal_is_restored_afterwards(tmp_path):
    import termios

    path = write_log(tmp_path / "a.jsonl", [ConsumedRecord("t", 0, i, 1000 + i, None, b"%d" % i) for i in range(3)])
    with BrokerProcess(tmp_path / "broker") as running:
        ours, theirs = pty.openpty()
        before = termios.tcgetattr(theirs)
        command = [sys.executable, "-c", SCRIPT, "replay", str(path), "-b", running.address, "--start-paused", "--json"]
        replaying = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs)
        said = b""
        while b"SPACE pauses" not in said:
            assert select.select([ours], [], [], 20)[0], said
            said += os.read(ours, 1000)
        os.write(ours, b"\x1b[C")  # one message
        deadline = time.monotonic() + 20
        while "t" not in await topic_partitions(running.address) or not await read_topics(running.address, "t"):
            assert time.monotonic() < deadline
        assert len(await read_topics(running.address, "t")) == 1
        os.write(ours, b" ")
        out, _ = replaying.communicate(timeout=30)
        assert orjson.loads(out)["messages"] == 3
        assert termios.tcgetattr(theirs) == before
        os.close(ours)
        os.close(theirs)


async def test_a_header_gives_the_partition_count_where_no_message_shows_it(broker, tmp_path):
    path = tmp_path / "a.jsonl"
    with LogWriter(path, LogHeader({"t": 6}, config={"t": {"cleanup.policy": "compact"}})) as writer:
        writer.write(ConsumedRecord("t", 0, 0, 1, b"k", b"v"))
    await replay(make_plan([path], Selection()), broker, tempo=as_fast_as_possible())
    assert (await topic_partitions(broker))["t"] == 6
