from __future__ import annotations

import errno
import os

import pytest

from astrocyte.pipeline.broker.protocol.batch import records_of
from astrocyte.pipeline.broker.protocol.errors import ErrorCode, RequestRefused
from astrocyte.pipeline.broker.storage.segment import Segment
from tests.support.broker import CODECS, flush, make_batch, records_from, with_checksum


def values(log, offset=0, **reading):
    return [raw for _, _, raw in records_from(log, offset, **reading)]


def test_records_come_back_in_order_with_contiguous_offsets(open_log):
    log = open_log(segment_bytes=2000)
    for i in range(30):
        assert log.append(make_batch([b"%d-%d" % (i, j) for j in range(4)])).base_offset == 4 * i
    assert len(log.segments) > 1
    assert [offset for offset, _, _ in records_from(log)] == list(range(120))
    assert [offset for offset, _, _ in records_from(log, 57)] == list(range(57, 120))


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_stored_unchanged(open_log, codec):
    log = open_log()
    sent = make_batch([b"x" * 50] * 10, codec=codec)
    body = bytes(sent[21:])
    log.append(sent)
    assert bytes(log.read(0, 1 << 20)[21:]) == body
    assert len(records_from(log)) == 10


def test_a_fetch_returns_at_least_one_whole_batch_however_small_its_limit(open_log):
    log = open_log()
    log.append(make_batch([b"a" * 50_000]))
    log.append(make_batch([b"b" * 70_000]))
    assert 50_000 < len(log.read(0, 1)) < 51_000
    assert len(log.read(1, 100)) > 70_000
    assert len(values(log, max_bytes=1)) == 2


