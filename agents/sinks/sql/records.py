"""JSON records (multi events, alerts, dead letters, experiments, simulations) as rows of their tables."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson

from astrocyte.agents.sinks.base import RecordKind
from astrocyte.agents.sinks.sql.rows import Rows, from_mappings
from astrocyte.agents.sinks.sql.targets import KIND_TARGETS
from astrocyte.schemas.times import us_from_iso

__all__ = ["stage_records"]

_SORTED: Final = orjson.OPT_SORT_KEYS
Record = Mapping[str, Any]
Tables = tuple[list[dict[str, Any]], ...]
_INVALID: Final = (KeyError, TypeError, ValueError, AttributeError, binascii.Error)


def stage_records(kind: RecordKind, records: Sequence[Record], recorded_at: int) -> list[Rows]:
    """Rows of the records for each table of their kind; unit n is record n. An invalid record is marked bad."""
    convert = _CONVERT[kind]
    targets = KIND_TARGETS[kind]
    mappings: Tables = tuple([] for _ in targets)
    origins: tuple[list[int], ...] = tuple([] for _ in targets)
    bad: dict[int, str] = {}
    for unit, record in enumerate(records):
        try:
            made = convert(record)
        except _INVALID as error:
            what = f"field {error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            bad[unit] = f"a record of kind {kind!r} cannot be stored: {what}"
            continue
        for index, rows in enumerate(made):
            for row in rows:
                row["recorded_at"] = recorded_at
                mappings[index].append(row)
                origins[index].append(unit)
    staged = [
        from_mappings(target, rows, np.array(origin, np.int64))
        for target, rows, origin in zip(targets, mappings, origins, strict=True)
    ]
    for table in staged:
        table.bad.update(bad)
    return staged


def _time(value: Any) -> int | None:
    """Microseconds since 1970 of ISO 8601 text; other values unchanged."""
    return us_from_iso(value) if isinstance(value, str) else value


def _multi_event(record: Record) -> Tables:
    details = dict(record.get("metadata") or {})
    if _flag(record.get("timed_out")):
        details["timed_out"] = True
    row = {
        "event_id": record["event_id"],
        "simulation_id": record.get("simulation_id"),
        "timestamp": _time(record["timestamp"]),
        "event_type": record.get("event_type", "MULTI_ORIGINATED"),
        "correlation_rule": record["correlation_rule"],
        "rule_version": record.get("rule_version"),
        "event_key": record.get("key"),
        "integrated_value": record.get("integrated_value"),
        "confidence": record.get("confidence"),
        "provisional": _flag(record.get("provisional")),
        "status": _status(record),
        "details": details or None,
    }
    entries = {entry["event_id"]: (stream, entry) for stream, entry in _lineage(record.get("lineage") or {})}
    sources = []
    for position, event_id in enumerate(record["source_events"]):
        stream, entry = entries.get(event_id, (None, {}))
        sources.append(
            {
                "event_id": record["event_id"],
                "position": position,
                "simulation_id": record.get("simulation_id"),
                "source_event_id": event_id,
                "stream": stream,
                "step": entry.get("step"),
                "timestamp": _time(entry.get("timestamp")),
                "source_topic": entry.get("topic"),
                "source_partition": entry.get("partition"),
                "source_offset": entry.get("offset"),
            }
        )
    return [row], sources


def _flag(value: Any) -> bool:
    """A boolean, which is text if it comes from a header."""
    return value.lower() == "true" if isinstance(value, str) else bool(value)


def _status(record: Record) -> str:
    """What a header says of a match that is not final at once."""
    return str(record.get("status") or "final")


def _lineage(lineage: Mapping[str, Record]) -> Iterator[tuple[str, Record]]:
    for stream, entry in lineage.items():
        yield stream, entry
        for further in entry.get("also") or ():
            yield stream, further


def _alert(record: Record) -> Tables:
    row = {
        "alert_id": record["alert_id"],
        "simulation_id": record.get("simulation_id"),
        "timestamp": _time(record["timestamp"]),
        "rule": record["rule"],
        "severity": record["severity"],
        "message": record["message"],
        "event_key": record.get("key"),
        "multi_event_id": record.get("multi_event_id"),
        "status": _status(record),
    }
    return ([row],)


def _dead_letter(record: Record) -> Tables:
    row = {
        "letter_id": record["letter_id"],
        "simulation_id": record.get("simulation_id"),
        "timestamp": _time(record.get("timestamp")),
        "stage": record["stage"],
        # A reason may quote the rejected text; a NUL in it would cause the dead letter to be rejected too.
        "reason": str(record["reason"]).replace("\0", "\\0"),
        "source_topic": record["topic"],
        "source_partition": record["partition"],
        "source_offset": record["offset"],
        "source_row": record.get("row"),
        "record_key": _bytes(record.get("key_b64")),
        "payload": _bytes(record.get("payload_b64")),
        "headers": [list(pair) for pair in record.get("headers") or ()] or None,
    }
    return ([row],)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)


def _experiment(record: Record) -> Tables:
    return ([{"experiment_id": record["experiment_id"], **record}],)


def _simulation(record: Record) -> Tables:
    row = {"simulation_id": record["simulation_id"], **record}
    config = row.pop("config", None)
    if config is None:
        return [row], []
    document = {
        "simulation_id": row["simulation_id"],
        "config_id": 1,
        "timestamp": record.get("timestamp"),
        "config_data": config if isinstance(config, str) else orjson.dumps(config, option=_SORTED).decode(),
    }
    return [row], [document]


_CONVERT: Final[Mapping[RecordKind, Callable[[Record], Tables]]] = {
    "multi_events": _multi_event,
    "alerts": _alert,
    "dead_letters": _dead_letter,
    "experiments": _experiment,
    "simulations": _simulation,
}
