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
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.agents.sinks.base import (
    RECORD_KINDS,
    RecordKind,
    Rejected,
    Sink,
    Sourced,
    SourcedFrame,
    SourcedRecords,
    check_made,
    opened,
    written,
)
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import InvalidSettings, PluginError, plugin_raised
from astrocyte.schemas.frames import Frame, conform, encode_frame
from astrocyte.schemas.times import time_us

__all__ = ["START_US", "SinkUnderTest", "alert", "check_sink", "multi_event", "results"]

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


def dead_letter(number: int) -> dict[str, object]:
    """A dead letter as its JSON record."""
    return {
        "letter_id": f"00000000-0000-8000-8000-{number:012d}",
        "timestamp": "2025-01-01T00:00:01Z",
        "stage": "decode",
        "reason": "not JSON",
        "topic": "mono.axon_1",
        "partition": 0,
        "offset": number,
        "payload_b64": "eA==",
        "headers": [],
    }


def simulation(number: int) -> dict[str, object]:
    """A simulation as its JSON record."""
    return {"simulation_id": f"run-{number}", "status": "running"}


def experiment(number: int) -> dict[str, object]:
    """An experiment as its record."""
    return {"experiment_id": f"experiment-{number}", "name": f"experiment {number}"}


def audit_entry(number: int) -> dict[str, object]:
    """A change of a rule as an entry of the audit log."""
    return {
        "event_id": f"00000000-0000-8000-8000-{number:012d}",
        "timestamp": START_US + number,
        "kind": "rule_change",
        "subject": "fever",
        "simulation_id": None,
        "payload": None,
    }


_RECORDS: Final[dict[RecordKind, tuple[str, Callable[[int], dict[str, object]], int]]] = {
    "multi_events": ("multi.events", multi_event, 6),
    "alerts": ("alerts", alert, 3),
    "dead_letters": ("dead_letters", dead_letter, 4),
    "simulations": ("simulations", simulation, 2),
    "experiments": ("experiments", experiment, 2),
    "audit": ("rules", audit_entry, 3),
}
"""Topic, maker of one record and number of records of each kind."""
_OWN_ROWS: Final = 12
"""Rows of a stream of the catalog."""
_RESULTS: Final = "problem_solving"


def own_stream(stream: str) -> Frame:
    """A frame of a stream of the catalog, with values of the types that it lists. Raises InvalidSettings."""
    listed = CATALOG.find(stream)
    if listed is None:
        raise InvalidSettings(
            f"check_sink: {stream!r} is neither a kind of record ({', '.join(RECORD_KINDS)}) nor a stream of the "
            "catalog; import the module that registers it, or give its events: events={" + repr(stream) + ": [{...}]}"
        )
    index = np.arange(_OWN_ROWS)
    columns: dict[str, object] = {
        "timestamp": START_US + 1_000 * index,
        "key": [f"key-{number % 3}" for number in index],
        "type": [listed.types[number % len(listed.types)] if listed.types else stream for number in index.tolist()],
    }
    for name, kind in listed.fields.items():
        known = listed.about[name].values if name in listed.about else ()
        match kind:
            case "string":
                strings = known or tuple(f"{name}-{number}" for number in range(3))
                columns[name] = [strings[number % len(strings)] for number in index.tolist()]
            case "json":
                columns[name] = ["{}"] * _OWN_ROWS
            case "bool":
                columns[name] = index % 2 == 0
            case "list<float32>":
                columns[name] = pa.array([[0.0, 0.5, 1.0]] * _OWN_ROWS, pa.list_(pa.float32()))
            case _:
                columns[name] = (index % 2).astype(kind)
    return conform(Frame.from_columns(stream, "run-1", columns, version=listed.version), listed)


def _given(stream: str, events: Sequence[Mapping[str, Any]]) -> Frame:
    """A frame of the events that the caller gave."""
    rows = [{"timestamp": START_US + at, "key": "key", **event} for at, event in enumerate(events)]
    columns = {name: [row.get(name) for row in rows] for row in rows for name in row}
    columns["timestamp"] = [time_us(value, "us") for value in columns.get("timestamp", [])]
    listed = CATALOG.find(stream)
    frame = Frame.from_columns(stream, "run-1", {"key": [], **columns})
    return frame if listed is None else conform(frame, listed)


def _batch_of(
    reads: Collection[str], events: Mapping[str, Sequence[Mapping[str, Any]]], *, unknown: bool
) -> tuple[list[Sourced], dict[str, int]]:
    """What is written, and the rows that the store then holds of each stream and kind."""
    batch: list[Sourced] = []
    offset = 20
    for name in dict.fromkeys((*reads, *events)):
        if name == _RESULTS and name not in events:
            batch.append(SourcedFrame(results(), f"mono.{name}", 0, 5))
            batch.append(SourcedFrame(results(first_seq=40), f"mono.{name}", 1, 9))
        elif name in _RECORDS:
            topic, make, count = _RECORDS[name]
            batch.append(SourcedRecords(name, [make(number) for number in range(count)], topic, 0, offset))
        elif name in events:
            batch.append(SourcedFrame(_given(name, events[name]), f"mono.{name}", 0, 5))
        else:
            batch.append(SourcedFrame(own_stream(name), f"mono.{name}", 0, 5))
    expected: dict[str, int] = {}
    for item in batch:
        expected[_name(item)] = expected.get(_name(item), 0) + _rows(item)
    if unknown:
        columns = {"timestamp": [START_US], "key": ["k"]}
        batch.insert(1, SourcedFrame(Frame.from_columns("unlisted", "run-1", columns), "mono.unlisted", 0, 3))
    return batch, expected


