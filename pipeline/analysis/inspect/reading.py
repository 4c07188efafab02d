"""How a worker reads a sample: the domain's own path up to the watermarks, and the lateness that the events need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.accounting import DomainOutput, Intake
from astrocyte.agents.domain import Domain
from astrocyte.agents.event_time.clock_guard import Admitted
from astrocyte.agents.event_time.sources import Observed, Source
from astrocyte.agents.event_time.watermarks import Watermarks
from astrocyte.agents.ingest.decode import KafkaTimes
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.ingest.waiter import Waiter
from astrocyte.pipeline.analysis.inspect.clocks.rows import Taken
from astrocyte.pipeline.analysis.inspect.clocks.strays import Clocks, Stray, clocks_of
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import raw_record
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import us_from_ms
from astrocyte.schemas.topics import TopicPartition

__all__ = ["Reading", "lateness_for", "read_sample", "recommended_lateness"]

_CHUNK: Final = 4096
_DAY_US: Final = 86_400_000_000
_STEPS_US: Final = tuple(
    number * unit
    for unit, numbers in (
        (1_000_000, (1, 2, 3, 5, 10, 15, 20, 30, 45)),
        (60_000_000, (1, 2, 3, 5, 10, 15, 20, 30, 45)),
        (3_600_000_000, (1, 2, 3, 6, 12)),
        (_DAY_US, (1, 2, 3, 7, 14, 30)),
    )
    for number in numbers
)
"""Values that a person would set, from the default of a second on."""


class _Lags(Watermarks):
    """Watermarks without lateness, by which no event is late, but which note how late each would have been."""

    def __init__(self, expected: Iterable[TopicPartition]) -> None:
        super().__init__(lateness_us=0, expected=expected)
        self.lags_us: list[NDArray[np.int64]] = []

    def observe(
        self,
        source: Source,
        timestamps: NDArray[np.int64],
        *,
        watermark_us: int | None = None,
        end: bool = False,
        one_by_one: bool = False,
        peers: Sequence[Source] = (),
        trusted: bool = False,
    ) -> Observed:
        """As `Watermarks.observe`, with the lateness that each row needs in ``lags_us``."""
        times = np.asarray(timestamps, np.int64)
        observed = super().observe(
            source, times, watermark_us=watermark_us, end=end, one_by_one=one_by_one, peers=peers, trusted=trusted
        )
        self.lags_us.append(np.where(observed.late, observed.limits_us - times, 0))
        late = np.zeros(len(times), np.bool_)
        return Observed(~late, late, observed.limits_us, late)


class _Reader(Domain):
    """A domain without rules that keeps the frames which it accepts."""

    def __init__(self, place: TopicPartition, stamps: KafkaTimes, **options: Any) -> None:
        self.accepted: list[Taken] = []
        self.refused: list[Stray] = []
        self.at_end = False
        """Whether events are accepted only because the sample ends, where a worker would go on to hold them."""
        self._stamps = stamps
        self.noted = _Lags([place])
        self._place = place
        super().__init__(place.partition, (), topics=[place.topic], **options)

    def _clock(self, topics: Iterable[str]) -> Watermarks:  # noqa: ARG002  the only topic
        return self.noted

    def _decide(self, step: Admitted[Waiter], output: DomainOutput) -> None:
        if step.waited is not None and step.reason is not None:
            self.refused.append(Stray(self.partition, step.waited.time_us, step.waited.key))
        super()._decide(step, output)

    def _observe(self, intake: Intake, kept: Frame, rows: NDArray[np.int64]) -> None:
        self.accepted.append(Taken(kept, self._stamps.of(intake.sourced, rows), self.at_end))
        super()._observe(intake, kept, rows)

    def end(self, now_us: int | None) -> DomainOutput:
        """Accept what waits, as a worker at rest that shows ``now_us`` does, and then as `match` at a log's end."""
        output = DomainOutput() if now_us is None else self.trust(now_us, [self._place])
        self.at_end = now_us is not None
        output.extend(self.trust())
        return output


