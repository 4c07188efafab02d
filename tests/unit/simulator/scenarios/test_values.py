"""Every field of every shipped stream lies in its range, varies where it should, and has a definition."""

import numpy as np
import pytest

from astrocyte import CATALOG
from astrocyte.scenario import MemorySink, simulate
from astrocyte.schemas.catalog import EventType
from astrocyte.schemas.event_types import axons, cells, dna, ecology, kernels
from astrocyte.schemas.frames import Frame
from astrocyte.simulator.testing import check_values
from tests.support.small_worlds import SMALL_WORLDS

SHIPPED = {module.__name__.rsplit(".", 1)[1]: module.EVENT_TYPES for module in (axons, cells, dna, ecology, kernels)}


@pytest.fixture(scope="module", params=SMALL_WORLDS)
def run(request):
    ticks, settings = SMALL_WORLDS[request.param]
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
