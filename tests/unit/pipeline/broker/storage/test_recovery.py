from __future__ import annotations

import logging
import os
import random
import shutil

import pytest

from astrocyte.pipeline.broker.storage.index import IndexFile
from tests.support.broker import flush, make_batch, records_from


@pytest.fixture
def small_log(open_log):
    """Three batches in one segment, never closed, as a kill -9 leaves them: (bytes, ends of the batches, records)."""
    log = open_log()
    ends = []
    for i in range(3):
        log.append(make_batch([b"%d-%d" % (i, j) for j in range(2)], producer_id=5, epoch=0, sequence=2 * i))
        ends.append(log.segments[0].size)
    return log.segments[0].path, ends, records_from(log)


def test_a_log_cut_at_any_byte_keeps_exactly_its_whole_batches(open_log, small_log):
    path, ends, records = small_log
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        log = open_log()
        batches = sum(end <= cut for end in ends)
        assert records_from(log) == records[: 2 * batches]
        assert log.append(make_batch([b"next"])).base_offset == 2 * batches
        log.close(seal=False)
    assert [p.name for p in path.parent.iterdir()] == [path.name], "a torn tail is cut, nothing is set aside"


def test_a_bit_flipped_at_any_byte_is_found_and_the_rest_set_aside(open_log, small_log, caplog):
    path, ends, records = small_log
    whole = path.read_bytes()
    for at in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[at] ^= 1 << at % 8
        path.write_bytes(spoilt)
        caplog.clear()
        log = open_log()
        good = sum(end <= at for end in ends)
        assert records_from(log) == records[: 2 * good], f"flip at byte {at}"
        kept = path.with_suffix(f".damaged-{([0, *ends])[good]}")
        torn = at - [0, *ends][good] in range(
            8, 12
        )  # a larger length looks like a batch cut off by the end of the file
        assert kept.exists() or torn
        if kept.exists():
            assert kept.read_bytes() == bytes(spoilt[[0, *ends][good] :])
            assert kept.name in caplog.text
            kept.unlink()
        assert log.append(make_batch([b"next"])).base_offset == 2 * good
        log.close(seal=False)


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 5000, random.Random(1).randbytes(10), random.Random(2).randbytes(5000), b"\xff" * 61],
    ids=["zeros", "10 bytes", "5000 bytes", "ones"],
)
def test_garbage_after_the_last_batch_is_removed(open_log, small_log, garbage):
    path, _, records = small_log
    with path.open("ab") as file:
        file.write(garbage)
    log = open_log()
    assert log.cut_bytes == len(garbage)
    assert records_from(log) == records
    log.append(make_batch([b"next"]))
    log.close(seal=False)
    assert len(records_from(open_log())) == 7


def test_a_batch_that_is_stored_twice_is_read_once(open_log, small_log):
    path, ends, records = small_log
    whole = path.read_bytes()
    path.write_bytes(whole + whole[ends[1] :])
    assert records_from(open_log()) == records


def many_segments(open_log, **config):
    log = open_log(segment_bytes=1500, **config)
    for i in range(12):
        log.append(make_batch([b"%02d" % i * 300], keys=[b"k%d" % i]))
    return log


@pytest.mark.parametrize("sealed", [False, True])
def test_a_damaged_old_segment_is_set_aside_and_the_log_continues_after_it(open_log, sealed, caplog):
    log = many_segments(open_log)
    if sealed:
        log.close()
    path, bases = log.segments[2].path, [s.base_offset for s in log.segments]
    spoilt = bytearray(path.read_bytes())
    spoilt[800] ^= 4
    path.write_bytes(spoilt)
    log = open_log(verify="all")
    assert [s.base_offset for s in log.segments] == bases
    first_lost, next_segment = bases[2] + 1, bases[3]
    expected = [*range(first_lost), *range(next_segment, 12)]
    assert [offset for offset, _, _ in records_from(log)] == expected
    assert [offset for offset, _, _ in records_from(log, first_lost)] == [*range(next_segment, 12)], "no endless loop"
    assert f"offsets {first_lost} to {next_segment - 1} are lost" in caplog.text
    assert next(iter(path.parent.glob("*.damaged-*"))).name in caplog.text


def test_an_old_segment_cut_short_is_noticed_without_verify(open_log, caplog):
    log = many_segments(open_log)
    log.close()
    path, first, following = log.segments[1].path, log.segments[1].base_offset, log.segments[2].base_offset
    os.truncate(path, path.stat().st_size - 1)
    log = open_log()
    assert f"offsets {first + 1} to {following - 1} are lost" in caplog.text
    assert [o for o, _, _ in records_from(log)] == [*range(first + 1), *range(following, 12)]


