"""How long an edited rule takes over a recorded history in the page: from the question to the answer.

``python -m astrocyte.pipeline.bench.rule_trials RULES LOG`` prints a JSON line for reading the history, and one for
each rule whose time bound is edited by a millisecond.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from pathlib import Path
from typing import Final

from astrocyte.pipeline.console import print_json
from astrocyte.pipeline.page.rules.bench import RuleBench
from astrocyte.pipeline.page.sources.log import LogSource
from astrocyte.pipeline.settings import load_settings

__all__ = ["measure"]

_WITHIN: Final = re.compile(r"within: (\d+)(ms|s)")
_RUNS: Final = 3


async def measure(rules: str, log: Path) -> None:
    """Print the figures of one rule file over one log."""
    bench = RuleBench(LogSource(log), [Path(rules)], load_settings(lateness=0))
    async with bench.running():
        (file,) = (await bench.listed())["files"]
        lines = str(file["text"]).split("\n")
        began_s = time.perf_counter()
        first = (await bench.trial(file["name"], file["text"], again=False))["result"]
        print_json({"what": "reading the history", "events": first["events"], "s": time.perf_counter() - began_s})
        for rule in (each for each in file["outline"] if each["kind"] == "rule"):
            took: list[tuple[float, float]] = []
            for run in range(1, _RUNS + 1):
                edited = list(lines)
                for place in range(rule["line"] - 1, rule["last"]):
                    edited[place] = _WITHIN.sub(lambda found, more=run: _longer(found, more), edited[place], count=1)  # type: ignore[misc]
                began_s = time.perf_counter()
                found = (await bench.trial(file["name"], "\n".join(edited), again=False))["result"]
                took.append((time.perf_counter() - began_s, found["processor_s"]))
            (changed,) = (each for each in found["rules"] if each["name"] == rule["name"])
            matches = changed["after"]["matches"]
            (s, processor_s), first_s = min(took[1:]), took[0][0]
            # The first one finds what the old rule found as well, which is kept.
            print_json(
                {"what": rule["name"], "matches": matches, "first_s": first_s, "s": s, "processor_s": processor_s}
            )


def _longer(found: re.Match[str], more: int) -> str:
    number = int(found[1]) * (1 if found[2] == "ms" else 1000)
    return f"within: {number + more}ms"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="astrocyte.pipeline.bench.rule_trials")
    parser.add_argument("rules")
    parser.add_argument("log", type=Path)
    options = parser.parse_args()
    asyncio.run(measure(options.rules, options.log))
