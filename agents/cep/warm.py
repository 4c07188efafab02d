"""``python -m agents.cep.warm``: compile the kernels into their cache, so that the first match need not wait."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import pyarrow as pa

from agents import load_rules, match
from agents.engine import Engine
from agents.expressions_nodes import Field, walk
from agents.rules import RuleSet
from agents.rules_windows import WindowSpec
from schemas.catalog import CATALOG, Catalog
from schemas.frames import Frame

__all__ = ["warm"]

_RULES: Final = """
rules:
  - {name: both, within: 2s, all: [{as: a, stream: s}, {as: b, stream: s}]}
  - {name: rising, within: 2s, seq: [{as: a, stream: s}, {as: b, stream: s, where: "value > a.value", min: 1}]}
windows:
  - {name: means, from: s, every: 10s, select: {mean: mean(value)}}
"""
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
    """Use every kernel of the matcher once, and those that the windows of ``ruleset`` need.

    Returns the number of matches that this made. It reads no clock and no stream: rows are made up.
    """
    events = [{"stream": "s", "timestamp": time_us, "key": "k", "value": 1.0 + time_us} for time_us in (1, 2)]
    matches = sum(1 for _ in match(load_rules(_RULES), events))
    for window in ruleset.windows if ruleset is not None else ():
        _use(window, catalog)
    return matches


def _use(window: WindowSpec, catalog: Catalog) -> None:
    """Rows of two keys that fall into one window, the next one and a later one, so that all of its code runs."""
    listed = catalog.find(window.source)
    kinds = {name: str(kind) for name, kind in listed.fields.items()} if listed is not None else {}
    named = {node.name for argument in window.parsed.arguments for node in walk(argument) if isinstance(node, Field)}
    step_us = max(window.every or 0, window.size or 0, window.sliding or 0, window.session or 0) + 1
    columns: dict[str, Any] = {name: _SAMPLES.get(kinds.get(name, ""), _NUMBERS) for name in sorted(named)}
    columns |= {"timestamp": [1, 2, step_us, 3 * step_us], "key": ["k", "l", "k", "k"], "type": ["a", "b", "a", "b"]}
    if window.by not in columns:
        columns[window.by] = columns["key"]
    engine = Engine(RuleSet(windows=(window.model_copy(update={"where": None}),)))
    engine.push(Frame.from_columns(window.source, "", columns))
    engine.flush()


if __name__ == "__main__":
    began = time.monotonic()
    warm()
    sys.stdout.write(f"kernels compiled in {time.monotonic() - began:.1f} s\n")
