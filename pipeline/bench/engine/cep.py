"""Figures of the sequence operator: sequences, loops, absence, many rules, single events, worst case, start-up.

``events_per_s`` covers the path from frames with dictionary keys to matches as arrays: predicates, key numbers, kernel,
and timers of idle keys; ``operator_events_per_s`` leaves the first two out. Seconds are processor time of the process,
the best of several runs, so that other load has the least effect. Where ``state_bytes`` exceed ``cache_bytes`` (the
last level, shared by the cores), events wait for memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.rules.model import Rule, Step
from astrocyte.schemas.frames import Frame

__all__ = ["cache_bytes", "run"]

_ROWS: Final = 16_384
_STREAM: Final = "axon"


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """The figures, one after the other."""
    events = 20 * _ROWS if quick else 120 * _ROWS
    runs = 1 if quick else 3
    for rule in (_followed_by(), _three_steps(), _absence()):
        # Twice the events of the others, so that each of the many keys has forty.
        yield _sequence(rule, 2 * events, runs, 100_000)
        for keys in (1_000, 1):
            yield _sequence(rule, events, runs, keys)
    yield _sequence(_followed_by(), 2 * events, runs, 1_000_000)
    yield _sequence(_followed_by(), 2 * events, runs, 100_000, text_keys=True)
    yield _dense(4_000 if quick else 40_000, runs)
    yield from _many_rules(events // 4, runs)
    yield _untouched(events, runs)
    yield _single(4_000 if quick else 40_000)
    yield _worst(runs)
    yield _naive()
    yield _start("engine.start.warm", {})
    with tempfile.TemporaryDirectory() as cache:
        yield _start("engine.start.cold", {"NUMBA_CACHE_DIR": cache})


def _step(name: str, letter: str, condition: str = "", **options: Any) -> Step:
    return Step(name=name, stream=_STREAM, where=f"type == '{letter}'{condition}", **options)


def _followed_by() -> Rule:
    return Rule(name="followed_by", within="2s", seq=[_step("a", "A"), _step("b", "B")], skip="past_last")


def _three_steps() -> Rule:
    loop = _step("b", "B", " and value > last(a.value)", min=1)
    return Rule(name="three_steps", within="10s", seq=[_step("a", "A"), loop, _step("c", "C")])


def _absence() -> Rule:
    return Rule(name="absence", within="1s", seq=[_step("a", "A"), _step("b", "B", negated=True)])


def _times(events: int, per_second: float, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.cumsum(rng.exponential(1e6 / per_second, events)).astype(np.int64)


def _frames(events: int, keys: int, *, per_key: float = 0.5, text_keys: bool = False) -> list[Frame]:
    """Frames in timestamp order: three equally frequent types, ``per_key`` events/s for each key, values 0 to 1."""
    rng = np.random.default_rng(7)
    strings = pa.array([f"domain-{key}" for key in range(keys)])
    kinds = pa.array(["A", "B", "C"])
    t = _times(events, per_key * keys, rng)
    frames = []
    for first in range(0, events, _ROWS):
        rows = min(_ROWS, events - first)
        codes = pa.array(rng.integers(0, keys, rows).astype(np.int32))
        key = pa.DictionaryArray.from_arrays(codes, strings)
        if text_keys:  # a separate dictionary in every frame, as decoded from the wire
            key = key.dictionary_decode().dictionary_encode()
        columns = {
            "timestamp": t[first : first + rows],
            "key": key,
            "type": pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 3, rows).astype(np.int32)), kinds),
            "value": rng.random(rows),
        }
        frames.append(Frame.from_columns(_STREAM, "bench", columns, first_seq=first))
    return frames


def _best(runs: int, rules: Sequence[Rule], step: Callable[[Matcher], int]) -> tuple[float, int]:
    """Shortest processor time in seconds of several runs, each with a new matcher, and the count of a run."""
    best, counted = float("inf"), 0
    for _ in range(runs):
        matcher = Matcher(rules)
        started = time.process_time()
        counted = step(matcher)
        best = min(best, time.process_time() - started)
    return best, counted


def _figure(bench: str, events: int, seconds: float, **more: Any) -> dict[str, Any]:
    return {"bench": bench, "events": events, "seconds": seconds, "events_per_s": events / seconds, **more}


def _matched(matcher: Matcher, frames: Sequence[Frame]) -> int:
    """Number of matches over the frames; the watermark follows the events."""
    found, first = 0, 0
    for frame in frames:
        found += len(matcher.process(matcher.prepare(frame, first)))
        found += len(matcher.advance(int(frame.timestamps()[-1])))
        first += frame.num_rows
    return found


def _sequence(rule: Rule, events: int, runs: int, keys: int, *, text_keys: bool = False) -> dict[str, Any]:
    frames = _frames(events, keys, text_keys=text_keys)
    state_bytes = 0

    def step(matcher: Matcher) -> int:
        nonlocal state_bytes
        found = _matched(matcher, frames)
        state_bytes = matcher.state_bytes
        return found

    seconds, matches = _best(runs, [rule], step)
    operator = min(_operator_seconds(rule, frames) for _ in range(runs))
    assert rule.within is not None
    more = {
        "keys": keys,
        "key_encoding": "text of every frame" if text_keys else "one dictionary",
        "window_s": rule.within.time / 1e6,
        "matches": matches,
        "operator_events_per_s": events / operator,
        "state_bytes": state_bytes,
        "cache_bytes": cache_bytes(),
    }
    return _figure(f"engine.{rule.name}", events, seconds, **more)


def cache_bytes() -> int | None:
    """Size of the last-level cache in bytes, None where the system does not report it."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 0)
        if unit and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * unit)
    return max(sizes, default=None)


