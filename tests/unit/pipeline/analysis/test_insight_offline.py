"""Statistics of rule files over recorded logs: those of the whole log, whatever its partitions, and rules over them."""

from uuid import UUID

import numpy as np
import orjson
import pyarrow as pa
import pytest

from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.offline import run_rules
from tests.support.evolution import EVERY_STATISTIC, evolution_log, frames_of
from tests.support.logs import T0_US, frame_messages, json_messages, write_log

MS = 1_000
LATENESS = 100 * MS
RULES = (
    EVERY_STATISTIC
    + """\
rules:
  - name: lineages
    by: key
    any: [{as: d, stream: diversity, where: "subject == 'lineage'"}]
    emit: {size: "d.effective_size", run: "d.simulation_id"}
  - name: falling
    by: simulation_id
    within: 200ms
    seq:
      - {as: first, stream: outlook, where: "target == 'total_population' and horizon_us == 50000"}
      - {as: second, stream: outlook, where: "target == first.target and horizon_us == 50000 and value < first.value"}
    emit: {fall: "first.value - second.value"}
  - name: per_trait
    by: trait
    any: [{as: s, stream: selection}]
    emit: {individuals: "s.individuals"}
"""
)
LOG = evolution_log(ticks=800, start_us=T0_US, tick_us=MS)


@pytest.fixture(scope="module")
def ruleset():
    return load_rules(RULES)


@pytest.fixture(scope="module")
def expected(ruleset):
    """Results of each statistic by an operator alone, over the whole log."""
    found = {}
    for spec in ruleset.insight:
        operator = InsightOperator(spec.built)
        for frame in frames_of(sorted(LOG, key=lambda row: row[:2])):
            operator.add(frame)
        found[spec.name] = by_id(operator.flush().rows())
    return found


def by_id(rows):
    assert len({row["event_id"] for row in rows}) == len(rows)
    return {row["event_id"]: row for row in rows}


def in_chunks():
    """Frames of 100 ms each, so that rows are out of order by that time."""
    for at in range(8):
        rows = [row for row in LOG if (row[2]["timestamp"] - T0_US) // LATENESS == at]
        yield from frames_of(sorted(rows, key=lambda row: row[:2]), keyed=True, first_seq=at * 100_000)


def run(ruleset, path):
    run, outputs = run_rules(ruleset, [path], lateness_us=LATENESS)
    found = {spec.name: [] for spec in ruleset.insight}
    matches = []
    for output in outputs:
        matches += [orjson.loads(record.value) for record in output.multi_events]
        for frame in output.frames:
            found.setdefault(frame.stream, []).extend(frame.rows())
    return run, {name: by_id(rows) for name, rows in found.items()}, matches


def log_of(path, partitions, form="frames"):
    offsets, messages = {}, []
    for frame in in_chunks():
        if form == "frames":
            messages += frame_messages(frame, partitions, offsets)
        else:
            place = ("mono." + frame.stream, 0)
            named = frame.with_column("simulation_id", pa.array([frame.run] * frame.num_rows))
            messages += json_messages(named, offset=offsets.get(place, 0))
            offsets[place] = offsets.get(place, 0) + frame.num_rows
    return write_log(path, messages, partitions=partitions)


@pytest.mark.parametrize("partitions", [1, 3])
def test_results_are_those_of_the_whole_log(ruleset, expected, tmp_path, partitions):
    done, found, _ = run(ruleset, log_of(tmp_path / "log.jsonl.zst", partitions))
    assert found == expected
    assert done.counters.received == done.counters.processed == len(LOG)


def test_json_records_give_the_same_results(ruleset, expected, tmp_path):
    _, found, _ = run(ruleset, log_of(tmp_path / "log.jsonl.zst", 1, "json"))
    assert found == expected


def test_rules_read_the_results_by_run_by_key_and_by_their_own_fields(ruleset, expected, tmp_path):
    _, _, matches = run(ruleset, log_of(tmp_path / "log.jsonl.zst", 3))
    named = {}
    for match in matches:
        named.setdefault(match["correlation_rule"], []).append(match)
    lineages = [row for row in expected["diversity"].values() if row["subject"] == "lineage"]
    assert {match["source_events"][0] for match in named["lineages"]} == {
        str(UUID(bytes=row["event_id"])) for row in lineages
    }
    assert len(named["per_trait"]) == len(expected["selection"])
    rows = sorted(expected["outlook"].values(), key=lambda row: row["timestamp"])
    falls = 0
    for name in ("a", "b"):
        values = [
            row["value"] for row in rows if (row["simulation_id"], row["target"], row["horizon_us"]) ==
            (name, "total_population", 50 * MS)
        ]  # fmt: skip
        falls += int((np.diff(values) < 0).sum())
    assert falls > 0
    assert len(named["falling"]) >= falls


def test_an_event_delivered_twice_counts_once(ruleset, expected, tmp_path):
    offsets, messages = {}, []
    for frame in in_chunks():
        for _ in range(2):
            messages += frame_messages(frame, 2, offsets)
    done, found, _ = run(ruleset, write_log(tmp_path / "log.jsonl.zst", messages, partitions=2))
    assert found == expected
    assert done.counters.received == 2 * len(LOG)


def test_late_events_are_counted_once_and_reported_by_what_lacks_them(ruleset, tmp_path):
    frames = list(in_chunks())
    offsets, messages = {}, []
    for frame in [*frames[1:], frames[0]]:
        messages += frame_messages(frame, 1, offsets)
    path = write_log(tmp_path / "log.jsonl.zst", messages, partitions=1)
    done, outputs = run_rules(ruleset, [path], lateness_us=0)
    late = [dict(record.headers) for output in outputs for record in output.late]
    copies = [headers for headers in late if "source_copy" in headers]
    assert done.counters.late == len(late) - len(copies) > 0
    assert len(copies) == len(late) - len(copies)
    assert {headers["source_copy"] for headers in copies} <= {
        f"keyed.simulation_id.{stream}".encode()
        for stream in ("genome_data", "evolutionary_events", "population_metrics")
    }
