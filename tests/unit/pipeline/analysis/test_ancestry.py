"""For every shipped rule the lineage ends at the topic, partition and offset of simple events, also through windows."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from astrocyte.agents.ingest.dicts import frames_of
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.pipeline.analysis.ancestry import Ancestry
from astrocyte.pipeline.analysis.explain import Explained, SourceEvent, explain, render
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.analysis.origins import LogOrigin, SqlOrigin
from astrocyte.pipeline.cli.correlation import rules as cli_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import chunks_of
from astrocyte.pipeline.roles.output_records import producer_records
from astrocyte.pipeline.roles.sink.decode import decode_for_sink
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.catalog import CATALOG, arrow_type
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import RawRecord
from tests.support.logs import frame_messages, json_messages, write_log
from tests.unit.pipeline.rules.test_shipped_rules import CASES

app = typer.Typer()
cli_rules.register(app)
BEGIN_US = 19_675 * 86_400_000_000
"""Event time of the cases' zero: a time that Kafka timestamps confirm, so that no event waits for another clock."""
WINDOWED = ("evolutionary_breakthrough", "stagnation", "runaway_mutation", "resource_depletion",
            "bottleneck_and_recovery", "extinction_risk", "training_stops", "karma_breakthrough",
            "evolution_stalls")  # fmt: skip


