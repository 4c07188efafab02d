"""Every field of every shipped stream lies in its range, varies where it should, and has a definition."""

import numpy as np
import pytest

from astrocyte import CATALOG
from astrocyte.scenario import MemorySink, simulate
from astrocyte.schemas.catalog import EventType
from astrocyte.schemas.event_types import axons, cells, dna, ecology, kernels
from astrocyte.schemas.frames import Frame
from astrocyte.simulator.testing import check_values

SHIPPED = {module.__name__.rsplit(".", 1)[1]: module.EVENT_TYPES for module in (axons, cells, dna, ecology, kernels)}
WORLDS = {
    "axons": (60, {"domains": 32, "plant_hz": 2.0, "rate_hz": (20.0, 20.0, 20.0)}),
    "cells": (
        120,
        {
            "size": 512,
            "routine_share": 0.3,
            "plants": [{"kind": "collapse", "at_tick": 60, "strength": 0.5},
                       {"kind": "depletion", "at_tick": 90, "ticks": 20, "strength": 0.9}],
        },
    ),
    "ecology": (
        100,
        {"size": 256, "routine_every": 5, "routine_share": 0.5, "steps_every": 5, "upkeep": 0.4, "old_age": 20,
         "starvation_threshold": 8, "starvation_damage": 0.2, "tile_share": 0.1,
         "plants": [{"kind": "collapse", "at_tick": 50, "strength": 0.4}]},
    ),
    "kernels": (200, {"size": 96, "war": 0.02, "spawn": 0.02, "breed": 0.05, "merge_radius": 0.6, "merge_every": 20,
                      "plants": [{"kind": "breakdown", "at_tick": 60, "strength": 0.5}]}),
    "dna": (120, {"size": 24, "generation_ticks": 4, "rollback": 0.5, "save": 0.02, "backup": 0.02}),
}  # fmt: skip
_CODES = {"list<float32>", "json"}


@pytest.fixture(scope="module", params=WORLDS)
def run(request):
    ticks, settings = WORLDS[request.param]
    sink = MemorySink()
    simulate(request.param, settings, seed=3, ticks=ticks, sink=sink)
    return request.param, [frame for frame in sink.frames if frame.num_rows]


def test_values_are_in_the_ranges_of_the_catalog_and_vary_where_they_should(run):
    scenario, frames = run
    streams = {event_type.stream for event_type in SHIPPED[scenario]}
    assert streams - {frame.stream for frame in frames} <= {"truth"}
    assert list(check_values(frames, varying=True)) == []


@pytest.mark.parametrize(
    "event_type", [each for types in SHIPPED.values() for each in types], ids=lambda each: each.stream
)
def test_every_field_of_a_shipped_stream_is_defined(event_type):
    assert set(event_type.about) == set(event_type.fields)
    for name, field in event_type.about.items():
        assert field.doc, name
        assert field.type == event_type.fields[name]
        if field.type in ("int32", "int64", "float32", "float64") and not name.endswith(("_id", "primitive_root")):
            assert field.unit or name in ("valence", "action_taken", "lineage"), f"{name} has no unit"


def test_a_value_out_of_range_a_null_and_a_constant_are_found():
    frame = Frame.from_columns(
        "dna.karma_updated",
        "run",
        {
            "timestamp": np.arange(3, dtype=np.int64),
            "key": ["a"] * 3,
            "type": ["dna.karma_updated"] * 3,
            "snapshot_id": np.arange(3, dtype=np.int64),
            "agent_id": ["a"] * 3,
            "version": [1, 2, None],
            "karma_score": np.array([0.2, 1.87, 0.3]),
        },
    )
    assert sorted(check_values([frame], varying=True)) == [
        "dna.karma_updated.agent_id: all 3 values are 'a'; expected several",
        "dna.karma_updated.karma_score: got 1.87; expected at most 1.0",
        "dna.karma_updated.version: 1 of 3 values are null; expected a value",
    ]
    assert "dna.karma_updated" in CATALOG


def test_fields_may_be_given_by_type_alone_or_with_their_definitions():
    plain = EventType("plain", key="oven", fields={"heat": "float32"})
    assert (dict(plain.fields), dict(plain.about)) == ({"heat": "float32"}, {})
    defined = CATALOG["axon_1"]
    assert dict(defined.fields) == {"value": "float64"}
