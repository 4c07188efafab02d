"""The shipped streams as methods: what they emit is read back with the values that were given."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from astrocyte.pipeline.embed.encoding import StreamEncoder, messages_of
from astrocyte.pipeline.embed.vocabularies import CellEvents, DnaEvents, KernelEvents
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.json.reader import RawRecord, records_to_frame


class Recorder:
    """Takes events as a publisher does, and reads them back."""

    def __init__(self):
        self.rows = []

    def emit(self, stream, event, *, key=None):
        (message,) = messages_of([StreamEncoder(stream).encode(event, key, len(self.rows))], "run")
        record = RawRecord(0, 0, message.key, message.value, message.headers)
        frame, _, refused = records_to_frame(message.topic, 0, stream, [record])
        assert refused == []
        self.rows.append({"stream": stream, **frame.rows()[0]})
        return True

    def last(self, *names):
        return {name: self.rows[-1].get(name) for name in names}


@pytest.fixture
def out():
    return Recorder()


def test_the_three_dna_events(out):
    dna = DnaEvents(out)
    dna.snapshot_created(
        snapshot_id=101, agent_id="coder", version=1, source="manual", dna_size=12, traits_count=5, created_at=1.5e9
    )
    assert out.last("stream", "key", "timestamp", "snapshot_id", "parent_snapshot_id", "created_at") == {
        "stream": "dna.snapshot_created", "key": "coder", "timestamp": 1_500_000_000_000_000, "snapshot_id": 101,
        "parent_snapshot_id": None, "created_at": 1.5e9,
    }  # fmt: skip
    dna.mutation_applied(
        snapshot_id=102, agent_id="coder", version=2, parent_snapshot_id=101, mutation_keys=["temperature"],
        traits_delta={"creativity": 0.1}, created_at=1.5e9 + 1, reason="explore",
    )  # fmt: skip
    assert out.last("mutation_keys", "traits_delta", "reason") == {
        "mutation_keys": '["temperature"]', "traits_delta": '{"creativity":0.1}', "reason": "explore",
    }  # fmt: skip
    dna.karma_updated(
        snapshot_id=102, agent_id="coder", version=2, karma_score=0.75, previous_score=0.5, updated_at=1.5e9 + 2
    )
    assert out.last("karma_score", "previous_score", "score_delta") == {
        "karma_score": 0.75, "previous_score": 0.5, "score_delta": 0.25,
    }  # fmt: skip
    dna.karma_updated(snapshot_id=103, agent_id="coder", version=3, karma_score=0.75, updated_at=1.5e9 + 3)
    assert out.last("previous_score", "score_delta") == {"previous_score": None, "score_delta": None}


@pytest.mark.parametrize("score", [-0.1, 1.87])
def test_a_score_outside_0_to_1_is_refused(out, score):
    with pytest.raises(InvalidEvent, match="from 0 to 1"):
        DnaEvents(out).karma_updated(snapshot_id=1, agent_id="a", version=1, karma_score=score, updated_at=1.0)


@dataclass
class Cell:
    cell_id: int
    generation: int
    energy: float
    alive: bool = True


def test_the_events_of_cells_are_timed_by_ticks_and_belong_to_the_simulation(out):
    cells = CellEvents(out, "sim_001", tick_us=10_000, start_us=1_000_000)
    mother, daughter = Cell(1, 3, 5.0), {"cell_id": 2, "generation": 4, "energy": 1.0, "island": 7}
    cells.stream_cell_state(mother, 5)
    assert out.last("timestamp", "key", "type", "cell_id", "energy", "alive", "mass", "simulation_id") == {
        "timestamp": 1_050_000, "key": "0", "type": "vitals", "cell_id": 1, "energy": 5.0, "alive": True, "mass": None,
        "simulation_id": "sim_001",
    }  # fmt: skip
    cells.stream_division_event(mother, daughter)
    assert out.last("timestamp", "key", "type", "cell_id", "parent_id", "generation_gap", "generation") == {
        "timestamp": 1_050_000, "key": "7", "type": "division", "cell_id": 2, "parent_id": 1, "generation_gap": 1,
        "generation": daughter["generation"],
    }  # fmt: skip
    cells.stream_mutation_event(daughter, "point", 0.5)
    assert out.last("type", "event_type", "mutation_magnitude") == {
        "type": "mutation.point", "event_type": "mutation", "mutation_magnitude": 0.5,
    }  # fmt: skip
    cells.stream_problem_result(mother, {"problem_type": "xor", "difficulty": "easy"}, {"accuracy": 0.75})
    assert out.last("stream", "type", "problem_type", "accuracy") == {
        "stream": "problem_solving", "type": "solved", "problem_type": "xor", "accuracy": 0.75,
    }  # fmt: skip
    cells.stream_genome({"cell_id": 1, "genome_type": "bio", "metabolism": 0.5})
    assert out.last("stream", "genome_type", "metabolism") == {
        "stream": "genome_data", "genome_type": "bio", "metabolism": 0.5,
    }  # fmt: skip
    cells.stream_population_snapshot([mother, daughter], 6)
    assert out.last("timestamp", "key", "tick", "total_population", "avg_generation", "avg_energy", "avg_accuracy") == {
        "timestamp": 1_060_000, "key": "sim_001", "tick": 6, "total_population": 2, "avg_generation": 3.5,
        "avg_energy": 3.0, "avg_accuracy": None,
    }  # fmt: skip


def test_a_cell_without_an_id_and_a_result_without_an_outcome_are_refused(out):
    cells = CellEvents(out, "sim_001")
    with pytest.raises(InvalidEvent, match="cell_id"):
        cells.stream_cell_state({"energy": 1.0}, 1)
    with pytest.raises(InvalidEvent, match="'solved' nor 'accuracy'"):
        cells.stream_problem_result({"cell_id": 1}, {}, {})


def test_an_update_of_a_kernel_carries_the_whole_kernel(out):
    kernels = KernelEvents(out, "sim_001")
    kernels.store_kernel(kernel_id=7, god_name="Athena", phi=0.5, basin_coordinates=[0.5] * 8)
    kernels.update_kernel_metrics(7, phi=0.75, training_steps=100)
    assert out.last("type", "key", "simulation_id", "god_name", "phi", "training_steps", "basin_coordinates") == {
        "type": "updated", "key": "sim_001", "simulation_id": "sim_001", "god_name": "Athena", "phi": 0.75,
        "training_steps": 100, "basin_coordinates": [0.5] * 8,
    }  # fmt: skip
    kernels.retire_kernel(7)
    assert out.last("type", "phi") == {"type": "retired", "phi": 0.75}
    with pytest.raises(InvalidEvent, match="store_kernel first"):
        kernels.update_kernel_metrics(7, phi=1.0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"kernel_id": "seven"}, "expected a whole number"),
        ({"kernel_id": 7, "basin_coordinates": [1.0]}, "has 1 numbers; expected 8"),
        ({"kernel_id": 7, "fi": 1.0}, "no field 'fi'"),
    ],
)
def test_a_kernel_that_has_no_row_is_refused_and_not_remembered(out, columns, message):
    kernels = KernelEvents(out, "sim_001")
    with pytest.raises(InvalidEvent, match=message):
        kernels.store_kernel(columns) if "fi" not in columns else kernels.store_kernel(**columns)
    with pytest.raises(InvalidEvent, match="store_kernel first"):
        kernels.update_kernel_metrics(7, phi=1.0)