async def check_sink(
    make: Callable[[], SinkUnderTest],
    *,
    reads: Collection[str] = (_RESULTS, "multi_events", "alerts"),
    events: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    unknown: bool = False,
    rejects: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Check that a kind of sink keeps its contract; ``make`` returns a new sink on the same, initially empty, store.

    ``reads`` names what it stores: streams of the catalog, also your own, and kinds of records (``multi_events``,
    ``alerts``, ``dead_letters``, ...). ``events`` are events of further streams by stream, or those to write of a
    stream of the catalog instead of made-up ones. With ``unknown``, for a sink that is registered for all streams, an
    event of a stream that it does not know is written as well, which it must accept. ``rejects`` are events or records,
    by stream or kind, that it must return as `Rejected` while it stores all others of the batch. Raises AssertionError
    with the violated requirement, and InvalidSettings for a stream that is unknown.
    """
    batch, expected = _batch_of(reads, events or {}, unknown=unknown)
    made = await _open(make)
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

    made = await _open(make)
    await _holds(made, expected, "after a new sink opened the same store, which must keep what it has,")
    await _takes(made, batch, "a batch that another sink of the same store has written")
    await _holds(made, expected, "after a new sink on the same store wrote the batch again")
    if _RESULTS in expected and _RESULTS not in (events or {}):
        await _takes(made, [SourcedFrame(results(first_seq=80, rows=5), f"mono.{_RESULTS}", 0, 6)], "a later batch")
        expected |= {_RESULTS: expected[_RESULTS] + 5}
        await _holds(made, expected, "after a later batch")
    if rejects:
        await _refuses(made, batch, [_item(name, rows) for name, rows in rejects.items()])
        await _holds(made, expected, "after a batch with rows that are to be rejected")
    await made.sink.close()


def _item(name: str, rows: Sequence[Mapping[str, Any]]) -> Sourced:
    """Events or records at offsets of their own."""
    if name in _RECORDS:
        return SourcedRecords(name, list(rows), _RECORDS[name][0], 0, 70)
    return SourcedFrame(_given(name, rows), f"mono.{name}", 0, 70)


def _rows(item: Sourced) -> int:
    return len(item.records) if isinstance(item, SourcedRecords) else item.frame.num_rows


def _name(item: Sourced) -> str:
    return item.kind if isinstance(item, SourcedRecords) else item.frame.stream


async def _open(make: Callable[[], SinkUnderTest]) -> SinkUnderTest:
    made = make()
    try:
        check_made(_called(made), made.sink)
        await opened(_called(made), made.sink)
    except PluginError as error:
        raise AssertionError(str(error)) from error
    return made


def _called(made: SinkUnderTest) -> str:
    return str(getattr(made.sink, "name", type(made.sink).__name__))


async def _takes(made: SinkUnderTest, batch: list[Sourced], what: str) -> None:
    rejected = await _written(made, batch, what)
    reasons = "; ".join(f"{item.stream}: {item.reason}" for item in rejected[:3])
    _require(rejected == [], f"{what} must be accepted; {len(rejected)} rows were rejected: {reasons}")


async def _written(made: SinkUnderTest, batch: list[Sourced], what: str) -> list[Rejected]:
    given = list(batch)
    try:
        rejected = await written(_called(made), made.sink, given)
    except PluginError as error:
        raise AssertionError(str(error)) from error
    except Exception as error:
        fault = plugin_raised(f"write() of sink {_called(made)!r}", error)
        raise AssertionError(f"{what} must be accepted; {fault}") from error
    _require(given == batch, "the sink changed the list that it was given")
    return rejected


async def _refuses(made: SinkUnderTest, batch: list[Sourced], wrong: list[Sourced]) -> None:
    found = await _written(made, [*wrong, *batch], "a batch with rows that are to be rejected")
    expected = [item.rejected(row, "") for item in wrong for row in range(_rows(item))]
    got, wanted = (sorted(_places(rows)) for rows in (found, expected))
    _require(got == wanted, f"the sink rejected the rows {got}; expected {wanted} (stream, topic, offset, row)")


def _places(rows: Sequence[Rejected]) -> list[tuple[str, str, int, int]]:
    return [(each.stream, each.topic, each.offset, -1 if each.row is None else each.row) for each in rows]


async def _holds(made: SinkUnderTest, expected: dict[str, int], when: str) -> None:
    found = await made.count()
    counts = {name: found.get(name, 0) for name in expected}
    _require(counts == expected, f"{when} the store holds {counts}; expected {expected}")


def _require(holds: bool, message: str) -> None:
    # Not an assert statement: the contract must hold under python -O too.
    if not holds:
        raise AssertionError(message)
