"""What an agent receives: one event per fetched chunk of a partition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from faust.types.tuples import ConsumerMessage

from astrocyte.pipeline.transport.commits import Delivery

__all__ = ["Chunk", "ChunkMessage", "ack_handle"]


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
