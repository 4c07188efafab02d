"""A publisher without a broker: its counts, its options, and how it is closed and shared."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
import time

import pytest

import astrocyte
from astrocyte import AstrocyteError
from astrocyte.schemas.errors import InvalidEvent, InvalidSettings
from tests.support.brokers import NOWHERE
from tests.support.waiting import wait_until


def test_without_a_broker_emit_returns_at_once_and_there_is_one_warning_for_each_fact(caplog):
    caplog.set_level(logging.WARNING)
    began = time.monotonic()
    with astrocyte.connect(NOWHERE, buffer_events=50, close_timeout_s=0.1) as publisher:
        accepted = [publisher.emit("rooms", {"value": n}) for n in range(80)]
        assert accepted == [True] * 50 + [False] * 30
        counts = publisher.counts
        assert (counts.emitted, counts.buffered, counts.dropped) == (80, 50, 30)
        wait_until(lambda: "is unavailable" in caplog.text)
        assert not publisher.flush(0.05)
    assert time.monotonic() - began < 20
    counts = publisher.counts
    assert (counts.emitted, counts.delivered, counts.buffered, counts.dropped) == (80, 0, 0, 80)
    assert set(counts.reasons) == {"the buffer is full", "the publisher was closed before the broker confirmed"}
    assert [caplog.text.count(text) for text in ("is unavailable", "is dropped", "were not delivered")] == [1, 1, 1]
    assert "written to" not in caplog.text


def test_a_publisher_that_is_closed_leaves_no_thread():
    before = set(threading.enumerate())
    with astrocyte.connect(NOWHERE, close_timeout_s=0) as publisher:
        publisher.emit("rooms", {"value": 1})
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_threads_and_coroutines_share_a_publisher():
    with astrocyte.connect(NOWHERE, buffer_events=3_000, close_timeout_s=0) as publisher:
        threads = [
            threading.Thread(target=lambda: [publisher.emit("rooms", {"value": n}) for n in range(1_000)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = publisher.counts
    assert (counts.emitted, counts.buffered, counts.dropped) == (4_000, 3_000, 1_000)


async def test_closing_does_not_block_the_event_loop():
    async with astrocyte.connect(NOWHERE, close_timeout_s=0.2) as publisher:
        publisher.emit("rooms", {"value": 1})
    assert publisher.counts.dropped == 1
    assert await publisher.aclose() == publisher.counts
    assert not publisher.emit("rooms", {"value": 2})
    assert (publisher.counts.emitted, publisher.counts.dropped) == (2, 2)


def test_events_that_raise_are_not_counted_and_those_after_closing_have_their_own_reason(caplog):
    publisher = astrocyte.connect(NOWHERE, close_timeout_s=0)
    with pytest.raises(InvalidEvent):
        publisher.emit("rooms", {"value": object()})
    assert publisher.counts.emitted == 0
    publisher.close()
    caplog.clear()
    for _ in range(2):
        assert not publisher.emit("rooms", {"value": 1})
    assert dict(publisher.counts.reasons) == {"the publisher was closed before they were emitted": 2}
    (line,) = [record.getMessage() for record in caplog.records]
    assert "an event is dropped: the publisher was closed before they were emitted" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "no name"}, "name 'no name'"),
        ({"name": 5}, "name 5; expected letters"),
        ({"buffer_events": 0}, "buffer_events 0; expected a whole number of 1 or more"),
        ({"buffer_events": 1e6}, "buffer_events 1000000.0; expected a whole number of 1 or more"),
        ({"buffer_bytes": "1MB"}, "buffer_bytes '1MB'; expected a whole number of 1 or more"),
        ({"buffer_bytes": True}, "buffer_bytes True; expected a whole number of 1 or more"),
        ({"close_timeout_s": "5"}, "close_timeout_s '5'; expected a number of seconds, 0 or more"),
        ({"close_timeout_s": -1}, "close_timeout_s -1; expected a number of seconds, 0 or more"),
        ({"close_timeout_s": math.nan}, "close_timeout_s nan; expected a number of seconds, 0 or more"),
        ({"close_timeout_s": math.inf}, "close_timeout_s inf; expected a number of seconds, 0 or more"),
        ({"close_timeout_s": None}, "close_timeout_s None; expected a number of seconds, 0 or more"),
        ({"missed": 5}, "missed 5; expected the name of a folder"),
        ({"overflow": "block"}, "overflow 'block'; expected one of drop_newest, drop_oldest"),
        ({"invalid": "ignore"}, "invalid 'ignore'"),
        ({"missed": __file__}, "no file can be written there \\(File exists\\); expected a folder"),
        ({"missed": "/proc/nope/missed"}, "missed '/proc/nope/missed': no file can be written there"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InvalidSettings, match=message):
        astrocyte.connect(NOWHERE, **options)


@pytest.mark.parametrize("timeout_s", ["5", -1, math.nan])
def test_a_wrong_timeout_is_refused_before_anything_is_closed(timeout_s):
    with astrocyte.connect(NOWHERE, close_timeout_s=0) as publisher:
        for method in (publisher.flush, publisher.close):
            with pytest.raises(InvalidSettings, match="expected a number of seconds, 0 or more"):
                method(timeout_s)
        assert publisher.emit("rooms", {"value": 1})


def test_a_program_that_forgets_to_close_ends_and_says_what_was_lost():
    code = f"import astrocyte; p = astrocyte.connect({NOWHERE!r}, close_timeout_s=0.1); p.emit('rooms', {{'value': 1}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "1 of 1 events were not delivered" in done.stderr


def test_a_publisher_is_not_used_in_a_forked_child():
    with astrocyte.connect(NOWHERE, close_timeout_s=0) as publisher:
        child = os.fork()
        if child == 0:
            try:
                publisher.emit("rooms", {"value": 1})
            except AstrocyteError as error:
                os._exit(7 if "after forking" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
