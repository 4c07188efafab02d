"""The lineage of what a rule took from a statistic: the events of its run and window, in a log, SQL and on a broker."""

import asyncio
import json

import pytest
import typer
from typer.testing import CliRunner

from astrocyte.agents.loading import load_rules
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.pipeline.analysis.ancestry import Ancestry
from astrocyte.pipeline.analysis.explain import explain, render
from astrocyte.pipeline.analysis.origins import BrokerOrigin, LogOrigin, SqlOrigin
from astrocyte.pipeline.cli.correlation import rules as cli_rules
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.roles.sink.decode import decode_for_sink
from astrocyte.schemas.json.reader import RawRecord
from tests.support.broker import BrokerThread
from tests.support.evolution import EVERY_STATISTIC, evolution_log, frames_of
from tests.support.logs import T0_US, frame_messages, produce, write_log
from tests.unit.pipeline.analysis.test_ancestry import events_at, outputs_of

MS = 1_000
STATISTICS = f"{EVERY_STATISTIC}rules:\n"
LOG = evolution_log(ticks=800, start_us=T0_US, tick_us=MS)
app = typer.Typer()
cli_rules.register(app)


def rules_over(stream, where="timestamp > 0"):
    rule = f'  - {{name: found, by: key, any: [{{as: s, stream: {stream}, where: "{where}"}}]}}\n'
    return load_rules(STATISTICS + rule)


@pytest.fixture(scope="module")
def mono(tmp_path_factory):
    """Messages of the log, in two partitions, and the log."""
    offsets, messages = {}, []
    for frame in frames_of(sorted(LOG, key=lambda row: row[:2]), keyed=True):
        messages += frame_messages(frame, 2, offsets)
    return messages, write_log(tmp_path_factory.mktemp("log") / "mono.jsonl.zst", messages)


def matches_of(records):
    return [json.loads(each.value) for each in records if each.topic == "multi.events"]


def behind(spec, run, start_us, end_us):
    """Stream and time of the rows of the log that a statistic reads of a run and span, in order."""
    return sorted(
        (stream, row["timestamp"])
        for name, stream, row in LOG
        for source in spec.built.sources
        if (name, stream) == (run, source.stream)
        and (not source.types or row["type"] in source.types)
        and start_us <= row["timestamp"] < end_us
    )


@pytest.mark.parametrize("stored", [False, True], ids=["computed again", "recorded"])
@pytest.mark.parametrize("stream", ["selection", "price", "diversity", "mutations", "warnings", "outlook", "leads"])
def test_a_result_leads_to_exactly_the_events_of_its_run_and_window(tmp_path, mono, stream, stored):
    rules = rules_over(stream)
    (spec,) = (each for each in rules.insight if each.name == stream)
    messages, path = mono
    outputs = outputs_of(rules, path, ("multi.events", "metrics.") if stored else ("multi.events",))
    whole = write_log(tmp_path / "whole.jsonl.zst", [*messages, *outputs])
    origins, places = [LogOrigin([whole])], events_at(path)
    matches = matches_of(outputs)
    for match in (matches[0], matches[-1]):
        (source,) = explain(match["event_id"], origins, Ancestry(rules, origins)).sources
        made_of = source.made_of
        assert made_of.rule == f"statistic {stream}"
        assert made_of.window_us == (source.time_us - spec.size, source.time_us)
        assert made_of.key in {"a", "b"}
        found = sorted((each.stream, each.time_us) for each in made_of.sources)
        assert found == behind(spec, made_of.key, *made_of.window_us)
        for each in made_of.sources:
            assert each.event_id in places[each.topic, each.partition, each.offset]
        assert set(made_of.details) <= {*spec.fields}
        assert made_of.details
        assert (made_of.note is not None) == spec.built.carries_state
    assert len({explain(each["event_id"], origins, Ancestry(rules, origins)).key for each in matches}) == 2


