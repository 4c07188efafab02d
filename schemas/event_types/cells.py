"""Event types of the ``cells`` scenario: its five InfluxDB measurements (docs/data.md) with their tags and fields.

Streams are keyed by island (65,536 cells, the unit of simulation), because one key per cell would make dictionaries
of millions of strings. ``simulation_id`` is the frame's run.
"""

from __future__ import annotations

from typing import Final

from astrocyte.schemas.catalog import EventType, Field

__all__ = ["EVENT_TYPES"]

_CELL: Final = Field(
    "int64", "id of the cell: (tick of birth + 1) * 2^25 + place, of a founder its place; never used again", low=0
)
_GENERATION: Final = Field("int32", "divisions between the cell and its founder", "generations", low=0)

EVENT_TYPES = (
    EventType(
        stream="cell_vitals",
        key="island",
        about={
            "cell_id": _CELL,
            "generation": _GENERATION,
            "lineage": Field("int64", "cell_id of the founder from which the cell descends", low=0),
            "energy": Field("float32", "energy that the cell holds", "energy", low=0),
            "mass": Field("float32", "mass; half of it goes to each daughter", "mass", low=0),
            "age_ticks": Field(
                "int32", "ticks since the event of the cell's birth; of a founder ticks lived, this one included",
                "ticks", low=0,
            ),
            "alive": Field("bool", "false in the last vitals of a cell, at its death"),
        },
        types=("vitals",),
        doc="State of one cell: of a sample of the living every few ticks, and of a sample of the dying.",
    ),
    EventType(
        stream="genome_data",
        key="island",
        about={
            "cell_id": _CELL,
            "genome_type": Field("string", "part of the genome that dominates", values=("bio", "ai", "tpu")),
            "metabolism": Field("float32", "rate at which the cell turns energy over", "energy/tick", 0.05, 5.0),
            "growth_rate": Field("float32", "mass gained per unit of metabolism and tick", "mass/energy", 0.001, 0.3),
            "division_size": Field("float32", "mass from which the cell divides", "mass", 0.5, 8.0),
            "mutation_rate": Field("float32", "probability that a daughter mutates", "probability", 0.001, 1.0),
            "neural_weights": Field("list<float32>", "32 weights, 8 for each type of problem"),
            "tpu_cores": Field("float32", "cores of the cell's hardware", "cores", 0.1, 64.0),
            "tpu_memory": Field("float32", "memory of the cell's hardware", "units", 0.1, 64.0),
            "tpu_efficiency": Field("float32", "share of the hardware's power that the cell uses", "share", 0.05, 1.0),
        },
        types=("genome",),
        doc="Genome of one living cell of the sample.",
    ),
    EventType(
        stream="problem_solving",
        key="island",
        about={
            "cell_id": _CELL,
            "problem_type": Field(
                "string", "type of the tick's problem", values=("pattern", "arithmetic", "memory", "planning")
            ),
            "difficulty": Field("string", "level that the cell attempts", values=("easy", "medium", "hard")),
            "accuracy": Field("float32", "how near the cell's answer is to the correct one", "share", 0.0, 1.0),
            "energy_reward": Field("float32", "energy that the attempt earned", "energy", low=0),
            "processing_time": Field("float32", "work divided by the cores' power", "time units", low=0),
            "tpu_utilization": Field("float32", "share of the hardware that the work needs", "share", 0.0, 1.0),
        },
        types=("solved", "failed"),
        doc="One attempt of one living cell of the sample at one problem.",
    ),
    EventType(
        stream="population_metrics",
        key="simulation_id",
        about={
            "simulation_id": Field("string", "the run", constant="one run"),
            "tick": Field("int64", "tick at whose end the row was made", "ticks", low=0),
            "total_population": Field("int64", "living cells", "cells", low=0),
            "avg_accuracy": Field(
                "float64", "mean accuracy of all attempts since the previous row", "share", 0.0, 1.0
            ),
            "genome_diversity": Field(
                "float64", "mean Shannon entropy of metabolism and tpu_cores over 16 bins of equal ratio", "nats", 0.0,
                2.7725888,
            ),
            "avg_generation": Field("float64", "mean generation of the living", "generations", low=0),
            "energy_efficiency": Field(
                "float64", "energy earned divided by energy spent since the previous row", "ratio", low=0
            ),
            "births": Field("int64", "births since the previous row", "cells", low=0),
            "deaths": Field("int64", "deaths since the previous row", "cells", low=0),
            "avg_energy": Field("float64", "mean energy of the living", "energy", low=0),
        },
        types=("snapshot",),
        priority="critical",
        doc="The whole population, over all islands and not sampled.",
    ),
    EventType(
        stream="evolutionary_events",
        key="island",
        about={
            "event_type": Field(
                "string", "the event's type, as an InfluxDB tag", values=("birth", "death", "mutation", "division")
            ),
            "cell_id": Field("int64", "the daughter of a birth or mutation, the mother of a division, the dead", low=0),
            "parent_id": Field("int64", "the mother", low=0, null="in deaths and divisions"),
            "mutation_magnitude": Field(
                "float32", "root mean square of the mutation's steps; 0 in births without mutation", "steps", low=0,
                null="in deaths and divisions",
            ),
            "fitness_delta": Field(
                "float32", "fall of the weights' mean square error by the mutation; 0 without one", "squared weight",
                null="in deaths and divisions",
            ),
            "generation_gap": Field(
                "int32", "generation of the daughter less that of the mother", "generations", low=0,
                null="in deaths and divisions", constant="1: a daughter is one generation after her mother",
            ),
            "generation": Field("int32", "generation of cell_id", "generations", low=0),
            "age_ticks": Field("int32", "age of cell_id, as in cell_vitals: 0 in births and mutations", "ticks", low=0),
        },
        types=("birth", "death", "mutation", "division"),
        priority="critical",
        doc="Births, deaths, mutations and divisions, none dropped.",
    ),
)  # fmt: skip
