"""The log of what a publisher could not send, without a broker."""

from __future__ import annotations

import errno
import os
import threading

import pytest

import astrocyte
from astrocyte.pipeline.embed import delivery
from astrocyte.pipeline.embed.delivery import MissedLog
from astrocyte.pipeline.embed.encoding import EncodedEvent, StreamEncoder
from astrocyte.pipeline.recording.frames import frames_of
from tests.support.broker import full_disk
from tests.support.brokers import NOWHERE
from tests.support.waiting import wait_until


def test_what_cannot_be_sent_is_kept_in_a_log_that_every_tool_reads(tmp_path):
    folder = tmp_path / "missed"
    with astrocyte.connect(NOWHERE, buffer_events=400, missed=folder, close_timeout_s=0) as publisher:
        threads = [
            threading.Thread(
                target=lambda first=first: [
                    publisher.emit("rooms", {"value": n}, key=f"room {n % 7}") for n in range(first, first + 1_000)
                ]
            )
            for first in (0, 1_000, 2_000)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert publisher.counts.buffered < 400 + len(threads)
    counts = publisher.counts
    assert (counts.emitted, counts.logged, counts.dropped, counts.buffered) == (3_000, 3_000, 0, 0)
    (log,) = folder.iterdir()
    found = [row["value"] for _, _, _, frame in frames_of(log) for row in frame.rows()]
    assert sorted(found) == list(range(3_000))


def test_a_publisher_that_is_closed_while_the_log_is_written_writes_no_event_twice(tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    write = MissedLog.write

    def slow_write(self, events, run):
        begun.set()
        assert go_on.wait(30)
        write(self, events, run)

    monkeypatch.setattr(MissedLog, "write", slow_write)
    folder = tmp_path / "missed"
    publisher = astrocyte.connect(NOWHERE, buffer_events=40, missed=folder)
    for n in range(30):
        publisher.emit("rooms", {"value": n})
    assert begun.wait(30)
    closing = threading.Thread(target=publisher.close, args=(0,))
    closing.start()
    wait_until(lambda: not publisher.emit("rooms", {"value": -1}))  # refused: it is being closed
    go_on.set()
    closing.join()
    (log,) = folder.iterdir()
    found = [row["value"] for _, _, _, frame in frames_of(log) for row in frame.rows()]
    assert [value for value in sorted(found) if value >= 0] == list(range(30))
    assert publisher.counts.logged == len(found)


def test_closing_does_not_wait_for_a_disk_that_hangs(tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def hang(_log, _events, _run):
        begun.set()
        go_on.wait()

    monkeypatch.setattr(MissedLog, "write", hang)
    monkeypatch.setattr(delivery, "_GRACE_S", 0.1)
    publisher = astrocyte.connect(NOWHERE, buffer_events=40, missed=tmp_path / "missed")
    for n in range(30):
        publisher.emit("rooms", {"value": n})
    assert begun.wait(30)
    closing = threading.Thread(target=publisher.close, args=(0,), daemon=True)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    assert (publisher.counts.dropped, publisher.counts.logged) == (30, 0)
    go_on.set()


def test_a_log_that_is_deleted_under_a_publisher_is_reported_and_begun_again(tmp_path, caplog):
    folder = tmp_path / "missed"
    with astrocyte.connect(NOWHERE, buffer_events=40, missed=folder, close_timeout_s=0) as publisher:
        for n in range(30):
            publisher.emit("rooms", {"value": n})
        wait_until(lambda: publisher.counts.logged > 0)
        (partial,) = folder.iterdir()
        partial.unlink()
        for n in range(30, 60):
            wait_until(lambda: publisher.counts.buffered < 35)
            publisher.emit("rooms", {"value": n})
    assert publisher.counts.dropped == 0
    (log,) = folder.iterdir()
    found = {row["value"] for _, _, _, frame in frames_of(log) for row in frame.rows()}
    assert set(range(50, 60)) <= found
    assert "was deleted or renamed while it was written" in caplog.text


def test_connecting_makes_the_folder_of_missed_events_and_leaves_it_empty(tmp_path):
    with astrocyte.connect(NOWHERE, missed=tmp_path / "new" / "missed", close_timeout_s=0):
        assert list((tmp_path / "new" / "missed").iterdir()) == []


def test_a_disk_that_is_full_for_a_while_costs_what_is_counted_and_the_log_stays_readable(tmp_path):
    log, encoder = MissedLog(tmp_path, "app", 2), StreamEncoder("rooms")

    def events(first: int) -> list[EncodedEvent]:
        return [encoder.encode({"value": n}, None, n) for n in range(first, first + 50)]

    log.write(events(0), "app")
    (partial,) = tmp_path.iterdir()
    with full_disk(os.getpid(), file_bytes=partial.stat().st_size + 100), pytest.raises(OSError, match="large"):
        log.write(events(50), "app")
    log.write(events(100), "app")
    log.close()
    found = [row["value"] for _, _, _, frame in frames_of(log.path) for row in frame.rows()]
    assert sorted(found) == [*range(50), *range(100, 150)]


def test_a_disk_that_fails_later_is_logged_at_once_and_counted(tmp_path, monkeypatch, caplog):
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(delivery.LogWriter, "write", full)
    with astrocyte.connect(NOWHERE, buffer_events=40, missed=tmp_path, close_timeout_s=0) as publisher:
        for n in range(100):
            publisher.emit("rooms", {"value": n})
        assert caplog.text.count("an event is dropped: the log ") == 1
        counts = publisher.counts
        assert counts.dropped + counts.buffered == 100
        ((reason, dropped),) = counts.reasons.items()
        assert (dropped, reason.endswith("No space left on device")) == (counts.dropped, True)
        assert dropped >= 60
    assert publisher.counts.dropped == 100