def test_fields_of_a_result_that_is_computed_again_are_those_that_were_recorded(tmp_path, mono):
    rules, (messages, path) = rules_over("diversity"), mono
    outputs = outputs_of(rules, path, ("multi.events", "metrics."))
    match = matches_of(outputs)[-1]["event_id"]
    found = []
    for kept in (outputs, [each for each in outputs if each.topic == "multi.events"]):
        origins = [LogOrigin([write_log(tmp_path / f"{len(kept)}.jsonl.zst", [*messages, *kept])])]
        found.append(explain(match, origins, Ancestry(rules, origins)).sources[0].made_of.details)
    assert found[0] == found[1]


def test_the_text_has_the_window_the_number_of_events_and_their_places(tmp_path, mono):
    rules, (messages, path) = rules_over("outlook", "target == 'total_population' and samples == 40"), mono
    outputs = outputs_of(rules, path)
    whole = write_log(tmp_path / "whole.jsonl.zst", [*messages, *outputs])
    match = matches_of(outputs)[0]["event_id"]
    tree = explain(match, [LogOrigin([whole])], Ancestry(rules, [LogOrigin([whole])]))
    made_of = tree.sources[0].made_of
    text = render(tree)
    assert f"statistic outlook, key {made_of.key}" in text
    assert "of 40 events from 20" in text
    (place,) = made_of.places()
    where = f"{place['topic']}[{place['partition']}]@{place['first_offset']} to {place['last_offset']}"
    assert f"40 events in {where}" in text
    assert "28 more of 40 (all with --json)" in text
    file = tmp_path / "rules.yaml"
    file.write_text(STATISTICS + "  - {name: found, by: key, any: [{as: s, stream: outlook}]}\n")
    shown = CliRunner().invoke(app, ["explain", match, "--log", str(whole), "--rules", str(file), "--json"])
    (source,) = json.loads(shown.stdout)["sources"]
    assert source["made_of"]["places"] == [place]
    assert len(source["made_of"]["sources"]) == 40


async def _write(url, records):
    sink = SqlSink(url, now_us=lambda: 1)
    await sink.open()
    batches = {}
    for record in records:
        raw = RawRecord(record.offset, 0, record.key, record.value, record.headers)
        batches.setdefault((record.topic, record.partition), []).append(raw)
    for (topic, partition), raws in batches.items():
        assert await sink.write(decode_for_sink(topic, partition, raws).items) == []
    await sink.close()


def test_a_database_has_the_result_and_a_log_or_a_broker_its_events(tmp_path, mono):
    rules, (messages, path) = rules_over("selection", "trait == 'tpu_cores'"), mono
    outputs = outputs_of(rules, path, ("multi.events", "metrics."))
    match = matches_of(outputs)[-1]["event_id"]
    whole = [LogOrigin([write_log(tmp_path / "whole.jsonl.zst", [*messages, *outputs])])]
    expected = explain(match, whole, Ancestry(rules, whole)).sources[0].made_of
    url = f"sqlite:///{tmp_path / 'a.db'}"
    asyncio.run(_write(url, outputs))
    both = [SqlOrigin(url), LogOrigin([path])]
    found = explain(match, both, Ancestry(rules, both)).sources[0].made_of
    assert (found.key, found.window_us, found.places()) == (expected.key, expected.window_us, expected.places())
    assert found.details["beta"] == expected.details["beta"]
    assert {each.event_id for each in found.sources} == {each.event_id for each in expected.sources}
    alone = explain(match, both[:1], Ancestry(rules, both[:1]))
    assert alone.sources[0].made_of.key == expected.key
    assert "its events from genome_data and evolutionary_events are not where it was searched" in render(alone)
    with BrokerThread(tmp_path / "broker") as running:
        asyncio.run(produce(running.address, [*read_log(path), *outputs]))
        live = [BrokerOrigin(running.address)]
        found = explain(match, live, Ancestry(rules, live)).sources[0].made_of
        assert found.as_json() == expected.as_json()
