"""What the child process of each engine in Python does; java/Peer.java is the same for those in Java.

Reads the event file, says that it is ready, and makes one pass over all events for each line ``pass`` on standard
input. Answers are lines of JSON after ``@``. Needs the standard library alone: each engine has its own environment.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_MASK = 2**64 - 1
_FACTOR = 0x9E3779B97F4A7C15


def match_hash(numbers: Iterable[int]) -> int:
    """Hash of one match: of its events' ids in the order of the steps, or of a window's numbers."""
    h = 0
    for number in numbers:
        h = ((h ^ (number & _MASK)) * _FACTOR) & _MASK
        h ^= h >> 29
    return h


def arguments() -> dict[str, str]:
    """Arguments of the form name=value, as tests/peers/workloads.py names them."""
    return dict(each.partition("=")[::2] for each in sys.argv[1:])


def records(data: bytes) -> list[tuple[int, int, int, float]]:
    """Time in microseconds, key, type and value of each event of the file."""
    return list(struct.iter_unpack("<qiid", data))


def serve(
    prepare: Callable[[bytes], Any],
    run: Callable[[Any, Any], Any],
    fresh: Callable[[], Any] = dict,
    read: Callable[[Any], tuple[int, int]] = tuple,
) -> None:
    """Answer until standard input ends.

    ``prepare`` makes the engine's events of the file's bytes. A pass is ``run(state, events)``, with a state of
    ``fresh``: to deploy a query is no part of it. ``read`` makes of what it gave the number of matches and the sum of
    their hashes.
    """
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what engines print is no answer

    def say(answer: dict[str, Any]) -> None:
        out.write(f"@{json.dumps(answer)}\n")

    say({"ready": True})
    data = Path(arguments()["events"]).read_bytes()
    events = prepare(data)
    say({"events": len(data) // 24})
    for line in sys.stdin:
        if line.strip() != "pass":
            break
        state = fresh()
        cpu, wall = time.process_time(), time.perf_counter()
        given = run(state, events)
        used = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
        count, total = read(given)
        say(used | {"count": count, "hash": f"{total & _MASK:x}"})