def _operator_seconds(rule: Rule, frames: Sequence[Frame]) -> float:
    """Processor time in seconds of the kernel and the timers of idle keys alone, on prepared rows."""
    matcher, first, seconds = Matcher([rule]), 0, 0.0
    for frame in frames:
        rows = matcher.prepare(frame, first)
        first += frame.num_rows
        started = time.process_time()
        matcher.process(rows)
        matcher.advance(int(frame.timestamps()[-1]))
        seconds += time.process_time() - started
    return seconds


def _dense(events: int, runs: int) -> dict[str, Any]:
    """One key with 50 events/s in a window of 10 s: hundreds of partial matches, long loops."""
    frames = [part for frame in _frames(events, 1, per_key=50) for part in _split(frame, 512)]
    taken = 0

    def step(matcher: Matcher) -> int:
        nonlocal taken
        found, first, taken = 0, 0, 0
        for frame in frames:
            batch = matcher.process(matcher.prepare(frame, first))
            found, taken, first = found + len(batch), taken + len(batch.ref), first + frame.num_rows
        return found

    seconds, matches = _best(runs, [_three_steps()], step)
    return _figure(
        "engine.dense", events, seconds, keys=1, window_s=10, matches=matches, matched_events_per_event=taken / events
    )


def _split(frame: Frame, rows: int) -> list[Frame]:
    return [frame.slice(start, min(start + rows, frame.num_rows)) for start in range(0, frame.num_rows, rows)]


def _thousand(streams: int) -> list[Rule]:
    """A thousand rules of two steps over ``streams`` streams, each with its own event types."""
    return [
        Rule(
            name=f"rule_{number}",
            within="2s",
            seq=[
                Step(name="a", stream=f"s{number % streams}", where=f"type == 'T{number // streams}' and value > 0.5"),
                Step(name="b", stream=f"s{number % streams}", where=f"type == 'U{number // streams}'"),
            ],
        )
        for number in range(1_000)
    ]


def _many_rules(events: int, runs: int) -> Iterator[dict[str, Any]]:
    """A thousand rules over a hundred streams, each event for one of ten rules; and the time to load them."""
    rules = _thousand(100)
    started = time.process_time()
    Matcher(_thousand(100))
    yield {"bench": "engine.load", "rules": 1_000, "seconds": time.process_time() - started}
    rng, frames = np.random.default_rng(7), []
    strings = pa.array([f"domain-{key}" for key in range(1_000)])
    kinds = pa.array([f"{letter}{number}" for letter in "TU" for number in range(10)])
    rows = 4_096
    for first in range(0, events, rows):
        columns = {
            "timestamp": first + np.arange(rows),
            "key": pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 1_000, rows).astype(np.int32)), strings),
            "type": pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 20, rows).astype(np.int32)), kinds),
            "value": rng.random(rows),
        }
        frames.append(Frame.from_columns(f"s{(first // rows) % 100}", "bench", columns, first_seq=first))
    seconds, matches = _best(runs, rules, lambda matcher: _matched(matcher, frames))
    yield _figure("engine.rules", len(frames) * rows, seconds, rules=1_000, streams=100, keys=1_000, matches=matches)