def messages(events, streams, *, as_json=False) -> list[ConsumedRecord]:
    """The events as messages of two partitions, or as JSON messages of one."""
    found, offsets = [], {}
    for frame in frames_of(events, streams):
        frame = Frame(frame.stream, "run-1", frame.batch, first_seq=frame.first_seq)
        frame = frame.with_column("timestamp", pa.array(frame.timestamps() + BEGIN_US))
        for name, kind in CATALOG[frame.stream].fields.items():
            if frame.has(name) and kind in ("int32", "float32"):
                frame = frame.with_column(name, frame.column(name).cast(arrow_type(kind), safe=False))
        # Several frames of a stream, so that offsets differ.
        rows = max(16, frame.num_rows // 8)
        for start in range(0, frame.num_rows, rows):
            part = frame.take(np.arange(start, min(start + rows, frame.num_rows)))
            if as_json:
                found += json_messages(part, offset=offsets.get(frame.stream, 0))
                offsets[frame.stream] = offsets.get(frame.stream, 0) + part.num_rows
            else:
                found += frame_messages(part, 2, offsets)
    return found


def outputs_of(rules, path, kinds=("multi.events", "alerts")) -> list[ConsumedRecord]:
    """What a worker writes for a log, as messages."""
    _, outputs = run_rules(rules, [path], lateness_us=60_000_000)
    offsets: dict[tuple[str, int], int] = {}
    found = []
    for output in outputs:
        for place, records in producer_records(output, 0, 2).items():
            for record in records:
                offsets[place] = offsets.get(place, -1) + 1
                if record.topic.startswith(kinds):
                    headers = tuple(record.headers)
                    found.append(ConsumedRecord(*place, offsets[place], 0, record.key, record.value, headers))
    return found


def leaves(explained: Explained) -> Iterator[SourceEvent]:
    for source in explained.sources:
        if source.made_of is None:
            yield source
        else:
            assert source.made_of.note is None
            yield from leaves(source.made_of)


def traced(tmp_path, name, *, as_json=False, kinds=("multi.events", "alerts")):
    """Lineage of the match of a shipped rule, and the log in which it is traced."""
    file, events, _ = CASES[name]
    rules = read_rule_files([file])
    streams = sorted({event["stream"] for event in events})
    mono = messages(events, streams, as_json=as_json)
    partitions = 1 if as_json else 2
    path = write_log(tmp_path / "mono.jsonl.zst", mono, partitions=partitions)
    outputs = outputs_of(rules, path, kinds)
    whole = write_log(tmp_path / "whole.jsonl.zst", [*mono, *outputs], partitions=partitions)
    match = next(
        body["event_id"]
        for record in outputs
        if record.topic == "multi.events" and (body := json.loads(record.value))["correlation_rule"] == name
    )
    origins = [LogOrigin([whole])]
    return explain(match, origins, Ancestry(rules, origins)), whole


def events_at(path) -> dict[tuple[str, int, int], set[str]]:
    """Ids of the events in each message of a log."""
    found: dict[tuple[str, int, int], set[str]] = {}
    for item in chunks_of(path):
        for row, name in enumerate(item.frame.id_strings()):
            found.setdefault((item.topic, item.partition, item.offset_of(row)), set()).add(name)
    return found


@pytest.mark.parametrize("as_json", [False, True], ids=["frames", "json"])
@pytest.mark.parametrize("name", CASES)
def test_the_lineage_of_every_shipped_rule_ends_at_places_that_hold_its_events(tmp_path, name, as_json):
    tree, path = traced(tmp_path, name, as_json=as_json)
    places = events_at(path)
    ends = list(leaves(tree))
    assert ends
    for source in ends:
        assert source.topic is not None
        assert source.topic.startswith("mono."), source
        assert source.event_id in places[source.topic, source.partition, source.offset], source
    assert "place unknown" not in render(tree)
    assert any(source.made_of is not None for source in tree.sources) == (name in WINDOWED)


@pytest.mark.parametrize("kinds", [("multi.events",), ("multi.events", "metrics.")], ids=["events", "results too"])
def test_a_window_leads_to_exactly_the_events_of_its_key_and_span(tmp_path, kinds):
    tree, _ = traced(tmp_path, "stagnation", kinds=kinds)
    before = tree.sources[0]
    assert before.made_of.rule == "window novelty"
    spans = [{(source.time_us - BEGIN_US) // 5_000_000 for source in each.made_of.sources} for each in tree.sources]
    assert spans == [{0}, {1}, {2}, {3}, {4}]
    assert [len(each.made_of.sources) for each in tree.sources] == [225, 225, 225, 225, 140]
    assert before.made_of.key == "run-1"
    if "metrics." in kinds:
        assert before.made_of.details["mutants"] == 100


def test_many_events_of_a_window_are_shortened_in_text_and_whole_as_json(tmp_path):
    tree, path = traced(tmp_path, "stagnation")
    text = render(tree)
    assert "... 213 more of 225 (all with --json)" in text
    result = CliRunner().invoke(app, ["explain", tree.event_id, "--log", str(path), "--json"])
    first = json.loads(result.stdout)["sources"][0]
    assert len(first["made_of"]["sources"]) == 225
    assert {source["topic"] for source in first["made_of"]["sources"]} == {"mono.evolutionary_events"}


async def test_a_database_says_which_result_it_was_and_the_log_which_events(tmp_path):
    _, whole = traced(tmp_path, "stagnation", kinds=("multi.events", "metrics."))
    url = f"sqlite:///{tmp_path / 'a.db'}"
    sink = SqlSink(url, now_us=lambda: 1)
    await sink.open()
    batches: dict[tuple[str, int], list[RawRecord]] = {}
    for record in LogOrigin([whole])._records():
        raw = RawRecord(record.offset, 0, record.key, record.value, record.headers)
        batches.setdefault((record.topic, record.partition), []).append(raw)
    for (topic, partition), records in batches.items():
        if not topic.startswith("mono."):
            assert await sink.write(decode_for_sink(topic, partition, records).items) == []
    await sink.close()
    (match,) = {json.loads(record.value)["event_id"] for record in LogOrigin([whole]).records("multi.events")}
    mono = write_log(tmp_path / "only.jsonl", [r for r in LogOrigin([whole])._records() if r.topic.startswith("mono.")])
    rules = read_rule_files(["cells"])
    origins = [SqlOrigin(url), LogOrigin([mono])]
    both = explain(match, origins, Ancestry(rules, origins))
    assert [len(source.made_of.sources) for source in both.sources] == [225, 225, 225, 225, 140]
    assert both.sources[0].made_of.details["mutants"] == 100
    assert both.sources[0].made_of.sources[0].topic == "mono.evolutionary_events"
    alone = explain(match, origins[:1], Ancestry(rules, origins[:1]))
    assert alone.sources[0].made_of.details["mutants"] == 100
    assert "add --log or -b" in render(alone)


def test_events_of_a_repartitioned_stream_have_their_own_places(tmp_path):
    tree, path = traced(tmp_path, "regime_breakdown")
    there = {
        (item.topic, item.partition, item.offset_of(row), name)
        for item in chunks_of(LogOrigin([path]).records("mono.kernel_geometry"))
        for row, name in enumerate(item.frame.id_strings())
    }
    assert tree.sources
    assert {(each.topic, each.partition, each.offset, each.event_id) for each in tree.sources} <= there


def test_a_window_whose_events_are_not_there_says_what_to_do(tmp_path):
    tree, path = traced(tmp_path, "stagnation")
    only = [record for record in LogOrigin([path])._records() if not record.topic.startswith("mono.")]
    origins = [LogOrigin([write_log(tmp_path / "outputs.jsonl", only)])]
    tree = explain(tree.event_id, origins, Ancestry(read_rule_files(["cells"]), origins))
    assert "its events from evolutionary_events are not where it was searched: add --log or -b" in render(tree)