def test_offsets_outside_the_log_are_refused_and_its_end_is_empty(open_log):
    log = open_log()
    log.append(make_batch([b"a", b"b"]))
    assert not log.read(2, 100)
    for offset in (-1, 3):
        with pytest.raises(RequestRefused) as refused:
            log.read(offset, 100)
        assert refused.value.code is ErrorCode.OFFSET_OUT_OF_RANGE


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda b: b[:60], ErrorCode.CORRUPT_MESSAGE),
        (lambda b: b[:-1], ErrorCode.CORRUPT_MESSAGE),
        (lambda b: b"", ErrorCode.CORRUPT_MESSAGE),
        (lambda b: b[:16] + b"\1" + b[17:], ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (lambda b: b[:16] + b"\0" + b[17:40], ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (lambda b: b[:-1] + b"!", ErrorCode.CORRUPT_MESSAGE),
        (lambda b: b + b, ErrorCode.INVALID_RECORD),
        (
            lambda b: bytes(with_checksum(bytearray(b[:22] + b"\x10" + b[23:]))),
            ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
        (lambda b: bytes(with_checksum(bytearray(b[:22] + b"\x20" + b[23:]))), ErrorCode.INVALID_RECORD),
        (lambda b: bytes(with_checksum(bytearray(b[:57] + b"\0\0\0\7" + b[61:]))), ErrorCode.INVALID_RECORD),
        (lambda b: bytes(make_batch([b"x" * 2000])), ErrorCode.MESSAGE_TOO_LARGE),
    ],
)
def test_an_invalid_batch_is_refused_and_changes_nothing(open_log, spoil, code):
    log = open_log(max_message_bytes=1500)
    log.append(make_batch([b"before"]))
    with pytest.raises(RequestRefused) as refused:
        log.append(memoryview(bytearray(spoil(bytes(make_batch([b"value", b"other"]))))))
    assert refused.value.code is code
    assert log.append(make_batch([b"after"])).base_offset == 1


def test_descriptors_stay_few_over_many_segments(open_log):
    log = open_log(segment_bytes=1100, files=8)
    for i in range(60):
        log.append(make_batch([b"%05d" % i * 200]))
    flush(log)
    assert len(log.segments) == 60
    before = len(os.listdir("/proc/self/fd"))
    for i in range(60):
        assert len(records_from(log, i)) == 60 - i
    assert len(os.listdir("/proc/self/fd")) <= before + 8
    assert len(log.pool) <= 8


def test_the_first_record_at_or_after_a_time_is_found_inside_batches_and_over_segments(open_log):
    log = open_log(segment_bytes=1500)
    stamps = [100, 150, 120, 300, 300, 250, 400, 390, 500, 480, 700, 650]
    for codec, start in zip(("none", "gzip", "zstd", "lz4"), range(0, 12, 3), strict=True):
        log.append(make_batch([b"v" * 300] * 3, timestamps=stamps[start : start + 3], codec=codec))
    for wanted in range(90, 710, 10):
        expected = next(((i, t) for i, t in enumerate(stamps) if t >= wanted), None)
        assert log.offset_for_timestamp(wanted) == expected


def test_time_is_found_through_a_sealed_index(open_log):
    log = open_log(segment_bytes=60_000)
    for i in range(200):
        log.append(make_batch([b"v" * 1000], timestamps=[1000 * i]))
    log.close()
    log = open_log(segment_bytes=60_000)
    assert len(log.segments) > 2
    for i in range(200):
        assert log.offset_for_timestamp(1000 * i - 500) == (i, 1000 * i)


def test_old_segments_expire_by_age_and_the_open_one_is_rolled_for_it(open_log, clock):
    log = open_log(segment_bytes=1200, retention_ms=10_000)
    for _ in range(6):
        log.append(make_batch([b"x" * 1000], timestamps=[clock.now_ms]))
        clock.now_ms += 1500
    assert log.expire() == []
    clock.now_ms += 5000  # the first three are older than 10 s now
    log.expire()
    assert (log.start_offset, log.end_offset) == (3, 6)
    clock.now_ms += 60_000
    log.expire()
    assert (log.start_offset, log.end_offset, log.size_bytes) == (6, 6, 0)
    assert log.append(make_batch([b"new"])).base_offset == 6
    with pytest.raises(RequestRefused):
        log.read(5, 100)


def test_records_with_old_timestamps_stay_for_the_retention_time_after_their_arrival(open_log, clock):
    log = open_log(segment_bytes=1200, retention_ms=10_000)
    for _ in range(4):
        log.append(make_batch([b"x" * 1000], timestamps=[0]))
    log.expire()
    assert log.start_offset == 0
    clock.now_ms += 11_000
    log.expire()
    assert log.start_offset == 4


def test_old_segments_expire_by_size(open_log):
    log = open_log(segment_bytes=1200, retention_bytes=4000)
    for _ in range(20):
        log.append(make_batch([b"x" * 1000]))
    log.expire()
    assert 4000 <= log.size_bytes < 5200
    assert len(records_from(log, log.start_offset)) == log.end_offset - log.start_offset
    kept = log.start_offset
    log.close()
    log = open_log(segment_bytes=1200, retention_bytes=4000)
    assert (log.start_offset, log.end_offset) == (kept, 20)


def test_a_compacted_log_does_not_expire(open_log, clock):
    log = open_log(segment_bytes=1200, retention_ms=10, deleted=False, compacted=True)
    for _ in range(5):
        log.append(make_batch([b"x" * 1000], keys=[b"k"]))
    clock.now_ms += 1_000_000
    assert log.expire() == []


def test_a_full_disk_refuses_the_batch_and_the_log_continues_when_there_is_space(open_log, monkeypatch):
    log = open_log()
    log.append(make_batch([b"before"], producer_id=1, epoch=0, sequence=0))
    real, room = os.pwrite, [0]

    def full(fd, data, position):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(fd, bytes(data[: room[0]]), position)
        room[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", full)
    for room[0] in (0, 1, 60, 70):
        with pytest.raises(RequestRefused) as refused:
            log.append(make_batch([b"torn"], producer_id=1, epoch=0, sequence=1))
        assert refused.value.code is ErrorCode.KAFKA_STORAGE_ERROR
        assert log.segments[-1].path.stat().st_size == log.segments[-1].size
    monkeypatch.setattr(os, "pwrite", real)
    assert log.append(make_batch([b"after"], producer_id=1, epoch=0, sequence=1)).base_offset == 1
    log.close()
    assert open_log(verify="all").cut_bytes == 0


def test_a_disk_full_at_the_roll_leaves_the_log_whole(open_log, monkeypatch):
    log = open_log(segment_bytes=1200)
    log.append(make_batch([b"x" * 1000]))
    real = Segment.fileno

    def fails_for_new(segment):
        if not segment.path.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(segment)

    monkeypatch.setattr(Segment, "fileno", fails_for_new)
    with pytest.raises(RequestRefused):
        log.append(make_batch([b"y" * 1000]))
    monkeypatch.setattr(Segment, "fileno", real)
    assert log.append(make_batch([b"y" * 1000])).base_offset == 1
    assert len(records_from(log)) == 2


def test_a_listener_is_notified_of_each_batch_and_of_the_end(open_log):
    log, heard = open_log(), []
    log.listen(heard.append)
    batch = make_batch([b"one"])
    log.append(batch)
    log.close()
    assert heard == [len(batch), 0]


def test_a_log_without_appends_rolls_when_its_segment_is_old_enough(open_log, clock):
    log = open_log(segment_ms=5000)
    log.append(make_batch([b"one"]))
    log.roll_if_aged()
    assert len(log.segments) == 1
    clock.now_ms += 5000
    log.roll_if_aged()
    log.roll_if_aged()
    assert len(log.segments) == 2
    assert log.append(make_batch([b"two"])).base_offset == 1


def test_records_of_a_batch_with_invalid_content_raise_a_value_error(open_log):
    batch = bytearray(make_batch([b"v" * 100] * 3, codec="zstd"))
    batch[70] ^= 0xFF
    from astrocyte.pipeline.broker.protocol.batch import read_header  # the header is still whole

    with pytest.raises(ValueError, match="cannot be decoded: zstd"):
        list(records_of(read_header(batch), batch))
