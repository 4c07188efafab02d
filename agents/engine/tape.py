"""What an engine takes, kept so that other rules can be given the same events again.

Which events reach an engine, and where event time stands between them, is decided before any rule sees them: by
decoders, validators, clocks, watermarks and deduplication. An edited rule of the same streams is therefore given the
same sequence, and its matches are those of a run from the messages. Frames are joined to large ones: neither the order
in which rows leave the reorder buffer nor the outputs depend on how rows were divided among frames and steps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.engine.arrival.early import in_order_alone
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.engine.output import EngineOutput
from astrocyte.agents.event_time.event_store import Origin
from astrocyte.agents.ingest.faults import apart
from astrocyte.agents.matches.table import MatchTable
from astrocyte.agents.rules.model import RuleSet
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import NEVER_US

__all__ = ["Player", "Recorder", "Tape", "TapeTooLarge"]

_ROWS: Final = 131_072
"""Rows between two steps of event time."""


class TapeTooLarge(MemoryError):
    """More events than the tapes may hold."""


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    frame: Frame
    origin: Origin


@dataclass(slots=True, eq=False)
class _Step:
    """Frames, then late ones, then how far event time comes; ``flush``: the input has ended."""

    frames: list[_Taken] = field(default_factory=list)
    late: list[Frame] = field(default_factory=list)
    watermark_us: int = NEVER_US
    newest_us: int = NEVER_US
    flush: bool = False

    @property
    def rows(self) -> int:
        return sum(each.frame.num_rows for each in self.frames)


@dataclass(slots=True, eq=False)
class Tape:
    """Events of one engine, in order."""

    steps: list[_Step] = field(default_factory=lambda: [_Step()])

    def times_us(self) -> tuple[int, int] | None:
        """Oldest and newest time of an event; None without events."""
        found = [each.frame.timestamps() for step in self.steps for each in step.frames if each.frame.num_rows]
        return (min(int(each.min()) for each in found), max(int(each.max()) for each in found)) if found else None

    def take(self, frame: Frame, origin: Origin) -> None:
        """Note a frame."""
        self.steps[-1].frames.append(_Taken(frame, origin))

    def take_late(self, frame: Frame) -> None:
        """Note rows that are late, which only windows that revise their results take."""
        self._close()
        self.steps[-1].late.append(frame)

    def advance(self, watermark_us: int, newest_us: int) -> None:
        """Note that event time advances."""
        step = self.steps[-1]
        step.watermark_us, step.newest_us = watermark_us, newest_us
        if step.rows >= _ROWS:
            self._close()

    def flush(self, newest_us: int) -> None:
        """Note the end of the input, after which event time may begin anew."""
        step = self.steps[-1]
        step.flush, step.newest_us = True, newest_us
        self._close()

    def _close(self) -> None:
        step = self.steps[-1]
        step.frames = joined(step.frames)
        watermark_us = NEVER_US if step.flush else step.watermark_us
        self.steps.append(_Step(watermark_us=watermark_us, newest_us=NEVER_US if step.flush else step.newest_us))

    def finish(self) -> None:
        """Nothing more is noted."""
        self._close()

    def replay(self, engine: Player) -> Iterator[EngineOutput]:
        """Outputs of a new engine over the events, in order. Raises OperatorFailed."""
        for step in self.steps:
            for each in step.frames:
                engine.take(each.frame, each.origin)
            for frame in step.late:
                if frame.stream in engine.streams:
                    engine.push_late(frame)
            yield engine.move(step.watermark_us, step.newest_us, flush=step.flush)


class Player(Engine):
    """An engine that is given rows which were found to be on time, and new, before. Raises InvalidRule."""

    def __init__(self, ruleset: RuleSet, *, carriers: Collection[str] = (), newest: Collection[str] = ()) -> None:
        super().__init__(in_order_alone(ruleset), carriers=carriers, newest=newest, validated=True)

    def take(self, frame: Frame, origin: Origin) -> None:
        """Let the rows wait; those on which a rule raises take no part, as in a domain."""
        if frame.stream not in self.streams:
            return

        def attempt(first: int, last: int) -> None:
            if last - first == frame.num_rows:
                self._take(frame, origin)
                return
            rows = np.arange(first, last)
            self._take(frame.take(rows), origin.take(rows))

        apart(frame.num_rows, attempt, lambda _row, _error: None)

    def move(self, watermark_us: int, newest_us: int, *, flush: bool) -> EngineOutput:
        """Advance, or end the input."""
        self._newest_us = newest_us
        return self.flush() if flush else self.advance(watermark_us)


class Recorder(Engine):
    """An engine that notes what it takes. It runs its rules only with ``running``: where others read what they make.

    ``most_rows`` bounds the tape. Raises TapeTooLarge where it is exceeded.
    """

    def __init__(
        self,
        ruleset: RuleSet,
        *,
        exports: Collection[str] = (),
        carriers: Collection[str] = (),
        newest: Collection[str] = (),
        running: bool,
        most_rows: int = 2**62,
    ) -> None:
        super().__init__(in_order_alone(ruleset), exports=exports, carriers=carriers, newest=newest, validated=True)
        self.tape = Tape()
        self._running = running
        self._left = most_rows

    def _take(self, frame: Frame, origin: Origin | None) -> None:
        self._left -= frame.num_rows
        if self._left < 0:
            raise TapeTooLarge
        if origin is not None:  # else it is made by the rules themselves
            self.tape.take(frame, origin)
        if self._running:
            super()._take(frame, origin)

    def push_late(self, frame: Frame) -> bool:
        """See `Engine`."""
        self.tape.take_late(frame)
        return super().push_late(frame) if self._running else False

    def advance(self, watermark_us: int) -> EngineOutput:
        """See `Engine`."""
        if watermark_us > self.watermark_us:
            self.tape.advance(watermark_us, self._newest_us)
        if self._running:
            return super().advance(watermark_us)
        if watermark_us > self.watermark_us:
            self.watermark_us = watermark_us
            self._delivered.purge(watermark_us)
        return EngineOutput(MatchTable.empty(self.rules))

    def flush(self) -> EngineOutput:
        """See `Engine`."""
        self.tape.flush(self._newest_us)
        if self._running:
            return super().flush()
        self._delivered.clear()
        self.watermark_us = self._newest_us = NEVER_US
        return EngineOutput(MatchTable.empty(self.rules))


def joined(taken: Sequence[_Taken]) -> list[_Taken]:
    """The same rows in one frame for each stream, run, place and form of the columns."""
    groups: dict[tuple[object, ...], list[_Taken]] = {}
    for each in taken:
        frame, origin = each.frame, each.origin
        # Schemas with metadata of their own would differ for each frame.
        form = tuple((column.name, str(column.type)) for column in frame.batch.schema)
        name = (frame.stream, frame.run, frame.weight, frame.version, origin.topic, origin.partition, form)
        groups.setdefault(name, []).append(each)
    return [each for group in groups.values() for each in _joined(group)]


def _joined(group: Sequence[_Taken]) -> list[_Taken]:
    if len(group) == 1:
        return list(group)
    first = group[0].frame
    batches = [each.frame.batch.replace_schema_metadata(None) for each in group]
    first_seq = first.first_seq
    if first.batch.schema.get_field_index("seq") < 0:
        ends = [each.frame.first_seq + each.frame.num_rows for each in group]
        if any(end != each.frame.first_seq for end, each in zip(ends, group[1:], strict=False)):
            batches = [
                batch.append_column("seq", pa.array(each.frame.sequences()))
                for batch, each in zip(batches, group, strict=True)
            ]
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    rows = table.num_rows
    columns = [
        column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks) for column in table.columns
    ]
    batch = pa.RecordBatch.from_arrays(columns, names=table.schema.names)
    frame = replace(first, batch=batch, first_seq=first_seq, watermark_us=None, end=False, peers=(), origin="")
    assert frame.num_rows == rows
    origin = group[0].origin
    return [_Taken(frame, Origin(origin.topic, origin.partition, _offsets(group)))]


def _offsets(group: Sequence[_Taken]) -> NDArray[np.int64]:
    """Offset of each row."""
    return np.concatenate(
        [
            np.full(each.frame.num_rows, each.origin.offsets, np.int64)
            if isinstance(each.origin.offsets, int)
            else each.origin.offsets
            for each in group
        ]
    )
