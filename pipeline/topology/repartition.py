"""The rekey role: carries streams over to internal topics whose key is the field that rules correlate by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.pipeline.topology.plan import Rekey
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import KafkaRecord

__all__ = ["Rekeyer"]


@dataclass(slots=True)
class _Input:
    """One partition of the source: when it was heard of, and origins that do not assert watermarks themselves."""

    heard_s: float
    silent: set[str] = field(default_factory=lambda: {""})
    """Origins whose silence is told to the reader. A partition that was never heard of may be one without any."""
    told: bool = False


@dataclass(slots=True)
class Rekeyer:
    """One stream on its way. A row's id stays what it was; each input partition is an origin of its own.

    A watermark travels with every frame: the producer's own, or the newest timestamp less the lateness. The reader
    waits for every input partition, so one that falls silent is ended for it (`silence`) until it speaks again.
    """

    rekey: Rekey
    partitions: int
    lateness_us: int
    _newest_us: dict[tuple[int, str], int] = field(default_factory=dict)
    _inputs: dict[int, _Input] = field(default_factory=dict)

    def assign(self, partitions: Iterable[int], now_s: float = 0.0) -> None:
        """The input partitions that this worker reads."""
        self._inputs = {number: self._inputs.get(number, _Input(now_s)) for number in partitions}

    def step(
        self, partition: int, records: Sequence[KafkaRecord], now_s: float = 0.0
    ) -> tuple[list[Frame], list[DeadLetter]]:
        """Frames of one chunk for the internal topic, and what could not be read (counted where it first came in)."""
        sourced, letters = decode_chunk(self.rekey.source, partition, records)
        known = self._inputs.setdefault(partition, _Input(now_s))
        known.heard_s, known.told = now_s, False
        for item in sourced:
            if item.frame.watermark_us is None:
                known.silent.add(item.frame.origin)
            else:
                known.silent -= {item.frame.origin, ""}
        return [self._relabel(item.frame, partition) for item in sourced], letters

    def silence(self, now_s: float, timeout_s: float) -> list[Frame]:
        """Frames that end the origins of partitions which have said nothing for ``timeout_s``, once each."""
        frames = []
        for number, known in self._inputs.items():
            if known.told or now_s - known.heard_s <= timeout_s:
                continue
            known.told = True
            for origin in sorted(known.silent):
                empty = Frame.from_columns(self.rekey.stream, "", {"timestamp": [], "key": []}, origin=origin, end=True)
                frames.append(self._relabel(empty, number))
        return frames

    def _relabel(self, frame: Frame, partition: int) -> Frame:
        place = (partition, frame.origin)
        watermark_us = frame.watermark_us
        if watermark_us is None and frame.num_rows:
            newest_us = max(self._newest_us.get(place, -(2**63)), int(frame.timestamps().max()))
            self._newest_us[place] = newest_us
            watermark_us = newest_us - self.lateness_us
        peers = tuple(f"{frame.stream}@{_origin(frame.origin, other)}" for other in range(self.partitions))
        return replace(frame, origin=_origin(frame.origin, partition), watermark_us=watermark_us, peers=peers)


def _origin(origin: str, partition: int) -> str:
    return f"{origin}/{partition}"
