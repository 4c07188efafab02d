"""Frames and records as points: the documented shapes, what is a tag, and that no point overwrites another."""

import numpy as np
import orjson
import pyarrow as pa
import pytest

from astrocyte import CATALOG
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.loading import load_rules
from astrocyte.agents.sinks.base import SourcedFrame, SourcedRecords
from astrocyte.agents.sinks.influx.points import PointRules, points_of
from astrocyte.agents.sinks.testing import alert, multi_event
from astrocyte.schemas.catalog import arrow_type
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.measurements import MEASUREMENTS
from tests.support.line_protocol import read_points

TICK_US = 1_735_689_600_000_000
SAMPLES = {
    "int64": [0, 5, 20_000, 2**40],
    "int32": [0, 1, 2, 3],
    "float64": [0.5, 1.0, -2.25, 1e9],
    "float32": [0.5, 1.0, -2.25, 3.0],
    "bool": [True, False, True, True],
    "string": ["bio", "ai", "tpu", "x y"],
    "json": ["{}", '{"a": "b"}', "[]", "1"],
    "list<float32>": [[0.5], [1.0, 2.0], [], [3.0]],
}


def frame_of(stream, *, run="run-1", rows=4, first_seq=0, times=None, **columns):
    """A frame of a listed stream whose rows repeat the samples of their types."""
    made = {
        name: pa.array((SAMPLES[kind] * -(-rows // 4))[:rows], arrow_type(kind))
        for name, kind in CATALOG[stream].fields.items()
    }
    made |= columns
    times = np.full(rows, TICK_US) if times is None else times
    return Frame.from_columns(stream, run, {"timestamp": times, "key": ["k"] * rows, **made}, first_seq=first_seq)


def points(*items, entity_limit=10_000, run_tag=False, refused=False):
    batch = points_of(items, PointRules(entity_limit, run_tag))
    assert bool(batch.refused) == refused
    return [point for found in batch.points for point in read_points(found.lines.payload())]


def sourced(frame, topic=None, partition=0, offset=0):
    return SourcedFrame(frame, topic or f"mono.{frame.stream}", partition, offset)


@pytest.mark.parametrize("stream", MEASUREMENTS)
def test_points_have_exactly_the_documented_tags_and_fields(stream):
    ids = {name: [1, 2, 3, 4] for name in MEASUREMENTS[stream].entities}
    found = points(sourced(frame_of(stream, **ids)))
    shape = MEASUREMENTS[stream]
    assert len(found) == 4
    for point in found:
        assert point.measurement == stream
        assert [name for name, _ in point.tags] == sorted(shape.tags)
        assert set(point.fields) == set(shape.fields)


@pytest.mark.parametrize("stream", [each.stream for each in CATALOG if each.stream != "truth"])
def test_every_listed_stream_gives_one_point_a_row_with_fields_of_its_types(stream):
    wanted = {"int64": int, "int32": int, "float64": float, "float32": float, "bool": bool}
    found = points(sourced(frame_of(stream, rows=9)))
    assert len({point.identity for point in found}) == 9
    for name, kind in CATALOG[stream].fields.items():
        assert {type(point.fields[name]) for point in found if name in point.fields} <= {wanted.get(kind, str)}


def test_ids_below_the_limit_are_tags_and_the_others_a_field_of_another_name():
    frame = frame_of("evolutionary_events", cell_id=[9, 10, 11, 5], parent_id=pa.array([3, 99, None, 2**60]))
    found = points(sourced(frame), entity_limit=10)
    assert [dict(point.tags).get("cell_id") for point in found] == ["9", None, None, "5"]
    assert [point.fields.get("cell_id_number") for point in found] == [None, 10, 11, None]
    assert [dict(point.tags).get("parent_id") for point in found] == ["3", None, None, None]
    assert [point.fields.get("parent_id_number") for point in found] == [None, 99, None, 2**60]


def test_series_are_bounded_by_the_limit_however_many_cells_there_are():
    cells = np.arange(5_000)
    frame = frame_of("problem_solving", rows=5_000, cell_id=cells)
    found = points(sourced(frame), entity_limit=100)
    kinds = {(dict(point.tags)["problem_type"], dict(point.tags)["difficulty"]) for point in found}
    assert len({point.tags for point in found}) == 100 + len(kinds)
    assert len({point.identity for point in found}) == 5_000
    assert not any("cell_id" in dict(point.tags) for point in points(sourced(frame), entity_limit=0))


def test_the_same_frame_gives_the_same_points_however_it_is_cut():
    whole = frame_of("cell_vitals", rows=40, first_seq=1_000)
    pieces = [whole.slice(0, 13), whole.slice(13, 40)]
    taken = [whole.take(np.arange(0, 40, 2)), whole.take(np.arange(1, 40, 2))]
    wanted = {point.identity for point in points(sourced(whole))}
    assert len(wanted) == 40
    for cut in (pieces, taken):
        assert {point.identity for point in points(*map(sourced, cut))} == wanted


def test_two_runs_of_the_same_event_time_do_not_overwrite_each_other():
    frames = [frame_of("cell_vitals", run=f"cells-{number}", rows=2_000) for number in range(5)]
    assert len({point.identity for point in points(*map(sourced, frames), entity_limit=0)}) == 10_000


def test_with_the_run_as_a_tag_two_runs_never_share_points_and_nothing_else_changes():
    frame = frame_of("cell_vitals", cell_id=[1, 2, 3, 4], lineage=[1, 1, 1, 1])
    plain, tagged = points(sourced(frame)), points(sourced(frame), run_tag=True)
    assert [point.tags for point in tagged] == [(*point.tags, ("simulation_id", "run-1")) for point in plain]
    assert [point.fields for point in tagged] == [point.fields for point in plain]


def json_events(count, partition, timestamp="2025-01-01T00:00:00Z"):
    def record(offset):
        body = {"event_id": f"p{partition}-{offset}", "timestamp": timestamp, "source_stream": "stream:axon_1"}
        return RawRecord(offset, 0, b"k", orjson.dumps(body | {"type": "A", "value": offset, "metadata": {}}))

    return decode_chunk("mono.axon_1", partition, [record(offset) for offset in range(count)])[0]


def test_json_records_of_one_second_have_unique_times_in_all_partitions():
    batch = [item for partition in range(4) for item in json_events(3_000, partition)]
    found = points(*batch)
    assert len({point.identity for point in found}) == len(found) == 12_000
    again = points(*json_events(3_000, 2))
    assert {point.identity for point in again} < {point.identity for point in found}


def test_json_records_of_one_microsecond_have_unique_times():
    found = points(
        *json_events(25, 0, "2025-01-01T00:00:00.123457Z"), *json_events(25, 1, "2025-01-01T00:00:00.123457Z")
    )
    assert len({point.identity for point in found}) == 50


def test_windows_are_points_that_a_later_revision_replaces_with_numbers_as_floats():
    def result(born, seq):
        ids = pa.array([bytes(16)], pa.binary(16))  # as the results in topics have them
        columns = {"timestamp": [TICK_US], "event_id": ids, "key": ["r"], "simulation_id": ["r"]}
        columns |= {"born": [born], "final": [True]}
        return sourced(Frame.from_columns("novelty", "", columns, first_seq=seq), "metrics.novelty")

    first, second = points(result(5, 0), result(6.5, 17))
    tags = (("key", "r"), ("simulation_id", "r"))
    assert first.identity == second.identity == ("novelty", tags, TICK_US * 1000)
    assert (first.fields["born"], second.fields["born"]) == (5.0, 6.5)
    assert isinstance(first.fields["born"], float)


def test_a_window_named_as_a_documented_measurement_has_its_tags_fields_and_types():
    columns = {
        "timestamp": [TICK_US],
        "key": ["r"],
        "simulation_id": ["r"],
        "total_population": [5.0],
        "avg_accuracy": [1],
    }
    (point,) = points(sourced(Frame.from_columns("population_metrics", "", columns), "metrics.population_metrics"))
    assert point.tags == (("simulation_id", "r"),)
    assert point.fields == {"total_population": 5, "avg_accuracy": 1.0}
    assert isinstance(point.fields["total_population"], int)
    assert isinstance(point.fields["avg_accuracy"], float)


def test_multi_events_and_alerts_are_points_identified_by_their_ids():
    events = SourcedRecords("multi_events", [multi_event(number) for number in range(500)], "multi.events", 0, 0)
    found = points(events, SourcedRecords("alerts", [alert(1)], "alerts", 0, 0))
    assert len({point.identity for point in found}) == 501
    assert dict(found[0].tags)["rule"] == "type_A_and_B_within_2s"
    assert found[0].fields == {
        "key": "domain-0",
        "integrated_value": 25.0,
        "confidence": 0.95,
        "event_id": "00000000-0000-8000-8000-000000000000",
        "sources": 2,
    }
    assert dict(found[-1].tags)["severity"] == "critical"
    moved = SourcedRecords("multi_events", [multi_event(7)], "multi.events", 3, 900)
    assert points(moved)[0] == found[7], "written again at another offset it is the same point"


def test_a_match_is_a_point_once_it_is_decided_since_no_point_can_be_taken_back():
    states = ("provisional", "provisional", "confirmed", "retracted")
    records = [multi_event(number) | {"status": state} for number, state in zip((1, 2, 1, 2), states, strict=True)]
    raised = [alert(number) | {"status": state} for number, state in zip((1, 2, 1, 2), states, strict=True)]
    found = points(
        SourcedRecords("multi_events", records, "multi.events", 0, 0), SourcedRecords("alerts", raised, "alerts", 0, 0)
    )
    assert [point.fields.get("event_id", point.fields.get("alert_id")) for point in found] == [
        "00000000-0000-8000-8000-000000000001", "alert-1",
    ]  # fmt: skip


def test_records_that_cannot_be_points_are_refused_alone_with_the_reason():
    broken = [
        multi_event(0),
        {"event_id": "x"},
        multi_event(2) | {"timestamp": "yesterday"},
        multi_event(3) | {"integrated_value": "many"},
        multi_event(4),
        multi_event(5) | {"timestamp": "9999-01-01T00:00:00Z"},
    ]
    item = SourcedRecords("multi_events", broken, "multi.events", 1, 10, np.array([10, 11, 15, 16, 17, 18]))
    assert len(points(item, refused=True)) == 2
    refused = points_of([item], PointRules()).refused
    assert [(row.offset, row.row) for row in refused] == [(11, None), (15, None), (16, None), (18, None)]
    assert "'timestamp' is missing" in refused[0].reason
    assert "yesterday" in refused[1].reason
    assert "expected a number" in refused[2].reason
    assert "1678 to 2261" in refused[3].reason


def test_lines_of_records_do_not_depend_on_the_chunks_in_which_they_came():
    records = [
        multi_event(0),
        multi_event(1) | {"key": None},
        {"event_id": "x"},
        multi_event(2) | {"integrated_value": None},
        multi_event(3) | {"status": "provisional"},
        multi_event(4) | {"key": None, "integrated_value": None},
    ]
    offsets = np.arange(20, 20 + len(records))
    whole = SourcedRecords("multi_events", records, "multi.events", 1, 20, offsets)
    parts = [
        SourcedRecords("multi_events", records[at : at + 2], "multi.events", 1, 20 + at, offsets[at : at + 2])
        for at in range(0, len(records), 2)
    ]

    def described(items):
        batch = points_of(items, PointRules())
        lines = [
            (text, points.item.offset_of(row))
            for points in batch.points
            for text, row in zip(points.lines.split(), points.lines.rows.tolist(), strict=True)
        ]
        return lines, [(row.offset, row.reason) for row in batch.refused]

    together = described([whole])
    assert [offset for _, offset in together[0]] == [20, 21, 23, 25]
    assert described(parts) == together
    assert [described([part])[0] for part in parts] == [together[0][:2], together[0][2:3], together[0][3:]]


def test_rows_of_times_that_nanoseconds_cannot_hold_are_refused_alone():
    times = [TICK_US, 2**62, TICK_US + 10_000, -(2**63)]
    item = sourced(frame_of("problem_solving", times=times), offset=9)
    found = points(item, refused=True)
    assert [point.time_ns // 10_000_000 for point in found] == [TICK_US // 10_000, TICK_US // 10_000 + 1]
    refused = points_of([item], PointRules()).refused
    assert [(row.stream, row.offset, row.row) for row in refused] == [
        ("problem_solving", 9, 1),
        ("problem_solving", 9, 3),
    ]
    assert str(2**62) in refused[0].reason
    assert b'"problem_type":"ai"' in refused[0].payload
    lines = points_of([item], PointRules()).points[0].lines
    assert lines.rows.tolist() == [0, 2]


def test_the_truth_and_unlisted_streams_give_no_points():
    unlisted = Frame.from_columns("unlisted", "r", {"timestamp": [1], "key": ["k"], "x": [1]})
    assert points(sourced(unlisted), sourced(frame_of("truth"))) == []


def test_results_without_a_key_are_apart_in_each_partition_and_from_those_of_an_empty_key():
    def results(partition):
        columns = {"timestamp": [TICK_US] * 3, "key": ["k", "", None], "n": [1, 2, 3]}
        return SourcedFrame(Frame.from_columns("counts", "", columns), "metrics.counts", partition, 0)

    found = points(results(0), results(1))
    of_partition = {point.identity[1]: point.fields["n"] for point in found[:3]}
    assert of_partition == {(("key", "k"),): 1.0, (): 2.0, (("unkeyed", "0"),): 3.0}
    assert found[5].identity[1] == (("unkeyed", "1"),)


def test_results_of_a_statistic_have_what_they_are_about_as_tags_and_their_declared_types():
    (spec,) = load_rules(
        "insight: [{name: gradients, statistic: selection, size: 1s, traits: [metabolism, tpu_cores]}]"
    ).insight
    operator = InsightOperator(spec.built)
    operator.add(frame_of("genome_data", rows=8, cell_id=np.arange(8)))
    found = points(sourced(operator.flush(), "metrics.gradients"))
    assert [(point.measurement, dict(point.tags)["trait"]) for point in found] == [
        ("gradients", "metabolism"), ("gradients", "tpu_cores")
    ]  # fmt: skip
    assert all(dict(point.tags)["simulation_id"] == "run-1" for point in found)
    assert all(isinstance(point.fields["individuals"], int) for point in found)


def test_a_window_that_is_named_as_a_statistic_is_a_window():
    columns = {"timestamp": [TICK_US], "key": ["k"], "type": ["selection"], "trait": ["x"], "beta": [1]}
    (point,) = points(sourced(Frame.from_columns("selection", "run-1", columns), "metrics.selection"))
    assert "trait" not in dict(point.tags)
    assert point.fields["beta"] == 1.0
