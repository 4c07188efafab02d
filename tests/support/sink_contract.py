"""One contract for all sinks: what `agents.sinks.base` promises, tried on a sink of any kind."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from astrocyte.agents.sinks.base import Sink, Sourced, SourcedFrame, SourcedRecords
from astrocyte.schemas.frames import Frame, encode_frame

START_US = 1_735_689_600_000_000


@dataclass(slots=True)
class Made:
    """A sink under test, on a store that outlives it."""

    sink: Sink
    count: Callable[[], Awaitable[dict[str, int]]]
    """Rows in the store by stream or kind, asked while the sink is open."""


def results(run: str = "run-1", rows: int = 40, first_seq: int = 0) -> Frame:
    """A frame of problem_solving."""
    index = np.arange(first_seq, first_seq + rows)
    columns = {
        "timestamp": START_US + 1_000 * index,
        "key": [f"island-{number % 3}" for number in index],
        "type": ["solved" if number % 2 else "failed" for number in index],
        "cell_id": index % 7,
        "problem_type": ["sum"] * rows,
        "difficulty": ["easy"] * rows,
        "accuracy": np.linspace(0, 1, rows, dtype=np.float32),
        "energy_reward": np.ones(rows, np.float32),
        "processing_time": np.full(rows, 0.5, np.float32),
        "tpu_utilization": np.zeros(rows, np.float32),
    }
    return Frame.from_columns("problem_solving", run, columns, first_seq=first_seq)


def multi_event(number: int) -> dict[str, object]:
    """A multi event as its JSON record holds it."""
    return {
        "event_id": f"00000000-0000-8000-8000-{number:012d}",
        "timestamp": "2025-01-01T00:00:02Z",
        "event_type": "MULTI_ORIGINATED",
        "source_events": [f"a{number}", f"b{number}"],
        "correlation_rule": "type_A_and_B_within_2s",
        "integrated_value": 25,
        "confidence": 0.95,
        "lineage": {
            "axon_1": {
                "event_id": f"a{number}",
                "timestamp": "2025-01-01T00:00:01Z",
                "step": "a",
                "topic": "mono.axon_1",
                "partition": 0,
                "offset": number,
            },
            "axon_2": {"event_id": f"b{number}", "timestamp": "2025-01-01T00:00:02Z", "step": "b"},
        },
        "key": f"domain-{number % 2}",
        "simulation_id": "run-1",
    }


def alert(number: int) -> dict[str, object]:
    """An alert as its JSON record holds it."""
    return {
        "alert_id": f"alert-{number}",
        "timestamp": f"2025-01-01T00:00:{number:02d}Z",
        "rule": "collapse",
        "severity": "critical",
        "message": f"the population fell to {number}",
        "key": "run-1",
        "multi_event_id": f"00000000-0000-8000-8000-{number:012d}",
    }


def a_batch() -> list[Sourced]:
    """Frames and records as one read of several partitions gives them."""
    return [
        SourcedFrame(results(), "mono.problem_solving", 0, 5),
        SourcedFrame(results(first_seq=40), "mono.problem_solving", 1, 9),
        SourcedFrame(Frame.from_columns("unlisted", "run-1", {"timestamp": [START_US], "key": ["k"]}), "mono.x", 0, 3),
        SourcedRecords("multi_events", [multi_event(number) for number in range(6)], "multi.events", 0, 20),
        SourcedRecords("alerts", [alert(number) for number in range(3)], "alerts", 2, 7),
    ]


EXPECTED = {"problem_solving": 80, "multi_events": 6, "alerts": 3}


async def check_sink(make: Callable[[], Made]) -> None:
    """Hold a kind of sink to its contract; ``make`` gives a new sink on the same, at first empty, store each time."""
    made = make()
    await made.sink.open()
    batch = a_batch()
    frames = [encode_frame(item.frame) for item in batch if isinstance(item, SourcedFrame)]
    records = copy.deepcopy([item.records for item in batch if isinstance(item, SourcedRecords)])

    assert await made.sink.write([]) == []
    assert await made.sink.write(batch[:3]) == [], "what the store can take is not rejected"
    assert await made.sink.write(batch) == [], "a batch that overlaps the one before is taken"
    assert _of_interest(await made.count()) == EXPECTED

    assert await made.sink.write(batch) == []
    assert await made.sink.write(list(reversed(batch))) == []
    assert _of_interest(await made.count()) == EXPECTED, "a batch written again changes nothing"

    assert frames == [encode_frame(item.frame) for item in batch if isinstance(item, SourcedFrame)]
    assert records == [item.records for item in batch if isinstance(item, SourcedRecords)], "input is not changed"
    await made.sink.close()

    again = make()
    await again.sink.open()
    assert await again.sink.write(batch) == []
    assert _of_interest(await again.count()) == EXPECTED, "a new sink on the same store changes nothing either"
    later = [SourcedFrame(results(first_seq=80, rows=5), "mono.problem_solving", 0, 6)]
    assert await again.sink.write(later) == []
    assert _of_interest(await again.count()) == EXPECTED | {"problem_solving": 85}
    await again.sink.close()


def _of_interest(counts: dict[str, int]) -> dict[str, int]:
    return {name: counts.get(name, 0) for name in EXPECTED}
