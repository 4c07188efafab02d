"""The difficulty controller: its law, loops around known processes, nothing twice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from astrocyte import Frame
from astrocyte.agents.controllers.difficulty import DifficultyController, DifficultyState
from astrocyte.schemas.errors import InvalidSettings

SECOND_US = 1_000_000


def results(
    accuracies: list[float | None], start: int = 1, run: str = "sim", length_s: int = 1, **columns: Any
) -> Frame:
    """Results of windows of that length, the first of which ends after ``start`` of them."""
    end = np.arange(start, start + len(accuracies), dtype=np.int64) * length_s * SECOND_US
    return Frame.from_columns(
        "population_second", run,
        {
            "timestamp": end, "key": [run] * len(end), "accuracy": pa.array(accuracies, pa.float64()),
            "window_start": end - length_s * SECOND_US, "window_end": end, **columns,
        },
    )  # fmt: skip


def closed_loop(
    controller: DifficultyController, windows: int, *, slope: float = 0.8, half: float = 0.5, length_s: int = 1,
    delay: int = 0, noise: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Accuracy by window of a process of which half is right at the difficulty ``half``; commands come late."""
    state, in_force, given = controller.initial(), 1.0, []
    rng, found = np.random.default_rng(3), []
    for window in range(1, windows + 1):
        if len(given) >= delay + 1:
            in_force = given[-1 - delay]
        accuracy = 1.0 / (1.0 + math.exp(slope * (math.log(in_force) - math.log(half))))
        found.append(accuracy)
        seen = min(max(accuracy + noise * rng.standard_normal(), 0.0), 1.0)
        state, messages = controller.step(state, results([seen], start=window, length_s=length_s))
        given.append(float(messages[-1].values["difficulty"]) if messages else (given[-1] if given else 1.0))
    return np.array(found)


def test_a_population_with_high_accuracy_gets_harder_problems_by_the_stated_share() -> None:
    controller = DifficultyController(target=0.6, sensitivity=0.8, response_s=10.0, delay_s=1.5)
    state, (message,) = controller.step(controller.initial(), results([0.9]))
    assert (message.control, message.run, message.timestamp) == ("difficulty", "sim", "1970-01-01T00:00:01Z")
    off = (math.log(9.0) - math.log(1.5)) / 0.8
    assert message.values["difficulty"] == pytest.approx(math.exp(off * 1.0 / (10.0 + 2.0)))
    _, (easier,) = controller.step(state, results([0.2], start=2))
    assert easier.values["difficulty"] < message.values["difficulty"]


@pytest.mark.parametrize(
    ("length_s", "every_s", "delay_s", "share"),
    [(1, 1, 1.5, 1 / 12), (10, 10, 1.0, 10 / 16), (60, 60, 1.0, 60 / 62), (60, 60, 61.0, 60 / 182),
     (10, 1, 1.0, 1 / 16)],
)  # fmt: skip
def test_the_share_is_that_of_a_process_with_dead_time(length_s, every_s, delay_s, share) -> None:
    assert DifficultyController(delay_s=delay_s).share(length_s, every_s) == pytest.approx(share)


def test_overlapping_windows_do_not_count_their_common_time_twice() -> None:
    controller = DifficultyController(deadband=0.0)
    end = np.array([10, 11]) * SECOND_US
    columns = {"timestamp": end, "key": ["sim"] * 2, "accuracy": [0.9, 0.9], "window_start": end - 10 * SECOND_US,
               "window_end": end}  # fmt: skip
    frame = Frame.from_columns("population_second", "sim", columns)
    _, messages = controller.step(controller.initial(), frame)
    first, second = (math.log(float(message.values["difficulty"])) for message in messages)
    assert second - first == pytest.approx(first / 10)


def test_within_the_deadband_nothing_changes() -> None:
    controller = DifficultyController(target=0.6, deadband=0.05, reward_step=0.1)
    _, messages = controller.step(controller.initial(), results([0.62, 0.6, 0.58] * 20))
    assert messages == []


@pytest.mark.parametrize(
    ("length_s", "delay", "within"), [(1, 0, 35), (1, 2, 40), (10, 0, 6), (10, 1, 12), (60, 0, 3), (60, 1, 10)]
)
@pytest.mark.parametrize("slope", [0.5, 0.8, 1.2])
def test_accuracy_settles_at_the_target_for_any_window_and_delay(length_s, delay, within, slope) -> None:
    controller = DifficultyController(delay_s=1.0 + delay * length_s)
    accuracy = closed_loop(controller, 120, slope=slope, half=0.4, length_s=length_s, delay=delay)
    assert accuracy[0] < 0.4
    slower = within * 0.8 / min(slope, 0.8)
    assert (np.abs(accuracy[math.ceil(slower) :] - 0.6) <= 0.05).all()
    if slope <= controller.sensitivity:
        assert accuracy.max() <= 0.65


def test_noise_causes_few_commands_and_no_wandering() -> None:
    controller = DifficultyController()
    accuracy = closed_loop(controller, 400, half=0.4, noise=0.015)
    assert np.abs(accuracy[60:] - 0.6).max() < 0.03
    assert len(np.unique(accuracy[60:])) < 100


