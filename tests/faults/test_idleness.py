"""Workers that stand still, die, move or are overloaded, and brokers that go away, make no event late.

Events are single JSON records, or frames without watermarks. Whatever happens, no event is late, the matches are those
that `match` finds in the recorded log, and every event is accounted for. `make faults ARGS="-k idleness"` runs the long
forms as well, on both brokers, and prints a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.support.fault_acts import (
    Fault,
    broker_full_for,
    broker_killed,
    joins_and_leaves,
    nothing,
    sends_for,
    stopped_for,
    workers_killed,
)
from tests.support.live import FORMS, NEIGHBOUR

HASTY = {"lateness": "200ms", "idle_timeout": "1s"}
"""The shortest times that may lie between events: what takes seconds is then as long a pause as minutes are."""

OFTEN = {("worker stopped for 7 s", "json"), ("broker killed", "kafka")}
"""What `make test` does. test_wrong_clock.py kills workers there, and test_broker_kill.py the embedded broker.
The other short forms take half a minute each as well, so they are left to `make faults`."""


def forms(names: Iterable[tuple[str, ...]]) -> list[Any]:
    """Parameters of the short forms."""
    soak, kafka = [pytest.mark.soak], [pytest.mark.kafka]
    return [
        pytest.param(*each, marks=(soak if each not in OFTEN else []) + (kafka if "kafka" in each else []))
        for each in names
    ]


SHORT = {
    ("worker stopped for 7 s", "json"): Fault(stopped_for(7), HASTY),
    ("worker that gets little time", "frames"): Fault(stopped_for(1.5, times=5), HASTY),
    ("worker killed", "json"): Fault(workers_killed(1, after_s=1), HASTY, repeats=True),
    ("worker and its repartitioning killed", "frames"): Fault(
        workers_killed(2, after_s=1), HASTY | {"by": "place", "session_timeout": "3s"}, repeats=True
    ),
    ("worker and its repartitioning killed, topics of 2 and 3 partitions", "json"): Fault(
        workers_killed(2, after_s=1), HASTY | {"uneven": {"quiet_b": 3}, "session_timeout": "3s"}, repeats=True
    ),
    ("second worker joins and leaves", "frames"): Fault(joins_and_leaves("correlate", every_s=3), HASTY),
    ("worker at three times its capacity", "json"): Fault(sends_for(5), HASTY | {"slow": {"quiet_a": 0.015}}),
    ("slow neighbour topic", "json"): Fault(sends_for(4), HASTY | {"slow": {NEIGHBOUR: 0.007}}),
    ("backlog at the start", "frames"): Fault(nothing, HASTY | {"slow": {"quiet_a": 0.005}, "backlog_s": (8, 0.05)}),
}
BROKERS = {
    "broker killed": Fault(broker_killed(1, for_s=7, between_s=1), HASTY),
    "disk full": Fault(broker_full_for(7), HASTY),
}
LONG = {
    "worker stopped for 7 s": Fault(stopped_for(7)),
    "worker stopped for 30 s": Fault(stopped_for(30)),
    "worker stopped for 90 s": Fault(stopped_for(90)),
    "worker killed four times": Fault(workers_killed(4, after_s=3), repeats=True),
    "worker and its repartitioning killed": Fault(workers_killed(3, after_s=3), {"by": "place"}, repeats=True),
    "broker killed four times": Fault(broker_killed(4, for_s=7, between_s=4)),
    "disk full for 60 s": Fault(broker_full_for(60)),
    "worker at three times its capacity for 30 s": Fault(sends_for(30), {"slow": {"quiet_a": 0.015}}, timeout_s=300),
    "backlog of an hour": Fault(nothing, {"backlog_s": (3600, 1.0)}),
    "second worker joins and leaves": Fault(joins_and_leaves("correlate", every_s=10)),
    "second worker joins and dies": Fault(joins_and_leaves("correlate", every_s=15, killed=True), repeats=True),
    "slow neighbour topic": Fault(sends_for(20), {"slow": {NEIGHBOUR: 0.01}}, timeout_s=300),
}


@pytest.mark.parametrize(("fault", "form"), forms(SHORT))
def test_nothing_is_late(own_embedded, check, fault, form):
    check(own_embedded, fault, SHORT[fault, form], form=form)


@pytest.mark.parametrize(
    ("fault", "own_broker"),
    forms((each, kind) for each in BROKERS for kind in ("embedded", "kafka")),
    indirect=["own_broker"],
)
def test_nothing_is_late_when_the_broker_is_away_or_full(own_broker, check, fault):
    check(own_broker, fault, BROKERS[fault])


@pytest.mark.soak
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", LONG)
def test_nothing_is_late_in_the_long_form(own_broker, check, fault, form):
    check(own_broker, fault, LONG[fault], form=form)
