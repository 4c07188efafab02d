"""``python -m astrocyte.agents.warm``: compile the kernels into their cache before the first match."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.expressions.nodes import Field, walk
from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.windows import Window
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.frames import Frame

__all__ = ["warm"]

_RULES: Final = """
rules:
  - {name: both, within: 2s, all: [{as: a, stream: s}, {as: b, stream: s}]}
  - {name: pair, within: 2s, pairing: once,
     all: [{as: a, stream: s, where: "type == 'A'"}, {as: b, stream: s, where: "type == 'B' and value > a.value"}]}
  - {name: rising, within: 2s, seq: [{as: a, stream: s}, {as: b, stream: s, where: "value > a.value", min: 1}]}
  - {name: every, within: 2s, seq: [{as: a, stream: s}, {as: b, stream: s, contiguity: followed_by_any}]}
  - {name: absence, within: 2s, seq: [{as: a, stream: s, where: "type == 'A'"}, {not: {stream: r}}]}
  - {name: past, within: 2s, skip: past_last, seq: [{as: a, stream: s}, {as: b, stream: s, where: "value > a.value"}]}
  - {name: chosen, within: 2s, seq:
     [{as: a, stream: q, where: "type == 'A'"}, {as: b, stream: q, where: "type == 'B'"}]}
  - {name: burst, within: 2s, skip: past_last, seq: [{as: a, stream: s, min: 2, gap: 50ms}]}
  - {name: timed, within: 2s, on_timeout: true, all: [{as: a, stream: s, where: "type == 'A'"}, {as: b, stream: r}]}
windows:
  - {name: means, from: s, every: 10s, select: {mean: mean(value)}}
"""
_AGGREGATES: Final = (
    "count()", "count_distinct(type)", "count_distinct(value)", "sum(value)", "mean(value)", "std(value)", "min(value)",
    "max(value)", "quantile(value, 0.9)", "entropy(type)", "entropy(value, 8)", "slope(value)", "ewma(value, 0.5)",
    "first(value)", "last(value)",
)  # fmt: skip
_WINDOWS: Final = {"tumbling": {"every": "10s"}, "hopping": {"size": "20s", "every": "10s"},
                   "sessions": {"session": "10s"}, "sliding": {"sliding": "10s"}}  # fmt: skip
_ROWS: Final = 600
_ROUNDS: Final = 5
_SAMPLES: Final[dict[str, Any]] = {
    "string": ["a", "b", "a", "b"],
    "json": ["{}", "[]", "{}", "[]"],
    "bool": [True, False, True, False],
    "int64": pa.array([1, 2, 3, 4], pa.int64()),
    "int32": pa.array([1, 2, 3, 4], pa.int32()),
    "float32": pa.array([0.5, 1.5, 2.5, 3.5], pa.float32()),
}
_NUMBERS: Final = [0.5, 1.5, 2.5, 3.5]


def warm(ruleset: RuleSet | None = None, catalog: Catalog = CATALOG) -> int:
    """Compile every kernel of the matcher, and those that the windows of ``ruleset`` need, by running them once.

    Returns the number of matches found. It reads no clock and no stream: the rows are synthetic.
    """
    rules = load_rules(_RULES)
    engine = Engine(rules, validated=True)
    matches = 0
    # More keys than the initial tables hold, hundreds of strings, time in steps, a restart after every round, and no
    # rules at the end.
    for number in range(_ROUNDS):
        time_us = number * 1_000_000 + np.arange(_ROWS)
        columns = {
            "timestamp": time_us,
            "key": [f"k{row % (_ROWS // 2)}" for row in range(_ROWS)],
            "type": [("A", "B", f"t{row}")[row % 3] for row in range(_ROWS)],
            "value": np.arange(_ROWS) % 7 + 0.5,
        }
        for stream in ("s", "q", "r")[: 2 + number % 2]:
            engine.push(Frame.from_columns(stream, "", columns, first_seq=number * _ROWS))
        matches += len(engine.advance(int(time_us[-1])).matches)
        engine.low_water_us()
        engine, before = Engine(rules, validated=True), engine
        engine.restore(before.snapshot())
    matches += len(engine.flush().matches)
    engine.update(RuleSet())
    for window in ruleset.windows if ruleset is not None else ():
        _use(window, catalog)
    return matches


def _use(window: Window, catalog: Catalog) -> None:
    """Process rows of two keys in one window, the next one and a later one, so that all of its code runs."""
    listed = catalog.find(window.source)
    kinds = {name: str(kind) for name, kind in listed.fields.items()} if listed is not None else {}
    named = {node.name for argument in window.parsed.arguments for node in walk(argument) if isinstance(node, Field)}
    step_us = max(window.every or 0, window.size or 0, window.sliding or 0, window.session or 0) + 1
    columns: dict[str, Any] = {name: _SAMPLES.get(kinds.get(name, ""), _NUMBERS) for name in sorted(named)}
    columns |= {"timestamp": [1, 2, step_us, 3 * step_us], "key": ["k", "l", "k", "k"], "type": ["a", "b", "a", "b"]}
    if window.by not in columns:
        columns[window.by] = columns["key"]
    engine = Engine(RuleSet(windows=(window.model_copy(update={"where": None}),)), validated=True)
    engine.push(Frame.from_columns(window.source, "", columns))
    engine.flush()


def _all_windows() -> RuleSet:
    """Windows of every kind with the aggregates that have kernels."""
    select = {f"a{number}": text for number, text in enumerate(_AGGREGATES)}
    return load_rules(
        {"windows": [{"name": name, "from": "s", **kind, "select": select} for name, kind in _WINDOWS.items()]}
    )


if __name__ == "__main__":
    began = time.monotonic()
    warm(_all_windows())
    sys.stdout.write(f"kernels compiled in {time.monotonic() - began:.1f} s\n")