def test_a_limit_does_not_wind_up() -> None:
    controller = DifficultyController(limits=(0.5, 2.0), deadband=0.0)
    state, _ = controller.step(controller.initial(), results([0.3] * 300))
    assert state.runs["sim"].difficulty == 0.5
    # The ability that gives 0.3 at this difficulty, however long the limit has held.
    assert state.runs["sim"].ability == pytest.approx(math.log(0.3 / 0.7) / 0.8 + math.log(0.5))


def test_long_lasting_difficulty_raises_the_reward_within_limits() -> None:
    controller = DifficultyController(target=0.6, history_s=5.0)
    state, messages = controller.step(controller.initial(), results([0.4] * 40))
    assert messages[-1].values["reward"] == pytest.approx(1.5, rel=0.02)
    state, messages = controller.step(state, results([0.0] * 40, start=41))
    assert messages[-1].values["reward"] == pytest.approx(2.0, rel=0.02)
    assert state.runs["sim"].reward <= 2.0


def test_without_lengths_the_time_since_the_result_before_counts() -> None:
    controller = DifficultyController()
    columns = {"timestamp": np.array([1, 2]) * SECOND_US, "key": ["sim"] * 2, "accuracy": [0.9, 0.9]}
    _, messages = controller.step(controller.initial(), Frame.from_columns("population_second", "sim", columns))
    assert [message.timestamp for message in messages] == ["1970-01-01T00:00:02Z"]


def test_repeated_preliminary_and_null_rows_change_nothing() -> None:
    controller = DifficultyController()
    state, _ = controller.step(controller.initial(), results([0.9]))
    for frame in (
        results([0.1]),
        results([None], start=2),
        results([0.1], start=2, final=pa.array([False])),
        Frame.from_columns("other", "r", {"timestamp": np.array([9]), "key": ["k"]}),
    ):
        after, messages = controller.step(state, frame)
        assert (after, messages) == (state, [])


def test_simulations_are_controlled_independently() -> None:
    controller = DifficultyController()
    state, _ = controller.step(controller.initial(), results([0.9], run="one"))
    state, (message,) = controller.step(state, results([0.1], run="two"))
    assert message.run == "two"
    assert state.runs["one"].difficulty > 1 > state.runs["two"].difficulty


def test_a_state_is_stored_and_one_of_before_is_read() -> None:
    controller = DifficultyController()
    state, _ = controller.step(controller.initial(), results([0.9, 0.2]))
    assert DifficultyState.from_bytes(state.to_bytes()) == state
    before = b'{"runs":{"sim":{"difficulty":2.0,"reward":1.1,"historical":0.5,"seen_us":7}}}'
    assert DifficultyState.from_bytes(before).runs["sim"].difficulty == 2.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 1.5}, "target accuracy 1.5; expected a number between 0 and 1"),
        ({"response_s": 0}, "response_s 0; expected a number above 0"),
        ({"deadband": -0.1}, "deadband -0.1; expected a number of 0 or more"),
        ({"target": "x"}, "target accuracy 'x'; expected a number"),
        ({"target": math.nan}, "target accuracy nan; expected a number"),
        ({"sensitivity": math.inf}, "sensitivity inf; expected a number above 0"),
        ({"reward_step": True}, "reward_step True; expected a number of 0 or more"),
        ({"field": ""}, "field ''; expected the name of a field of its results"),
        ({"field": None}, "field None; expected the name of a field of its results"),
        ({"stream": 3}, "stream 3; expected the name of a window"),
        *(
            ({name: value}, f"{name} .*; expected two numbers above 0, the lower one first")
            for name in ("limits", "reward_limits")
            for value in ((5.0, 1.0), (0.0, 0.0), (-1.0, 1.0), (0.5, math.inf), (0.5, "2"), (1.0,), 2.0, "ab", None)
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings, message) -> None:
    with pytest.raises(InvalidSettings, match=message):
        DifficultyController(**settings)


def test_equal_limits_hold_a_value_still() -> None:
    controller = DifficultyController(reward_limits=(1.0, 1.0))
    _, messages = controller.step(controller.initial(), results([0.9] * 40))
    assert messages
    assert {message.values["reward"] for message in messages} == {1.0}


def test_results_without_the_field_are_logged_once_with_the_fields_that_they_have(caplog) -> None:
    controller = DifficultyController(field="acuracy")
    state, frame = controller.initial(), results([0.9])
    for _ in range(3):
        state, messages = controller.step(state, frame)
        assert messages == []
    (record,) = caplog.records
    assert "controller difficulty reads acuracy of population_second" in record.getMessage()
    assert "it has accuracy, window_start, window_end" in record.getMessage()


def test_results_that_lack_the_field_only_sometimes_are_not_logged(caplog) -> None:
    controller = DifficultyController()
    state, _ = controller.step(controller.initial(), results([0.9]))
    empty = Frame.from_columns("population_second", "sim", {"timestamp": np.array([2 * SECOND_US]), "key": ["sim"]})
    assert controller.step(state, empty) == (state, [])
    assert not caplog.records
