"""A SQL database as the source of a page: what the role ``sql`` has stored, as of one moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, Final

import orjson

from astrocyte.agents.sinks.sql.url import shown_address
from astrocyte.pipeline.analysis.origins import SqlOrigin
from astrocyte.pipeline.analysis.sources import read_source
from astrocyte.pipeline.analysis.verify.tables import read_only
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.page.content.state import PageState
from astrocyte.pipeline.page.sources.messages import Newest
from astrocyte.pipeline.page.sources.run_frames import RecordedFrames, RunFrames
from astrocyte.pipeline.page.sources.source import Lineages, Reader
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import ALERTS, MULTI_EVENTS

__all__ = ["DatabaseSource"]

_STREAMS: Final = ("population_metrics", "genome_data", "problem_solving")
_ASIDE: Final = frozenset({"timestamp", "event_key", "details", "status"})
"""Columns that are no fields of the message of that name."""
_MOST: Final = 100_000
"""Newest alerts and multi events that are read."""


class DatabaseSource:
    """A database by its SQLAlchemy URL or SQLite file. Raises AstrocyteError for a file that is not there."""

    def __init__(self, address: str, *, run: str | None = None) -> None:
        self.address = address
        self._run = run
        self._origin = SqlOrigin(address if "://" in address else f"sqlite:///{Path(address).resolve()}")
        self._notes: list[str] = []

    @property
    def logs(self) -> Sequence[Path]:
        """See `Source`."""
        return ()

    def about(self) -> Mapping[str, Any]:
        """See `Source`."""
        name = shown_address(self.address) if "://" in self.address else self.address
        about = {"kind": "database", "name": name, "live": False, "note": " ".join(self._notes)}
        return about | {"again": f"astrocyte page {quote(name)}"}

    def frames(self, run: str, streams: Sequence[str]) -> RunFrames:
        """See `Source`."""
        return RecordedFrames(self.address, run, streams)

    async def newest(self, wanted: Newest) -> list[ConsumedRecord]:
        """See `Source`."""
        raise InvalidSettings(
            f"a database holds rows, and no messages of {wanted.topic}; open the log of the run, or its broker"
        )

    def origins(self) -> Sequence[Lineages]:
        """See `Source`."""
        return (self._origin,)

    async def feed(self, page: Reader) -> None:
        """See `Source`."""
        parts = read_source(self.address, _STREAMS, notes=self._notes, run=self._run)
        names: set[str] = set()
        while True:
            part = await asyncio.to_thread(next, parts, None)
            if part is None:
                break
            names.add(part.run)
            if part.frame is not None:
                frame = part.frame

                def change(state: PageState, frame: Any = frame) -> None:
                    # A database does not say when Kafka had an event.
                    state.take_frames([[(frame, frame.timestamps())]])

                await page.take(change)
        if len(names) > 1 and self._run is None:
            self._notes.append(
                f"the database holds {len(names):,} runs; choose one with --run: {', '.join(sorted(names)[:8])}"
            )
        records = await asyncio.to_thread(lambda: list(self._findings()))
        await page.take_records(records)

    def _findings(self) -> Iterator[ConsumedRecord]:
        """Alerts and multi events as the messages that they were, by time."""
        from sqlalchemy import select

        from astrocyte.schemas.tables.outputs import AlertRow, MultiEventRow

        found: list[tuple[int, ConsumedRecord]] = []
        with read_only(self.address) as database:
            for topic, model in ((MULTI_EVENTS, MultiEventRow), (ALERTS, AlertRow)):
                table: Any = model.__table__
                if table.name not in database.tables:
                    continue
                query = select(*database.columns(table)).order_by(table.c.timestamp.desc()).limit(_MOST)
                if self._run is not None:
                    query = query.where(table.c.simulation_id == self._run)
                for number, row in enumerate(database.connection.execute(query).mappings()):
                    body = {name: row[name] for name in row if name not in _ASIDE}
                    body |= {"timestamp": iso_from_us(row["timestamp"]), "key": row["event_key"]}
                    run = (row["simulation_id"] or "").encode()
                    status = (row["status"] or "final").encode()
                    headers = (("ce_simulationid", run), ("ce_status", status))
                    value = orjson.dumps(body, default=str)
                    found.append((row["timestamp"], ConsumedRecord(topic, 0, number, -1, None, value, headers)))
        yield from (record for _, record in sorted(found, key=lambda each: each[0]))
