"""The sink that appends to the audit log, and functions to verify and export the log."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import orjson
from sqlalchemy import select

from astrocyte.agents.sinks.audit.chain import AuditEntry, Verdict, append, export_line, verify
from astrocyte.agents.sinks.base import Rejected, Sourced, SourcedFrame, SourcedRecords, highest_offsets
from astrocyte.agents.sinks.sql.connection import SqlConnection
from astrocyte.agents.sinks.sql.engines import driver_errors, engine_of
from astrocyte.agents.sinks.sql.rows import EXTERNAL, find_problems, from_mappings
from astrocyte.agents.sinks.sql.store import Store
from astrocyte.agents.sinks.sql.targets import POSITIONS, of_table
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.json.reader import frame_to_records
from astrocyte.schemas.tables import AuditEntryRow
from astrocyte.schemas.values.mixed import key_column

__all__ = ["AuditSink", "append_to_store", "audit_entries", "export_audit", "verify_audit"]

_TARGET: Final = of_table(AuditEntryRow, conflict="refuse")
_IDS_A_QUERY: Final = 500
_COLUMNS: Final = "entry, timestamp, kind, subject, simulation_id, event_id, payload, previous_hash, hash"


class AuditSink(SqlConnection):
    """Appends every event of its input: frames of any stream (``dna.*``), and records of kind audit (rules, controls).

    An event that is already in the log (by its id) is not appended again, so that a batch may be written twice. A lock
    serialises writers, because the chain has only one end.
    """

    def __init__(self, url: str, *, name: str = "audit", **options: Any) -> None:
        super().__init__(url, name=name, **options)

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Append the batch in one transaction; see `agents.sinks.base.Sink`."""
        wanted, rejected = await self.in_thread(lambda: _wanted(batch))
        positions = highest_offsets(batch)

        def commit() -> None:
            store = self.store
            store.connect()
            now = self.now_us()
            with store.transaction():
                append_to_store(store, wanted, now)
                rows = [
                    {"sink": self.name, "topic": topic, "partition_number": part, "next_offset": following}
                    for (topic, part), following in positions.items()
                ]
                store.upsert(from_mappings(POSITIONS, [row | {"recorded_at": now} for row in rows]))

        await self.persist(commit)
        return rejected


def append_to_store(store: Store, events: Sequence[dict[str, Any]], now_us: int) -> list[AuditEntry]:
    """Append the events that the log lacks (arguments of `agents.sinks.audit.chain.append`), inside a transaction."""
    store.lock("audit")
    known = _known(store, [event["event_id"] for event in events])
    last = _last(store)
    entries = []
    for event in events:
        if event["event_id"] not in known:
            known.add(event["event_id"])
            last = append(last, **event)
            entries.append(last)
    store.upsert(from_mappings(_TARGET, [asdict(entry) | {"recorded_at": now_us} for entry in entries]))
    return entries


def _known(store: Store, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(ids), _IDS_A_QUERY):
        part = ids[start : start + _IDS_A_QUERY]
        places = ", ".join("?" * len(part))
        rows = store.query(f"SELECT event_id FROM audit_log WHERE event_id IN ({places})", part)  # noqa: S608
        found |= {row[0] for row in rows}
    return found


def _last(store: Store) -> AuditEntry | None:
    rows = store.query(f"SELECT {_COLUMNS} FROM audit_log ORDER BY entry DESC LIMIT 1")  # noqa: S608
    return AuditEntry(*rows[0]) if rows else None


def _wanted(batch: Sequence[Sourced]) -> tuple[list[dict[str, Any]], list[Rejected]]:
    """Arguments of `append` for each event of the batch, and the rows that can never be stored."""
    wanted: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    for item in batch:
        events = _of_frame(item) if isinstance(item, SourcedFrame) else _of_records(item)
        bad = _problems(events)
        for row, event in enumerate(events):
            if row not in bad:
                wanted.append(event)
                continue
            whole = isinstance(item, SourcedRecords) or item.offsets is not None
            payload = str(event.get("payload")).encode(errors="replace")
            rejected.append(
                Rejected(
                    item.frame.stream if isinstance(item, SourcedFrame) else item.kind,
                    item.topic,
                    item.partition,
                    item.offset_of(row),
                    None if whole else row,
                    bad[row],
                    None,
                    payload,
                )
            )
    return wanted, rejected


def _problems(events: Sequence[dict[str, Any]]) -> dict[int, str]:
    rows = from_mappings(
        _TARGET, [event | {"entry": 0, "previous_hash": "", "hash": "", "recorded_at": 0} for event in events]
    )
    find_problems(rows)
    return rows.bad


def _of_frame(item: SourcedFrame) -> list[dict[str, Any]]:
    frame = item.frame
    if not frame.num_rows:
        return []
    kinds = frame.column("type").to_pylist()
    subjects = key_column(frame.column("agent_id" if frame.has("agent_id") else "key")).to_pylist()
    simulation = frame.run or EXTERNAL
    try:
        if item.received is not None:
            payloads = [(message.value or b"").decode() for message in item.received]
        else:
            payloads = [record.value.decode() for record in frame_to_records(frame)]
    except (AstrocyteError, ValueError, TypeError):
        payloads = [orjson.dumps(row, default=repr).decode() for row in frame.rows()]
    return [
        {
            "timestamp": time,
            "kind": kind or frame.stream,
            "subject": None if subject is None else str(subject),
            "simulation_id": simulation,
            "event_id": event_id,
            "payload": payload,
        }
        for time, kind, subject, event_id, payload in zip(
            np.asarray(frame.timestamps()).tolist(), kinds, subjects, frame.id_strings(), payloads, strict=True
        )
    ]


def _of_records(item: SourcedRecords) -> list[dict[str, Any]]:
    if item.kind != "audit":
        return []
    return [
        {
            "timestamp": record.get("timestamp"),
            "kind": record.get("kind"),
            "subject": record.get("subject"),
            "simulation_id": record.get("simulation_id"),
            "event_id": record.get("event_id"),
            "payload": _json(record.get("payload")),
        }
        for record in item.records
    ]


def _json(payload: Any) -> str:
    return payload if isinstance(payload, str) else orjson.dumps(payload, option=orjson.OPT_SORT_KEYS).decode()


def audit_entries(address: str | Path) -> Generator[AuditEntry, None, None]:
    """Every entry of a database in order, streamed in bounded memory. Raises SinkError."""
    table = AuditEntryRow.__table__
    names = [name.strip() for name in _COLUMNS.split(",")]
    engine = engine_of(address)
    try:
        query = select(*(table.c[name] for name in names)).order_by(table.c.entry)
        with (
            driver_errors(address),
            engine.connect().execution_options(stream_results=True, yield_per=1000) as connection,
            connection.execute(query) as result,
        ):
            for row in result:
                yield AuditEntry(*row)
    finally:
        engine.dispose()


def verify_audit(address: str | Path, *, expected_last_hash: str | None = None) -> Verdict:
    """Verify the audit log of a database; the result names the first broken entry."""
    with closing(audit_entries(address)) as entries:
        return verify(entries, expected_last_hash=expected_last_hash)


def export_audit(address: str | Path, output: BinaryIO) -> int:
    """Write the log as JSON lines; returns the number of entries."""
    count = 0
    for count, entry in enumerate(audit_entries(address), 1):  # noqa: B007 - the count is the result
        output.write(export_line(entry))
    return count
