"""Messages that stopped a worker: each is refused, or takes part in nothing, and is counted; the others are matched."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.roles.output_records import copy_records
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord

CASES = Path(__file__).parent / "real"
EXPECTED = {
    # case: times of the events that match, dead letters, events without the correlation field
    "kafka_time_in_microseconds": (["2026-03-01T10:00:00Z"], 1, 0),
    "kafka_time_in_nanoseconds": (["2026-03-01T10:00:00Z"], 1, 0),
    "kafka_time_of_a_tombstone": (["2026-03-01T10:00:00Z"], 1, 0),
    "correlation_field_missing": ([], 0, 1),
    "correlation_field_in_some": (["2026-03-01T10:00:01Z"], 0, 2),
    "no_key": ([], 0, 2),
}


def raws(name: str) -> list[RawRecord]:
    found = []
    for line in (CASES / name / "log.jsonl").read_bytes().splitlines():
        body = orjson.loads(line)
        key, payload = (None if body[part] is None else body[part].encode() for part in ("key", "payload"))
        found.append(RawRecord(body["offset"], body["ts"], key, payload))
    return found


def times_of(records) -> list[str]:
    return [orjson.loads(record)["lineage"]["meters"]["timestamp"] for record in records]


@pytest.mark.parametrize("name", EXPECTED)
def test_match_goes_on_and_says_what_was_not_used(name, tmp_path):
    matched, letters, keyless = EXPECTED[name]
    rejects = tmp_path / "rejects.jsonl"
    files = [str(CASES / name / "rule.yaml"), str(CASES / name / "log.jsonl")]
    done = CliRunner().invoke(app, ["match", *files, "--rejects", str(rejects)])
    assert done.exit_code == 0, done.output
    assert times_of(done.stdout.encode().splitlines()) == matched
    events = "1 event" if len(raws(name)) == 1 else f"{len(raws(name))} events"
    assert f"of {events} (0 late, {letters} refused)" in done.stderr
    assert (" refused (" in done.stderr) == bool(letters)
    assert ("took part in none of the rules" in done.stderr) == bool(keyless)
    listed = [orjson.loads(line) for line in rejects.read_bytes().splitlines()]
    assert sorted(each["cause"] for each in listed) == ["dead_letter"] * letters + ["no_key"] * keyless
    assert {each["topic"] for each in listed} <= {"mono.meters"}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_roles_of_a_worker_go_on(name):
    """What the repartition role copies, and the correlate role reads, one message a chunk."""
    matched, letters, keyless = EXPECTED[name]
    plan = make_plan(read_rule_files([CASES / name / "rule.yaml"]))
    (group,) = plan.groups
    topics = {*plan.topics, "mono.meters"}
    domain = Domain(
        0, [DomainGroup(group.field, Engine(group.ruleset, validated=True), group.topics)], topics=topics,
        internal=topics - {"mono.meters"}, copied_by=plan.copied_by, copies=plan.copies,
    )  # fmt: skip
    copies = [Repartitioner(each, 1, lateness_us=0) for each in plan.repartitions]
    output, copied = DomainOutput(), 0

    def read_copies(repartition, made):
        nonlocal copied
        for copy in made:
            for record in copy_records(repartition, copy, 1):
                raw = RawRecord(copied, 0, record.key, record.value, tuple(record.headers))
                output.extend(domain.feed(record.topic, [raw]))
                copied += 1

    for raw in raws(name):
        output.extend(domain.feed("mono.meters", [raw]))
        for each in copies:
            made, refused = each.step(0, [raw])
            assert refused == []
            read_copies(each.repartition, made)
    for each in copies:
        read_copies(each.repartition, each.trust())
    output.extend(domain.mark_all_idle())
    output.extend(domain.flush())
    assert times_of(record.value for record in output.multi_events) == matched
    assert len(output.dead_letters) == domain.counters.dead == letters
    assert domain.counters.received == len(raws(name))
    assert domain.unused.count("no_key") == keyless


NS = 1_772_359_200_000_000_000
FRAMES = {
    "a time in nanoseconds": [([NS], {})],
    "a late decimal": [([5_000_000], {}), ([1], {"x": pa.array([Decimal("1.5")])})],
    "a late duration": [([5_000_000], {}), ([1], {"x": pa.array([timedelta(seconds=1)])})],
    "a late binary value": [([5_000_000], {}), ([1], {"x": pa.array([b"\xff"])})],
    "a late string view": [([5_000_000], {}), ([1], {"x": pa.array(["x"], pa.string_view())})],
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_other_writers_are_refused_or_late_and_the_domain_goes_on(name):
    rules = load_rules("rules: [{name: r, seq: [{as: a, stream: A}]}]")
    domain = Domain(0, [DomainGroup("key", Engine(rules, validated=True), {"A": "mono.A"})], topics=["mono.A"])
    for offset, (times, columns) in enumerate(FRAMES[name]):
        columns = {"timestamp": np.array(times), "key": ["k"], **columns}
        frame = Frame.from_columns("A", "run", columns, first_seq=offset)
        output = domain.feed("mono.A", [RawRecord(offset, 1_700_000_000_000, None, encode_frame(frame))])
    assert len(output.late) + len(output.dead_letters) == 1
    after = Frame.from_columns("A", "run", {"timestamp": np.array([9_000_000]), "key": ["k"]}, first_seq=9)
    domain.feed("mono.A", [RawRecord(9, 1_700_000_000_000, None, encode_frame(after))])
    assert domain.counters.received == len(FRAMES[name]) + 1
    assert domain.counters.processed == len(FRAMES[name])
