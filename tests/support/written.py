"""One write of a sink."""

from __future__ import annotations

from collections.abc import Sequence

from astrocyte.agents.sinks.base import Rejected, Sink, Sourced

__all__ = ["written"]


async def written(sink: Sink, *batches: Sequence[Sourced]) -> list[Rejected]:
    """Open the sink, write the batches, close it; returns what it rejected."""
    await sink.open()
    try:
        return [rejected for batch in batches for rejected in await sink.write(batch)]
    finally:
        await sink.close()
