"""Judging and printing: no speed without the same matches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.peers.peers import Peer
from tests.peers.runs import Measured
from tests.peers.workloads import Workload

OURS = "astrocyte"
HEADER = (
    "workload", "engine", "matches", "start-up, s", "cold, k events/s", "warm, k events/s", "ours / it",
    "CPU s of a pass", "peak MB", "remarks",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One engine in one workload. ``shown``: whether its speed may be shown."""

    workload: str
    engine: str
    version: str
    events: int
    shown: bool
    remark: str
    measured: Measured | None = None

    @property
    def cold_per_s(self) -> float:
        """Events of a processor second in the first pass."""
        assert self.measured is not None
        return self.events / self.measured.cold_s

    @property
    def warm_per_s(self) -> float:
        """Events of a processor second, warm."""
        assert self.measured is not None
        return self.events / self.measured.warm_s


def judged(workload: Workload, peer: Peer, measured: Measured | None, ours: Measured | None) -> Row:
    """The row of an engine. Its speed is shown if its matches are ours, or if its form says why they differ.

    ``measured`` is None where the engine has no form for the workload.
    """
    kind = str(workload.arguments["kind"])

    def row(remark: str, *, shown: bool = False) -> Row:
        return Row(workload.name, peer.name, peer.version, workload.events, shown, remark, measured)

    if measured is None:
        return row(peer.without.get(kind, "no such form"))
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
    return row(f"{found} where we have {ours.count:,}: speed withheld")


def table(rows: Sequence[Row], peers: Iterable[Peer]) -> str:
    """The table in Markdown, an engine a line."""
    titles = {peer.name: f"{peer.title} {peer.version}" if peer.name != OURS else peer.title for peer in peers}
    ours = {row.workload: row for row in rows if row.engine == OURS and row.shown}
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    for row in rows:
        measured, cells = row.measured, [row.workload, titles[row.engine]]
        if row.shown and measured is not None:
            best = ours.get(row.workload)
            ratio = "" if best is None or row is best else f"{best.warm_per_s / row.warm_per_s:.2g}"
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


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as JSON has them; a speed only where it is shown."""
    made = []
    for row in rows:
        fields: dict[str, Any] = {key: value for key, value in asdict(row).items() if key != "measured"}
        if row.measured is not None:
            fields |= {"matches": row.measured.count, "hash": row.measured.hash}
            if row.shown:
                fields |= {"cold_events_per_cpu_s": row.cold_per_s, "warm_events_per_cpu_s": row.warm_per_s}
                fields |= {
                    key: getattr(row.measured, key)
                    for key in ("start_s", "start_cpu_s", "cold_s", "warm_s", "wall_s", "warmed", "turns", "peak_mb")
                }
        made.append(fields)
    return made


def leads(rows: Sequence[Row]) -> list[str]:
    """A line for each figure in which an engine is ahead of ours, with the reason where one is known."""
    ours = {row.workload: row.measured for row in rows if row.engine == OURS and row.measured is not None}
    lines = []
    for row in rows:
        own, its = ours.get(row.workload), row.measured
        if not row.shown or row.engine == OURS or own is None or its is None:
            continue
        for name, ratio in (
            ("warm", own.warm_s / its.warm_s),
            ("cold", own.cold_s / its.cold_s),
            ("start-up", own.start_s / its.start_s),
            ("memory", own.peak_mb / its.peak_mb),
        ):
            if ratio > 1:
                lines.append(f"{row.workload}, {name}: {row.engine} leads, {ratio:.2g} times ahead")
    return lines
