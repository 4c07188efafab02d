"""The genetic controller: breeding pool, crossover and mutation rate from scores, nothing twice."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from astrocyte import Frame
from astrocyte.agents.controllers.genetic import GeneticController, GeneticState
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.events import ControlEvent


def scores(*rows: tuple[str, int, float, float | None], start: int = 1, run: str = "dna-run") -> Frame:
    agents, snapshots, karmas, deltas = zip(*rows, strict=True)
    return Frame.from_columns(
        "dna.karma_updated", run,
        {
            "timestamp": np.arange(start, start + len(rows), dtype=np.int64), "key": list(agents),
            "agent_id": list(agents), "snapshot_id": np.array(snapshots, np.int64),
            "karma_score": pa.array(karmas, pa.float64()), "score_delta": pa.array(deltas, pa.float64()),
        },
    )  # fmt: skip


def actions(messages: list[ControlEvent]) -> list[Any]:
    return [(message.values["action"], message.values.get("agent_id")) for message in messages]


def test_an_agent_joins_the_pool_with_a_score_of_085_and_leaves_it_below() -> None:
    controller = GeneticController()
    state, messages = controller.step(controller.initial(), scores(("a", 101, 0.84, None), ("a", 102, 0.85, 0.01)))
    assert actions(messages) == [("elite", "a")]
    assert messages[0].values["snapshot_id"] == 102
    assert [elite.snapshot_id for elite in state.runs["dna-run"].pool] == [102]
    state, messages = controller.step(state, scores(("a", 102, 0.5, -0.35), start=3))
    assert actions(messages) == [("retire", "a")]
    assert state.runs["dna-run"].pool == ()


def test_an_agents_newer_snapshot_takes_the_place_of_the_older_one() -> None:
    controller = GeneticController()
    rows = [("a", 1, 0.99, None), ("b", 2, 0.9, None), ("a", 3, 0.87, -0.12)]
    state, messages = controller.step(controller.initial(), scores(*rows))
    assert actions(messages) == [("elite", "a"), ("elite", "b")]
    assert [elite.snapshot_id for elite in state.runs["dna-run"].pool] == [2, 3]


def test_a_large_improvement_pairs_the_agent_with_the_best_of_the_others_until_it_is_scored_again() -> None:
    controller = GeneticController()
    state, _ = controller.step(controller.initial(), scores(("b", 1, 0.9, None), ("c", 2, 0.95, None)))
    rows = [("c", 3, 0.99, 0.04), ("c", 4, 0.6, 0.1), ("c", 5, 0.8, 0.11), ("c", 6, 0.81, 0.01), ("c", 7, 0.81, 0.0)]
    _, messages = controller.step(state, scores(*rows, start=3))
    crossovers = [message.values for message in messages if message.values["action"] == "crossover"]
    assert [(each["snapshot_id"], each["partner_agent_id"], each["partner_snapshot_id"]) for each in crossovers] == [
        (5, "b", 1), (6, None, None),
    ]  # fmt: skip


def test_without_an_elite_of_another_agent_nothing_is_crossed() -> None:
    controller = GeneticController()
    _, messages = controller.step(controller.initial(), scores(("a", 1, 0.7, None), ("a", 2, 0.9, 0.2)))
    assert actions(messages) == [("elite", "a")]


def test_the_pool_is_bounded_and_the_worst_is_replaced() -> None:
    controller = GeneticController(capacity=2)
    rows = [("a", 1, 0.9, None), ("b", 2, 0.86, None), ("c", 3, 0.88, None), ("d", 4, 0.85, None)]
    state, messages = controller.step(controller.initial(), scores(*rows))
    assert [elite.snapshot_id for elite in state.runs["dna-run"].pool] == [1, 3]
    assert actions(messages)[-1] == ("retire", "b")


def test_the_mutation_rate_rises_with_children_above_the_median_and_falls_without() -> None:
    controller = GeneticController(trial=5, rate=0.1)
    parents = [(f"p{number}", number, 0.5, None) for number in range(9)]
    state, _ = controller.step(controller.initial(), scores(*parents))
    # Two of five above the median of 0.5 are more than a fifth; whether they improved on themselves does not count.
    children = [("p0", 10, 0.6, -0.1), ("p1", 11, 0.6, -0.1), *[(f"p{n}", 10 + n, 0.4, 0.1) for n in (2, 3, 4)]]
    state, messages = controller.step(state, scores(*children, start=10))
    assert messages[-1].values["mutation_rate"] == pytest.approx(0.122)
    worse = [(f"p{number}", 20 + number, 0.3, 0.05) for number in range(5)]
    _, messages = controller.step(state, scores(*worse, start=20))
    assert messages[-1].values["mutation_rate"] == pytest.approx(0.1)


def test_runs_have_pools_and_rates_of_their_own() -> None:
    controller = GeneticController()
    state, _ = controller.step(controller.initial(), scores(("a", 1, 0.9, None), run="one"))
    state, messages = controller.step(state, scores(("b", 2, 0.8, 0.3), run="two"))
    assert messages == []
    assert state.runs["two"].pool == ()
    assert len(state.runs["one"].pool) == 1


def test_frames_may_be_cut_anywhere_repeated_and_the_state_stored_in_between() -> None:
    rng = np.random.default_rng(4)
    karma, delta = rng.random(60) * 0.3 + 0.7, rng.normal(size=60) * 0.2
    rows = [(f"a{rng.integers(4)}", number, float(karma[number]), float(delta[number])) for number in range(60)]
    controller = GeneticController(capacity=2, trial=7)
    _, whole = controller.step(controller.initial(), scores(*rows))
    assert {message.values["action"] for message in whole} == {"elite", "retire", "crossover", "mutation_rate"}
    state, pieces = controller.initial(), []
    for begin, end in pairwise([0, 7, 20, 21, 60]):
        for _ in range(2):
            state, messages = controller.step(state, scores(*rows[begin:end], start=begin + 1))
            pieces += messages
        state = GeneticState.from_bytes(state.to_bytes())
    assert pieces == whole


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"capacity": 0}, "capacity 0; expected an integer of at least 1"),
        ({"trial": 2.5}, "trial 2.5; expected an integer of at least 1"),
        ({"factor": 1}, "factor 1; expected a number above 1"),
        ({"rate": 0}, "rate 0; expected a number above 0"),
        ({"elite_karma": "high"}, "elite_karma 'high'; expected a number"),
        ({"crossover_delta": float("nan")}, "crossover_delta nan; expected a number"),
        ({"rate_limits": (0.25, 0.01)}, "rate_limits .*; expected two numbers above 0, the lower one first"),
        ({"stream": ""}, "stream ''; expected the name of a stream of scores"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message) -> None:
    with pytest.raises(InvalidSettings, match=message):
        GeneticController(**settings)


def test_scores_without_what_it_reads_are_logged(caplog) -> None:
    controller = GeneticController(stream="scores")
    frame = Frame.from_columns("scores", "r", {"timestamp": np.array([1]), "key": ["a"], "agent_id": ["a"]})
    controller.step(controller.initial(), frame)
    assert "controller ga reads snapshot_id, karma_score of scores" in caplog.text
