"""What the embedded broker's sync costs: acknowledged records with ``sync=always`` and with ``sync=interval``."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from astrocyte.pipeline.broker import BrokerProcess

__all__ = ["run"]

_PARTITIONS: Final = 4
_SMALL: Final = bytes(200)
_LARGE: Final = bytes(200_000)


async def _measure(address: str, small: int, large: int, lone: int) -> dict[str, Any]:
    from astrocyte.pipeline.kafka.client import producer_client

    async with producer_client(address) as producer:

        async def send(value: bytes, count: int) -> float:
            began = time.perf_counter()
            sent = [await producer.send("records", value, partition=number % _PARTITIONS) for number in range(count)]
            await asyncio.gather(*sent)
            return time.perf_counter() - began

        await producer.send_and_wait("records", _SMALL)
        small_s, large_s = await send(_SMALL, small), await send(_LARGE, large)
        delays = [await send(_SMALL, 1) for _ in range(lone)]
    return {
        "records_per_s": small / small_s,
        "mb_per_s": large * len(_LARGE) / large_s / 1e6,
        "lone_p50_ms": float(np.median(delays)) * 1e3,
        "lone_p99_ms": float(np.quantile(delays, 0.99)) * 1e3,
    }


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """Records of 200 bytes in a second, MB in a second of records of 200 KB, and the delay of a lone record."""
    small, large, lone = (20_000, 50, 30) if quick else (200_000, 500, 300)
    for turn in ("", "_again"):
        for sync in ("interval", "always"):
            with (
                tempfile.TemporaryDirectory(prefix="astrocyte-bench-") as folder,
                BrokerProcess(folder, default_partitions=_PARTITIONS, sync=sync) as broker,
            ):
                found = asyncio.run(_measure(broker.address, small, large, lone))
            yield {"bench": f"broker/{sync}{turn}", **found}
