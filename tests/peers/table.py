"""Judging and printing: no speed without the same matches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tests.peers.peers import Peer
from tests.peers.runs import Measured
from tests.peers.workloads import Workload

OURS = "astrocyte"
WITHHELD = "speed withheld"
COLD = "our first pass loads the compiled kernels of the query"
OTHERS = {
    "start-up": "ours imports NumPy, pyarrow and Numba",
    "peak memory": "these libraries and kernels are the greater part of ours",
}
"""Why another engine is ahead of ours in what has no reason of its own."""
HEADER = (
    "workload", "engine", "matches", "start-up, s", "cold, k events/s", "warm, k events/s", "ours / it",
    "CPU s of a pass", "peak MB", "remarks",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One engine in one workload. ``shown``: whether its speed may be shown."""

    workload: str
    kind: str
    engine: str
    version: str
    events: int
    shown: bool
    remark: str
    measured: Measured

    @property
    def cold_per_s(self) -> float:
        """Events of a processor second in the first pass."""
        return self.events / self.measured.cold_s

    @property
    def warm_per_s(self) -> float:
        """Events of a processor second, warm."""
        return self.events / self.measured.warm_s


def judged(workload: Workload, peer: Peer, measured: Measured, ours: Measured | None) -> Row:
    """The row of an engine. Its speed is shown if its matches are ours, or if its form says why they differ."""
    kind = str(workload.arguments["kind"])

    def row(remark: str, *, shown: bool = False) -> Row:
        return Row(workload.name, kind, peer.name, peer.version, workload.events, shown, remark, measured)

    if measured.error:
        return row(measured.error)
    form = peer.forms[kind]
    if peer.name == OURS:
        return row(form.text, shown=True)
    if ours is None or ours.error:
        return row("nothing to compare its matches with")
    if (measured.count, measured.hash) == (ours.count, ours.hash):
        return row(form.text, shown=True)
    found = f"{measured.count:,} matches" if measured.count != ours.count else "other matches of the same number"
    if form.differs:
        return row(f"{form.text}; {found}: {form.differs}", shown=True)
    return row(f"{found} where we have {ours.count:,}: {WITHHELD}")


def table(rows: Sequence[Row], peers: Iterable[Peer]) -> str:
    """The table in Markdown, an engine a line."""
    titles = {peer.name: f"{peer.title} {peer.version}" if peer.name != OURS else peer.title for peer in peers}
    ours = {row.workload: row for row in rows if row.engine == OURS and row.shown}
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    for row in rows:
        measured, cells = row.measured, [row.workload, titles[row.engine]]
        if row.shown:
            best = ours.get(row.workload)
            ratio = "" if best is None or row is best else _times(best.warm_per_s / row.warm_per_s)
            cells += [
                f"{measured.count:,}", f"{measured.start_s:.1f}", _k(row.cold_per_s), _k(row.warm_per_s), ratio,
                f"{measured.warm_s:.3g}", f"{measured.peak_mb:,.0f}",
            ]  # fmt: skip
        else:
            cells += ["-"] * 7
        lines.append(f"| {' | '.join([*cells, row.remark])} |")
    return "\n".join(lines)


def _k(per_s: float) -> str:
    return f"{per_s / 1e3:,.0f}" if per_s >= 1e4 else f"{per_s / 1e3:.2g}"


