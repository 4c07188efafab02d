"""Controllers: pure steps, the same messages for the same frames, nothing twice."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from astrocyte import Frame
from astrocyte.agents.controllers.controllers import (
    DifficultyController,
    DifficultyState,
    GeneticController,
    GeneticState,
)
from astrocyte.schemas.errors import InvalidSettings


def metrics(accuracies: list[float | None], start: int = 1, run: str = "sim", **columns: Any) -> Frame:
    rows = len(accuracies)
    return Frame.from_columns(
        "population_stats", run,
        {
            "timestamp": np.arange(start, start + rows, dtype=np.int64) * 60_000_000,
            "key": [run] * rows, "mean_accuracy": pa.array(accuracies, pa.float64()), **columns,
        },
    )  # fmt: skip


def scores(*rows: tuple[str, int, float, float | None], start: int = 1) -> Frame:
    agents, snapshots, karmas, deltas = zip(*rows, strict=True)
    return Frame.from_columns(
        "dna.karma_updated", "dna-run",
        {
            "timestamp": np.arange(start, start + len(rows), dtype=np.int64), "key": list(agents),
            "agent_id": list(agents), "snapshot_id": np.array(snapshots, np.int64),
            "karma_score": pa.array(karmas, pa.float64()), "score_delta": pa.array(deltas, pa.float64()),
        },
    )  # fmt: skip


def test_a_population_with_high_accuracy_gets_harder_problems() -> None:
    controller = DifficultyController(target=0.6, gain=1.0)
    state, (message,) = controller.step(controller.initial(), metrics([0.9]))
    assert message.control == "difficulty"
    assert message.run == "sim"
    assert message.timestamp == "1970-01-01T00:01:00Z"
    assert message.values["difficulty"] == pytest.approx(math.exp(0.3))
    _, (easier,) = controller.step(state, metrics([0.2], start=2))
    assert easier.values["difficulty"] < message.values["difficulty"]


def test_within_the_deadband_nothing_changes() -> None:
    controller = DifficultyController(target=0.6, deadband=0.05)
    _, messages = controller.step(controller.initial(), metrics([0.6, 0.6]))
    assert messages == []


def test_long_lasting_difficulty_raises_the_reward_within_limits() -> None:
    controller = DifficultyController(target=0.6, memory=0.5)
    state, messages = controller.step(controller.initial(), metrics([0.3, 0.3]))
    assert messages[-1].values["reward"] == 2.0
    state, messages = controller.step(state, metrics([0.0] * 5, start=3))
    assert messages[-1].values["reward"] == 2.0
    assert state.runs["sim"].difficulty >= 0.1


def test_accuracy_settles_at_the_target_in_a_closed_loop() -> None:
    controller = DifficultyController(target=0.6)
    state, difficulty = controller.initial(), 1.0
    for minute in range(1, 80):
        accuracy = 1.0 / (1.0 + 0.2 * difficulty)
        state, messages = controller.step(state, metrics([accuracy], start=minute))
        if messages:
            difficulty = float(messages[-1].values["difficulty"] or 0)
    assert abs(1.0 / (1.0 + 0.2 * difficulty) - 0.6) <= 0.06


def test_repeated_preliminary_and_null_rows_change_nothing() -> None:
    controller = DifficultyController()
    state, _ = controller.step(controller.initial(), metrics([0.9]))
    for frame in (
        metrics([0.1]),
        metrics([None], start=2),
        metrics([0.1], start=2, final=pa.array([False])),
        Frame.from_columns("other", "r", {"timestamp": np.array([9]), "key": ["k"]}),
    ):
        after, messages = controller.step(state, frame)
        assert (after, messages) == (state, [])


def test_simulations_are_controlled_independently() -> None:
    controller = DifficultyController()
    state, _ = controller.step(controller.initial(), metrics([0.9], run="one"))
    state, (message,) = controller.step(state, metrics([0.1], run="two"))
    assert message.run == "two"
    assert state.runs["one"].difficulty > 1 > state.runs["two"].difficulty


def test_high_karma_joins_the_elite_and_falls_out_of_it() -> None:
    controller = GeneticController()
    state, messages = controller.step(controller.initial(), scores(("a", 101, 0.84, None), ("a", 102, 0.85, 0.01)))
    assert [message.values["action"] for message in messages] == ["elite"]
    assert messages[0].values["snapshot_id"] == 102
    assert [elite.snapshot_id for elite in state.pool] == [102]
    state, messages = controller.step(state, scores(("a", 102, 0.5, -0.35), start=3))
    assert [message.values["action"] for message in messages] == ["retire"]
    assert state.pool == ()


def test_a_large_improvement_triggers_crossover_with_the_best_of_the_others() -> None:
    controller = GeneticController()
    state, _ = controller.step(controller.initial(), scores(("b", 1, 0.9, None), ("c", 2, 0.95, None)))
    _, messages = controller.step(state, scores(("c", 3, 0.99, 0.04), ("c", 4, 0.6, 0.1), ("c", 5, 0.8, 0.11), start=3))
    crossovers = [message.values for message in messages if message.values["action"] == "crossover"]
    assert [values["snapshot_id"] for values in crossovers] == [5]
    assert (crossovers[0]["partner_agent_id"], crossovers[0]["partner_snapshot_id"]) == ("b", 1)


def test_the_pool_is_bounded_and_the_worst_is_replaced() -> None:
    controller = GeneticController(capacity=2)
    rows = [("a", 1, 0.9, None), ("b", 2, 0.86, None), ("c", 3, 0.88, None), ("d", 4, 0.85, None)]
    state, messages = controller.step(controller.initial(), scores(*rows))
    assert [elite.snapshot_id for elite in state.pool] == [1, 3]
    retired = [message.values["snapshot_id"] for message in messages if message.values["action"] == "retire"]
    assert retired == [2]


def test_the_mutation_rate_follows_the_one_fifth_rule() -> None:
    controller = GeneticController(trial=5, rate=0.1)
    better = [("a", number, 0.5, 0.05) for number in range(5)]
    state, messages = controller.step(controller.initial(), scores(*better))
    assert messages[-1].values["mutation_rate"] == pytest.approx(0.122)
    worse = [("a", number, 0.5, -0.05) for number in range(5, 10)]
    _, messages = controller.step(state, scores(*worse, start=6))
    assert messages[-1].values["mutation_rate"] == pytest.approx(0.1)


def test_frames_may_be_cut_anywhere_repeated_and_the_state_stored_in_between() -> None:
    rng = np.random.default_rng(4)
    karma, delta = rng.random(60) * 0.3 + 0.7, rng.normal(size=60) * 0.2
    rows = [(f"a{rng.integers(4)}", number, float(karma[number]), float(delta[number])) for number in range(60)]
    controller = GeneticController(capacity=5)
    _, whole = controller.step(controller.initial(), scores(*rows))
    state, pieces = controller.initial(), []
    for begin, end in pairwise([0, 7, 20, 21, 60]):
        for _ in range(2):
            state, messages = controller.step(state, scores(*rows[begin:end], start=begin + 1))
            pieces += messages
        state = GeneticState.from_bytes(state.to_bytes())
    assert pieces == whole
    difficulty = DifficultyController()
    first, _ = difficulty.step(difficulty.initial(), metrics([0.9, 0.2]))
    assert DifficultyState.from_bytes(first.to_bytes()) == first


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="expected a number between 0 and 1"):
        DifficultyController(target=1.5)
    with pytest.raises(InvalidSettings, match="memory above 0"):
        DifficultyController(memory=0)
    with pytest.raises(InvalidSettings, match="at least 1 of each"):
        GeneticController(capacity=0)
