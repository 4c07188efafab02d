"""What a live page costs beside a pipeline: 10,000 events a second, with no browser, one and fifty of them.

The broker, the world and the page are processes of their own, and the browsers are connections that read everything.
By itself, for as long as one likes with each number of browsers:

    python -m astrocyte.pipeline.bench.page.live --seconds 3600
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp
import numpy as np

from astrocyte.pipeline.bench.processes import resident_mb, used_s
from astrocyte.pipeline.broker import BrokerProcess
from astrocyte.pipeline.roles.parent import killed_with_parent

__all__ = ["run"]

_SIZE: Final = 5_850
"""Domains of the axons world that send 10,000 events in a second of simulated time."""
_BROWSERS: Final = (0, 1, 50)
_START_S: Final = 120.0
_SAMPLE_S: Final = 1.0


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """One figure for each number of browsers: the page's share of a core, its memory, and what each browser is sent."""
    yield from _measured(5 if quick else 120)


def _measured(seconds: float) -> Iterator[dict[str, Any]]:
    with TemporaryDirectory(prefix="astrocyte-bench-") as folder, BrokerProcess(Path(folder) / "broker") as broker:
        simulate = ["simulate", "axons", "--size", str(_SIZE), "--realtime", "--seconds", "86400"]
        with (
            _command([*simulate, "--broker", broker.address], Path(folder, "simulate.log")),
            _command(["page", "--broker", broker.address, "--port", "0"], Path(folder, "page.log")) as page,
        ):
            address = _address(page, Path(folder, "page.log"))
            for browsers in _BROWSERS:
                yield asyncio.run(_figure(address, page.pid, browsers, seconds))


@contextmanager
def _command(arguments: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    start = [sys.executable, "-c", "from astrocyte.pipeline.cli.start import main; main()", *arguments]
    with log.open("wb") as out, subprocess.Popen(killed_with_parent(start), stdout=out, stderr=out) as process:
        try:
            yield process
        finally:
            process.terminate()


def _address(page: subprocess.Popen[bytes], log: Path) -> str:
    """Where the page is, once it says so."""
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s and page.poll() is None:
        found = [word for word in log.read_text().split() if word.startswith("http://")]
        if found:
            return found[0].rstrip("/.,")
        time.sleep(0.1)
    raise RuntimeError(f"the page did not start: {log.read_text()[-2000:]}")


async def _figure(address: str, process: int, browsers: int, seconds: float) -> dict[str, Any]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        taken = [0] * browsers
        reading = [asyncio.create_task(_browse(session, address, taken, number)) for number in range(browsers)]
        await asyncio.sleep(min(10.0, seconds))  # snapshots of what was before
        began_s, used_before_s, sent = time.monotonic(), used_s(process), sum(taken)
        memory = []
        while time.monotonic() < began_s + seconds:
            memory.append((time.monotonic() - began_s, resident_mb(process)))
            await asyncio.sleep(_SAMPLE_S)
        passed_s = time.monotonic() - began_s
        share, sent = (used_s(process) - used_before_s) / passed_s, sum(taken) - sent
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    times_s, sizes_mb = np.array(memory).T
    return {
        "bench": "page_live",
        "browsers": browsers,
        "seconds": passed_s,
        "share_of_core": share,
        "kb_per_s_and_browser": sent / passed_s / 1e3 / browsers if browsers else 0.0,
        "resident_mb": sizes_mb[-1],
        "slope_mb_per_hour": float(np.polyfit(times_s, sizes_mb, 1)[0] * 3600),
    }


async def _browse(session: aiohttp.ClientSession, address: str, taken: list[int], number: int) -> None:
    timeout = aiohttp.ClientTimeout(total=None)
    async with session.get(f"{address}/api/stream", timeout=timeout) as answer:
        answer.raise_for_status()
        async for data in answer.content.iter_any():
            taken[number] += len(data)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="with each number of browsers")
    for figure in _measured(parser.parse_args().seconds):
        sys.stdout.write(json.dumps(figure) + "\n")


if __name__ == "__main__":
    _main()