@dataclass(slots=True)
class Reading:
    """What a worker makes of the messages of one topic."""

    frames: dict[int, list[Frame]] = field(default_factory=dict)
    """Accepted events by partition, in the order in which a consumer reads them."""
    lags_us: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    """By partition: the lateness that each of these events needs so that it is not late."""
    letters: list[DeadLetter] = field(default_factory=list)
    skipped: int = 0
    """Messages that hold no event by their declaration, such as tombstones."""
    refused_clocks: list[Stray] = field(default_factory=list)
    """Events that were refused because their clocks are ahead (`ClockGuard`)."""
    clocks: Clocks = field(default_factory=Clocks)
    """Which of the accepted events are far from the others."""

    @property
    def all_frames(self) -> list[Frame]:
        """Accepted events of all partitions."""
        return [frame for frames in self.frames.values() for frame in frames if frame.num_rows]

    @property
    def events(self) -> int:
        """Number of accepted events."""
        return sum(frame.num_rows for frame in self.all_frames)

    def times_us(self) -> NDArray[np.int64]:
        """Their times, by partition and in the order of reading."""
        return np.concatenate([np.empty(0, np.int64), *(frame.timestamps() for frame in self.all_frames)])

    def all_lags_us(self) -> NDArray[np.int64]:
        """The lateness that each needs, in the same order."""
        return np.concatenate([np.empty(0, np.int64), *self.lags_us.values()])

    def usual_lags_us(self) -> dict[int, NDArray[np.int64]]:
        """By partition: the lateness that each event needs, without those of wrong clocks."""
        return self.clocks.lags_us if self.clocks.leave_out else self.lags_us

    @property
    def recommended_us(self) -> int:
        """Lateness at which none of the events is late, apart from what strays and wrong clocks do."""
        lags = np.concatenate([np.empty(0, np.int64), *self.usual_lags_us().values()])
        return recommended_lateness(lags[lags <= self.clocks.usual_span_us] if self.clocks.strays else lags)


def read_sample(
    topic: str,
    records: Mapping[int, Sequence[ConsumedRecord]],
    decoders: Decoders,
    validators: Validators,
    *,
    lateness_us: int,
    clock_tolerance_us: int,
) -> Reading:
    """The events of one topic as a worker reads them.

    Which clock is wrong depends a little on the lateness (`ClockGuard`): the messages are read again with the lateness
    that they need, if that is more than the given one and not for wrong clocks alone.
    """
    now_us = max((us_from_ms(each.timestamp_ms) or 0 for every in records.values() for each in every), default=0)
    while True:
        reading = Reading()
        taken: dict[int, list[Taken]] = {}
        for partition, messages in records.items():
            raws = [raw_record(message) for message in messages]
            domain = _Reader(
                TopicPartition(topic, partition),
                KafkaTimes(raws),
                lateness_us=lateness_us,
                clock_tolerance_us=clock_tolerance_us,
                decoders=decoders,
                validators=validators,
            )
            outputs = [domain.feed(topic, raws[at : at + _CHUNK]) for at in range(0, len(raws), _CHUNK)]
            outputs.append(domain.end(now_us or None))
            reading.letters += [letter for output in outputs for letter in output.dead_letters]
            taken[partition] = domain.accepted
            reading.frames[partition] = [each.frame for each in domain.accepted]
            reading.lags_us[partition] = np.concatenate([np.empty(0, np.int64), *domain.noted.lags_us])
            reading.skipped += domain.counters.skipped
            reading.refused_clocks += domain.refused
        reading.clocks = clocks_of(taken, tolerance_us=clock_tolerance_us)
        needed = reading.recommended_us
        if needed <= lateness_us or not _may_have_waited(reading, clock_tolerance_us):
            return reading
        lateness_us = needed


def _may_have_waited(reading: Reading, tolerance_us: int) -> bool:
    """Whether an event was so far ahead of those before it that its clock was doubted."""
    if any(letter.stage == "clock" for letter in reading.letters):
        return True
    for frames in reading.frames.values():
        times = np.concatenate([np.empty(0, np.int64), *(frame.timestamps() for frame in frames)])
        if len(times) > 1 and int(np.diff(np.maximum.accumulate(times)).max()) > tolerance_us:
            return True
    return False


def lateness_for(lags_us: NDArray[np.int64], share: float) -> int:
    """The smallest lateness at which at most ``share`` of the events are late."""
    if not len(lags_us):
        return 0
    late = int(share * len(lags_us))
    at = len(lags_us) - 1 - min(late, len(lags_us) - 1)
    return int(np.partition(lags_us, at)[at])


def recommended_lateness(lags_us: NDArray[np.int64]) -> int:
    """A lateness at which none of the events is late: that of `lateness_for`, as a person would round it up."""
    needed = lateness_for(lags_us, 0.0)
    return next((step for step in _STEPS_US if step >= needed), -(-needed // _DAY_US) * _DAY_US)
