"""The events of one run, read once, and statistics over all of its windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.agents.insight import InsightOperator, Windows
from astrocyte.agents.insight.statistic import Statistic
from astrocyte.agents.rules.steps import parse_duration
from astrocyte.pipeline.analysis.evolution.records import NotEnoughData
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import ALERTS, TRUTH

__all__ = ["EVENTS", "GENOMES", "METRICS", "SOLVING", "STREAMS", "History", "joined_frames"]

EVENTS: Final = "evolutionary_events"
GENOMES: Final = "genome_data"
SOLVING: Final = "problem_solving"
METRICS: Final = "population_metrics"
CELL_STREAMS: Final = (EVENTS, GENOMES, SOLVING, METRICS)
STREAMS: Final = (*CELL_STREAMS, ALERTS, TRUTH)
"""What is read of a source."""


@dataclass(frozen=True)
class History:
    """The events of one run, a frame for each stream. Never changed; everything is computed from these rows.

    Event times are microseconds since 1970. Windows are counted back from ``end_us``, so that the last one ends with
    the run; what they leave over at its start is not analysed.
    """

    source: str
    """As it was named, without passwords."""
    run: str
    frames: Mapping[str, Frame]
    notes: tuple[str, ...] = ()
    """What is to be said of the source, a sentence each."""
    rules: tuple[str, ...] | None = None
    """Names of the rules whose alerts these are; None for the alerts that the source holds."""
    _known: dict[str, pa.Table] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Results so far, by statistic: several questions need the same."""

    @cached_property
    def begin_us(self) -> int:
        """Time of the first event. Raises NotEnoughData for a run without events."""
        return min(int(frame.timestamps().min()) for frame in self._dated)

    @cached_property
    def end_us(self) -> int:
        """One microsecond after the last event."""
        return max(int(frame.timestamps().max()) for frame in self._dated) + 1

    @property
    def _dated(self) -> list[Frame]:
        frames = [frame for name, frame in self.frames.items() if name in CELL_STREAMS]
        if not frames:
            raise NotEnoughData(f"{self.source}: run {self.run!r} has no events of {', '.join(CELL_STREAMS)}")
        return frames

    @property
    def length_us(self) -> int:
        """Event time from the first to the last event."""
        return self.end_us - self.begin_us - 1

    def count(self, stream: str) -> int:
        """Number of events of a stream."""
        return self.frames[stream].num_rows if stream in self.frames else 0

    def times(self, stream: str) -> NDArray[np.int64]:
        """The distinct times of a stream's events, in order."""
        return np.unique(self.frames[stream].timestamps()) if stream in self.frames else np.empty(0, np.int64)

    def spacing_us(self, stream: str) -> int:
        """Median time between the samples of a stream. Raises NotEnoughData."""
        times = self.times(stream)
        if len(times) < 2:
            raise NotEnoughData(f"run {self.run!r} has {len(times)} samples of {stream}; expected two or more")
        return int(np.median(np.diff(times)))

    def window_us(self, text: str | int) -> int:
        """A span such as ``"5m"`` (or microseconds), at most as long as the run. Raises InvalidSettings."""
        try:
            span_us = parse_duration(text) if isinstance(text, str) else int(text)
        except ValueError as error:
            raise InvalidSettings(str(error)) from None
        if span_us <= 0:
            raise InvalidSettings(f"expected a span of time above 0, got {text!r}")
        return min(span_us, self.end_us - self.begin_us)

    def windows(self, size: str | int, step_us: int = 0) -> Windows:
        """Windows of that size whose last one ends with the run. Raises InvalidSettings."""
        size_us = self.window_us(size)
        return Windows(size_us, step_us, offset_us=self.end_us % (step_us or size_us))

    def require(self, *streams: str) -> None:
        """Raise NotEnoughData unless the run has events of each stream, at two times or more."""
        missing = [stream for stream in streams if not self.count(stream)]
        if missing:
            has = ", ".join(f"{name} {frame.num_rows:,}" for name, frame in self.frames.items()) or "no events"
            raise NotEnoughData(f"run {self.run!r} has no events of {', '.join(missing)}; it has {has}")
        if self.length_us <= 0:
            raise NotEnoughData(
                f"all events of run {self.run!r} are of one instant, {iso_from_us(self.begin_us)}; "
                "statistics over time need two or more"
            )

    def results(self, statistic: Statistic) -> pa.Table:
        """Results of a statistic for every window that lies in the run, with the fields of its stream.

        So does one that ends with the run, even if it begins before it. They are those that the same statistic gives
        live, with the same rows and windows. Raises SchemaMismatch.
        """
        question = repr(statistic)
        if question not in self._known:
            self._known[question] = self._results(statistic)
        return self._known[question]

    def _results(self, statistic: Statistic) -> pa.Table:
        operator = InsightOperator(statistic)
        for stream in operator.streams:
            if stream in self.frames:
                operator.add(self.frames[stream])
        found = operator.flush()
        about = statistic.result.arrow_schema()
        names = [each.name for each in about if each.name not in ("timestamp", "key", "type")]
        if found is None:
            return pa.schema([(name, _plain(about.field(name).type)) for name in names]).empty_table()
        table = pa.table({name: found.column(name) for name in names})
        table = table.cast(pa.schema([(each.name, _plain(each.type)) for each in table.schema]))
        start, end = table.column("window_start"), table.column("window_end")
        in_run = pc.and_(pc.greater_equal(start, self.begin_us), pc.less_equal(end, self.end_us))
        return table.filter(pc.or_(in_run, pc.equal(end, self.end_us)))

    def column(self, stream: str, name: str) -> NDArray[np.float64]:
        """Values of a number of a stream, in the order of `History.frames`; NaN where there is none."""
        frame = self.frames[stream]
        if not frame.has(name):
            return np.full(frame.num_rows, np.nan)
        return np.asarray(frame.column(name).cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False))

    def with_alerts(self, frame: Frame | None, rules: Sequence[str]) -> History:
        """The same run with these alerts of rules, or none, in place of those that the source holds."""
        rest = {name: each for name, each in self.frames.items() if name != ALERTS}
        return replace(self, frames=rest if frame is None else {**rest, ALERTS: frame}, rules=tuple(rules))


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.utf8() if pa.types.is_dictionary(kind) else kind


def joined_frames(frames: Sequence[Frame], run: str) -> Frame:
    """One frame with the rows of all: a statistic reads it in one piece."""
    table = pa.concat_tables([pa.Table.from_batches([frame.batch]) for frame in frames], promote_options="permissive")
    (batch,) = table.unify_dictionaries().combine_chunks().to_batches() or [
        pa.RecordBatch.from_pylist([], schema=table.schema)
    ]
    return Frame(frames[0].stream, run, batch)
