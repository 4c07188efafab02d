"""Whether the broker takes records: while it takes none, silence of producers means nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from astrocyte.pipeline.roles.correlation.partition import Partition
from astrocyte.pipeline.transport.producer_record import DeliveryFailed

__all__ = ["WriteProof"]

_LONGEST_S: Final = 2.0
"""A broker that takes longer than this for a record holds producers up, too."""


@dataclass(frozen=True, slots=True)
class WriteProof:
    """Asks the broker to take a record of a partition, which ``send`` hands over, before its sources become idle."""

    send: Callable[[Partition], Awaitable[Sequence[asyncio.Future[Any]]]]
    idle_s: float
    monotonic: Callable[[], float] = time.monotonic

    def accepts(self, part: Partition) -> bool:
        """Whether the broker has just taken a record; if not, one is on its way."""
        if self.monotonic() - part.wrote_s <= max(_LONGEST_S, self.idle_s):
            return True
        if part.writing is None or part.writing.done():
            part.writing = asyncio.create_task(self._write(part))
        return False

    async def _write(self, part: Partition) -> None:
        began_s = self.monotonic()
        # A refusal for good also fails the next snapshot, which reports it.
        with contextlib.suppress(DeliveryFailed):
            await asyncio.gather(*await self.send(part))
        now_s = self.monotonic()
        if now_s - began_s <= _LONGEST_S:
            part.wrote_s = now_s
        else:
            # Producers had to wait, too, and will now send what they kept.
            part.sources.heard_s = dict.fromkeys(part.sources.heard_s, now_s)
