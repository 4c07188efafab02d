"""How long an edited rule takes over the history of the page, from the question to the answer.

The history is a run of the axons world, and each of its shipped rules is edited in its time bound by a millisecond.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from astrocyte.pipeline.page.rules.bench import RuleBench
from astrocyte.pipeline.page.sources.log import LogSource
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.simulation.run import SimulationOptions, run_simulation
from astrocyte.pipeline.topology.rule_files import path_of

__all__ = ["run"]

_WORLD: Final = "axons"
_WITHIN: Final = re.compile(r"within: (\d+)(ms|s)")
_RUNS: Final = 3


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Figures of reading the history, and of each rule: by the clock and of a processor, the best of two runs."""
    size, seconds = (256, 10.0) if quick else (8_192, 68.0)
    with TemporaryDirectory() as folder:
        log = Path(folder, "run.jsonl.zst")
        run_simulation(SimulationOptions(_WORLD, seconds=seconds, size=size, out=log), quiet=True)
        yield from asyncio.run(_all(log))


async def _all(log: Path) -> list[dict[str, Any]]:
    return [figure async for figure in _figures(log)]


async def _figures(log: Path) -> AsyncIterator[dict[str, Any]]:
    bench = RuleBench(LogSource(log), [path_of(_WORLD)], load_settings(lateness=0))
    async with bench.running():
        (file,) = (await bench.listed())["files"]
        lines = str(file["text"]).split("\n")
        began_s = time.perf_counter()
        first = (await bench.trial(file["name"], file["text"], again=False))["result"]
        yield {"bench": "rule_trial_history", "events": first["events"], "s": time.perf_counter() - began_s}
        for rule in (each for each in file["outline"] if each["kind"] == "rule"):
            took: list[tuple[float, float]] = []
            for more in range(1, _RUNS + 1):
                edited = list(lines)
                for place in range(rule["line"] - 1, rule["last"]):
                    edited[place] = _longer(edited[place], more)
                began_s = time.perf_counter()
                found = (await bench.trial(file["name"], "\n".join(edited), again=False))["result"]
                took.append((time.perf_counter() - began_s, found["processor_s"]))
            (changed,) = (each for each in found["rules"] if each["name"] == rule["name"])
            # The first one finds what the old rule found as well, which is kept.
            (s, processor_s), first_s = min(took[1:]), took[0][0]
            about = {"rule": rule["name"], "matches": changed["after"]["matches"]}
            yield {"bench": "rule_trial", **about, "first_s": first_s, "s": s, "processor_s": processor_s}


def _longer(line: str, more_ms: int) -> str:
    """The line with a time bound that is longer."""

    def bound(found: re.Match[str]) -> str:
        return f"within: {int(found[1]) * (1 if found[2] == 'ms' else 1000) + more_ms}ms"

    return _WITHIN.sub(bound, line, count=1)
