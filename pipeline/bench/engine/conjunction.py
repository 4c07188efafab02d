"""Figures of the ``all`` operator and of the whole engine: ordering, outputs, records, single events.

Seconds are processor time of the process, the best of several runs, so that other load on the machine has less effect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.agents.matches.lineage import multi_event_records
from astrocyte.agents.matches.table import MatchTable
from astrocyte.agents.rules.model import Rule
from astrocyte.pipeline.bench.engine.cep import cache_bytes
from astrocyte.schemas.frames import Frame

__all__ = ["run"]

_RULE: Final = """
rules:
  - name: type_A_and_B_within_2s
    within: {within}
    pairing: {pairing}
    max_partials: {limit}
    all:
      - {{as: a, stream: {one}, where: "type == 'A'"}}
      - {{as: b, stream: {two}, where: "type == 'B'"}}
    emit: {{integrated_value: "a.value + b.value", confidence: "min(a.value, b.value) / max(a.value, b.value)"}}
"""
_ROWS: Final = 16_384
_SECONDS: Final = {"100ms": 0.1, "2s": 2.0, "10s": 10.0, "1m": 60.0, "1h": 3600.0}


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """The figures, one after the other."""
    events = 20 * _ROWS if quick else 240 * _ROWS
    runs = 1 if quick else 3
    for pairing in ("once", "each"):  # warm-up: compilation is not measured
        _operator(_ROWS, 1, "2s", pairing, 1_000)
    for within in ("2s", "100ms", "10s", "1m", "1h"):
        yield _operator(events, runs, within, "once", 100_000)
    for pairing, keys in (("each", 100_000), ("latest", 100_000), ("once", 1_000), ("once", 1_000_000)):
        yield _operator(events, runs, "2s", pairing, keys)
    yield _worst(runs)
    for share in (0.01, 0.12, 0.5):
        yield from _ordered(events, runs, share)
    yield _single(2_000 if quick else 40_000)


def _rule(within: str = "2s", pairing: str = "once", *, streams: Sequence[str] = ("axon_1", "axon_2"),
          limit: int = 10_000) -> Rule:  # fmt: skip
    text = _RULE.format(within=within, pairing=pairing, limit=limit, one=streams[0], two=streams[-1])
    return load_rules(text).rules[0]


def _frames(
    stream: str, events: int, keys: int, span_us: int, *, kinds: Sequence[str], shares: Sequence[float], seed: int
) -> list[Frame]:
    """Frames in timestamp order, with keys of one shared dictionary, as a producer sends them."""
    rng = np.random.default_rng(seed)
    strings = pa.array([f"domain-{key}" for key in range(keys)])
    t = np.sort(rng.integers(0, span_us, events))
    frames = []
    for first in range(0, events, _ROWS):
        rows = min(_ROWS, events - first)
        columns = {
            "timestamp": t[first : first + rows],
            "key": pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, keys, rows).astype(np.int32)), strings),
            "type": pa.DictionaryArray.from_arrays(
                pa.array(rng.choice(len(kinds), rows, p=shares).astype(np.int32)), list(kinds)
            ),
            "value": rng.random(rows),
        }
        frames.append(Frame.from_columns(stream, "bench", columns, first_seq=first))
    return frames


def _best(runs: int, step: Callable[[], int]) -> tuple[float, int]:
    """Shortest processor time of several runs in seconds, and the count that a run returned."""
    best, counted = float("inf"), 0
    for _ in range(runs):
        started = time.process_time()
        counted = step()
        best = min(best, time.process_time() - started)
    return best, counted


def _figure(bench: str, events: int, seconds: float, **more: Any) -> dict[str, Any]:
    return {"bench": bench, "events": events, "seconds": seconds, "events_per_s": events / seconds, **more}


def _operator(events: int, runs: int, within: str, pairing: str, keys: int) -> dict[str, Any]:
    """From frames with dictionary keys to matches as arrays: predicates, key numbers, kernel.

    Each window, whatever its length, contains one event per key, so that the share of matches stays the same.
    """
    rule = _rule(within, pairing, streams=["axon"])
    span_us = int(1e6 * _SECONDS[within] * events / keys)
    frames = _frames("axon", events, keys, span_us, kinds="ABC", shares=(1 / 3, 1 / 3, 1 / 3), seed=7)

    state_bytes = 0

    def step() -> int:
        nonlocal state_bytes
        matcher, found = Matcher([rule]), 0
        for index, frame in enumerate(frames):
            found += len(matcher.process(matcher.prepare(frame, index * _ROWS)))
        state_bytes = matcher.state_bytes
        return found

    seconds, matches = _best(runs, step)
    return _figure(
        "engine.all", events, seconds, keys=keys, within=within, pairing=pairing, matches=matches,
        state_bytes=state_bytes, cache_bytes=cache_bytes(),
    )  # fmt: skip


def _worst(runs: int) -> dict[str, Any]:
    """Worst case, every event matches every other: one key, pairing ``each``, limited by max_partials."""
    limit, events = 1_000, 4 * _ROWS
    rule = _rule("1h", "each", streams=["axon"], limit=limit)
    frames = _frames("axon", events, 1, 1_000_000, kinds="AB", shares=(0.5, 0.5), seed=7)
    held = 0

    def step() -> int:
        nonlocal held
        matcher, found = Matcher([rule]), 0
        for index, frame in enumerate(frames):
            for first in range(0, frame.num_rows, 1_024):
                part = frame.slice(first, min(first + 1_024, frame.num_rows))
                found += len(matcher.process(matcher.prepare(part, index * _ROWS + first)))
        held = len(matcher.live_refs())
        return found

    seconds, matches = _best(runs, step)
    figure = _figure("engine.all.worst", events, seconds, keys=1, within="1h", pairing="each", matches=matches)
    return figure | {"matches_per_s": matches / seconds, "max_partials": limit, "held": held}


def _ordered(events: int, runs: int, share: float) -> Iterator[dict[str, Any]]:
    """The whole engine with strong consistency over two streams with alternating frames, and its match records."""
    keys, rule = 100_000, _rule()
    span_us = int(2e6 * events / keys)
    shares = (share, 1 - share)
    one = _frames("axon_1", events // 2, keys, span_us, kinds=("A", "-"), shares=shares, seed=7)
    two = _frames("axon_2", events // 2, keys, span_us, kinds=("B", "-"), shares=shares, seed=8)
    outputs: list[MatchTable] = []

    def step() -> int:
        engine, found = Engine(rule), 0
        outputs.clear()
        for first, second in zip(one, two, strict=True):
            engine.push(first, topic="mono.axon_1")
            engine.push(second, topic="mono.axon_2")
            newest = min(int(frame.timestamps()[-1]) for frame in (first, second))
            outputs.append(engine.advance(newest).matches)
            found += len(outputs[-1])
        outputs.append(engine.flush().matches)
        return found + len(outputs[-1])

    seconds, matches = _best(runs, step)
    yield _figure("engine.ordered", events, seconds, keys=keys, within="2s", touched=share, matches=matches,
                  matched=2 * matches / events)  # fmt: skip
    seconds, records = _best(1, lambda: sum(len(multi_event_records(table)) for table in outputs))
    yield {"bench": "engine.records", "events": records, "seconds": seconds, "events_per_s": records / seconds}


def _single(events: int) -> dict[str, Any]:
    """Events pushed one at a time and matched on arrival: microseconds in the engine, by the wall clock."""
    engine, rng = Engine(_rule(), consistency="eventual"), np.random.default_rng(7)
    taken, matches = [], 0
    for number in range(events):
        event = {
            "stream": f"axon_{rng.integers(1, 3)}",
            "timestamp": number * 100,
            "key": f"domain-{rng.integers(5_000)}",
            "type": "AB"[rng.integers(2)],
            "value": float(number),
        }
        started = time.perf_counter_ns()
        matches += len(engine.push_event(event))
        taken.append(time.perf_counter_ns() - started)
        if number % 1_000 == 999:
            engine.advance(number * 100 - 1_000)
    microseconds = np.percentile(np.array(taken[events // 10 :]) / 1000, [50, 90, 99])
    p50, p90, p99 = (round(float(value), 1) for value in microseconds)
    seconds = sum(taken) / 1e9
    return _figure("engine.single", events, seconds, matches=matches, p50_us=p50, p90_us=p90, p99_us=p99)
