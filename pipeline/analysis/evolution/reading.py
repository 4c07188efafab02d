"""Reads the events of one run of a source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from astrocyte.agents.sinks.sql.url import shown_address
from astrocyte.pipeline.analysis.evolution.history import CELL_STREAMS, STREAMS, History, joined_frames
from astrocyte.pipeline.analysis.evolution.records import NotEnoughData
from astrocyte.pipeline.analysis.sources import choose_run, is_database, read_source, source_path
from astrocyte.schemas.frames import Frame

__all__ = ["read_history"]

_UNUSED: Final = ("neural_weights",)
"""Fields that no statistic reads and that would take most of the memory."""


def read_history(source: str | Path, *, run: str | None = None) -> History:
    """The events of one run: births and deaths, genomes, attempts at problems, the population, alerts.

    ``source`` is a recorded log, a file of events, the folder of a demo, an SQLite file or the URL of a database (read
    as of now, also while a pipeline fills it). ``run`` is needed where it holds several. Raises NotEnoughData for a
    source without such events, InvalidSettings, InvalidLog and SinkError.
    """
    notes: list[str] = []
    parts: dict[str, list[Frame]] = {}
    runs: dict[str, None] = {}
    for stream, name, frame in read_source(source, STREAMS, notes=notes, run=run):
        if stream not in CELL_STREAMS:
            if frame is not None:
                parts.setdefault(stream, []).append(frame)
            continue
        runs[name] = None
        if len(runs) > 1 and run is None:
            parts.clear()  # of several runs one has to be chosen: only their names are of use
        elif frame is not None:
            parts.setdefault(stream, []).append(_used(frame))
    shown = shown_address(str(source)) if "://" in str(source) else Path(source_path(source)).name
    if not runs:
        raise NotEnoughData(
            ". ".join([f"{source} holds no events of {', '.join(CELL_STREAMS)}, which an analysis reads", *notes])
        )
    chosen = choose_run(runs, source, run)
    frames = {stream: joined_frames(found, chosen) for stream in STREAMS if (found := parts.get(stream))}
    if is_database(source_path(source)) and "genome_data" in frames:
        notes.append("a database keeps the newest genome of each cell alone; a recorded log has all")
    return History(shown, chosen, frames, tuple(notes))


def _used(frame: Frame) -> Frame:
    unused = [name for name in _UNUSED if frame.batch.schema.get_field_index(name) >= 0]
    if not unused:
        return frame
    return replace(frame, batch=frame.batch.select([n for n in frame.batch.schema.names if n not in unused]))
