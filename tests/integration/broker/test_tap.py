"""Tap: events of topics, one a line, from a broker and from a log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from astrocyte.pipeline.cli import log as cli_log
from astrocyte.pipeline.kafka.client import BrokerUnavailable, UnknownTopic
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.tap import Selector, columns_line, compile_format, envelope_line, json_line, tap
from astrocyte.schemas.errors import InvalidRule, InvalidSettings
from tests.support.broker import BrokerThread, kcat
from tests.support.brokers import pause
from tests.support.logs import T0_US, axon_frame, frame_messages, json_messages, produce, write_log

app = typer.Typer()
cli_log.register(app)


def mixed_records() -> list[ConsumedRecord]:
    """Six events of axon_1 in frames over two partitions, then three of axon_2 as JSON on partition 1."""
    records = frame_messages(axon_frame("axon_1", ["d1", "d2", "d3"] * 2, range(0, 60_000, 10_000), types="ABC"), 2, {})
    return records + json_messages(axon_frame("axon_2", ["d1", "d2", "d3"], [5, 6, 7]), partition=1)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with BrokerThread(tmp_path_factory.mktemp("broker")) as running:
        asyncio.run(produce(running.address, mixed_records()))
        asyncio.run(
            produce(running.address, [ConsumedRecord("notes", 0, 0, 5, b"k", b"plain\x00\xff", (("h", b"\xfe"),))])
        )
        yield running.address


def run(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, ["tap", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout.splitlines()


def test_frames_are_unpacked_to_one_json_line_an_event(broker):
    lines = [json.loads(line) for line in run("mono.axon_1", "-b", broker)]
    assert sorted(line["value"] for line in lines) == [0, 1, 2, 3, 4, 5]
    assert lines[0].keys() == {"event_id", "timestamp", "source_stream", "type", "value", "metadata"}


def test_several_topics_and_patterns_are_merged_by_time(broker):
    assert len(run("mono.axon_1", "mono.axon_2", "-b", broker)) == 9
    assert len(run("mono.*", "-b", broker)) == 9
    assert len(run("-t", "mono.axon_2", "--bootstrap-server", broker)) == 3


def test_a_condition_sees_fields_of_frames_and_of_json_alike(broker):
    values = [
        json.loads(line)["value"] for line in run("mono.*", "-b", broker, "--where", "value >= 2 and type == 'C'")
    ]
    assert sorted(values) == [2, 5]
    keys = [json.loads(line)["metadata"] for line in run("mono.*", "-b", broker, "-w", "key == 'd1'")]
    assert keys == [{"domain": "d1"}] * 3
    assert len(run("mono.*", "-b", broker, "-w", f"timestamp < {T0_US + 6}")) == 2


def test_a_bad_condition_is_refused_with_its_place(broker):
    with pytest.raises(InvalidRule, match="character"):
        run("mono.axon_1", "-b", broker, "--where", "value >")


def test_the_envelope_is_that_of_kcat(broker):
    ours = json.loads(run("mono.axon_2", "-b", broker, "-J", "-c", "1")[0])
    command = [kcat(), "-b", broker, "-t", "mono.axon_2", "-C", "-e", "-J", "-c", "1"]
    theirs = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert ours | {"broker": theirs["broker"]} == theirs


def test_an_event_of_a_frame_has_the_place_of_its_message_and_its_row(broker):
    lines = [json.loads(line) for line in run("mono.axon_1", "-b", broker, "-J", "-p", "0")]
    assert [line["row"] for line in lines] == list(range(len(lines)))
    assert {line["offset"] for line in lines} == {0}
    assert json.loads(lines[0]["payload"])["metadata"] == {"domain": lines[0]["key"]}
    assert (
        dict(zip(lines[0]["headers"][::2], lines[0]["headers"][1::2], strict=True))["content-type"]
        == "application/json"
    )


def test_raw_leaves_frames_whole_with_their_bytes(broker):
    lines = [json.loads(line) for line in run("mono.axon_1", "-b", broker, "-J", "--raw")]
    assert len(lines) == 2
    assert lines[0]["payload"] is None
    assert lines[0]["payload_b64"].startswith("/////")
    with pytest.raises(InvalidSettings, match="--raw shows whole messages"):
        run("mono.axon_1", "-b", broker, "--raw", "-w", "value > 1")


def test_formats_are_those_of_kcat(broker):
    form = "%t|%p|%o|%T|%k|%K|%S|%s|%%\\n"
    command = [kcat(), "-b", broker, "-t", "mono.axon_2", "-C", "-e", "-q", "-f", form]
    theirs = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    assert run("mono.axon_2", "-b", broker, "-f", form) == theirs
    with pytest.raises(InvalidSettings, match="no token %q"):
        compile_format("%q")


def test_the_column_format_is_aligned(broker):
    lines = run("mono.axon_2", "-b", broker, "--columns")
    assert lines[1].split() == ["2023-11-14T22:13:20.000006Z", "mono.axon_2[1]@1", "d2", "A", "value=1"]


def test_a_message_that_is_not_an_event_is_shown_with_the_reason(broker):
    (line,) = run("notes", "-b", broker)
    assert json.loads(line)["problem"] == "not JSON"
    (line,) = run("notes", "-b", broker, "--columns")
    assert "7 bytes" in line


def test_control_characters_do_not_reach_the_terminal():
    record = ConsumedRecord("t", 0, 0, 1, b"k\x1b[2J", b'{"name":"\\u001b[31mred","timestamp":"2025-01-01T00:00:00Z"}')
    (event,) = Selector()([record])
    assert b"\x1b" not in columns_line(event)
    broken = record._replace(value=b"\xff\xff\xff\xff\x1b")
    assert b"\x1b" not in columns_line(next(iter(Selector()([broken]))))


def test_a_broken_frame_and_a_tombstone_are_counted_and_shown():
    selector = Selector()
    events = list(
        selector(
            [
                ConsumedRecord("mono.a", 0, 0, 1, None, b"\xff\xff\xff\xff?"),
                ConsumedRecord("mono.a", 0, 1, 1, b"k", None),
            ]
        )
    )
    assert selector.unreadable == 1
    assert "Arrow" in json.loads(json_line(events[0]))["problem"]
    assert json.loads(json_line(events[1]))["problem"] == "empty message (tombstone)"
    assert json.loads(envelope_line(events[1]))["payload"] is None


def test_a_multi_event_shows_its_id_for_explain():
    body = {"event_id": "11111111-aaaa", "timestamp": "2025-01-01T00:00:00Z", "event_type": "MULTI_ORIGINATED",
            "source_events": ["a", "b"], "correlation_rule": "r", "lineage": {}}  # fmt: skip
    (event,) = Selector("correlation_rule == 'r'")(
        [ConsumedRecord("multi.events", 0, 0, 1, b"k", json.dumps(body).encode())]
    )
    assert "event_id=11111111-aaaa" in columns_line(event).decode()


@pytest.mark.parametrize(
    ("options", "offsets"),
    [
        (["--from", "-2"], [1, 2]),
        (["-o", "-1"], [2]),
        (["--from", "1"], [1, 2]),
        (["--from", "latest"], []),
        (["-o", "beginning", "-e"], [0, 1, 2]),
        (["--from", "2100-01-01T00:00:00Z"], []),
        (["--until", "2000-01-01T00:00:00Z"], []),
        (["-c", "2"], [0, 1]),
        (["-c", "0"], []),
    ],
)
def test_reading_starts_and_stops_at_the_given_offsets(broker, options, offsets):
    lines = run("mono.axon_2", "-b", broker, "-J", *options)
    assert [json.loads(line)["offset"] for line in lines] == offsets


def test_times_of_kafka_bound_what_is_read(broker, tmp_path):
    at = T0_US // 1000
    assert (
        len(run("mono.axon_1", "-b", broker, "-o", f"s@{at}", "-o", f"e@{at + 10}"))
        + len(run("mono.axon_1", "-b", broker, "-o", f"s@{at + 10}"))
        == 6
    )


async def test_an_unknown_topic_lists_the_known_ones(broker):
    with pytest.raises(UnknownTopic, match=r"no topic 'nope'; the broker has notes, mono.axon_1, mono.axon_2"):
        await tap(broker, ["nope"], print, selector=Selector())
    with pytest.raises(UnknownTopic, match="no partition 9"):
        await tap(broker, ["notes"], print, selector=Selector(), partitions=[9])


async def test_an_unavailable_broker_is_one_sentence(caplog):
    with pytest.raises(BrokerUnavailable, match=r"no Kafka broker answers at 127.0.0.1:1 .*'astrocyte broker"):
        await tap("127.0.0.1:1", ["t"], print, selector=Selector())
    assert caplog.text == ""


def test_a_log_is_tapped_without_a_broker(tmp_path):
    path = write_log(tmp_path / "a.jsonl.zst", mixed_records())
    assert len(run("--log", str(path))) == 9
    assert len(run("mono.axon_2", "--log", str(path), "-c", "2")) == 2
    assert len(run("--log", str(path), "--where", "type == 'B'")) == 2


def test_topics_and_fields_that_never_came_are_named(tmp_path):
    log = str(write_log(tmp_path / "a.jsonl.zst", mixed_records()))
    with pytest.raises(UnknownTopic, match=r"no topic 'mono\.axon_7'; the log has .*did you mean 'mono\.axon_\d'"):
        run("mono.axon_7", "--log", log)
    program = CliRunner().invoke(app, ["tap", "--log", log, "--where", "valeu > 3 and type == 'B'"])
    assert program.stdout == ""
    assert "no event has the field 'valeu'; did you mean 'value'?" in program.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no topic given"),
        (["t", "-e", "--follow"], "leave one of them out"),
        (["t", "-J", "--json"], "each select an output format"),
        (["t", "--from", "1", "-o", "2"], "both set the start"),
        (["t", "--until", "now", "-o", "e@2"], "both set the end"),
    ],
)
def test_wrong_use_says_what_to_do(arguments, said):
    with pytest.raises(InvalidSettings, match=said):
        run(*arguments)


SCRIPT = (
    "import typer; from astrocyte.pipeline.cli import log as cli_log; app = typer.Typer(); cli_log.register(app); app()"
)


def test_a_closed_pipe_ends_it_without_an_error(tmp_path):
    path = write_log(tmp_path / "a.jsonl", json_messages(axon_frame("axon_1", ["k"] * 3000, range(3000))))
    reader, writer = os.pipe()
    tapping = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "tap", "--log", str(path)], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    assert tapping.communicate(timeout=30)[1] == b""
    assert tapping.returncode == 0


@contextlib.contextmanager
def following(address: str, topic: str) -> Iterator[subprocess.Popen[bytes]]:
    """``astrocyte tap --follow`` after it has shown its first three events."""
    command = [sys.executable, "-c", SCRIPT, "tap", topic, "-b", address, "--follow", "--json"]
    # A shell that runs the tests in the background lets them, and so their children, ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tapping:
        signal.signal(signal.SIGINT, before)
        try:
            assert tapping.stdout is not None
            lines = [tapping.stdout.readline() for _ in range(3)]
            assert all(json.loads(line)["source_stream"] == "stream:axon_2" for line in lines)
            yield tapping
        finally:
            tapping.kill()


def test_following_prints_incoming_messages_and_ctrl_c_ends_without_an_error(broker):
    with following(broker, "mono.axon_2") as tapping:
        tapping.send_signal(signal.SIGINT)
        assert tapping.communicate(timeout=30) == (b"", b"")
        assert tapping.returncode == 130


def test_ctrl_c_ends_a_tap_though_its_broker_hangs(own_embedded):
    asyncio.run(produce(own_embedded.address, json_messages(axon_frame("axon_2", ["k"] * 3, range(3)))))
    with following(own_embedded.address, "mono.axon_2") as tapping:
        pause(own_embedded)
        tapping.send_signal(signal.SIGINT)
        assert tapping.communicate(timeout=10) == (b"", b"")
        assert tapping.returncode == 130
