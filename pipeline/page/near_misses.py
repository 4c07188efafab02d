"""Near misses, found by a process of their own: following a rule with loops over a long log takes unboundedly long.

The parent writes the question as JSON to the standard input and reads the report, as JSON, from the standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from astrocyte.schemas.errors import AstrocyteError

__all__ = ["near_misses"]

_LIMIT_S: Final = 120.0
_MOST_ATTEMPTS: Final = 12


async def near_misses(
    rules: Sequence[Path],
    logs: Sequence[Path],
    *,
    rule: str,
    key: str | None,
    lateness_us: int,
    clock_tolerance_us: int,
) -> dict[str, Any]:
    """How far the partial matches of a rule and key got, the nearest first; ``unavailable`` says why there is none."""
    question = {
        "rules": [str(path) for path in rules], "logs": [str(path) for path in logs], "rule": rule, "key": key,
        "lateness_us": lateness_us, "clock_tolerance_us": clock_tolerance_us,
    }  # fmt: skip
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "astrocyte.pipeline.page.near_misses",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_LIMIT_S):
            said, _ = await child.communicate(orjson.dumps(question))
        answer: dict[str, Any] = orjson.loads(said)
    except TimeoutError:
        return {"unavailable": f"following this rule over the log takes more than {_LIMIT_S:.0f} s; its loops, or the "
                "number of events of the key, are too many: ask on the command line, astrocyte why-not"}  # fmt: skip
    except orjson.JSONDecodeError:
        return {"unavailable": "the process that follows the rule has ended without an answer; see astrocyte why-not"}
    else:
        return answer
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    from astrocyte.pipeline.analysis.why_not import why_not
    from astrocyte.pipeline.topology.rule_files import read_rule_files

    try:
        ruleset = read_rule_files(question["rules"])
        by = {rule.name: rule.by for rule in ruleset.rules}
        report = why_not(
            ruleset,
            question["logs"],
            rule=question["rule"],
            key=question["key"] if by.get(question["rule"]) is not None else None,
            at=None,
            lateness_us=question["lateness_us"],
            now_us=time.time_ns() // 1000,
            clock_tolerance_us=question["clock_tolerance_us"],
        ).as_json()
    except AstrocyteError as error:
        return {"unavailable": str(error)}
    missed = [each for each in report["attempts"] if each["ended"] != "matched"]
    # Those that took the most steps were the nearest.
    missed.sort(key=lambda each: len({taken["step"] for taken in each["taken"]}), reverse=True)
    attempts = [each | {"taken": each["taken"][-_MOST_ATTEMPTS:]} for each in missed[:_MOST_ATTEMPTS]]
    return report | {"attempts": attempts, "missed": len(missed)}


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(_answer(orjson.loads(sys.stdin.buffer.read())), default=str))
