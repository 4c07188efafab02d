"""The rekey role: carries streams over to internal topics whose key is the field that rules correlate by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agents.decoding import RawRecord, decode_chunk
from pipeline.plan import Rekey
from schemas.events import DeadLetter
from schemas.frames import Frame

__all__ = ["Rekeyer"]


@dataclass(slots=True)
class Rekeyer:
    """One stream on its way. A row's id stays what it was; each input partition is an origin of its own.

    A watermark travels with every frame: the producer's own, or the newest timestamp less the lateness.
    """

    rekey: Rekey
    partitions: int
    lateness_us: int
    _newest_us: dict[tuple[int, str], int] = field(default_factory=dict)

    def step(self, partition: int, records: Sequence[RawRecord]) -> tuple[list[Frame], list[DeadLetter]]:
        """Frames of one chunk for the internal topic, and what could not be read (counted where it first came in)."""
        sourced, letters = decode_chunk(self.rekey.source, partition, records)
        return [self._relabel(item.frame, partition) for item in sourced], letters

    def _relabel(self, frame: Frame, partition: int) -> Frame:
        place = (partition, frame.origin)
        watermark_us = frame.watermark_us
        if watermark_us is None and frame.num_rows:
            newest_us = max(self._newest_us.get(place, -(2**63)), int(frame.timestamps().max()))
            self._newest_us[place] = newest_us
            watermark_us = newest_us - self.lateness_us
        peers = tuple(
            f"{frame.stream}@{_origin(frame.origin, other)}" for other in range(self.partitions) if frame.peers
        )
        return replace(frame, origin=_origin(frame.origin, partition), watermark_us=watermark_us, peers=peers)


def _origin(origin: str, partition: int) -> str:
    return f"{origin}/{partition}"
