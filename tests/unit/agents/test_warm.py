"""Warming up: once it is done, nothing is compiled any more."""

import subprocess
import sys

UNUSED = """
from astrocyte.agents import jit
from astrocyte.agents.warm import warm
warm()
print(*sorted(f"{each.py_func.__module__}.{each.py_func.__name__}" for each in jit._KERNELS if not each.signatures))
"""
WINDOWS = """
from numba.core import event
from astrocyte import Engine, load_rules
from astrocyte.agents.warm import warm
from astrocyte.schemas.frames import Frame
rules = load_rules('''
windows:
  - {name: hop, from: cell_vitals, size: 10s, every: 2s, by: cell_id, select: {a: max(energy), b: count(cell_id)}}
  - {name: own, from: things, session: 5s, select: {a: std(x), b: slope(x), c: "quantile(x, 0.9)"}}
  - {name: back, from: things, sliding: 5s, select: {a: sum(x)}}
''')
warm(rules)
compiled = []
class Listener(event.Listener):
    def on_start(self, event):
        compiled.append(event.data["dispatcher"].py_func.__name__)
    def on_end(self, event):
        pass
event.register("numba:compile", Listener())
engine = Engine(rules)
times = [1, 2, 3_000_000, 90_000_000]
engine.push(Frame.from_columns("things", "", {"timestamp": times, "key": list("abab"), "x": [1.5, 2.5, 0.0, 9.0]}))
columns = {"timestamp": times, "key": list("abab"), "cell_id": ["1", "2", "1", "1"], "energy": [1.0, 2.0, 3.0, 4.0]}
engine.push(Frame.from_columns("cell_vitals", "", columns))
assert engine.flush().frames
print(*compiled)
"""


def output(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300)
    return done.stdout.strip()


def test_warming_up_compiles_every_operator_of_the_matcher():
    assert output(UNUSED) == ""


def test_warming_up_with_rules_compiles_the_operators_of_their_windows():
    assert output(WINDOWS) == ""
