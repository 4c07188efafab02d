"""A batch as sinks are given it."""

from __future__ import annotations

from astrocyte.agents.sinks.base import Sourced, SourcedFrame, SourcedRecords
from astrocyte.agents.sinks.testing import alert, multi_event, results


def a_batch() -> list[Sourced]:
    """A frame, multi events and alerts."""
    return [
        SourcedFrame(results(), "mono.problem_solving", 0, 5),
        SourcedRecords("multi_events", [multi_event(number) for number in range(4)], "multi.events", 0, 20),
        SourcedRecords("alerts", [alert(number) for number in range(4)], "alerts", 0, 20),
    ]