def test_a_lost_old_segment_is_noticed(open_log, caplog):
    log = many_segments(open_log)
    log.close()
    log.segments[2].path.unlink()
    log = open_log()
    assert "are lost" in caplog.text
    assert len(records_from(log)) < 12


def test_damage_found_while_reading_is_an_error_of_that_fetch_and_no_loop(open_log, caplog):
    from astrocyte.pipeline.broker.protocol.errors import ErrorCode, RequestRefused

    log = many_segments(open_log)
    log.close()
    log = open_log()
    path = log.segments[1].path
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(RequestRefused) as refused:
        log.read(log.segments[1].base_offset, 1000)
    assert refused.value.code is ErrorCode.CORRUPT_MESSAGE
    assert "verify" in caplog.text
    assert len(log.read(0, 100)) > 0


def test_a_closed_log_starts_without_a_scan_and_reads_the_same(open_log, monkeypatch):
    log = many_segments(open_log)
    records = records_from(log)
    log.close()
    monkeypatch.setattr(
        "astrocyte.pipeline.broker.storage.recovery.checksum_holds", lambda *_: pytest.fail("walked a batch")
    )
    log = open_log(segment_bytes=1500)
    monkeypatch.undo()
    assert records_from(log) == records
    assert log.append(make_batch([b"next"])).base_offset == 12


def test_only_records_written_after_the_index_file_are_scanned(open_log, monkeypatch):
    from astrocyte.pipeline.broker.storage import recovery

    log = open_log()
    for _ in range(5):
        log.append(make_batch([b"x"]))
    log.close()
    log = open_log()
    for _ in range(3):
        log.append(make_batch([b"y"]))  # and then killed
    walked = []
    real = recovery.checksum_holds
    monkeypatch.setattr(recovery, "checksum_holds", lambda header, batch: walked.append(header) or real(header, batch))
    log = open_log()
    assert [header.base_offset for header in walked] == [5, 6, 7]
    assert log.end_offset == 8


@pytest.mark.parametrize("spoil", [lambda b: b[:-1], lambda b: b"", lambda b: b[:30] + b"!" + b[31:], lambda b: b * 2])
def test_a_damaged_index_file_costs_a_scan_and_nothing_else(open_log, spoil):
    log = many_segments(open_log)
    records = records_from(log)
    log.close()
    for segment in log.segments:
        segment.index_path.write_bytes(spoil(segment.index_path.read_bytes()))
    assert records_from(open_log(segment_bytes=1500)) == records


def test_an_index_file_of_a_longer_log_is_not_used(open_log):
    log = open_log()
    for _ in range(4):
        log.append(make_batch([b"x"]))
    log.close()
    path = log.segments[0].path
    os.truncate(path, path.stat().st_size // 2)
    log = open_log()
    assert log.end_offset == 2
    assert len(records_from(log)) == 2


def test_index_files_survive_a_round_trip(tmp_path):
    written = IndexFile(10, 20, 30, 40, compacted=True, file_crc=50, producers=b"some")
    written.index.note(5, 6, 7)
    written.write(tmp_path / "a.index")
    assert (read := IndexFile.load(tmp_path / "a.index")) is not None
    assert (read.covered, read.next_offset, read.max_timestamp, read.appended_ms) == (10, 20, 30, 40)
    assert (read.compacted, read.file_crc, read.producers, list(read.index.offsets)) == (True, 50, b"some", [5])
    assert [p.name for p in tmp_path.iterdir()] == ["a.index"]


def test_two_runs_see_the_same_records(open_log, tmp_path):
    log = many_segments(open_log)
    flush(log)
    records = records_from(log)
    shutil.copytree(tmp_path / "log", tmp_path / "copy")  # as a kill -9 leaves it
    log.close()
    assert records_from(open_log()) == records_from(open_log(folder="copy")) == records


def test_damage_that_cannot_be_set_aside_stops_the_start(open_log, small_log, monkeypatch):
    from pathlib import Path

    from astrocyte.pipeline.broker.protocol.errors import BrokerError

    path, _, _ = small_log
    spoilt = bytearray(path.read_bytes())
    spoilt[70] ^= 1
    path.write_bytes(spoilt)

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BrokerError, match="free disk space"):
        open_log()
    assert path.read_bytes() == spoilt


@pytest.fixture(autouse=True)
def _all_messages(caplog):
    caplog.set_level(logging.INFO, logger="astrocyte.pipeline.broker")
