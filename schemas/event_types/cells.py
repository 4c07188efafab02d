"""Event types of the ``cells`` scenario: its five InfluxDB measurements (docs/data.md) with their tags and fields.

Streams are keyed by island (65,536 cells, the unit of simulation), because one key per cell would make dictionaries
of millions of strings. ``simulation_id`` is the frame's run.
"""

from __future__ import annotations

from astrocyte.schemas.catalog import EventType

__all__ = ["EVENT_TYPES"]

EVENT_TYPES = (
    EventType(
        stream="cell_vitals",
        key="island",
        fields={
            "cell_id": "int64",
            "generation": "int32",
            "lineage": "int64",
            "energy": "float32",
            "mass": "float32",
            "age_ticks": "int32",
            "alive": "bool",
        },
        types=("vitals",),
        doc="State of one cell; lineage is the cell_id of its founder.",
    ),
    EventType(
        stream="genome_data",
        key="island",
        fields={
            "cell_id": "int64",
            "genome_type": "string",
            "metabolism": "float32",
            "growth_rate": "float32",
            "division_size": "float32",
            "mutation_rate": "float32",
            "neural_weights": "list<float32>",
            "tpu_cores": "float32",
            "tpu_memory": "float32",
            "tpu_efficiency": "float32",
        },
        types=("genome",),
        doc="Genome of one cell; genome_type (bio, ai or tpu) is the part that dominates.",
    ),
    EventType(
        stream="problem_solving",
        key="island",
        fields={
            "cell_id": "int64",
            "problem_type": "string",
            "difficulty": "string",
            "accuracy": "float32",
            "energy_reward": "float32",
            "processing_time": "float32",
            "tpu_utilization": "float32",
        },
        types=("solved", "failed"),
        doc="One attempt of one cell at one problem.",
    ),
    EventType(
        stream="population_metrics",
        key="simulation_id",
        fields={
            "simulation_id": "string",
            "tick": "int64",
            "total_population": "int64",
            "avg_accuracy": "float64",
            "genome_diversity": "float64",
            "avg_generation": "float64",
            "energy_efficiency": "float64",
            "births": "int64",
            "deaths": "int64",
            "avg_energy": "float64",
        },
        types=("snapshot",),
        priority="critical",
        doc="Population over all islands; genome_diversity is the mean Shannon entropy of binned traits (nats).",
    ),
    EventType(
        stream="evolutionary_events",
        key="island",
        fields={
            "event_type": "string",
            "cell_id": "int64",
            "parent_id": "int64",
            "mutation_magnitude": "float32",
            "fitness_delta": "float32",
            "generation_gap": "int32",
            "generation": "int32",
            "age_ticks": "int32",
        },
        types=("birth", "death", "mutation", "division"),
        priority="critical",
        doc="Births, deaths, mutations and divisions, none dropped; event_type repeats the type, for the InfluxDB tag.",
    ),
)
