"""``python -m astrocyte.agents.warm``: compile the kernels into their cache before the first match."""

from __future__ import annotations

import sys
import time

from astrocyte.agents.engine.matching import match
from astrocyte.agents.rules.yaml import load_rules

__all__ = ["warm"]

_RULES = """
rules:
  - {name: both, within: 2s, all: [{as: a, stream: s}, {as: b, stream: s}]}
  - {name: rising, within: 2s, seq: [{as: a, stream: s}, {as: b, stream: s, where: "value > a.value", min: 1}]}
windows:
  - {name: means, from: s, every: 10s, select: {mean: mean(value)}}
"""


def warm() -> int:
    """Use every kernel once; returns the number of matches that this made."""
    events = [{"stream": "s", "timestamp": time_us, "key": "k", "value": 1.0 + time_us} for time_us in (1, 2)]
    return sum(1 for _ in match(load_rules(_RULES), events))


if __name__ == "__main__":
    began = time.monotonic()
    warm()
    sys.stdout.write(f"kernels compiled in {time.monotonic() - began:.1f} s\n")
