"""What a live page costs beside a pipeline: 10,000 events a second, with no browser, one and fifty of them.

The broker, the world and the page are processes of their own, and the browsers are connections that read everything.
By itself, for as long as one likes with each number of browsers; then with a tab of Chromium, whose memory is measured:

    python -m astrocyte.pipeline.bench.page.live --seconds 3600 --browsers 1 --tab
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

from astrocyte.pipeline.bench.page.tab import Tab, browser_program, open_tab
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
    yield from _measured(5 if quick else 120, _BROWSERS, browser_program() if not quick else None)


def _measured(seconds: float, numbers: Sequence[int], program: str | None) -> Iterator[dict[str, Any]]:
    with TemporaryDirectory(prefix="astrocyte-bench-") as folder, BrokerProcess(Path(folder) / "broker") as broker:
        simulate = ["simulate", "axons", "--size", str(_SIZE), "--realtime", "--seconds", "86400"]
        with (
            _command([*simulate, "--broker", broker.address], Path(folder, "simulate.log")),
            _command(["page", "--broker", broker.address, "--port", "0"], Path(folder, "page.log")) as page,
        ):
            address = _address(page, Path(folder, "page.log"))
            for browsers in numbers:
                yield asyncio.run(_figure(address, page.pid, browsers, seconds))
            if program is not None:
                yield asyncio.run(_tab_figure(program, address, page.pid, seconds))


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
        sent = sum(taken)
        figure = await _watched(process, seconds)
        sent = sum(taken) - sent
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    rate = sent / figure["seconds"] / 1e3 / browsers if browsers else 0.0
    return {"bench": "page_live", "browsers": browsers, "kb_per_s_and_browser": rate, **figure}


async def _tab_figure(program: str, address: str, process: int, seconds: float) -> dict[str, Any]:
    async with open_tab(program, address) as tab:
        await asyncio.sleep(min(10.0, seconds))
        figure = await _watched(process, seconds, tab)
    return {"bench": "page_live_tab", "browsers": 1, **figure}


async def _watched(process: int, seconds: float, tab: Tab | None = None) -> dict[str, Any]:
    """Use and memory of the server, and of a tab, over some time; slopes are those of straight lines through them."""
    began_s, used_before_s = time.monotonic(), used_s(process)
    server, heap = [], []
    while time.monotonic() < began_s + seconds:
        server.append((time.monotonic() - began_s, resident_mb(process)))
        if tab is not None:
            heap.append((time.monotonic() - began_s, await tab.heap_mb()))
        await asyncio.sleep(_SAMPLE_S)
    passed_s = time.monotonic() - began_s
    figure = {
        "seconds": passed_s,
        "share_of_core": (used_s(process) - used_before_s) / passed_s,
        "resident_mb": server[-1][1],
        "slope_mb_per_hour": _slope(server),
    }
    return figure | ({"heap_mb": heap[-1][1], "heap_slope_mb_per_hour": _slope(heap)} if heap else {})


def _slope(sizes: Sequence[tuple[float, float]]) -> float:
    times_s, sizes_mb = np.array(sizes).T
    return float(np.polyfit(times_s, sizes_mb, 1)[0] * 3600)


async def _browse(session: aiohttp.ClientSession, address: str, taken: list[int], number: int) -> None:
    timeout = aiohttp.ClientTimeout(total=None)
    async with session.get(f"{address}/api/stream", timeout=timeout) as answer:
        answer.raise_for_status()
        async for data in answer.content.iter_any():
            taken[number] += len(data)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="with each number of browsers")
    parser.add_argument("--browsers", type=int, nargs="*", default=_BROWSERS, help="numbers of browsers")
    parser.add_argument("--tab", action="store_true", help="at last a tab of Chromium")
    given = parser.parse_args()
    program = browser_program() if given.tab else None
    if given.tab and program is None:
        parser.error("neither chromium nor google-chrome is installed; leave --tab out")
    for figure in _measured(given.seconds, given.browsers, program):
        sys.stdout.write(json.dumps(figure) + "\n")


if __name__ == "__main__":
    _main()