def _untouched(events: int, runs: int) -> dict[str, Any]:
    """Events whose type no rule of their stream selects: the cost of a rule group without matches."""
    frames, runs = _frames(events, 1_000), max(runs, 3)
    rules = [
        Rule(name=f"r{number}", within="2s", seq=[_step("a", f"X{number}"), _step("b", f"Y{number}")])
        for number in range(30)
    ]
    seconds, _ = _best(runs, rules, lambda matcher: sum(len(matcher.prepare(frame)) for frame in frames))
    nanoseconds = seconds / events * 1e9
    return _figure("engine.untouched", events, seconds, rules=len(rules), ns_per_event=nanoseconds)


def _single(events: int) -> dict[str, Any]:
    """Single events passed to the matcher one by one: microseconds each, by the wall clock."""
    matcher, rng = Matcher([_three_steps()]), np.random.default_rng(7)
    taken, matches = [], 0
    for number in range(events):
        event = {
            "timestamp": number * 2_000,
            "key": f"domain-{rng.integers(1_000)}",
            "type": "ABC"[rng.integers(3)],
            "value": float(rng.random()),
        }
        started = time.perf_counter_ns()
        matches += len(matcher.process_event(_STREAM, event, number))
        taken.append(time.perf_counter_ns() - started)
        if number % 1_000 == 999:
            matcher.advance(number * 2_000)
    p50, p99 = (round(float(each) / 1000, 1) for each in np.percentile(np.array(taken[events // 10 :]), [50, 99]))
    return _figure("engine.single_event", events, sum(taken) / 1e9, keys=1_000, matches=matches, p50_us=p50, p99_us=p99)


def _worst(runs: int) -> dict[str, Any]:
    """Worst case, every event matches every other in any combination: limited by max_partials."""
    limit, events = 1_000, 8_192
    steps = [Step(name="a", stream=_STREAM), Step(name="b", stream=_STREAM, contiguity="followed_by_any")]
    rule = Rule(name="worst", within="1h", seq=steps, max_partials=limit)
    frames = [part for frame in _frames(events, 1) for part in _split(frame, 512)]
    matcher = Matcher([rule])
    seconds, matches = _best(runs, [rule], lambda matcher: _matched(matcher, frames))
    for number, frame in enumerate(frames):
        matcher.process(matcher.prepare(frame, number * 512))
    figure = _figure("engine.worst", events, seconds, keys=1, max_partials=limit, matches=matches)
    return figure | {"matches_per_s": matches / seconds, "held": len(matcher.live_refs())}


def _naive() -> dict[str, Any]:
    """The rule of three steps by enumeration of all triples of a key in a window, as a reference for the ratio."""
    events = 300
    (frame,) = _frames(events, 1)
    rows = frame.rows()
    started, matches = time.process_time(), 0
    for i, a in enumerate(rows):
        if a["type"] != "A":
            continue
        window = [row for row in rows[i + 1 :] if row["timestamp"] - a["timestamp"] < 10_000_000]
        for j, c in enumerate(window):
            if c["type"] != "C":
                continue
            fits = [row["type"] == "B" and row["value"] > a["value"] for row in window[:j]]
            ends = [k for k in range(len(fits)) if fits[k] and not any(row["type"] == "C" for row in window[k + 1 : j])]
            matches += len(ends)
    return _figure("engine.naive", events, time.process_time() - started, keys=1, window_s=10, matches=matches)


_START: Final = """
import time
started = time.perf_counter()
from astrocyte import Rule, match
rule = Rule(name="r", within="2s", seq=[{"as": "a", "stream": "s"}, {"as": "b", "stream": "s"}])
found = match(rule, [{"stream": "s", "timestamp": t, "key": "k"} for t in (1, 2)])
assert len(list(found)) == 1
print(time.perf_counter() - started)
"""


def _start(bench: str, environment: dict[str, str]) -> dict[str, Any]:
    """Seconds for import and first match in a new interpreter, by the wall clock."""
    if bench.endswith("warm"):
        subprocess.run([sys.executable, "-c", _START], check=True, capture_output=True)
    made = subprocess.run(
        [sys.executable, "-c", _START], check=True, capture_output=True, text=True, env={**os.environ, **environment}
    )
    return {"bench": bench, "seconds": float(made.stdout)}
