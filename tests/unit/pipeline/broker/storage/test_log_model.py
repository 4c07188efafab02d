"""The log against a plain list: whatever is appended, rolled, compacted, expired, synced and restarted."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from astrocyte.pipeline.broker.protocol.errors import RequestRefused
from astrocyte.pipeline.broker.storage.compaction import clean, compactable, swap
from astrocyte.pipeline.broker.storage.log import LogConfig, PartitionLog
from astrocyte.pipeline.broker.storage.segment import SegmentPool
from tests.support.broker import CODECS, flush, make_batch, records_from

CONFIG = LogConfig(
    segment_bytes=1024,
    segment_ms=1 << 50,
    retention_ms=-1,
    retention_bytes=-1,
    max_message_bytes=1 << 20,
    deleted=True,
    compacted=False,
    delete_retention_ms=0,
    min_cleanable_dirty_ratio=0.0,
)


class LogMachine(RuleBasedStateMachine):
    """The model is ``records``: (offset, key, value or None); compaction may leave only the newest of each key."""

    @initialize(compacted=st.booleans())
    def begin(self, compacted):
        self.folder = tempfile.TemporaryDirectory()
        self.config = replace(CONFIG, compacted=compacted)
        self.records: list[tuple[int, bytes, bytes | None]] = []
        self.end = self.sequence = 0
        self.log = self.open()

    def open(self):
        return PartitionLog(Path(self.folder.name), self.config, SegmentPool(2), lambda: 1, self.verify())

    def verify(self):
        return "all" if self.end % 2 else "tail"

    @rule(
        batches=st.lists(
            st.tuples(
                st.lists(st.integers(0, 30), min_size=1, max_size=6),
                st.sampled_from([0, 10, 400]),
                st.sampled_from(sorted(CODECS)),
                st.booleans(),
            ),
            min_size=1,
            max_size=12,
        )
    )
    def append(self, batches):
        for keys, size, codec, tombstone in batches:
            self.append_one(keys, size, codec, tombstone=tombstone)

    def append_one(self, keys, size, codec, *, tombstone):
        values = [None if tombstone and i == 0 else b"%d-%d" % (self.end, i) + b"x" * size for i in range(len(keys))]
        batch = make_batch(
            values,
            keys=[b"key-%d" % key for key in keys],
            timestamps=[self.end + i for i in range(len(keys))],
            codec=codec,
            producer_id=3,
            epoch=0,
            sequence=self.sequence,
        )
        repeated = bytes(batch)
        assert self.log.append(batch) == (self.end, False)
        assert self.log.append(memoryview(bytearray(repeated))) == (self.end, True)
        self.records += [
            (self.end + i, b"key-%d" % key, value) for i, (key, value) in enumerate(zip(keys, values, strict=True))
        ]
        self.end += len(keys)
        self.sequence += len(keys)

    @rule()
    def sync(self):
        flush(self.log)

    @rule()
    def restart_after_close(self):
        self.log.close()
        self.log = self.open()

    @rule(garbage=st.binary(max_size=100))
    def restart_after_kill(self, garbage):
        for segment in self.log.segments:
            segment.release()
        with self.log.segments[-1].path.open("ab") as file:
            file.write(garbage)
        self.log = self.open()

    @rule()
    def restart_without_index_files(self):
        self.log.close()
        for segment in self.log.segments:
            segment.index_path.unlink(missing_ok=True)
        self.log = self.open()

    @rule()
    def compact(self):
        flush(self.log)
        if self.config.compacted and (sources := compactable(self.log)):
            saved = swap(self.log, clean(sources, now_ms=0, delete_retention_ms=0, segment_bytes=2048))
            assert saved >= 0

    @rule(retention=st.integers(0, 6000))
    def expire(self, retention):
        if not self.config.compacted:
            self.log.config = replace(self.config, retention_bytes=retention)
            self.log.expire()
            self.log.config = self.config
            self.records = [record for record in self.records if record[0] >= self.log.start_offset]

    @rule(back=st.integers(0, 30), max_bytes=st.sampled_from([1, 100, 100_000]))
    def read(self, back, max_bytes):
        offset = max(self.log.start_offset, self.end - back)
        read = [(o, key) for o, key, _ in records_from(self.log, offset, max_bytes=max_bytes)]
        expected = [(o, key) for o, key, _ in self.records if o >= offset]
        if self.config.compacted:
            assert set(read) <= set(expected)
            assert read == sorted(read)
            if expected:
                assert read[-1] == expected[-1], "the log's end can always be reached"
        else:
            assert read == expected

    @rule(ago=st.integers(-2, 20))
    def find_time(self, ago):
        wanted = max(self.end - ago, 0)
        found = self.log.offset_for_timestamp(wanted)
        if not self.config.compacted:
            assert found == next(((o, o) for o, _, _ in self.records if o >= wanted), None)

    @rule()
    def ask_outside(self):
        for offset in (self.end + 1, self.log.start_offset - 1):
            with pytest.raises(RequestRefused):
                self.log.read(offset, 100)

    @invariant()
    def bounds_and_newest_values_are_right(self):
        if not hasattr(self, "log"):
            return
        assert self.log.end_offset == self.end
        newest = {key: (offset, value) for offset, key, value in self.records}
        kept = {key: offset for offset, key, _ in records_from(self.log, self.log.start_offset)}
        for key, (offset, value) in newest.items():
            assert kept.get(key, offset if value is None else None) == offset

    def teardown(self):
        if hasattr(self, "log"):
            self.log.close(seal=False)
            self.folder.cleanup()


@pytest.fixture(autouse=True)
def _without_syncing(monkeypatch):
    """A kill -9 keeps the page cache: waiting for the disk would test nothing here, and take most of the time."""
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _fd: None)


@pytest.mark.search
def test_the_log_is_a_list_that_survives():
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=120,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


@pytest.mark.soak
def test_the_log_is_a_list_that_survives_for_long():
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=2000,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
