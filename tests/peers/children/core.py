"""CORE through pycer, its own Python package (GPL: it is run, in a process of its own)."""

from __future__ import annotations

import re
from typing import Any

import pycer
from protocol import arguments, match_hash, records, serve

GIVEN = arguments()
STEPS = int(GIVEN["steps"])
TYPES = STEPS + 6
"""Declared types: those of the rule, noise, and of a last step that never comes."""
DECLARED = ", ".join(f"EVENT T{number} {{ id:int }}" for number in range(TYPES))
NUMBER = re.compile(r"\[(\d+) \]")


def server() -> Any:
    """A server with the query. CORE's windows of events are closed: one of 99 holds a hundred events."""
    made = pycer.PyOfflineServer()
    made.declare_stream(f"CREATE STREAM S {{ {DECLARED} }}")
    last = TYPES - 1 if GIVEN["open"] == "1" else STEPS - 1
    pattern = "; ".join(f"T{number}" for number in [*range(STEPS - 1), last])
    made.add_query(f"SELECT ALL * FROM S WHERE {pattern} WITHIN {int(GIVEN['within']) - 1} EVENTS")
    return made


def prepare(data: bytes) -> list[Any]:
    return [pycer.PyEvent(kind, [pycer.PyIntValue(at)]) for at, (_, _, kind, _) in enumerate(records(data))]


def run(state: Any, events: list[Any]) -> str:
    state.send_events(events)
    output: str = state.get_output()
    return output


def read(output: str) -> tuple[int, int]:
    """Each line is a match, whose events are in the order of the pattern."""
    lines = output.splitlines()
    return len(lines), sum(match_hash(map(int, NUMBER.findall(line))) for line in lines)


if __name__ == "__main__":
    server()
    serve(prepare, run, server, read)
