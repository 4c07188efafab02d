"""Figures of the combinations operator: CORE's sequences (Bucchi et al., PVLDB 15(9), 2022), and a pair both ways.

A stream of one event a microsecond has 3 to 12 types that the rule names, in order, and 6 others, all equally frequent.
In ``open`` the last step's type never comes, so that nothing completes. ``events_per_s`` covers the path from frames to
matches as arrays, ``operator_events_per_s`` and ``matches_per_s`` the operator with its timers alone. Seconds are
processor time, the best of several runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.rules.model import Rule, Step
from astrocyte.schemas.frames import Frame

__all__ = ["run"]

_ROWS: Final = 16_384
_STREAM: Final = "core"
_NOISE: Final = 6
_STEPS: Final = (3, 6, 9, 12)
_WINDOWS: Final = (100, 1_000, 10_000)
_AUTOMATON: Final = 4_000
"""Events for an automaton that keeps every partial match: it takes seconds for more."""


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """The figures, one after the other."""
    events = (4 if quick else 60) * _ROWS
    runs = 1 if quick else 3
    for steps in _STEPS:
        for window in _WINDOWS:
            yield _figure("open", _rule(steps, window, completes=False), _frames(steps, events), runs, window=window)
        keyed = _frames(steps, events, keys=1_000)
        yield _figure("open", _rule(steps, 100_000, completes=False), keyed, runs, window=100_000, keys=1_000)
    few = _frames(6, _AUTOMATON)
    for automaton in (False, True):
        yield _figure("open", _rule(6, 100, completes=False), few, runs, window=100, automaton=automaton)
    for steps in _STEPS:
        yield _figure("complete", _rule(steps, 100), _frames(steps, events // 16), runs, window=100)
    pairs = _frames(3, events, keys=1_000)
    for automaton in (False, True):
        yield _figure("pair", _rule(2, 10_000), pairs, runs, window=10_000, keys=1_000, automaton=automaton)


def _rule(steps: int, window: int, *, completes: bool = True) -> Rule:
    last = f"T{steps - 1}" if completes else "never"
    types = [*(f"T{number}" for number in range(steps - 1)), last]
    later: dict[str, Any] = {"contiguity": "followed_by_any"}
    return Rule(
        name="core",
        within=f"{window}us",
        max_partials=1_000_000,  # what an automaton keeps of a window: its figure is not that of what it drops
        seq=[
            Step(name=f"e{number}", stream=_STREAM, where=f"type == '{each}'", **(later if number else {}))
            for number, each in enumerate(types)
        ],
    )


def _frames(steps: int, events: int, *, keys: int = 1) -> list[Frame]:
    """Frames of ``steps`` types of the rule and six others; event i at microsecond i of a random key."""
    rng, frames = np.random.default_rng(7), []
    kinds = pa.array([f"T{number}" for number in range(steps + _NOISE)])
    strings = pa.array([f"key-{key}" for key in range(keys)])
    for first in range(0, events, _ROWS):
        rows = min(_ROWS, events - first)
        columns = {
            "timestamp": first + np.arange(rows),
            "key": pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, keys, rows).astype(np.int32)), strings),
            "type": pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, len(kinds), rows).astype(np.int32)), kinds),
        }
        frames.append(Frame.from_columns(_STREAM, "bench", columns, first_seq=first))
    return frames


def _figure(
    name: str, rule: Rule, frames: Sequence[Frame], runs: int, *, window: int, automaton: bool = False, **more: Any
) -> dict[str, Any]:
    events = sum(frame.num_rows for frame in frames)
    results = [_timed(Matcher([rule], combinations=not automaton), frames) for _ in range(runs)]
    seconds, inside = (min(each[index] for each in results) for index in (0, 1))
    matches, state_bytes = results[0][2:]
    return {
        "bench": f"engine.combinations.{name}",
        "steps": len(rule.members),
        "types": len(rule.members) + _NOISE,
        "window_events": window,
        "operator": "automaton" if automaton else "combinations",
        **more,
        "events": events,
        "seconds": seconds,
        "events_per_s": events / seconds,
        "operator_events_per_s": events / inside,
        "matches": matches,
        "matches_per_s": matches / inside,
        "state_bytes": state_bytes,
    }


def _timed(matcher: Matcher, frames: Sequence[Frame]) -> tuple[float, float, int, int]:
    """Processor seconds of the whole path and of the operator alone, the matches, and bytes of state at the end."""
    whole = inside = 0.0
    matches = first = 0
    for frame in frames:
        started = time.process_time()
        rows = matcher.prepare(frame, first)
        prepared = time.process_time()
        matches += len(matcher.process(rows))
        matcher.advance(int(frame.timestamps()[-1]))
        ended = time.process_time()
        whole, inside, first = whole + ended - started, inside + ended - prepared, first + frame.num_rows
    return whole, inside, matches, matcher.state_bytes
