"""Keys and strings that nothing refers to are forgotten: memory and snapshots are those of the open windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from astrocyte import Engine, RuleSet, load_rules
from astrocyte.agents.cep import keys, values
from astrocyte.agents.cep.values import TextNumbers, mark
from astrocyte.agents.expressions.vm import BOX
from astrocyte.schemas.frames import Frame

RULES = """
rules:
  - {name: rising, within: 1s, seq: [{as: a, stream: A}, {as: b, stream: A, where: "ip == a.ip and name > a.name"}]}
  - {name: pair, within: 1s, by: ip, all: [{as: a, stream: A}, {as: b, stream: B, where: "name != a.name"}]}
  - {name: known, within: 1s, by: null,
     seq: [{as: a, stream: B, where: "name == 'n3'"}, {as: b, stream: B, where: "a.name == 'n3' and name < a.name"}]}
  - {name: loop, within: 2s, seq: [{as: a, stream: B, min: 2, where: "count(a) == 0 or name >= last(a.name)"},
                                   {as: b, stream: A, where: "name == max(a.name) or ip == first(a.ip)"}]}
windows:
  - {name: per_name, from: A, by: name, every: 1s, select: {n: count(), ips: count_distinct(ip)}}
"""


def frame(stream: str, turn: int, rows: int, rng: np.random.Generator) -> Frame:
    """Rows whose strings are mostly new in every turn, with times a little out of order."""
    times = turn * 200_000 + rng.integers(0, 260_000, rows)
    columns: dict[str, Any] = {
        "timestamp": times,
        "key": pa.array([f"k{number}" for number in rng.integers(turn, turn + 3, rows)]),
        "ip": pa.array([f"10.0.{turn}.{number}" if number else None for number in rng.integers(0, 4, rows)]),
        "name": pa.array([f"n{number}" for number in rng.integers(0, 5 + turn % 3, rows)]),
    }
    return Frame.from_columns(stream, "run", columns, first_seq=turn * rows)


def outputs(rules: RuleSet, *, restart: bool = False, single: bool = False) -> list[Any]:
    rng, found = np.random.default_rng(5), []
    engine = Engine(rules, consistency="eventual" if single else "strong", validated=True)
    for turn in range(60):
        for stream in ("A", "B"):
            made = frame(stream, turn, 12, rng)
            if single:
                rows = sorted(made.rows(), key=lambda row: row["timestamp"])
                for row in rows:
                    found += shown(
                        engine.push_event({"stream": stream, **{k: v for k, v in row.items() if v is not None}})
                    )
            else:
                engine.push(made)
        output = engine.advance(turn * 200_000 - 300_000)
        found += shown(output.matches.matches())
        found += [row for made in output.frames for row in made.rows()]
        if restart and turn % 7 == 3:
            snapshot = engine.snapshot()
            engine = Engine(rules, validated=True)
            engine.restore(snapshot)
    output = engine.flush()
    return found + shown(output.matches.matches()) + [row for made in output.frames for row in made.rows()]


def shown(matches: Any) -> list[Any]:
    return [(each.rule, each.key, each.time_us, each.status, str(each.id)) for each in matches]


@pytest.fixture(params=[1, 40])
def eager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Tables that are swept from so few strings on."""
    monkeypatch.setattr(keys, "LEAST", request.param)
    return int(request.param)


@pytest.fixture(scope="module")
def kept() -> dict[bool, list[Any]]:
    """What engines find that forget nothing."""
    rules = load_rules(RULES)
    found = {single: outputs(rules, single=single) for single in (False, True)}
    assert {each[0] for each in found[False] if isinstance(each, tuple)} == {"rising", "pair", "known", "loop"}
    return found


def test_what_is_forgotten_changes_no_match(kept, eager):
    assert outputs(load_rules(RULES)) == kept[False]


def test_what_is_forgotten_changes_no_match_of_single_events(kept, eager):
    assert outputs(load_rules(RULES), single=True) == kept[True]


def test_a_restart_from_a_snapshot_of_what_is_alive_changes_no_match(kept, eager):
    assert outputs(load_rules(RULES), restart=True) == kept[False]


def test_a_restart_without_any_sweep_changes_no_match(kept):
    assert outputs(load_rules(RULES), restart=True) == kept[False]


def size(snapshot: Any) -> int:
    if isinstance(snapshot, dict):
        return sum(map(size, snapshot.values()))
    return int(getattr(snapshot, "nbytes", 0)) or len(snapshot)


def run_distinct_strings(turns: int, rows: int) -> tuple[list[int], list[int]]:
    """Bytes of the state and of the snapshot after each turn, each with new keys and strings that are soon over."""
    engine = Engine(load_rules(
        "rules:\n"
        "  - {name: same, within: 1s, seq: [{as: a, stream: A}, {as: b, stream: A, where: 'ip == a.ip and x > a.x'}]}\n"
        "  - {name: both, within: 1s, by: ip, all: [{as: a, stream: A}, {as: b, stream: A, where: 'user < a.user'}]}\n"
        "windows: [{name: w, from: A, by: user, every: 1s, select: {n: count()}}]\n"
    ), validated=True)  # fmt: skip
    states, snapshots, time = [], [], 0
    for turn in range(turns):
        times = time + np.arange(rows) * 10
        engine.push(Frame.from_columns("A", "r", {
            "timestamp": times,
            "key": pa.array([f"k{number % 100}" for number in range(rows)]),
            "ip": pa.array([f"10.{turn}.{number}" for number in range(rows)]),
            "user": pa.array([f"user-{turn}-{number}" for number in range(rows)]),
            "x": np.zeros(rows),
        }, first_seq=turn * rows))  # fmt: skip
        time = int(times[-1]) + 5_000_000
        engine.advance(time)
        (stratum,) = engine._strata
        states.append(stratum.matcher.state_bytes + stratum._makers["w"].operator._keys.nbytes)
        snapshots.append(size(engine.snapshot()))
    return states, snapshots


def test_memory_and_snapshots_do_not_grow_with_the_strings_that_were_seen(monkeypatch):
    monkeypatch.setattr(keys, "LEAST", 2_000)
    states, snapshots = run_distinct_strings(30, 1_500)
    assert max(states[15:]) < 1.25 * max(states[:10])
    assert max(snapshots[15:]) < 1.01 * max(snapshots[:10])


@pytest.mark.soak
def test_ten_million_distinct_strings_leave_memory_and_snapshots_flat():
    states, snapshots = run_distinct_strings(100, 50_000)  # two columns
    assert max(states[20:]) < 1.25 * max(states[:20])
    assert max(snapshots[20:]) < 1.01 * max(snapshots[:20])


def test_marks_are_set_for_boxed_strings_only():
    strings = TextNumbers()
    boxes = strings.boxes(pa.array(["a", "b", "c"]))
    beyond = np.array([BOX + 0x0007FFFFFFFFFFFE, BOX + 4], np.uint64).view(np.float64)
    live = strings.unmarked
    mark(np.array([[boxes[2], 1.0, np.nan], [*beyond, -np.inf]]), live)
    assert live.tolist() == [False, False, True]
    assert strings.recycle(live) == 2
    assert strings.box("c").view(np.uint64) == boxes[2].view(np.uint64)
    assert values.ROOM < keys.LEAST
