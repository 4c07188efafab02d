"""Events of runs, from a recorded log, files of events, the folder of a demo or an SQL database, as frames of one run.

Whatever a source is, it gives the same rows: `read_source` for everything that reads whole runs (phylogenies, reports).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.recording.event_files import EventFiles, form_of
from astrocyte.pipeline.recording.frames import chunks_of
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.registry import did_you_mean
from astrocyte.schemas.topics import ALERTS, mono_topic

if TYPE_CHECKING:
    from astrocyte.pipeline.analysis.verify.tables import ReadDatabase

__all__ = ["RunFrame", "choose_run", "frames_by_run", "is_database", "read_source", "source_path"]

_LOG: Final = "events.jsonl.zst"
_DATABASE: Final = "astrocyte.db"
_SQLITE: Final = b"SQLite format 3\0"
_ROWS: Final = 10_000
_SHOWN: Final = 20
"""Runs that an error lists."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where a database holds a stream: the table, and the column of the type (or the types of False and True)."""

    table: str
    fields: tuple[str, ...]
    type_column: str | None = None
    types: tuple[str, ...] = ()
    order: str = "id"


_STORED: Final[Mapping[str, _Stored]] = {
    "evolutionary_events": _Stored(
        "evolutionary_events",
        ("cell_id", "parent_id", "mutation_magnitude", "fitness_delta", "generation_gap", "generation"),
        "event_type",
    ),
    "genome_data": _Stored(
        "cell_genomes",
        ("cell_id", "genome_type", "metabolism", "growth_rate", "division_size", "mutation_rate", "tpu_cores",
         "tpu_memory", "tpu_efficiency"),
        types=("genome",), order="cell_id",
    ),
    "problem_solving": _Stored(
        "problem_results",
        ("cell_id", "problem_type", "difficulty", "accuracy", "energy_reward", "processing_time", "tpu_utilization"),
        "solved", types=("failed", "solved"),
    ),
    "population_metrics": _Stored(
        "population_metrics",
        ("tick", "total_population", "avg_accuracy", "genome_diversity", "avg_generation", "energy_efficiency",
         "births", "deaths", "avg_energy"),
        types=("snapshot",), order="tick",
    ),
    ALERTS: _Stored("alerts", ("rule", "severity", "message"), types=(ALERTS,), order="alert_id"),
}  # fmt: skip
"""The streams that can be read back from tables. Of each cell ``cell_genomes`` keeps the newest genome alone."""


class RunFrame(NamedTuple):
    """Events of one stream and run, or only their names where the events were not asked for."""

    stream: str
    run: str
    frame: Frame | None


def source_path(source: str | Path) -> str | Path:
    """The source itself, or the log (else the database) in the folder that a demo left. Raises InvalidSettings."""
    if "://" in str(source) or not Path(source).is_dir():
        return source
    inside = next((Path(source, name) for name in (_LOG, _DATABASE) if Path(source, name).exists()), None)
    if inside is None:
        raise InvalidSettings(f"{source} holds neither {_LOG} nor {_DATABASE}; name a recorded log or a database")
    return inside


def is_database(source: str | Path) -> bool:
    """Whether a source is the URL of a database or an SQLite file."""
    if "://" in str(source):
        return True
    try:
        with Path(source).open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False  # reading the log says what is wrong


def read_source(
    source: str | Path,
    streams: Sequence[str],
    *,
    notes: list[str],
    run: str | None = None,
    stream: str | None = None,
) -> Iterator[RunFrame]:
    """The events of ``streams``, part by part, those of a stream and run in the order in which the source has them.

    ``source`` is a recorded log, a file of events (JSON lines, CSV or Parquet; ``stream`` names that of events that
    name none), a folder with the log or the database of a demo, an SQLite file, or a SQLAlchemy URL. A database is read
    in one transaction, so that all is of one moment also while a pipeline fills it. Runs other than ``run``, and all
    of a database that holds several if none is named, are only named. ``notes`` receives what is to be said of the
    source, a sentence each. Raises InvalidLog, SinkError and InvalidSettings.
    """
    source = source_path(source)
    if is_database(source):
        yield from _read_database(str(source), streams, run, notes)
    else:
        yield from _read_messages(Path(source), streams, run, stream, notes)


def choose_run(runs: Collection[str], source: str | Path, run: str | None) -> str:
    """The run to read: the one named, or the only one. Raises InvalidSettings, which lists those that there are."""
    names = sorted(runs)
    listed = ", ".join(map(repr, names[:_SHOWN]))
    listed += f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    if run is None and len(names) > 1:
        raise InvalidSettings(f"{source} holds {len(names):,} runs; choose one with --run: {listed}")
    if run is not None and run not in names:
        raise InvalidSettings(f"{source} has no run {run!r}{did_you_mean(run, names)}; it holds {listed}")
    return names[0] if run is None else run


