"""Points of the role ``influx``: those of a folder of files, or of an InfluxDB server, against those of the sink."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

from astrocyte.agents.sinks.base import Rejected, SinkError, Sourced
from astrocyte.agents.sinks.block_marks import ranges_of
from astrocyte.agents.sinks.influx.file import OFFSETS
from astrocyte.agents.sinks.influx.points import PointRules, points_of
from astrocyte.agents.sinks.influx.query import BucketReader
from astrocyte.agents.sinks.influx.read_lines import point_fields, point_key, point_line, points_in
from astrocyte.pipeline.analysis.verify.bodies import changes, kind_of
from astrocyte.pipeline.analysis.verify.ledger import Entry, Item, Ledger
from astrocyte.pipeline.analysis.verify.outputs import Span
from astrocyte.pipeline.analysis.verify.report import Change, Difference, Kind, Place

__all__ = ["FILES", "SERVER", "PointSink", "compare_points", "enter_bucket", "enter_files"]

FILES: Final = "influx files"
SERVER: Final = "influx server"


class PointSink:
    """A sink that enters the points of its batches into a ledger as expected.

    In files every line is kept, so a line is an entry. A server keeps the newest value of each field of a point, so
    that is an entry.
    """

    def __init__(self, ledger: Ledger, place: str, rules: PointRules, span: Span, *, due: bool) -> None:
        self.name = "influx"
        self._ledger, self._place, self._rules, self._span, self._due = ledger, place, rules, span, due

    async def open(self) -> None:
        """Does nothing."""

    async def close(self) -> None:
        """Does nothing."""

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Enter the points."""
        found = points_of(batch, self._rules)
        for points in found.points:
            for line in points.lines.strings.to_pylist():
                self._enter(line.removesuffix("\n"))
        return found.refused

    def _enter(self, line: str) -> None:
        key = point_key(line)
        time_us = _time_us(key)
        if not self._span.holds(time_us):
            return
        if self._place == FILES:
            self._ledger.expect(self._place, Item(point_line(line), time_us, _short(key), {}), due=self._due)
            return
        for name, value in point_fields(line).items():
            item = Item(f"{key} {name}", time_us, None, {"value": value})
            self._ledger.expect(self._place, item, due=self._due, replace=True)


def enter_files(folder: Path, ledger: Ledger, span: Span) -> tuple[list[str], dict[tuple[str, int], int]]:
    """Enter the points of the files of a folder as found; returns their names, and how far their sinks had read.

    Raises SinkError.
    """
    if not folder.is_dir():
        raise SinkError(f"there is no folder {folder} of points; name it with --influx-dir or ASTROCYTE_INFLUX_DIR")
    reached: dict[tuple[str, int], int] = {}

    def mark(comment: bytes) -> None:
        if comment.startswith(OFFSETS):
            for place, (_, following) in ranges_of(comment.removeprefix(OFFSETS)).items():
                reached[place] = max(reached.get(place, 0), following)

    paths = sorted(folder.glob("points-*.lp*"))
    for number, path in enumerate(paths):
        for line_number, line in points_in(path, mark):
            key = point_key(line)
            time_us = _time_us(key)
            if span.holds(time_us):
                ledger.found(FILES, Item(point_line(line), time_us, _short(key), {}), (number, line_number))
    return [path.name for path in paths], reached


def enter_bucket(reader: BucketReader, ledger: Ledger, span: Span) -> None:
    """Enter the values of all points of a bucket as found. Raises SinkError."""
    for number, (key, name, value) in enumerate(reader.values(span.since_us, span.until_us)):
        ledger.found(SERVER, Item(f"{key} {name}", _time_us(key), None, {"value": value}), (0, number))


def compare_points(
    ledger: Ledger,
    form: str,
    name: str,
    *,
    show: int,
    excuse: Callable[[Entry], str | None],
    files: Sequence[str] = (),
    tell: Callable[[Difference], None] | None = None,
) -> Place:
    """Counts and differences of the points of one place.

    A line that is not expected in the place of one that is, of the same point, is one point with other values.
    """
    place = Place(name, tell=tell)
    place.expected, place.found, place.waiting = ledger.counts(form)
    replaced: set[str] = set()
    for entry in ledger.differing(form):
        kind, differing = kind_of(entry)
        if kind in ("lost", "unexpected", "wrong") and (why := excuse(entry)) is not None:
            place.leave_out(kind, why)
        elif kind == "unexpected":
            other = ledger.lost_of(form, entry.run) if entry.run else None
            if other is None or other.identity in replaced:
                place.add(_difference("unexpected", place, entry, files), show)
                continue
            replaced.add(other.identity)
            differing = tuple(changes(point_fields(other.identity), point_fields(entry.identity)))
            differing = differing or (Change("line", other.identity, entry.identity),)
            place.add(_difference("wrong", place, entry, files, differing), show)
        elif kind == "wrong":
            place.add(_difference(kind, place, entry, files, differing), show)
        elif kind == "twice":
            place.add(_difference(kind, place, entry, files), show, entry.times - 1)
    for entry in ledger.differing(form):
        if entry.times == 0 and entry.identity not in replaced and excuse(entry) is None:
            place.add(_difference("lost", place, entry, files), show)
    return place


def _difference(
    kind: Kind, place: Place, entry: Entry, files: Sequence[str], found: tuple[Change, ...] = ()
) -> Difference:
    at = f"{files[entry.partition]}, line {entry.offset:,}" if entry.times and files else ""
    if at and entry.times > 1 and entry.last_offset != entry.offset:
        at += f" and {entry.last_offset:,}"
    return Difference(kind, place.name, entry.identity, entry.time_us, "", at, found)


def _time_us(key: str) -> int | None:
    try:
        return int(key.rpartition(" ")[2]) // 1_000
    except ValueError:
        return None


def _short(key: str) -> str:
    return blake2b(key.encode(errors="surrogateescape"), digest_size=8).hexdigest()