def _times(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}"


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as JSON has them; a speed only where it is shown."""
    made = []
    for row in rows:
        fields: dict[str, Any] = {key: value for key, value in asdict(row).items() if key != "measured"}
        fields |= {"matches": row.measured.count, "hash": row.measured.hash}
        if row.shown:
            fields |= {"cold_events_per_cpu_s": row.cold_per_s, "warm_events_per_cpu_s": row.warm_per_s}
            fields |= {
                key: getattr(row.measured, key)
                for key in ("start_s", "start_cpu_s", "cold_s", "warm_s", "wall_s", "warmed", "turns", "peak_mb")
            }
        made.append(fields)
    return made


def leads(rows: Sequence[Mapping[str, Any]], peers: Iterable[Peer]) -> list[str]:
    """What engines are ahead of ours in, of rows of `as_json`: each speed, with its reason, and each other figure."""
    because = {peer.name: peer.leads for peer in peers}
    ours = {row["workload"]: row for row in rows if row["engine"] == OURS and row["shown"]}
    speeds, others = [], dict[tuple[str, str], list[float]]()
    for row in rows:
        workload, engine, own = row["workload"], row["engine"], ours.get(row["workload"])
        if not row["shown"] or engine == OURS or own is None:
            continue
        for name in ("warm", "cold"):
            if (ratio := own[f"{name}_s"] / row[f"{name}_s"]) > 1:
                reason = because[engine].get(row["kind"], COLD if name == "cold" else "no reason is known")
                speeds.append(f"{workload}, {name}: {engine}, {_times(ratio)} times ours: {reason}")
        for name, figure in (("start-up", "start_s"), ("peak memory", "peak_mb")):
            if (ratio := own[figure] / row[figure]) > 1:
                others.setdefault((name, engine), []).append(ratio)
    return speeds + [
        f"{name}: {engine}, in {len(ratios)} workloads, we need up to {_times(max(ratios))} times that: {OTHERS[name]}"
        for (name, engine), ratios in others.items()
    ]


def without_form(workloads: Sequence[Workload], peers: Iterable[Peer]) -> list[str]:
    """A line for each engine and reason: the workloads for which it has no form."""
    lines = []
    for peer in peers:
        reasons: dict[str, list[str]] = {}
        for workload in workloads:
            kind = str(workload.arguments["kind"])
            if kind not in peer.forms:
                reasons.setdefault(peer.without.get(kind, peer.without_others), []).append(workload.name)
        lines += [f"{peer.title} has no form for {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return lines


def summary(rows: Sequence[Mapping[str, Any]], peers: Iterable[Peer]) -> str:
    """Two smaller tables of the rows of `as_json`: speeds by workload; start-up and memory by engine."""
    there = [peer for peer in peers if any(row["engine"] == peer.name for row in rows)]
    of = {(row["workload"], row["engine"]): row for row in rows}
    lines = [
        f"| workload | matches | {' | '.join(peer.title for peer in there)} | ours / best of the others |",
        "|" + "---|" * (len(there) + 3),
    ]
    for workload in dict.fromkeys(row["workload"] for row in rows):
        found = [of.get((workload, peer.name)) for peer in there]
        speeds = {row["engine"]: row["warm_events_per_cpu_s"] for row in found if row is not None and row["shown"]}
        ours = speeds.pop(OURS, None)
        ratio = _times(ours / max(speeds.values())) if ours is not None and speeds else ""
        own = of.get((workload, OURS), {"matches": 0, "hash": ""})
        cells = [_cell(row, own["hash"]) for row in found]
        lines.append(f"| {workload} | {own['matches']:,} | {' | '.join(cells)} | {ratio} |")
    lines += ["", "| engine | start-up, s | peak MB |", "|---|---|---|"]
    for peer in there:
        shown = [row for row in rows if row["engine"] == peer.name and row["shown"]]
        if shown:
            start, peak = median(row["start_s"] for row in shown), [row["peak_mb"] for row in shown]
            lines.append(f"| {peer.title} {peer.version} | {start:.1f} | {min(peak):,.0f} to {max(peak):,.0f} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any] | None, wanted: str) -> str:
    """Speeds of an engine, with a star where its matches differ for a stated reason; why there are none."""
    if row is None:
        return "-"
    if not row["shown"]:
        return "withheld" if WITHHELD in row["remark"] else row["remark"].partition(":")[0]
    mark = "" if row["hash"] == wanted else " \\*"
    return f"{_k(row['warm_events_per_cpu_s'])} ({_k(row['cold_events_per_cpu_s'])}){mark}"
