from __future__ import annotations

import logging
import shutil

import pytest

from astrocyte.pipeline.broker.protocol.errors import ErrorCode, RequestRefused
from astrocyte.pipeline.broker.storage import compaction
from astrocyte.pipeline.broker.storage.compaction import clean, compactable, swap
from tests.support.broker import CODECS, flush, make_batch, records_from, with_checksum


def compact(log, *, now_ms=0, delete_retention_ms=0, segment_bytes=1 << 20):
    sources = compactable(log)
    return swap(
        log,
        clean(sources, now_ms=now_ms, delete_retention_ms=delete_retention_ms, segment_bytes=segment_bytes),
    )


def fill(open_log, updates=200, keys=10, codec="none", **config):
    """A log of ``updates`` records over few keys, whose closed segments are on disk."""
    log = open_log(segment_bytes=1100, compacted=True, deleted=False, **config)
    for i in range(0, updates, 4):
        log.append(
            make_batch(
                [b"value %d" % (i + j) for j in range(4)],
                keys=[b"key %d" % ((i + j) % keys) for j in range(4)],
                codec=codec,
            )
        )
    flush(log)
    return log


def newest(log):
    return {key: (offset, raw) for offset, key, raw in records_from(log)}


@pytest.mark.parametrize("codec", CODECS)
def test_the_newest_record_of_each_key_stays_with_its_offset(open_log, codec):
    log = fill(open_log, codec=codec)
    before, end, size = newest(log), log.end_offset, log.size_bytes
    saved = compact(log)
    assert saved > size / 2
    assert log.size_bytes == size - saved
    assert newest(log) == before
    assert log.end_offset == end
    closed = [record for record in records_from(log) if record[0] < log.segments[-1].base_offset]
    assert len(closed) == 10
    log.close()
    again = open_log(compacted=True, verify="all")
    assert newest(again) == before
    assert again.cut_bytes == 0


def test_every_offset_can_be_fetched_and_leads_to_the_next(open_log):
    log = fill(open_log)
    compact(log)
    offsets = [offset for offset, _, _ in records_from(log)]
    for start in range(log.end_offset):
        assert [offset for offset, _, _ in records_from(log, start)] == [o for o in offsets if o >= start]


def test_small_neighbours_are_merged_and_the_next_run_compacts_them(open_log):
    log = fill(open_log)
    segments = len(log.segments)
    compact(log)
    assert len(log.segments) == 2 < segments
    assert compactable(log) == [], "nothing is new"
    for i in range(0, 60, 4):
        log.append(make_batch([b"later"] * 4, keys=[b"key %d" % ((i + j) % 10) for j in range(4)]))
    flush(log)
    before = newest(log)
    compact(log)
    assert len(log.segments) == 2
    assert newest(log) == before


def test_compaction_waits_until_enough_is_new(open_log):
    log = fill(open_log, min_cleanable_dirty_ratio=0.9)
    compact(log)
    log.append(make_batch([b"x" * 500], keys=[b"big"]))
    log.append(make_batch([b"x" * 900], keys=[b"big"]))
    log.append(make_batch([b"x" * 900], keys=[b"big"]))
    flush(log)
    assert len(log.segments) > 2
    assert compactable(log) == []


def test_repeated_batches_are_recognised_after_compaction_and_a_restart(open_log):
    log = open_log(segment_bytes=1024, compacted=True, deleted=False)
    sent = [make_batch([b"v" * 300], keys=[b"k"], producer_id=4, epoch=0, sequence=i) for i in range(10)]
    copies = [memoryview(bytearray(batch)) for batch in sent]
    for batch in sent:
        log.append(batch)
    log.roll()
    flush(log)
    assert compact(log) > 0
    log = open_log(compacted=True)  # as after a kill -9: the open segment, which is empty, has no index file
    assert log.append(copies[9]) == (9, True)


def test_tombstones_stay_through_one_compaction_and_are_removed_after_their_time(open_log):
    log = open_log(segment_bytes=1024, compacted=True, deleted=False)

    def more(first):
        for i in range(first, first + 30):
            log.append(make_batch([b"filler" * 10], keys=[b"filler"], timestamps=[i]))
        flush(log)

    log.append(make_batch([b"value", b"other"], keys=[b"gone", b"stays"], timestamps=[1, 1]))
    log.append(make_batch([None], keys=[b"gone"], timestamps=[5]))
    more(10)
    compact(log, now_ms=1_000_000, delete_retention_ms=100)
    assert b"gone" in newest(log)
    more(50)
    compact(log, now_ms=104, delete_retention_ms=100)
    assert b"gone" in newest(log), "its time is not over"
    more(100)
    compact(log, now_ms=106, delete_retention_ms=100)
    assert b"gone" not in newest(log)
    assert b"stays" in newest(log)


