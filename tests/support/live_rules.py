"""Rule files drawn at random over the streams of the simulated worlds: sequences, any-order rules, windows and rules
over windows, by the streams' own keys, by other fields (which are repartitioned) and by none.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from astrocyte.schemas.frames import Frame

__all__ = ["random_rule_file"]

_AGGREGATES = ("count()", "mean({0})", "sum({0})", "max({0})", "count_distinct(key)", "std({0})")


@dataclass(frozen=True)
class _Stream:
    """What the rules can say of a stream."""

    name: str
    numbers: dict[str, np.ndarray]
    strings: dict[str, list[str]]
    keys: tuple[str, ...]
    """Fields by which its events can be correlated."""
    events: int


def _streams(frames: Sequence[Frame]) -> list[_Stream]:
    parts: dict[str, list[Frame]] = {}
    for frame in frames:
        if frame.num_rows and frame.stream != "truth":
            parts.setdefault(frame.stream, []).append(frame)
    found = []
    for name, of_stream in sorted(parts.items()):
        numbers, strings, keys = {}, {}, ["key"]
        for field in of_stream[0].batch.schema:
            if field.name in ("timestamp", "key", "seq", "event_id", "event_id_", "seq_"):
                continue
            values = [value for frame in of_stream for value in frame.column(field.name).to_pylist()]
            if any(value is None for value in values):
                continue
            if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
                numbers[field.name] = np.array(values, np.float64)
            elif all(isinstance(value, str) and re.fullmatch(r"[\w .:-]+", value) for value in values):
                strings[field.name] = sorted(set(values))
            if (pa.types.is_integer(field.type) or field.name in strings) and 1 < len(set(values)) < 5000:
                keys.append(field.name)
        found.append(_Stream(name, numbers, strings, tuple(keys), sum(frame.num_rows for frame in of_stream)))
    return found


def random_rule_file(frames: Sequence[Frame], seed: int) -> str:
    """A rule file of three windows and five rules; the same for the same frames and seed."""
    draw = random.Random(seed)
    streams = _streams(frames)
    text = "windows:\n"
    windows: list[tuple[str, str]] = []
    for number in range(3):
        stream = draw.choice(streams)
        by = draw.choice(stream.keys)
        number_field = draw.choice(sorted(stream.numbers)) if stream.numbers else "timestamp"
        shape = draw.choice(["every: 200ms", "every: 1s", "size: 1s\n    every: 250ms", "session: 100ms"])
        text += (
            f"  - name: w{number}\n    from: {stream.name}\n    by: {by}\n    {shape}\n    select:\n      n: count()\n"
        )
        text += f"      v: {draw.choice(_AGGREGATES).format(number_field)}\n"
        windows.append((f"w{number}", by))
    text += "rules:\n"
    for number in range(5):
        text += _rule(draw, f"r{number}", streams)
    name, by = draw.choice(windows)
    text += (
        f"  - name: over\n    by: {by}\n    within: 2s\n    seq:\n      - {{as: a, stream: {name}, where: 'n >= 1'}}\n"
    )
    text += f"      - {{as: b, stream: {name}, where: 'n > a.n'}}\n    skip: past_last\n"
    return text


def _rule(draw: random.Random, name: str, streams: Sequence[_Stream]) -> str:
    first = draw.choice(streams)
    others = [each for each in streams if set(each.keys) & set(first.keys)]
    second = draw.choice(others)
    by = draw.choice([*sorted(set(first.keys) & set(second.keys)), None])
    within = draw.choice(["20ms", "100ms", "500ms"])
    text = f"  - name: {name}\n    by: {'null' if by is None else by}\n    within: {within}\n"
    a, b = _condition(draw, first), _condition(draw, second)
    kind = draw.choice(["seq", "seq", "all", "absence", "loop"])
    if kind == "all":
        text += f"    all:\n      - {{as: a, stream: {first.name}, where: {a}}}\n"
        text += (
            f"      - {{as: b, stream: {second.name}, where: {b}}}\n    pairing: {draw.choice(['once', 'latest'])}\n"
        )
    elif kind == "absence":
        text += f"    seq:\n      - {{as: a, stream: {first.name}, where: {a}}}\n"
        text += f"      - not: {{as: b, stream: {second.name}, where: {b}}}\n"
    elif kind == "loop":
        text += f"    seq:\n      - {{as: a, stream: {first.name}, where: {a}, min: 2, max: 3}}\n    skip: past_last\n"
    else:
        text += f"    seq:\n      - {{as: a, stream: {first.name}, where: {a}}}\n"
        text += f"      - {{as: b, stream: {second.name}, where: {b}}}\n    skip: past_last\n"
    if draw.random() < 0.4:
        text += "    alert: {severity: info, message: 'found {a.key}'}\n" if kind != "loop" else ""
    return text


def _condition(draw: random.Random, stream: _Stream) -> str:
    """A condition that holds for about a few hundred events at most, so that no rule matches without limit."""
    share = min(0.5, 300 / stream.events)
    parts = []
    if stream.numbers:
        field = draw.choice(sorted(stream.numbers))
        limit = float(np.quantile(stream.numbers[field], 1 - share))
        parts.append(f"{field} >= {limit!r}")
    if stream.strings and (not parts or draw.random() < 0.3):
        field = draw.choice(sorted(stream.strings))
        parts.append(f"{field} == '{draw.choice(stream.strings[field])}'")
    return '"' + (" and ".join(parts) or "timestamp > 0") + '"'
