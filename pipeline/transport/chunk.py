"""What an agent receives: one event per fetched chunk of a partition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from faust.types.tuples import ConsumerMessage

from astrocyte.pipeline.transport.commits import Delivery
from astrocyte.schemas.arrow.messages import unpacked_bytes
from astrocyte.schemas.arrow.stream import ARROW_MAGIC, MOST_BYTES

__all__ = ["Chunk", "ChunkMessage", "ack_handle", "parts_of"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one partition in the order of their offsets, never empty."""

    topic: str
    partition: int
    records: tuple[Any, ...]
    """aiokafka ``ConsumerRecord`` each: offset, key, value, headers, timestamp in milliseconds."""
    next_offset: int
    """Offset of the next fetch: past the last record and past offsets that hold none."""
    highwater: int
    """End of the partition when the chunk was fetched; ``highwater - next_offset`` is the lag."""

    @property
    def first_offset(self) -> int:
        """Offset of the first record."""
        return int(self.records[0].offset)

    @property
    def last_offset(self) -> int:
        """Offset of the last record."""
        return int(self.records[-1].offset)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.records)

    def __repr__(self) -> str:
        return f"<Chunk {self.topic}[{self.partition}] {self.first_offset}..{self.last_offset}>"


def parts_of(records: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The records of one fetch in parts whose frames together unpack to at most what one frame may.

    A reader unpacks a whole chunk, and some kilobytes can unpack to many megabytes. Most fetches are one part.
    """
    first, total = 0, 0
    for number, record in enumerate(records):
        size = _unpacked(record.value)
        if total + size > MOST_BYTES and number > first:
            yield records[first:number]
            first, total = number, 0
        total += size
    yield records[first:] if first else records


def _unpacked(value: bytes | None) -> int:
    if value is None or not value.startswith(ARROW_MAGIC):
        return 0
    try:
        return min(unpacked_bytes(value), MOST_BYTES)
    except Exception:  # noqa: BLE001  whoever decodes it says what is wrong with it
        return 0


class ChunkMessage(ConsumerMessage):  # type: ignore[misc]
    """A Faust message whose acknowledgement goes to its own delivery.

    Faust's compiled stream iterator sets ``acked`` without calling the consumer. That attribute is therefore the only
    place through which every acknowledgement passes.
    """

    __slots__ = ("_acked", "delivery")

    def __init__(self, *args: Any, delivery: Delivery | None = None, **kwargs: Any) -> None:
        self._acked = False
        self.delivery = delivery
        super().__init__(*args, **kwargs)

    @property
    def acked(self) -> bool:
        """Whether every agent that received the message is done with it."""
        return self._acked

    @acked.setter
    def acked(self, value: bool) -> None:
        self._acked = value
        if value and self.delivery is not None:
            self.delivery.ack()


def ack_handle(event: Any) -> Delivery:
    """The delivery of a Faust event, for an agent that acknowledges later.

    Keep it instead of the event: an event keeps its records in memory, a delivery only two numbers. Its ``ack`` is
    equivalent to ``event.ack()`` where one agent reads the topic; ``ack_through`` also covers all older chunks of the
    partition. Raises TypeError for an event of another transport.
    """
    delivery = getattr(event.message, "delivery", None)
    if not isinstance(delivery, Delivery):
        raise TypeError(
            f"expected an event of this transport, got {event.message!r} without a delivery; "
            "set the app's broker to astrocyte://host:port"
        )
    return delivery
