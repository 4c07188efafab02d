"""Phylogenies of runs: who descends from whom, pruned, summarised, as ALife-standard tables and Newick."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from astrocyte.pipeline.analysis.phylogeny.population import population_of
from astrocyte.pipeline.analysis.phylogeny.records import PEDIGREES, InvalidLineage, Pedigree, Records
from astrocyte.pipeline.analysis.phylogeny.sources import Found, read_births
from astrocyte.pipeline.analysis.phylogeny.tree import Phylogeny
from astrocyte.pipeline.analysis.sources import choose_run
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.registry import did_you_mean
from astrocyte.schemas.times import iso_from_us

__all__ = ["Phylogeny", "phylogeny", "phylogeny_of"]


def phylogeny(
    source: str | Path,
    *,
    run: str | None = None,
    stream: str | None = None,
    at_us: int | None = None,
    prune: bool = True,
    first_parent: bool = False,
) -> Phylogeny:
    """Who descends from whom in one run.

    ``source`` is a recorded log, a file of events (JSON lines, CSV or Parquet), the folder of a demo, an SQLite file or
    the URL of a database.
    ``run`` is needed where the source holds several. ``stream``: ``evolutionary_events`` (cells) or
    ``kernel_geometry`` (kernels, with up to two parents); needed where the source holds both. ``at_us`` is the instant
    of the tree, in microseconds of event time, by default that of the last event. With ``prune`` the tree holds those
    who live at that instant and their ancestors, else everyone. ``first_parent`` leaves second parents out.

    Raises InvalidLineage for births that cannot be, with the ids; InvalidSettings; InvalidLog and SinkError for a
    source that cannot be read.
    """
    if stream is not None and stream not in PEDIGREES:
        raise InvalidSettings(
            f"stream {stream!r} names no parents; expected {' or '.join(PEDIGREES)}{did_you_mean(stream, PEDIGREES)}"
        )
    found, notes = read_births(source, run=run, stream=stream)
    if not found:
        raise InvalidLineage(". ".join([f"{source} holds no events of {stream or ' or '.join(PEDIGREES)}", *notes]))
    chosen, name = _chosen(found, str(source), stream, run)
    records, pedigree = found[chosen, name], PEDIGREES[chosen]
    tree = phylogeny_of(records, pedigree, name, at_us=at_us, prune=prune, notes=notes)
    return tree.with_first_parents() if first_parent else tree


def phylogeny_of(
    records: Records,
    pedigree: Pedigree,
    run: str,
    *,
    at_us: int | None = None,
    prune: bool = True,
    notes: Sequence[str] = (),
) -> Phylogeny:
    """Who descends from whom in one run, from what its events say. Raises InvalidLineage and InvalidSettings."""
    everyone = population_of(records, pedigree)
    if at_us is not None:
        if at_us < everyone.first_us:
            raise InvalidSettings(
                f"at {iso_from_us(at_us)} there is no event yet: those of run {run!r} are from "
                f"{iso_from_us(everyone.first_us)} to {iso_from_us(everyone.at_us)}"
            )
        everyone = everyone.at(at_us)
    said = [f"{records.without_id:,} events have no {pedigree.id} and were left out"] if records.without_id else []
    return Phylogeny(pedigree, run, everyone, prune, (*notes, *said))


def _chosen(found: Found, source: str, stream: str | None, run: str | None) -> tuple[str, str]:
    """The stream and the run to read. Raises InvalidSettings and InvalidLineage, listing those that there are."""
    streams = sorted({each for each, _ in found})
    if stream is not None and stream not in streams:
        raise InvalidLineage(f"{source} holds no events of {stream}; it holds {', '.join(streams)}")
    if stream is None and len(streams) > 1:
        raise InvalidSettings(f"{source} holds births of {' and '.join(streams)}; choose one with --stream")
    chosen = stream or streams[0]
    return chosen, choose_run([name for each, name in found if each == chosen], source, run)
