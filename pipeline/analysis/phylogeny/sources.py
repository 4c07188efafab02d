"""Births, deaths and parents in a recorded log, in the folder of a demo, or in a SQL database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from astrocyte.pipeline.analysis.phylogeny.records import PEDIGREES, InvalidLineage, Records
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import chunks_of
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.topics import mono_topic

__all__ = ["Found", "read_source"]

_LOG: Final = "events.jsonl.zst"
_DATABASE: Final = "astrocyte.db"
_SQLITE: Final = b"SQLite format 3\0"
_ROWS: Final = 20_000
_TABLE: Final = "evolutionary_events"

Found = Mapping[tuple[str, str], Records]
"""By stream and run."""


def read_source(source: str | Path, *, run: str | None = None) -> tuple[Found, list[str]]:
    """What a source tells of births, run by run, and what is to be said of it, a sentence each.

    With ``run``, and in a database of several runs, the records of the other runs are empty: they are only named.
    ``source`` is a recorded log, a folder with the log or the database of a demo, an SQLite file, or a SQLAlchemy URL.
    Raises InvalidLog, SinkError, InvalidSettings and InvalidLineage.
    """
    if "://" in str(source):
        return _read_database(str(source), run)
    path = Path(source)
    if path.is_dir():
        inside = next((path / name for name in (_LOG, _DATABASE) if (path / name).exists()), None)
        if inside is None:
            raise InvalidSettings(f"{path} holds neither {_LOG} nor {_DATABASE}; name a recorded log or a database")
        path = inside
    if _begins_with(path, _SQLITE):
        return _read_database(str(path), run)
    return _read_log(path, run)


def _begins_with(path: Path, sign: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(sign)) == sign
    except OSError:
        return False  # reading the log says what is wrong


def _read_log(path: Path, run: str | None) -> tuple[Found, list[str]]:
    found: dict[tuple[str, str], Records] = {}
    notes: list[str] = []
    refused: list[DeadLetter] = []
    topics = {name for stream in PEDIGREES for name in (stream, mono_topic(stream))}

    def records() -> Iterator[ConsumedRecord]:
        torn: list[str] = []
        for record in read_log(path, on_torn=lambda error: torn.append(str(error))):
            if record.topic in topics:
                yield record
        notes.extend(torn)

    for chunk in chunks_of(records(), on_bad=refused.append):
        frame = chunk.frame
        if frame.stream in PEDIGREES:
            records_of_run = found.setdefault((frame.stream, frame.run), Records())
            if run in (None, frame.run):
                records_of_run.add_frame(PEDIGREES[frame.stream], frame)
    if refused:
        first = refused[0]
        notes.append(
            f"{len(refused):,} messages hold no event and were left out; the first is "
            f"{first.topic}[{first.partition}]@{first.offset}: {first.reason}"
        )
    return found, notes


def _read_database(address: str, run: str | None) -> tuple[Found, list[str]]:
    from sqlalchemy import select

    from astrocyte.pipeline.analysis.verify.tables import read_only
    from astrocyte.schemas.tables import Base

    table = Base.metadata.tables[_TABLE]
    pedigree = PEDIGREES[_TABLE]
    fields = (pedigree.id, pedigree.parents, "generation", *pedigree.traits)
    with read_only(address) as database:
        if _TABLE not in database.tables:
            raise InvalidLineage(f"the database {database.name} has no table {_TABLE}, where births are")
        runs = database.connection.execute(select(table.c.simulation_id).distinct()).scalars().all()
        found = {(_TABLE, name): Records() for name in runs}
        chosen = run if run is not None else runs[0] if len(runs) == 1 else None
        if (_TABLE, chosen) not in found:
            return found, []
        columns = [table.c[name] for name in ("event_type", "timestamp", *fields)]
        query = select(*columns).where(table.c.simulation_id == chosen).order_by(table.c.id)
        result = database.connection.execution_options(stream_results=True, yield_per=_ROWS).execute(query)
        for rows in result.partitions(_ROWS):
            kinds, times, *values = map(list, zip(*rows, strict=True))
            arrays = {
                name: pa.array(column, pa.float32() if name in pedigree.traits else pa.int64())
                for name, column in zip(fields, values, strict=True)
            }
            found[_TABLE, chosen].add(pedigree, pa.array(kinds, pa.utf8()), np.array(times, np.int64), arrays)
    return found, []
