"""Sources of event time, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astrocyte.schemas.times import NEVER_US
from astrocyte.schemas.topics import TopicPartition

__all__ = ["Holder", "Observed", "Source", "SourceState", "Supposed"]

Flags = NDArray[np.bool_]


class Source(NamedTuple):
    """The rows of one origin on one partition of one topic: the unit that has a watermark."""

    topic: str
    partition: int
    origin: str = ""

    @property
    def place(self) -> TopicPartition:
        """Topic and partition of the source."""
        return TopicPartition(self.topic, self.partition)


class Observed(NamedTuple):
    """Classification of each row of one frame; exactly one of the first two flags is set for a row."""

    on_time: Flags
    late: Flags
    """Older than the watermark: written to the topic of late events."""
    limits_us: NDArray[np.int64]
    """The watermark with which each row was compared."""
    idle: Flags
    """Late, and only because event time went on while the source was idle."""


class Holder(NamedTuple):
    """A source that delays the domain's watermark."""

    source: Source
    """Without an origin where nothing has come from its place yet."""
    watermark_us: int
    """`NEVER_US` for a source that has sent nothing yet."""
    asserts: bool
    """Its producer asserts watermarks, or a peer has announced it."""


@dataclass(slots=True)
class SourceState:
    """What `Watermarks` knows of an open source."""

    newest_us: int = NEVER_US
    watermark_us: int = NEVER_US
    idle: bool = False
    asserts: bool = False
    """Its producer asserts watermarks, so that a lack of events does not make it idle."""
    announced: bool = False
    """It has announced its peers; it names them in every frame, of which only the first matters."""
    silent: bool = False
    """Idle until a frame of its own, whatever is said of its place (`Watermarks.silence`)."""
    resumed_us: int = NEVER_US
    """The domain's watermark when the source was last heard of after it had been idle."""

    @property
    def passive(self) -> bool:
        """Whether it delays nothing."""
        return self.idle or self.silent


class Supposed(NamedTuple):
    """How far event time is if those sources have nothing to send that said so (`Watermarks.suppose`)."""

    until_us: int
    over: bool
    """Whether every source has ended."""
    silent: dict[Source, int]
    """The sources, and how many changes there had been when each said so."""
    changes: int
