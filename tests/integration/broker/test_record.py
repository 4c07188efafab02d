"""Recording topics: every message unchanged, merged by time, into a file that is complete or absent."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from astrocyte.pipeline.cli import log as cli_log
from astrocyte.pipeline.kafka.client import UnknownTopic, ensure_topics
from astrocyte.pipeline.kafka.offsets import LATEST, Start
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.index import read_index
from astrocyte.pipeline.recording.reader import read_header, read_log
from astrocyte.pipeline.recording.record import record
from tests.support.broker import BrokerProcess, BrokerThread, kcat
from tests.support.logs import T0_US, axon_frame, frame_messages, json_messages, produce, read_topics
from tests.support.waiting import eventually, wait_until

app = typer.Typer()
cli_log.register(app)
SCRIPT = """
import sys, typer
from astrocyte.pipeline.cli import log as cli_log
from astrocyte.schemas.errors import AstrocyteError
app = typer.Typer()
cli_log.register(app)
try:
    app(standalone_mode=False)
except AstrocyteError as error:
    sys.exit(f"astrocyte: {error}")
"""

STRANGE = [
    ConsumedRecord("strange", 0, 0, 1000, b"\xff\x00", b"\x00\xff\xfe", (("h", b"\xfe"), ("h", b"text"), ("", None))),
    ConsumedRecord("strange", 1, 0, 2000, None, b"", ()),
    ConsumedRecord("strange", 0, 1, 3000, b"gone", None, ()),
    ConsumedRecord("strange", 1, 1, 4000, b"", "ä\n\t\u2028".encode(), (("ä", b""),)),
]


def stream_records() -> list[ConsumedRecord]:
    """Twenty frames of two streams over two partitions, in order of time."""
    offsets: dict[tuple[str, int], int] = {}
    records = []
    for step in range(10):
        times = [step * 10_000 + i for i in range(8)]
        keys = [f"d{i}" for i in range(8)]
        for stream in ("axon_1", "axon_2"):
            records += frame_messages(axon_frame(stream, keys, times, seq=step * 8), 2, offsets)
    return records


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with BrokerThread(tmp_path_factory.mktemp("broker")) as running:
        asyncio.run(produce(running.address, STRANGE))
        asyncio.run(produce(running.address, stream_records()))
        yield running.address


async def test_every_message_is_recorded_byte_for_byte(broker, tmp_path):
    path = tmp_path / "a.jsonl.zst"
    done = await record(broker, ["strange"], path)
    assert list(read_log(path)) == STRANGE
    assert (done.records, done.topics) == (4, {"strange": {0: 2, 1: 2}})
    assert read_header(path).partitions == {"strange": 2}
    assert read_header(path).source == f"kafka://{broker}"


async def test_partitions_are_merged_by_time_each_in_its_own_order(broker, tmp_path):
    path = tmp_path / "a.jsonl"
    await record(broker, ["mono.*"], path)
    read = list(read_log(path))
    assert [item.timestamp_ms for item in read] == sorted(item.timestamp_ms for item in read)
    assert sorted(read) == sorted(stream_records())
    for place in {(item.topic, item.partition) for item in read}:
        offsets = [item.offset for item in read if (item.topic, item.partition) == place]
        assert offsets == list(range(len(offsets)))


async def test_a_stretch_is_recorded(broker, tmp_path):
    at = T0_US // 1000
    path = tmp_path / "a.jsonl"
    await record(broker, ["mono.axon_1"], path, start=Start("time", at + 30), until_ms=at + 60)
    assert {item.timestamp_ms - at for item in read_log(path)} == {30, 40, 50}
    await record(broker, ["mono.axon_1"], path, count=3, overwrite=True)
    assert len(list(read_log(path))) == 3


async def test_settings_that_a_replay_needs_are_recorded(broker, tmp_path):
    await ensure_topics(broker, {"compacted": 1}, config={"compacted": {"cleanup.policy": "compact"}})
    path = tmp_path / "a.jsonl"
    await record(broker, ["compacted"], path)
    assert read_header(path).config["compacted"]["cleanup.policy"] == "compact"
    assert list(read_log(path)) == []


async def test_following_records_incoming_messages_until_it_is_stopped(broker, tmp_path):
    path, stop = tmp_path / "a.jsonl.zst", asyncio.Event()
    partial = tmp_path / "a.jsonl.zst.partial"
    await ensure_topics(broker, {"live": 2})
    recording = asyncio.create_task(record(broker, ["live"], path, start=LATEST, follow=True, stop=stop))
    await eventually(partial.exists)
    sent = [ConsumedRecord("live", i % 2, i // 2, 1000 + i, None, b"%d" % i) for i in range(10)]

    async def arrived() -> bool:
        # Recording may start shortly after the file is created: it must hold every message from then on.
        await produce(broker, sent)
        return bool(partial.stat().st_size) and len(list(read_log(partial))) > 0

    await eventually(arrived)
    stop.set()
    done = await recording
    assert done.records >= 10
    assert {item.value for item in read_log(path)} == {item.value for item in sent}
    assert read_index(path) is not None


async def test_a_file_that_exists_stays(broker, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"mine")
    with pytest.raises(InvalidLog, match="--force"):
        await record(broker, ["strange"], path)
    assert path.read_bytes() == b"mine"
    with pytest.raises(UnknownTopic, match="no topic 'nope'"):
        await record(broker, ["nope"], tmp_path / "b.jsonl")
    assert [item.name for item in tmp_path.iterdir()] == ["a.jsonl"]


async def test_a_full_disk_is_one_sentence_and_keeps_what_was_recorded(broker, tmp_path):
    path = tmp_path / "a.jsonl"
    command = [sys.executable, "-c", SCRIPT, "record", "mono.*", "-b", broker, "-o", str(path)]

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(command, check=False, preexec_fn=small_disk, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert f"{path} cannot be written: File too large" in done.stderr
    assert not path.exists()
    read = list(read_log(tmp_path / "a.jsonl.partial", on_torn=pytest.fail))
    assert set(read) <= set(stream_records())
    subprocess.run([*command, "--force"], check=True, timeout=60)
    assert set(read_log(path)) == set(stream_records())


def test_the_command_prints_what_it_recorded(broker, tmp_path):
    path = tmp_path / "a.jsonl.zst"
    result = CliRunner().invoke(app, ["record", "strange", "-b", broker, "-o", str(path), "--json"])
    assert json.loads(result.stdout) == {
        "file": str(path), "messages": 4, "bytes": 16, "topics": {"strange": {"0": 2, "1": 2}}
    }  # fmt: skip
    result = CliRunner().invoke(app, ["record", "strange", "-b", broker, "-o", str(path), "--force"])
    assert "4 messages" in result.stderr
    result = CliRunner().invoke(app, ["record", "strange", "-b", broker, "-o", "-"])
    lines = result.stdout.rstrip("\n").split("\n")
    assert [json.loads(line).get("topic") for line in lines] == [None] + ["strange"] * 4


def test_ctrl_c_ends_a_recording_with_a_whole_file(broker, tmp_path):
    path = tmp_path / "a.jsonl.zst"
    command = [sys.executable, "-c", SCRIPT, "record", "strange", "-b", broker, "-o", str(path), "--follow"]
    recording = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "a.jsonl.zst.partial"
    wait_until(lambda: partial.exists() and partial.stat().st_size > 0)
    recording.send_signal(signal.SIGINT)
    _, said = recording.communicate(timeout=30)
    assert recording.returncode == 0, said
    assert "4 messages" in said
    assert list(read_log(path)) == STRANGE


def test_a_recording_that_is_killed_leaves_what_it_had(broker, tmp_path):
    path = tmp_path / "a.jsonl.zst"
    command = [sys.executable, "-c", SCRIPT, "record", "strange", "-b", broker, "-o", str(path), "--follow"]
    recording = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    partial = tmp_path / "a.jsonl.zst.partial"
    wait_until(lambda: partial.exists() and partial.stat().st_size > 0)
    os.kill(recording.pid, signal.SIGKILL)
    recording.wait()
    assert not path.exists()
    assert list(read_log(partial)) == STRANGE


async def test_what_kcat_prints_is_a_log_too(broker, tmp_path):
    records = json_messages(axon_frame("axon_3", ["k1", "k2"], [0, 5]))
    await produce(broker, records, partitions=1)
    path = tmp_path / "kcat.jsonl"
    with path.open("wb") as file:
        command = [kcat(), "-b", broker, "-t", "mono.axon_3", "-C", "-e", "-q", "-J"]
        subprocess.run(command, stdout=file, check=True, timeout=30)
    assert list(read_log(path)) == records
    with path.open("wb") as file:
        command = [kcat(), "-b", broker, "-t", "mono.axon_1", "-C", "-e", "-q", "-J"]
        subprocess.run(command, stdout=file, check=True, timeout=30)
    wanted = [item for item in stream_records() if item.topic == "mono.axon_1"]
    assert {item.value for item in read_log(path)} == {item.value for item in wanted}


async def test_reading_continues_after_the_broker_was_restarted(tmp_path):
    with BrokerProcess(tmp_path / "broker") as running:
        await produce(running.address, STRANGE)
        running.kill()
        running.start()
        assert await read_topics(running.address, "strange") == STRANGE
