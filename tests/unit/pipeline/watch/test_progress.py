"""Which partitions stand still and why, and when a restart would help, in virtual time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from astrocyte.pipeline.kafka.partition_end import Position
from astrocyte.pipeline.watch.progress import REMEDIES, Observation, ProgressWatch
from astrocyte.schemas.topics import TopicPartition

ONE, TWO = TopicPartition("mono.a", 0), TopicPartition("mono.a", 1)
DONE = Position(placed=True, read=10, unread=0, held=0, acknowledged=10, acks=1, paused=False, answered=True)
WAITS = replace(DONE, unread=5, held=3, acknowledged=7)
TIMEOUT_S, REPORT_S = 120.0, 15.0


class Clock:
    """A watch of which each look is a second after the one before."""

    def __init__(self, timeout_s: float = TIMEOUT_S, acknowledges_s: float | None = None) -> None:
        self.now_s = 0.0
        self.lines: list[str] = []
        self.watch = ProgressWatch(timeout_s, REPORT_S, acknowledges_s, self.lines.append)

    def see(self, seconds: float, *positions: Position, **observed) -> ProgressWatch:
        """Look once a second; the partitions are the same all the time."""
        seen = Observation(dict(zip((ONE, TWO), positions, strict=False)), **observed)
        for _ in range(int(seconds)):
            self.now_s += 1
            self.watch.look(seen, self.now_s, int(self.now_s * 1e6))
        return self.watch

    @property
    def whys(self) -> list[str]:
        return [each.why for each in self.watch.standstills]


def test_an_agent_that_does_not_return_is_reported_and_then_a_reason_to_restart():
    clock = Clock()
    clock.see(REPORT_S, WAITS)
    assert clock.whys == []
    clock.see(2, WAITS)
    assert clock.whys == ["hangs"]
    assert len(clock.lines) == 1
    assert clock.lines[0].startswith("mono.a[0]: no progress since 1970-01-01T00:00:0")
    assert "5 records are not read and 3 chunks not acknowledged" in clock.lines[0]
    assert clock.watch.hangs == ""
    clock.see(TIMEOUT_S, WAITS)
    assert "nothing was read or acknowledged for 1" in clock.watch.hangs
    assert len(clock.lines) == 1


@pytest.mark.parametrize(
    ("why", "position", "observed"),
    [
        ("broker", WAITS, {"connected": False}),
        ("store", WAITS, {"store": "connection refused"}),
        ("unwritten", WAITS, {"unwritten": "nothing was confirmed for 9 s"}),
        ("paused", replace(WAITS, paused=True), {}),
    ],
)
def test_waiting_for_what_is_away_is_reported_and_never_a_reason_to_restart(why, position, observed):
    clock = Clock()
    clock.see(1, position)
    clock.see(100 * TIMEOUT_S, position, **observed)
    assert clock.whys == [why]
    assert clock.watch.hangs == ""
    assert clock.lines[0].endswith(REMEDIES[why])


def test_the_time_limit_begins_anew_when_the_store_is_back():
    clock = Clock()
    clock.see(100 * TIMEOUT_S, WAITS, store="connection refused")
    clock.see(TIMEOUT_S - 1, WAITS)
    assert clock.watch.hangs == ""
    clock.see(2, WAITS)
    assert clock.watch.hangs != ""


@pytest.mark.parametrize(
    ("why", "position", "observed"),
    [
        ("restoring", replace(WAITS, placed=False, held=0), {}),
        ("busy", WAITS, {"busy": "the store has not answered a write", "busy_s": 20.0}),
        ("unanswered", replace(WAITS, held=0, acknowledged=10, answered=False), {}),
    ],
)
def test_long_work_has_ten_times_the_limit(why, position, observed):
    clock = Clock()
    clock.see(9.9 * TIMEOUT_S, position, **observed)
    assert clock.whys == [why]
    assert clock.watch.hangs == ""
    clock.see(0.2 * TIMEOUT_S, position, **observed)
    assert clock.watch.hangs.endswith(REMEDIES[why])


def test_a_partition_that_others_delay_is_behind_and_no_reason_to_restart():
    clock = Clock()
    for second in range(int(3 * TIMEOUT_S)):
        clock.see(1, WAITS, replace(WAITS, read=11 + second))
    assert clock.whys == ["behind"]
    assert clock.watch.standstills[0].place == ONE
    assert clock.watch.hangs == ""


def test_work_that_has_just_begun_is_not_given_as_the_reason_where_others_advance():
    clock = Clock()
    for second in range(30):
        clock.see(1, WAITS, replace(WAITS, read=11 + second), busy="the store has not answered a write")
    assert clock.whys == ["behind"]
    assert "for 0 s" not in clock.lines[0]


def test_short_work_that_follows_on_short_work_is_named_as_such_and_has_the_limit_of_long_work():
    clock = Clock()
    clock.see(30, WAITS, busy="the store has not answered a write", busy_s=0.2)
    assert clock.whys == ["busy"]
    assert "one piece of work follows another, at present: the store has not answered a write; " in clock.lines[0]
    clock.see(9 * TIMEOUT_S, WAITS, busy="the store has not answered a write", busy_s=0.2)
    assert clock.watch.hangs == ""


def test_long_work_is_reported_with_its_time():
    clock = Clock()
    clock.see(30, WAITS, busy="the store has not answered a write", busy_s=20.4)
    assert ": the store has not answered a write, for 20 s; " in clock.lines[0]


def test_chunks_that_are_only_not_acknowledged_count_where_the_role_promises_when_it_does():
    held = replace(DONE, held=1, acknowledged=9)
    keeps = Clock()
    keeps.see(100 * TIMEOUT_S, held)
    assert (keeps.whys, keeps.watch.hangs) == ([], "")
    keeps.see(TIMEOUT_S + 1, held, queued=1)
    assert (keeps.whys, keeps.watch.hangs != "") == (["hangs"], True)
    sink = Clock(acknowledges_s=0.0)
    sink.see(TIMEOUT_S + 2, held)
    assert sink.whys == ["hangs"]
    assert sink.watch.hangs != ""
    correlate = Clock(acknowledges_s=60.0)
    correlate.see(60 + REPORT_S, held)
    assert correlate.whys == []
    correlate.see(TIMEOUT_S - REPORT_S, held)
    assert (correlate.whys, correlate.watch.hangs) == (["hangs"], "")
    correlate.see(3, held)
    assert correlate.watch.hangs != ""


def test_progress_ends_a_standstill_and_says_so_once():
    clock = Clock()
    clock.see(30, WAITS)
    clock.see(1, replace(WAITS, acknowledged=8))
    assert clock.whys == []
    assert clock.lines[1:] == ["mono.a[0]: reading goes on"]
    clock.see(TIMEOUT_S - 1, replace(WAITS, acknowledged=8))
    assert clock.watch.hangs == ""


def test_a_partition_without_records_may_stand_for_ever():
    clock = Clock(acknowledges_s=0.0)
    clock.see(100 * TIMEOUT_S, DONE, DONE)
    assert (clock.whys, clock.watch.hangs, clock.lines) == ([], "", [])


def test_time_in_which_the_process_did_not_run_does_not_count():
    clock = Clock()
    clock.see(5, WAITS)
    clock.now_s += 10 * TIMEOUT_S
    clock.see(1, WAITS)
    assert (clock.whys, clock.watch.hangs) == ([], "")


def test_a_rebalance_begins_the_time_anew():
    clock = Clock()
    clock.see(TIMEOUT_S - 1, WAITS)
    clock.see(100, WAITS, dividing=True)
    assert clock.watch.hangs == ""
    clock.see(REPORT_S - 1, WAITS)
    assert clock.whys == []


def test_a_limit_of_zero_reports_and_restarts_nothing():
    clock = Clock(timeout_s=0.0)
    clock.see(100 * TIMEOUT_S, WAITS)
    assert (clock.whys, clock.watch.hangs) == (["hangs"], "")


def test_what_waited_when_the_broker_went_away_is_still_named():
    """The clients forget their positions with the connection."""
    clock = Clock()
    clock.see(1, WAITS)
    clock.see(20, connected=False)
    assert clock.whys == ["broker"]
    assert clock.watch.standstills[0].as_json()["remedy"] == REMEDIES["broker"]
