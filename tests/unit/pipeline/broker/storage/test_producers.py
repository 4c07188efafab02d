from __future__ import annotations

import pytest

from astrocyte.pipeline.broker.protocol.errors import ErrorCode, RequestRefused
from astrocyte.pipeline.broker.storage.producers import PRODUCERS_KNOWN, ProducerTable
from tests.support.broker import make_batch, records_from

LAST = (1 << 31) - 1


def append(log, sequence, count=2, *, producer_id=7, epoch=0):
    batch = make_batch([b"v%d" % sequence] * count, producer_id=producer_id, epoch=epoch, sequence=sequence)
    return log.append(batch)


def refused(log, *args, **kwargs):
    with pytest.raises(RequestRefused) as error:
        append(log, *args, **kwargs)
    return error.value.code


def test_a_repeated_batch_gets_its_first_offset_and_is_stored_once(open_log):
    log = open_log()
    offsets = [append(log, sequence).base_offset for sequence in (0, 2, 4, 6, 8)]
    for sequence, offset in zip((0, 2, 4, 6, 8), offsets, strict=True):
        assert append(log, sequence) == (offset, True)
    assert log.end_offset == 10


def test_a_gap_is_refused_and_so_is_a_repetition_older_than_the_known_batches(open_log):
    log = open_log()
    for sequence in range(0, 14, 2):
        append(log, sequence)
    assert refused(log, 16) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert refused(log, 0) is ErrorCode.DUPLICATE_SEQUENCE_NUMBER
    assert append(log, 14) == (14, False)


def test_an_old_epoch_is_refused_and_a_new_one_begins_at_zero(open_log):
    log = open_log()
    append(log, 0, epoch=3)
    assert refused(log, 2, epoch=2) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert refused(log, 2, epoch=4) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert append(log, 0, epoch=4) == (2, False)
    assert refused(log, 2, epoch=3) is ErrorCode.INVALID_PRODUCER_EPOCH


def test_sequence_numbers_wrap(open_log):
    log = open_log()
    append(log, LAST - 2)
    assert append(log, LAST, count=3) == (2, False)
    assert append(log, LAST, count=3) == (2, True)
    assert append(log, 2) == (5, False)


def test_producers_are_independent_and_an_unknown_one_may_start_at_any_sequence(open_log):
    log = open_log()
    assert append(log, 40, producer_id=1) == (0, False)
    assert append(log, 90, producer_id=2) == (2, False)
    assert refused(log, 50, producer_id=1) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


@pytest.mark.parametrize("how", ["closed", "killed", "rolled and killed", "all expired but the last"])
def test_repeated_batches_are_recognised_after_a_restart(open_log, how):
    log = open_log(segment_bytes=1200 if "rolled" in how or "expired" in how else 1 << 20, retention_bytes=0)
    for sequence in range(0, 60, 2):
        append(log, sequence)
    end = log.end_offset
    if how == "closed":
        log.close()
    if "expired" in how:
        log.expire()
        assert log.start_offset > 0
    log = open_log()
    assert append(log, 58) == (end - 2, True)
    assert refused(log, 62) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert append(log, 60) == (end, False)
    assert len(records_from(log, log.start_offset)) == log.end_offset - log.start_offset


def test_the_table_evicts_the_producer_that_was_inactive_for_longest():
    table = ProducerTable()
    from astrocyte.pipeline.broker.protocol.batch import read_header

    for producer_id in range(PRODUCERS_KNOWN + 5):
        table.note(read_header(make_batch([b"v"], producer_id=producer_id, epoch=0, sequence=0)))
    assert len(table) == PRODUCERS_KNOWN


def test_a_snapshot_restores_the_same_answers(open_log):
    log = open_log()
    for sequence in (0, 2, 4):
        append(log, sequence)
    append(log, 0, producer_id=9, epoch=2)
    restored = ProducerTable()
    restored.restore(log.producers.snapshot())
    assert restored.snapshot() == log.producers.snapshot()
    assert len(restored) == 2
