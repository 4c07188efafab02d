"""``astrocyte phylogeny``: who descends from whom in a run, as a table of the ALife standard or as Newick."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from astrocyte.pipeline.cli.options import AsJson
from astrocyte.pipeline.console import number_text, print_json, printable, say
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("phylogeny")(phylogeny_command)


def phylogeny_command(
    *,
    source: Annotated[
        str,
        typer.Argument(help="Recorded log, file of events, folder of a demo, SQLite file, or URL of a database."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE",
            help="FILE.csv (ALife standard), .nwk or .newick, .parquet, .arrow; without it only the summary.",
        ),
    ] = None,
    run: Annotated[str | None, typer.Option(help="Run (simulation_id); needed where the source holds several.")] = None,
    stream: Annotated[
        str | None,
        typer.Option(help="evolutionary_events or kernel_geometry; needed where the source holds both."),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="The tree as of this event time; default: the last event.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune/--all", help="Only those who live at that time and their ancestors, or everyone.")
    ] = True,
    length: Annotated[
        str, typer.Option(metavar="time|generation", help="Branches of Newick and of the summary: seconds between "
                          "births, or generations.")
    ] = "time",
    first_parent: Annotated[
        bool, typer.Option("--first-parent", help="Leave second parents out, so that the rest is a tree.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Write who descends from whom in a run, pruned of what left no living descendants, and summarise it."""
    from astrocyte.pipeline.analysis.phylogeny import phylogeny
    from astrocyte.pipeline.analysis.phylogeny.write import LENGTHS, form_of
    from astrocyte.pipeline.kafka.offsets import parse_time_us

    if length not in LENGTHS:
        raise InvalidSettings(f"--length: expected {' or '.join(LENGTHS)}, got {length!r}")
    if output is not None:
        form_of(output)
        if output.exists() and not force:
            raise InvalidSettings(f"{output} exists; name another file, or replace it with --force")
    found = phylogeny(
        source, run=run, stream=stream, prune=prune, first_parent=first_parent,
        at_us=None if at is None else parse_time_us(at, now_us=time.time_ns() // 1_000),
    )  # fmt: skip
    if output is not None:
        found.write(output, length=length)
    summary = found.summary(length)
    if as_json:
        print_json(summary | {"file": None if output is None else str(output)})
        return
    for line in _lines(summary, found.pedigree.individual):
        sys.stdout.write(printable(line) + "\n")
    for note in summary["notes"]:
        say(note)
    if output is not None:
        say(f"{summary['written']:,} {found.pedigree.individual}s written to {output}")


def _lines(summary: dict[str, Any], individual: str) -> list[str]:
    lines = [
        f"run {summary['run'] or '(unnamed)'}, {summary['stream']} from {summary['from']} to {summary['at']}",
        f"births {summary['births']:,}, deaths {summary['deaths']:,}, living {summary['living']:,}",
        f"founders {summary['founders']:,}, of which {summary['lineages']:,} live or have living descendants",
    ]
    if summary["founders_without_birth"]:
        lines.append(
            f"  of {summary['founders_without_birth']:,} of them the source has no birth, and no event says that they "
            "are of generation 0: it begins after their birth, or has gaps"
        )
    mrca, tree = summary["mrca"], summary["tree"]
    if mrca is not None:
        lines.append(
            f"most recent common ancestor of the living: {individual} {mrca['id']} at depth {mrca['depth']:,}, "
            f"born at {mrca['origin_time']}, {number_text(mrca['before_end_s'])} s before"
        )
    elif summary["living"]:
        why = "some have two parents" if tree is None else f"they descend from {summary['lineages']:,} founders"
        lines.append(f"the living have no single common ancestor: {why}")
    if tree is not None:
        colless = "none (a branching into more than two)" if tree["colless"] is None else f"{tree['colless']:,}"
        lines.append(f"tree of the living: {tree['tips']:,} tips, Sackin {tree['sackin']:,}, Colless {colless}")
        distance = tree["mean_pair_distance"]
        between = "" if distance is None else f", {number_text(distance)} between two tips on average"
        lines.append(f"  branches of {number_text(tree['total_length'])} {tree['length_in']} in total{between}")
    return lines
