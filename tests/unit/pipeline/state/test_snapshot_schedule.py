"""When the next snapshot of a domain is due."""

from __future__ import annotations

import pytest

from astrocyte.pipeline.state.snapshot_schedule import LONGEST_PAUSE_S, SnapshotSchedule

MIB = 1 << 20


def test_the_first_is_due_after_the_interval():
    assert SnapshotSchedule(10.0, 100.0).due_s == 110.0


@pytest.mark.parametrize(
    ("packing_s", "pause_s"), [(0.1, 10.0), (2.0, 20.0), (60.0, LONGEST_PAUSE_S)], ids=["cheap", "dear", "very dear"]
)
def test_snapshots_take_a_tenth_of_the_time_and_yet_come_once_a_minute(packing_s, pause_s):
    schedule = SnapshotSchedule(10.0, 0.0)
    schedule.stored(50.0, packing_s=packing_s, storing_s=0.0, size=MIB)
    assert schedule.due_s == pytest.approx(50.0 + pause_s)


def test_a_longer_interval_than_a_minute_is_kept():
    schedule = SnapshotSchedule(300.0, 0.0)
    schedule.stored(50.0, packing_s=60.0, storing_s=0.0, size=MIB)
    assert schedule.due_s == 350.0


def test_waiting_for_the_broker_is_no_cost():
    schedule = SnapshotSchedule(1.0, 0.0)
    schedule.stored(50.0, packing_s=0.5, storing_s=500.0, size=10 * MIB)
    schedule.stored(90.0, packing_s=0.5, storing_s=0.1, size=10 * MIB)
    assert schedule.cost_s == pytest.approx(0.5 + 0.5 + 0.5 + 0.1)
    assert (schedule.count, schedule.stored_s, schedule.last_bytes) == (2, 90.0, 10 * MIB)
