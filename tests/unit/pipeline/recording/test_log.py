"""Recorded logs: read back byte for byte in every form; torn files are read up to the damage."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import subprocess
import sys

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog, LogHeader, TornLog, parse_line, record_line
from astrocyte.pipeline.recording.frames import chunks_of, frames_of
from astrocyte.pipeline.recording.index import read_index
from astrocyte.pipeline.recording.reader import open_log, read_header, read_log
from astrocyte.pipeline.recording.writer import LogWriter
from astrocyte.schemas.topics import is_derived
from tests.support.broker import full_disk
from tests.support.logs import T0_US, axon_frame, frame_messages, json_messages, write_log

RECORDS = st.builds(
    ConsumedRecord,
    topic=st.sampled_from(["mono.axon_1", "t"]),
    partition=st.integers(0, 7),
    offset=st.integers(0, 2**62),
    timestamp_ms=st.integers(-1, 2**53),
    key=st.none() | st.binary(max_size=20) | st.text(max_size=8).map(str.encode),
    value=st.none() | st.binary(max_size=60) | st.text(max_size=20).map(str.encode),
    headers=st.lists(
        st.tuples(st.text(max_size=6), st.none() | st.binary(max_size=8) | st.just(b"text")), max_size=4
    ).map(tuple),
    timestamp_type=st.sampled_from(["create", "logappend"]),
)


def some_records(count: int) -> list[ConsumedRecord]:
    return [
        ConsumedRecord("mono.t", i % 3, i // 3, 1_000_000 + i * 10, f"k{i}".encode(), b'{"v":%d}' % i)
        for i in range(count)
    ]


@given(RECORDS)
def test_a_line_restores_the_record_byte_for_byte(record):
    line = record_line(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert parse_line(line) == record


@given(st.lists(RECORDS, max_size=30), st.sampled_from(["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"]))
@settings(max_examples=30)
def test_every_form_of_file_restores_the_records(tmp_path_factory, records, name):
    path = tmp_path_factory.mktemp("log") / name
    with LogWriter(path, LogHeader({"t": 8})) as writer:
        for record in records:
            writer.write(record)
    assert list(read_log(path)) == records
    assert read_header(path) == LogHeader({"t": 8})


@pytest.mark.parametrize("domains", [0, -1, 2000, "4", 2.5, True])
def test_a_header_names_the_number_of_domains_or_none(domains):
    assert parse_line(LogHeader({"t": 8}, domains=3).line()) == LogHeader({"t": 8}, domains=3)
    assert parse_line(LogHeader({"t": 8}).line()).domains is None
    with pytest.raises(InvalidLog, match="'domains' in the log header: expected a number from 1 to 1024, got"):
        parse_line(orjson.dumps({"type": "log-header", "format": 1, "topics": {}, "domains": domains}))


def test_a_line_has_the_fields_that_kcat_prints():
    record = ConsumedRecord("t1", 3, 5, 1_700_000_000_000, b"c7", b'{"v":0}', (("ce_id", b"e1"), ("ce_type", b"x")))
    body = json.loads(record_line(record))
    assert body["topic"] == "t1"
    assert (body["partition"], body["offset"], body["ts"], body["tstype"]) == (3, 5, 1_700_000_000_000, "create")
    assert body["headers"] == ["ce_id", "e1", "ce_type", "x"]
    assert (body["key"], body["payload"], body["payload_b64"]) == ("c7", '{"v":0}', "eyJ2IjowfQ==")


def test_output_of_kcat_is_read_with_headers_as_array_and_as_object():
    start = '{"topic":"t1","partition":3,"offset":0,"tstype":"create","ts":17,"broker":1,'
    flat = parse_line((start + '"headers":["a","1","a","2"],"key":"c7","payload":"{\\"v\\":0}"}').encode())
    named = parse_line((start + '"headers":{"a":"1"},"key":null,"payload":null}').encode())
    assert flat.headers == (("a", b"1"), ("a", b"2"))
    assert flat.value == b'{"v":0}'
    assert named.headers == (("a", b"1"),)
    assert (named.key, named.value) == (None, None)


def test_bytes_that_kcat_writes_raw_into_its_json_are_recovered():
    line = b'{"topic":"t","partition":0,"offset":0,"tstype":"create","ts":1,"key":null,"payload":"\xff\xfea\\u0000"}'
    assert parse_line(line).value == b"\xff\xfea\x00"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"hello", "not JSON"),
        (b"[1]", "list"),
        (b'{"topic":"t"}', "'partition'"),
        (b'{"topic":5,"partition":0,"offset":0,"payload":null}', "'topic': expected a string, got 5"),
        (b'{"topic":"t","partition":0,"offset":0,"payload":null,"headers":["a"]}', "'headers'"),
        (b'{"topic":"t","partition":0,"offset":0,"payload":null,"payload_b64":"?"}', "base64"),
        (b'{"type":"log-header","format":99}', "upgrade astrocyte"),
    ],
)
def test_a_line_that_is_not_a_record_is_an_error_with_its_reason(line, said):
    with pytest.raises(InvalidLog, match=said):
        parse_line(line)


def test_a_torn_last_line_is_left_out_and_reported(tmp_path):
    path = tmp_path / "torn.jsonl"
    whole = b"".join(record_line(record) for record in some_records(3))
    path.write_bytes(whole[:-20])
    torn_logs: list[TornLog] = []
    assert list(read_log(path, on_torn=torn_logs.append)) == some_records(2)
    assert "2 records" in str(torn_logs[0])


def test_a_last_line_without_newline_is_whole_if_it_parses(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(record_line(record) for record in some_records(3)).rstrip(b"\n"))
    assert list(read_log(path, on_torn=pytest.fail)) == some_records(3)


@pytest.mark.parametrize("suffix", [".jsonl.zst", ".jsonl.gz"])
def test_a_log_cut_anywhere_gives_a_prefix_of_its_records(tmp_path, suffix):
    records = some_records(2000)
    path = tmp_path / f"a{suffix}"
    write_log(path, records)
    data = path.read_bytes()
    torn = tmp_path / f"torn{suffix}"
    numbers = random.Random(5)
    for length in [0, 3, 4, 7, 12, *(numbers.randrange(len(data)) for _ in range(25)), len(data) - 1]:
        torn.write_bytes(data[:length])
        torn_logs: list[TornLog] = []
        read = list(read_log(torn, on_torn=torn_logs.append))
        assert read == records[: len(read)]
        assert torn_logs or len(read) == 0 or len(read) % 500 == 0


def test_a_log_torn_with_zeros_behind_it_is_read_up_to_them(tmp_path):
    records = some_records(700)
    path = write_log(tmp_path / "a.jsonl.zst", records)
    index = read_index(path)
    path.write_bytes(path.read_bytes()[: index.blocks[1].offset] + bytes(512))
    torn_logs: list[TornLog] = []
    assert list(read_log(path, on_torn=torn_logs.append)) == records[:500]
    assert torn_logs


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst", ".jsonl.gz"])
def test_a_disk_that_is_full_for_a_while_costs_no_record_and_repeats_none(tmp_path, suffix):
    records = some_records(400)
    path = tmp_path / f"a{suffix}"
    with LogWriter(path, LogHeader({"mono.t": 3})) as writer:
        for item in records[:100]:
            writer.write(item)
        writer.flush()
        partial = path.with_name(f"{path.name}.partial")
        before = partial.stat().st_size
        for item in records[100:300]:
            writer.write(item)
        with full_disk(os.getpid(), file_bytes=before + 200), pytest.raises(OSError, match="large"):
            writer.flush()
        assert partial.stat().st_size == before, "nothing of the block stays"
        for item in records[300:]:
            writer.write(item)
    assert list(read_log(path, on_torn=pytest.fail)) == records


def test_a_log_damaged_before_its_end_is_an_error(tmp_path):
    path = write_log(tmp_path / "a.jsonl.zst", some_records(2000))
    data = bytearray(path.read_bytes())
    data[read_index(path).blocks[1].offset + 40] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InvalidLog, match="damaged") as caught:
        list(read_log(path))
    assert not isinstance(caught.value, TornLog)


def test_a_bad_line_inside_is_an_error_that_names_the_file_and_place(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(record_line(some_records(1)[0]) + b"oops\n" + record_line(some_records(1)[0]))
    with pytest.raises(InvalidLog, match=r"a\.jsonl, after 1 records: not JSON"):
        list(read_log(path))


@pytest.mark.parametrize("content", [b"PAR1\x00\x00\x00", b"\x00" * 100])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "other.bin"
    path.write_bytes(content)
    with pytest.raises(InvalidLog, match="expected a recorded log"):
        list(read_log(path))


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(InvalidLog, match="No such file"):
        list(read_log(tmp_path / "none.jsonl"))


def test_the_index_lets_a_reader_start_in_the_middle(tmp_path):
    path = write_log(tmp_path / "a.jsonl.zst", some_records(5000))
    index = read_index(path)
    assert index.records == 5000
    totals = index.topics["mono.t"]
    assert (totals.count, totals.frames, sorted(totals.messages)) == (5000, 0, [0, 1, 2])
    assert (totals.first_ms, totals.last_ms) == (1_000_000, 1_000_000 + 4999 * 10)
    read = list(read_log(path, start_ms=1_000_000 + 4990 * 10))
    assert read == some_records(5000)[4990:]
    # The blocks before the one that holds the time can be unreadable without harm.
    data = bytearray(path.read_bytes())
    data[100 : index.blocks[-1].offset] = bytes(index.blocks[-1].offset - 100)
    path.write_bytes(data)
    assert list(read_log(path, start_ms=1_000_000 + 4990 * 10)) == read


def test_a_start_after_the_end_gives_nothing(tmp_path):
    empty = write_log(tmp_path / "empty.jsonl.zst", [])
    assert list(read_log(empty, start_ms=0)) == []
    LogWriter(tmp_path / "bare.jsonl.zst", None).close()
    assert list(read_log(tmp_path / "bare.jsonl.zst", start_ms=0)) == []
    path = write_log(tmp_path / "a.jsonl.zst", some_records(10))
    assert list(read_log(path, start_ms=10**15)) == []


def test_logs_joined_by_cat_are_read_as_one_and_other_tools_read_them(tmp_path):
    first = write_log(tmp_path / "1.jsonl.zst", some_records(10))
    second = write_log(tmp_path / "2.jsonl.zst", some_records(20))
    both = tmp_path / "both.jsonl.zst"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    assert list(read_log(both)) == some_records(10) + some_records(20)
    assert read_index(both) is None
    text = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(both.read_bytes()), read_across_frames=True).read()
    assert len(text.splitlines()) == 32


def test_gzip_output_is_read_by_gzip(tmp_path):
    path = write_log(tmp_path / "a.jsonl.gz", some_records(1200))
    assert len(gzip.decompress(path.read_bytes()).splitlines()) == 1201


def test_a_log_appears_under_its_name_only_when_whole(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    writer = LogWriter(path, None)
    writer.write(some_records(1)[0])
    writer.flush()
    assert not path.exists()
    assert list(read_log(tmp_path / "a.jsonl.zst.partial")) == some_records(1)
    writer.close()
    assert [item.name for item in tmp_path.iterdir()] == ["a.jsonl.zst"]


def test_an_existing_log_is_not_overwritten_unasked(tmp_path):
    path = write_log(tmp_path / "a.jsonl", some_records(1))
    before = path.read_bytes()
    with pytest.raises(InvalidLog, match="exists; choose another name, or --force"):
        LogWriter(path, None)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    LogWriter(path, None, overwrite=True).close()
    assert path.read_bytes() == b""


def test_a_writer_that_fails_leaves_the_old_log_and_a_readable_part(tmp_path):
    path = write_log(tmp_path / "a.jsonl.zst", some_records(1))

    def failing() -> None:
        with LogWriter(path, None, overwrite=True) as writer:
            for record in some_records(5):
                writer.write(record)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert list(read_log(path)) == some_records(1)
    assert list(read_log(tmp_path / "a.jsonl.zst.partial")) == some_records(5)


def test_a_log_that_another_writer_writes_is_not_touched(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    first = LogWriter(path, None)
    first.write(some_records(1)[0])
    first.flush()
    for overwrite in (False, True):
        with pytest.raises(InvalidLog, match="is being written by another process"):
            LogWriter(path, None, overwrite=overwrite)
    first.close()
    assert list(read_log(path)) == some_records(1)


def test_what_a_killed_writer_has_left_is_not_overwritten_unasked(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    killed = LogWriter(path, None)
    killed.write(some_records(1)[0])
    killed.abandon()
    with pytest.raises(InvalidLog, match=r"partial exists: it holds what was recorded before .* Rename it"):
        LogWriter(path, None)
    assert list(read_log(tmp_path / "a.jsonl.zst.partial")) == some_records(1)
    LogWriter(path, None, overwrite=True).close()
    assert [item.name for item in tmp_path.iterdir()] == ["a.jsonl.zst"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_log_that_is_deleted_while_it_is_written_is_an_error(tmp_path, overwrite):
    path = tmp_path / "a.jsonl.zst"
    for at_end in (False, True):
        writer = LogWriter(path, None, overwrite=overwrite)
        writer.write(some_records(1)[0])
        writer.flush()
        (tmp_path / "a.jsonl.zst.partial").unlink()
        writer.write(some_records(1)[0])
        with pytest.raises(InvalidLog, match="was deleted or renamed while it was written"):
            writer.close() if at_end else writer.flush()
        writer.close()
    assert not path.exists()


def test_a_file_that_takes_the_name_of_a_log_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    writer = LogWriter(path, None)
    writer.write(some_records(1)[0])
    path.write_text("mine")
    with pytest.raises(InvalidLog, match=r"was made by another program meanwhile .* is in .*partial: rename it"):
        writer.close()
    assert path.read_text() == "mine"
    assert list(read_log(tmp_path / "a.jsonl.zst.partial")) == some_records(1)


def test_standard_input_is_read(tmp_path):
    path = write_log(tmp_path / "a.jsonl.zst", some_records(10))
    code = "from astrocyte.pipeline.recording.frames import read_log; print(len(list(read_log('-'))))"
    with path.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True, check=True)
    assert done.stdout == "10\n"


def test_frames_and_json_records_mixed_give_their_events_in_order():
    offsets: dict[tuple[str, int], int] = {}
    messages = frame_messages(axon_frame("axon_1", ["d1", "d2"], [0, 10]), 1, offsets)
    messages += json_messages(axon_frame("axon_1", ["d1", "d1", "d3"], [20, 30, 40]), offset=1)
    messages += frame_messages(axon_frame("axon_1", ["d4"], [50]), 1, {("mono.axon_1", 0): 4})
    found = list(frames_of(messages))
    assert [(topic, partition, offset, frame.num_rows) for topic, partition, offset, frame in found] == [
        ("mono.axon_1", 0, 0, 2),
        ("mono.axon_1", 0, 1, 3),
        ("mono.axon_1", 0, 4, 1),
    ]
    times = [int(time) - T0_US for _, _, _, frame in found for time in frame.timestamps()]
    assert times == [0, 10, 20, 30, 40, 50]
    chunks = list(chunks_of(messages))
    assert [chunks[1].offset_of(row) for row in range(3)] == [1, 2, 3]


def test_outputs_of_the_pipeline_are_no_input():
    assert is_derived("multi.events")
    assert is_derived("metrics.population_metrics")
    assert is_derived("keyed.cell_id.cell_vitals")
    assert not is_derived("mono.axon_1")
    assert list(frames_of([ConsumedRecord("alerts", 0, 0, 0, None, b"{}")])) == []


def test_a_message_without_an_event_is_raised_skipped_or_returned():
    bad = ConsumedRecord("mono.axon_1", 2, 7, 1000, None, b"\xff\xff\xff\xffnonsense")
    with pytest.raises(InvalidLog, match=r"mono\.axon_1\[2\]@7 holds no event"):
        list(frames_of([bad]))
    assert list(frames_of([bad], on_bad="skip")) == []
    letters = []
    assert list(frames_of([bad, bad._replace(value=b"not json")], on_bad=letters.append)) == []
    assert [letter.offset for letter in letters] == [7, 7]


def test_every_line_of_a_log_is_json(tmp_path):
    path = write_log(
        tmp_path / "a.jsonl", [ConsumedRecord("t", 0, 0, 1, b"\xff", b"\x00\xff", (("h", b"\xfe"), ("n", None)))]
    )
    header, line = path.read_bytes().splitlines()
    assert orjson.loads(header)["topics"] == {"t": {"partitions": 2}}
    body = orjson.loads(line)
    assert body["headers"] == ["h", None, "n", None]
    assert [type(item) for item in open_log(path)] == [LogHeader, ConsumedRecord]
