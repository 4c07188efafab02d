"""Control messages: recorded with their tick, replayed to the same bits, refused with a reason."""

from collections.abc import Iterator

import pytest

from astrocyte.scenario import MemorySink, simulate
from astrocyte.schemas.frames import encode_frame
from astrocyte.simulator.runtime.controls import CONTROLS_STREAM, Control, Plan
from astrocyte.simulator.scenario import InvalidControl
from astrocyte.simulator.scenarios.cells.config import CellsConfig
from astrocyte.simulator.scenarios.cells.scenario import CELLS

pytestmark = pytest.mark.time_limit(30, "compiles a world")

CONFIG = CellsConfig(size=1024, routine_share=0.2)


def test_live_controls_are_recorded_and_scheduling_them_repeats_the_run() -> None:
    messages: Iterator = iter([[], [], [("difficulty", {"difficulty": 3.0})], [], [("difficulty", {"reward": "much"})]])
    live, replayed, plain = MemorySink(), MemorySink(), MemorySink()
    refused: list[Control] = []
    first = simulate(
        CELLS, CONFIG, seed=1, ticks=60, sink=live,
        control_source=lambda: next(messages, []), on_refused=refused.append,
    )  # fmt: skip
    accepted = [control for control in first.controls if control.error is None]
    assert [(control.tick, control.message) for control in accepted] == [(20, {"difficulty": 3.0})]
    assert [control.error for control in refused] == [
        "control.difficulty at tick 40 refused: reward: expected a number from 0 to 100, got 'much'"
    ]
    simulate(CELLS, CONFIG, seed=1, ticks=60, sink=replayed, controls=first.controls, chunk_ticks=7)
    simulate(CELLS, CONFIG, seed=1, ticks=60, sink=plain)

    def content(sink: MemorySink) -> list[bytes]:
        return [encode_frame(frame) for frame in sink.frames]

    assert content(live) == content(replayed)
    assert content(live) != content(plain)
    rows = [row for frame in live.of(CONTROLS_STREAM) for row in frame.batch.to_pylist()]
    assert [(row["type"], row["tick"]) for row in rows] == [("applied", 20), ("refused", 40)]


@pytest.mark.parametrize(
    ("name", "message", "wanted"),
    [
        ("difficulty", {"difficulty": 0}, "difficulty: expected a number from 0.01 to 100, got 0"),
        ("difficulty", {"difficulty": float("nan")}, "difficulty: expected a number from 0.01 to 100, got nan"),
        ("difficulty", {"reward": -1}, "reward: expected a number from 0 to 100, got -1"),
        ("difficulty", {"dificulty": 2}, r"expected 'difficulty', 'reward' or both, got \['dificulty'\]"),
        ("weather", {"rain": 1}, "cells: expected the control 'difficulty', got 'weather'"),
    ],
)
def test_invalid_controls_are_refused_naming_field_and_range(name: str, message: dict, wanted: str) -> None:
    with pytest.raises(InvalidControl, match=wanted):
        CELLS.control(CONFIG, CELLS.params(CONFIG), name, message)


def test_a_message_that_is_not_an_object_is_refused_and_recorded() -> None:
    plan = Plan(CELLS, CONFIG, source=lambda: [("difficulty", [1, 2])])
    plan.params(0)
    assert plan.controls == [
        Control(
            0,
            "difficulty",
            {"value": [1, 2]},
            "control.difficulty at tick 0 refused: expected a JSON object, got list",
        )
    ]


def test_params_apply_from_the_tick_of_their_control_also_after_a_rewind() -> None:
    plan = Plan(CELLS, CONFIG, scheduled=[Control(50, "difficulty", {"difficulty": 2.0})])
    live = iter([[], [("difficulty", {"reward": 0.5})]])
    plan._source = lambda: next(live, [])
    assert plan.params(0)["difficulty"] == 1.0
    assert plan.stop(0) == 50
    assert plan.params(10)["reward"] == CONFIG.reward * 0.5
    assert plan.params(0)["reward"] == CONFIG.reward
    assert plan.stop(0) == 10
    late = plan.params(60)
    assert (late["difficulty"], late["reward"]) == (2.0, CONFIG.reward * 0.5)