def _read_messages(
    path: Path, streams: Sequence[str], run: str | None, stream: str | None, notes: list[str]
) -> Iterator[RunFrame]:
    """From a recorded log, or a file of events of one stream (by default the first) unless they name theirs."""
    refused: list[DeadLetter] = []
    decoders = None
    if form_of(path) == "log":
        messages = read_log(path, on_torn=lambda error: notes.append(str(error)))
    else:
        contracts = contracts_of(RuleSet(), streams=tuple(streams))
        decoders = decoders_of(contracts, json_only=True)
        messages = EventFiles([path], contracts, [stream or streams[0]]).records()
    topics = {name for each in streams for name in (each, mono_topic(each))}
    wanted = (message for message in messages if message.topic in topics)
    for chunk in chunks_of(wanted, derived=ALERTS in topics, on_bad=refused.append, decoders=decoders):
        for name, frame in frames_by_run(chunk.frame):
            yield RunFrame(frame.stream, name, frame if run in (None, name) else None)
    if refused:
        first = refused[0]
        notes.append(
            f"{len(refused):,} messages hold no event and were left out; the first is "
            f"{first.topic}[{first.partition}]@{first.offset}: {first.reason}"
        )


def frames_by_run(frame: Frame) -> Iterator[tuple[str, Frame]]:
    """The frame's events by run; those of other programs name it one by one."""
    column = frame.column("simulation_id")
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    names = [name or "" for name in (*encoded.dictionary.to_pylist(), "")]
    codes = pc.fill_null(encoded.indices, len(names) - 1).to_numpy(zero_copy_only=False)
    for code in sorted(set(codes.tolist())):
        rows = np.flatnonzero(codes == code)
        yield names[code], frame if len(rows) == frame.num_rows else frame.take(rows)


def _read_database(address: str, streams: Sequence[str], run: str | None, notes: list[str]) -> Iterator[RunFrame]:
    from sqlalchemy import select

    from astrocyte.pipeline.analysis.verify.tables import read_only
    from astrocyte.schemas.tables import Base

    stored = {name: _STORED[name] for name in streams if name in _STORED}
    with read_only(address) as database:
        there = {name: each for name, each in stored.items() if each.table in database.tables}
        if not there:
            tables = ", ".join(each.table for each in stored.values())
            notes.append(f"the database {database.name} has none of the tables {tables}")
        named: dict[str, list[str]] = {}
        for name, each in there.items():
            table = Base.metadata.tables[each.table]
            found = database.connection.execute(select(table.c.simulation_id).distinct()).scalars()
            named[name] = sorted(str(each) for each in found if each is not None)
        # An alert of another program may name a run that has no events.
        known = {each for name, runs in named.items() for each in runs if name != ALERTS or list(there) == [ALERTS]}
        chosen = run if run is not None else next(iter(known)) if len(known) == 1 else None
        for name, runs in named.items():
            yield from (RunFrame(name, each, None) for each in runs if each in known and each != chosen)
            if chosen is not None and chosen in runs:
                for frame in _frames(database, name, there[name], chosen):
                    yield RunFrame(name, chosen, frame)


def _frames(database: ReadDatabase, stream: str, stored: _Stored, run: str) -> Iterator[Frame]:
    """The rows of one run, in frames, in the order of the events."""
    from sqlalchemy import select

    from astrocyte.schemas.tables import Base
    from astrocyte.schemas.tables.outputs import stands

    table = Base.metadata.tables[stored.table]
    about = CATALOG.find(stream)
    kinds = {each.name: each.type for each in about.arrow_schema()} if about is not None else {}
    names = ["timestamp", *([stored.type_column] if stored.type_column else []), *stored.fields]
    query = select(*(table.c[name] for name in names))
    query = query.where(table.c.simulation_id == run).order_by(table.c.timestamp, table.c[stored.order])
    if stream == ALERTS and any(column is table.c.status for column in database.columns(table)):
        query = query.where(stands(table))
    result = database.connection.execution_options(stream_results=True, yield_per=_ROWS).execute(query)
    for rows in result.partitions(_ROWS):
        columns: dict[str, Any] = dict(zip(names, zip(*rows, strict=True), strict=True))
        types = _types(stored, columns.pop(stored.type_column) if stored.type_column else None, len(rows))
        arrays: dict[str, Any] = {"timestamp": np.array(columns.pop("timestamp"), np.int64)}
        for name, values in columns.items():
            kind = kinds.get(name, pa.utf8())
            is_text = pa.types.is_dictionary(kind) or pa.types.is_string(kind)
            arrays[name] = pa.array(values, pa.utf8() if is_text else kind)
        yield Frame.from_columns(stream, run, {**arrays, "key": _constant(run, len(rows)), "type": types})


def _types(stored: _Stored, values: Sequence[Any] | None, n: int) -> pa.Array:
    if values is None:
        return _constant(stored.types[0], n)
    if stored.types:
        values = [None if each is None else stored.types[bool(each)] for each in values]
    return pa.array(values, pa.utf8()).dictionary_encode()


def _constant(text: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([text], pa.utf8()))
