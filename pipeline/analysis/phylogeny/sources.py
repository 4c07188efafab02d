"""Births, deaths and parents in recorded logs, files of events, and SQL databases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.phylogeny.records import PEDIGREES, InvalidLineage, Records
from astrocyte.pipeline.recording.event_files import EventFiles, form_of
from astrocyte.pipeline.recording.frames import chunks_of
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import mono_topic

__all__ = ["Found", "read_source"]

_LOG: Final = "events.jsonl.zst"
_DATABASE: Final = "astrocyte.db"
_SQLITE: Final = b"SQLite format 3\0"
_ROWS: Final = 5_000
_TABLE: Final = "evolutionary_events"

Found = Mapping[tuple[str, str], Records]
"""By stream and run."""


def read_source(source: str | Path, *, run: str | None = None, stream: str | None = None) -> tuple[Found, list[str]]:
    """What a source tells of births, run by run, and what is to be said of it, a sentence each.

    With ``run``, and in a database of several runs, the records of the other runs are empty: they are only named.
    ``source`` is a recorded log, a file of events (JSON lines, CSV or Parquet), a folder with the log or the database
    of a demo, an SQLite file, or a SQLAlchemy URL. Raises InvalidLog, SinkError, InvalidSettings and InvalidLineage.
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
    return _read_messages(path, run, stream)


def _begins_with(path: Path, sign: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(sign)) == sign
    except OSError:
        return False  # reading the log says what is wrong


def _read_messages(path: Path, run: str | None, stream: str | None) -> tuple[Found, list[str]]:
    """From a recorded log, or a file of events of one stream (by default of cells) unless they name theirs."""
    found: dict[tuple[str, str], Records] = {}
    notes: list[str] = []
    refused: list[DeadLetter] = []
    decoders = None
    if form_of(path) == "log":
        messages = read_log(path, on_torn=lambda error: notes.append(str(error)))
    else:
        contracts = contracts_of(RuleSet(), streams=tuple(PEDIGREES))
        decoders = decoders_of(contracts, json_only=True)
        messages = EventFiles([path], contracts, [stream or _TABLE]).records()
    topics = {name for each in PEDIGREES for name in (each, mono_topic(each))}
    wanted = (message for message in messages if message.topic in topics)
    for chunk in chunks_of(wanted, on_bad=refused.append, decoders=decoders):
        for name, frame in _by_run(chunk.frame):
            records = found.setdefault((frame.stream, name), Records())
            if run in (None, name):
                records.add_frame(PEDIGREES[frame.stream], frame)
    if refused:
        first = refused[0]
        notes.append(
            f"{len(refused):,} messages hold no event and were left out; the first is "
            f"{first.topic}[{first.partition}]@{first.offset}: {first.reason}"
        )
    return found, notes


def _by_run(frame: Frame) -> Iterator[tuple[str, Frame]]:
    """The frame's events by run; those of other programs name it one by one."""
    column = frame.column("simulation_id")
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    names = [name or "" for name in (*encoded.dictionary.to_pylist(), "")]
    codes = pc.fill_null(encoded.indices, len(names) - 1).to_numpy(zero_copy_only=False)
    for code in sorted(set(codes.tolist())):
        rows = np.flatnonzero(codes == code)
        yield names[code], frame if len(rows) == frame.num_rows else frame.take(rows)


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
            kinds = pa.array([row[0] for row in rows], pa.utf8())
            times = np.fromiter((row[1] for row in rows), np.int64, len(rows))
            arrays = {
                name: pa.array([row[at] for row in rows], pa.float32() if name in pedigree.traits else pa.int64())
                for at, name in enumerate(fields, start=2)
            }
            found[_TABLE, chosen].add(pedigree, kinds, times, arrays)
    return found, []
