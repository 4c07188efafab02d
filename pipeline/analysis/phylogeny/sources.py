"""Births, deaths and parents of the runs of a source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from astrocyte.pipeline.analysis.phylogeny.records import PEDIGREES, Records
from astrocyte.pipeline.analysis.sources import is_database, read_source, source_path

__all__ = ["Found", "read_births"]

Found = Mapping[tuple[str, str], Records]
"""By stream and run."""
_SNAPSHOTS: Final = ("dna.snapshot_created", "dna.mutation_applied")
_OF_SNAPSHOTS: Final = (
    "It has snapshots of dna, whose agents are never born: parent_snapshot_id names the snapshot that one was made "
    "from, and of a database simulation.dna.ancestors(snapshot_id) follows it to the first"
)


def read_births(source: str | Path, *, run: str | None = None, stream: str | None = None) -> tuple[Found, list[str]]:
    """What a source tells of births, run by run, and what is to be said of it, a sentence each.

    With ``run``, and in a database of several runs, the records of the other runs are empty: they are only named. For
    sources and errors see `pipeline.analysis.sources.read_source`; raises InvalidLineage as well.
    """
    found: dict[tuple[str, str], Records] = {}
    notes: list[str] = []
    snapshots = False
    others = () if is_database(source_path(source)) else _SNAPSHOTS
    for part in read_source(source, (*PEDIGREES, *others), notes=notes, run=run, stream=stream):
        if part.stream in _SNAPSHOTS:
            snapshots = True
            continue
        records = found.setdefault((part.stream, part.run), Records())
        if part.frame is not None:
            records.add_frame(PEDIGREES[part.stream], part.frame)
    if snapshots and not found:
        notes.append(_OF_SNAPSHOTS)
    return found, notes
