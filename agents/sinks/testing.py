"""`check_sink` tests that a sink keeps the contract of `agents.sinks.base`. For tests of your own sinks.

::

    async def test_webhook_keeps_the_contract():
        store = {}

        async def count():
            return {"alerts": len(store)}

        await check_sink(lambda: SinkUnderTest(Webhook(store), count), reads=("alerts",))
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from astrocyte.agents.sinks.base import Sink, Sourced, SourcedFrame, SourcedRecords
from astrocyte.schemas.frames import Frame, encode_frame

__all__ = ["START_US", "SinkUnderTest", "a_batch", "alert", "check_sink", "multi_event", "results"]

START_US: Final = 1_735_689_600_000_000


@dataclass(slots=True)
class SinkUnderTest:
    """A sink under test, with a store that outlives it."""

    sink: Sink
    count: Callable[[], Awaitable[dict[str, int]]]
    """Returns the number of rows in the store by stream or kind; called while the sink is open."""


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
    """A multi event as its JSON record."""
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
    """An alert as its JSON record."""
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
    """Frames and records as read from several partitions."""
    return [
        SourcedFrame(results(), "mono.problem_solving", 0, 5),
        SourcedFrame(results(first_seq=40), "mono.problem_solving", 1, 9),
        SourcedFrame(Frame.from_columns("unlisted", "run-1", {"timestamp": [START_US], "key": ["k"]}), "mono.x", 0, 3),
        SourcedRecords("multi_events", [multi_event(number) for number in range(6)], "multi.events", 0, 20),
        SourcedRecords("alerts", [alert(number) for number in range(3)], "alerts", 2, 7),
    ]


_EXPECTED: Final = {"problem_solving": 80, "multi_events": 6, "alerts": 3}


async def check_sink(
    make: Callable[[], SinkUnderTest], *, reads: Collection[str] = ("problem_solving", "multi_events", "alerts")
) -> None:
    """Check that a kind of sink keeps its contract; ``make`` returns a new sink on the same, initially empty, store.

    ``reads`` names what it stores: the stream ``problem_solving`` and the kinds ``multi_events`` and ``alerts``, or
    some of them. Raises AssertionError with the violated requirement.
    """
    batch = [item for item in a_batch() if _name(item) in reads or _name(item) == "unlisted"]
    if "problem_solving" not in reads:
        batch = [item for item in batch if isinstance(item, SourcedRecords)]
    expected = {name: _EXPECTED[name] for name in reads}
    made = make()
    await made.sink.open()
    frames = [encode_frame(item.frame) for item in batch if isinstance(item, SourcedFrame)]
    records = copy.deepcopy([item.records for item in batch if isinstance(item, SourcedRecords)])

    await _takes(made, [], "an empty batch")
    await _takes(made, batch[: len(batch) // 2 + 1], "a batch")
    await _takes(made, batch, "a batch that overlaps the one before")
    await _holds(made, expected, "after two batches that overlap")

    await _takes(made, batch, "a batch that was written before")
    await _takes(made, list(reversed(batch)), "a batch in another order")
    await _holds(made, expected, "after the same batch was written again; a repetition must change nothing")

    again = [encode_frame(item.frame) for item in batch if isinstance(item, SourcedFrame)]
    _require(frames == again, "the sink changed a frame of its input")
    same = records == [item.records for item in batch if isinstance(item, SourcedRecords)]
    _require(same, "the sink changed records of its input")
    await made.sink.close()

    made = make()
    await made.sink.open()
    await _takes(made, batch, "a batch that another sink of the same store has written")
    await _holds(made, expected, "after a new sink on the same store wrote the batch again")
    if "problem_solving" in reads:
        await _takes(made, [SourcedFrame(results(first_seq=80, rows=5), "mono.problem_solving", 0, 6)], "a later batch")
        await _holds(made, expected | {"problem_solving": 85}, "after a later batch")
    await made.sink.close()


def _name(item: Sourced) -> str:
    return item.kind if isinstance(item, SourcedRecords) else item.frame.stream


async def _takes(made: SinkUnderTest, batch: list[Sourced], what: str) -> None:
    rejected = await made.sink.write(batch)
    reasons = "; ".join(f"{item.stream}: {item.reason}" for item in rejected[:3])
    _require(rejected == [], f"{what} must be accepted; {len(rejected)} rows were rejected: {reasons}")


async def _holds(made: SinkUnderTest, expected: dict[str, int], when: str) -> None:
    found = await made.count()
    counts = {name: found.get(name, 0) for name in expected}
    _require(counts == expected, f"{when} the store holds {counts}; expected {expected}")


def _require(holds: bool, message: str) -> None:
    # Not an assert statement: the contract must hold under python -O too.
    if not holds:
        raise AssertionError(message)