def test_a_log_of_tombstones_alone_can_still_be_read_to_its_end(open_log):
    log = open_log(segment_bytes=1024, compacted=True, deleted=False)
    for i in range(60):
        log.append(make_batch([None], keys=[b"k%d" % i], timestamps=[1]))
    log.roll()
    flush(log)
    compact(log, now_ms=1_000_000, delete_retention_ms=0)
    log.append(make_batch([None], keys=[b"last"], timestamps=[1]))
    log.roll()
    flush(log)
    compact(log, now_ms=1_000_000, delete_retention_ms=0)
    assert [offset for offset, _, _ in records_from(log)] == [60]
    log.close()
    assert [offset for offset, _, _ in records_from(open_log(compacted=True))] == [60]


def test_records_without_key_and_batches_that_cannot_be_read_are_kept(open_log, caplog):
    log = open_log(segment_bytes=1024)  # as an older version took them
    log.append(make_batch([b"no key"]))
    log.append(make_batch([b"same"], keys=[b"k"]))
    broken = bytearray(make_batch([b"z" * 200] * 3, keys=[b"k"] * 3, codec="zstd"))
    broken[-5] ^= 0xFF
    log.append(with_checksum(broken))
    flush(log)
    log.close()
    log = open_log(segment_bytes=1024, compacted=True, deleted=False)
    for _ in range(20):
        log.append(make_batch([b"same" * 20], keys=[b"k"]))
    flush(log)
    compact(log)
    assert log.read(0, 1).tobytes().endswith(b"no key\0")
    assert "kept unchanged" in caplog.text
    assert bytes(broken[21:]) in bytes(log.read(2, 1 << 20))


@pytest.mark.parametrize("codec", CODECS)
def test_a_record_without_a_key_is_refused_where_records_are_compacted(open_log, codec):
    log = open_log(compacted=True, deleted=False)
    log.append(make_batch([b"value", None], keys=[b"k", b""], codec=codec))
    with pytest.raises(RequestRefused, match="1 records without a key") as refused:
        log.append(make_batch([b"value", b"no key"], keys=[b"k", None], codec=codec))
    assert refused.value.code == ErrorCode.INVALID_RECORD
    assert log.end_offset == 2


def test_a_batch_whose_keys_cannot_be_read_is_refused_where_records_are_compacted(open_log):
    log = open_log(compacted=True, deleted=False)
    broken = bytearray(make_batch([b"z" * 200] * 3, keys=[b"k"] * 3, codec="zstd"))
    broken[-5] ^= 0xFF
    with pytest.raises(RequestRefused, match="cannot be decoded") as refused:
        log.append(with_checksum(broken))
    assert refused.value.code == ErrorCode.CORRUPT_MESSAGE


def test_a_damaged_compacted_segment_is_reported(open_log, caplog):
    log = fill(open_log)
    compact(log)
    log.close()
    path = log.segments[0].path
    spoilt = bytearray(path.read_bytes())
    spoilt[7] ^= 1  # of the base offset: no checksum of Kafka's covers it
    path.write_bytes(spoilt)
    open_log(compacted=True)
    assert "does not match its index file" in caplog.text


class Crash(Exception):
    pass


@pytest.mark.parametrize("survive", range(8))
def test_a_crash_at_any_step_of_the_swap_loses_nothing(open_log, tmp_path, monkeypatch, survive):
    log = fill(open_log)
    before, end = newest(log), log.end_offset
    cleaned = clean(compactable(log), now_ms=0, delete_retention_ms=0, segment_bytes=1 << 20)
    from pathlib import Path

    left = [survive]

    def crashing(real):
        def step(*args, **kwargs):
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            return real(*args, **kwargs)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", crashing(Path.replace))
        patched.setattr(Path, "unlink", crashing(Path.unlink))
        patched.setattr(compaction, "sync_folder", crashing(lambda _folder: None))
        with pytest.raises(Crash):
            swap(log, cleaned)
    shutil.copytree(tmp_path / "log", tmp_path / "after crash")
    for verify in ("tail", "all"):
        again = open_log(folder="after crash", compacted=True, verify=verify)
        assert newest(again) == before
        assert again.end_offset == end
        assert not list((tmp_path / "after crash").glob("*.new"))
        assert not list((tmp_path / "after crash").glob("*.damaged*"))
        again.close()


def test_a_swap_is_abandoned_when_a_source_has_expired(open_log):
    log = fill(open_log)
    cleaned = clean(compactable(log), now_ms=0, delete_retention_ms=0, segment_bytes=1 << 20)
    log._drop_oldest()
    before = records_from(log, log.start_offset)
    assert swap(log, cleaned) == 0
    assert records_from(log, log.start_offset) == before
    assert not cleaned[0].draft.exists()


def test_a_full_disk_leaves_the_log_and_no_draft(open_log, monkeypatch, tmp_path):
    log = fill(open_log)
    before = records_from(log)

    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compaction, "sync_file", full)
    with pytest.raises(OSError, match="No space"):
        clean(compactable(log), now_ms=0, delete_retention_ms=0, segment_bytes=1 << 20)
    assert records_from(log) == before
    assert not list((tmp_path / "log").glob("*.new"))


@pytest.fixture(autouse=True)
def _all_messages(caplog):
    caplog.set_level(logging.INFO, logger="astrocyte.pipeline.broker")
