"""Births, deaths and parents of the runs of a source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from astrocyte.pipeline.analysis.phylogeny.records import PEDIGREES, Records
from astrocyte.pipeline.analysis.sources import read_source

__all__ = ["Found", "read_births"]

Found = Mapping[tuple[str, str], Records]
"""By stream and run."""


def read_births(source: str | Path, *, run: str | None = None, stream: str | None = None) -> tuple[Found, list[str]]:
    """What a source tells of births, run by run, and what is to be said of it, a sentence each.

    With ``run``, and in a database of several runs, the records of the other runs are empty: they are only named. For
    sources and errors see `pipeline.analysis.sources.read_source`; raises InvalidLineage as well.
    """
    found: dict[tuple[str, str], Records] = {}
    notes: list[str] = []
    for part in read_source(source, tuple(PEDIGREES), notes=notes, run=run, stream=stream):
        records = found.setdefault((part.stream, part.run), Records())
        if part.frame is not None:
            records.add_frame(PEDIGREES[part.stream], part.frame)
    return found, notes
