"""``python -m tests.peers``: set the engines up, run the workloads, print one table, write it as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.peers.peers import PEERS, Peer, Unavailable, cache_folder
from tests.peers.runs import Limits, measure
from tests.peers.table import OURS, WITHHELD, Row, as_json, judged, leads, summary, table, without_form
from tests.peers.workloads import WORKLOADS, Workload


def chosen(names: str, known: list[str]) -> list[str]:
    """Those of the known names that are asked for by name, or by what stands before a slash; all for an empty text."""
    asked = names.replace(",", " ").split()
    unknown = [name for name in asked if not any(name in (each, each.partition("/")[0]) for each in known)]
    if unknown:
        raise SystemExit(f"unknown: {' '.join(unknown)}; choose from {' '.join(known)}")
    return [each for each in known if not asked or each in asked or each.partition("/")[0] in asked]


def set_up(peers: list[Peer]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Commands of the engines that are to be had here, and why the others are not, by name."""
    commands: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for peer in peers:
        print(f"setting up {peer.title} {peer.version}", file=sys.stderr, flush=True)
        try:
            commands[peer.name] = peer.command()
        except Unavailable as error:
            missing[peer.name] = str(error)
            print(f"{peer.title} is skipped: {error}", file=sys.stderr)
    return commands, missing


def rows_of(
    workload: Workload, peers: list[Peer], commands: dict[str, list[str]], limits: Limits, seed: int
) -> list[Row]:
    """Rows of one workload, of the engines that are to be had."""
    kind = str(workload.arguments["kind"])
    events = workload.file(cache_folder() / "events", seed)
    arguments = [f"events={events}", *(f"{name}={value}" for name, value in workload.arguments.items())]
    asked = {
        peer.name: [*commands[peer.name], *arguments] for peer in peers if peer.name in commands and kind in peer.forms
    }
    found = measure(asked, cache_folder() / "logs" / workload.name.replace("/", "-"), limits)
    return [judged(workload, peer, found[peer.name], found.get(OURS)) for peer in peers if peer.name in found]


def print_leads(rows: list[dict[str, Any]]) -> None:
    """Where other engines are ahead of ours."""
    print("\n".join(["", "Where another engine is ahead:", *(leads(rows, PEERS) or ["nowhere"]), ""]))


def main() -> int:
    """Exit status 1 if a speed was withheld."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    parser.add_argument(
        "--peers", default="", help=f"engines beside ours, by default all: {' '.join(p.name for p in PEERS[1:])}"
    )
    parser.add_argument("--workloads", default="", help=f"by default all: {' '.join(each.name for each in WORKLOADS)}")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--limit", type=float, default=Limits.answer_s, help="seconds for one pass (60)")
    parser.add_argument(
        "--warm-events", type=int, default=Limits.warm_events, help="events before the first turn (2,000,000)"
    )
    parser.add_argument(
        "--warm-seconds", type=float, default=Limits.warm_s, help="or so many seconds of warming up (30)"
    )
    parser.add_argument("--turns", type=int, default=Limits.turns, help="turns, of which the median counts (3)")
    parser.add_argument("--json", type=Path, help="file for the results (by default in the cache folder)")
    parser.add_argument("--show", type=Path, nargs="+", help="run nothing: a smaller table of such files")
    given = parser.parse_args()
    if given.show:
        shown = [row for path in given.show for row in json.loads(path.read_text())["rows"]]
        print(summary(shown, PEERS))
        print_leads(shown)
        return 0
    named = {OURS, *chosen(given.peers, [peer.name for peer in PEERS if peer.name != OURS])}
    peers = [peer for peer in PEERS if peer.name in named]
    wanted = chosen(given.workloads, [each.name for each in WORKLOADS])
    limits = Limits(given.limit, given.warm_events, given.warm_seconds, given.turns)
    commands, missing = set_up(peers)
    workloads = [workload for workload in WORKLOADS if workload.name in wanted]
    path = given.json or cache_folder() / "results.json"
    made: dict[str, object] = {
        "machine": {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()},
        "seed": given.seed,
        "limits": asdict(limits),
        "missing": missing,
    }
    rows: list[Row] = []
    for workload in workloads:
        print(f"{workload.name}: {workload.title}, {workload.events:,} events", file=sys.stderr, flush=True)
        rows += rows_of(workload, peers, commands, limits, given.seed)
        # After each workload: a run that is stopped has lost nothing.
        path.write_text(json.dumps(made | {"load": os.getloadavg(), "rows": as_json(rows)}, indent=1) + "\n")
    there = [peer for peer in peers if peer.name in commands]
    print(table(rows, there))
    print_leads(as_json(rows))
    print("\n".join(without_form(workloads, there)))
    for name, reason in missing.items():
        print(f"{name} was skipped: {reason}")
    print(f"written: {path}", file=sys.stderr)
    return int(any(WITHHELD in row.remark for row in rows))
