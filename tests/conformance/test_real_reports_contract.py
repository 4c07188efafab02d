"""What users reported about names, ids, keys and envelopes of events, each as a rule file and a log."""

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest

from astrocyte import load_rules, match
from astrocyte.agents.domain import Counters
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.analysis.why_not import why_not
from astrocyte.schemas.errors import InvalidSettings

CASES = Path(__file__).parent / "real"


def offline(name: str) -> tuple[list[dict[str, Any]], Counters]:
    run, outputs = run_rules(
        load_rules(CASES / name / "rule.yaml"), [CASES / name / "log.jsonl"], lateness_us=1_000_000
    )
    found = [orjson.loads(record.value) for output in outputs for record in output.multi_events]
    return found, run.counters


def offsets(multi_event: dict[str, Any]) -> list[int]:
    """Offsets of the events of a match."""
    (entry,) = multi_event["lineage"].values()
    return [entry["offset"], *(each["offset"] for each in entry.get("also", ()))]


def events(name: str) -> list[dict[str, Any]]:
    """The records of a case as mappings, with the stream and the key that the log has beside them."""
    lines = [orjson.loads(line) for line in (CASES / name / "log.jsonl").read_bytes().splitlines()]
    return [
        {"source_stream": line["topic"].removeprefix("mono."), "key": line["key"], **orjson.loads(line["payload"])}
        for line in lines
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("event_id_is_a_code", [[0, 1, 2], [1, 2, 3]]),
        ("event_id_is_a_code_in_quotes", [[0, 1, 2], [1, 2, 3]]),
        ("event_sent_twice", [[0]]),
        ("fields_with_reserved_names", [[0]]),
        ("top_level_wins_over_metadata", [[0]]),
        ("metadata_is_text", [[0]]),
        ("flat_record_with_payload_and_meta", [[0]]),
        ("binary_keys", [[0], [1]]),
        ("topic_without_prefix", [[0]]),
        ("events_without_a_key", []),
        ("readme_events_as_json", [[0, 1]]),
    ],
)
def test_a_log_gives_the_matches_that_its_author_meant(name, expected):
    found, counters = offline(name)
    assert sorted(map(offsets, found)) == expected
    assert counters.dead == 0


@pytest.mark.parametrize(
    "name",
    [
        "event_id_is_a_code",
        "fields_with_reserved_names",
        "top_level_wins_over_metadata",
        "metadata_is_text",
        "flat_record_with_payload_and_meta",
        "readme_events_as_json",
    ],
)
def test_the_same_events_given_to_python_give_as_many_matches(name):
    assert len(match(load_rules(CASES / name / "rule.yaml"), events(name))) == len(offline(name)[0]) > 0


def test_a_duplicate_is_counted():
    assert offline("event_sent_twice")[1].duplicate == 1


def test_a_field_named_seq_is_emitted_and_shown_as_written():
    (found,) = match(
        load_rules(CASES / "fields_with_reserved_names" / "rule.yaml"), events("fields_with_reserved_names")
    )
    assert found.emit == {"seq": 7}
    assert found.events["a"][0].fields["seq"] == 7
    assert found.events["a"][0].fields["event_id"] == 3


def test_keys_that_are_no_text_stay_apart_and_keep_their_bytes():
    lines = [orjson.loads(line) for line in (CASES / "binary_keys" / "log.jsonl").read_bytes().splitlines()]
    rule = "rules: [{name: seen, seq: [{as: a, stream: meters}], emit: {key: a.key}}]"
    _, outputs = run_rules(load_rules(rule), [CASES / "binary_keys" / "log.jsonl"], lateness_us=1_000_000)
    keys = {orjson.loads(record.value)["metadata"]["key"] for output in outputs for record in output.multi_events}
    assert keys == {"0x" + base64.b64decode(line["key_b64"]).hex() for line in lines}


@pytest.mark.parametrize(
    ("reading", "expected"), [("int64", {"1234", "42"}), ("hex", {"0x00000000000004d2", "0x000000000000002a"})]
)
def test_a_declared_reading_of_keys_is_kept_to(reading, expected):
    rule = (
        f"streams: [{{name: meters, key: {{field: meter, reading: {reading}}}}}]\n"
        "rules: [{name: seen, by: meter, seq: [{as: a, stream: meters}], emit: {meter: a.meter}}]"
    )
    _, outputs = run_rules(load_rules(rule), [CASES / "binary_keys" / "log.jsonl"], lateness_us=1_000_000)
    found = [orjson.loads(record.value) for output in outputs for record in output.multi_events]
    assert {each["metadata"]["meter"] for each in found} == expected


def test_a_key_that_is_not_of_its_declared_reading_is_refused_by_name():
    rule = "streams: [{name: meters, key: {reading: text}}]\nrules: [{name: seen, seq: [{as: a, stream: meters}]}]"
    _, outputs = run_rules(load_rules(rule), [CASES / "binary_keys" / "log.jsonl"], lateness_us=1_000_000)
    letters = [letter for output in outputs for letter in output.dead_letters]
    assert [letter.offset for letter in letters] == [0]
    assert "the key 0x00000000000004d2 is not UTF-8" in letters[0].reason


def test_why_not_names_events_without_a_key():
    with pytest.raises(
        InvalidSettings, match=r"2 events of its streams, all with key null.*write by: null or by: FIELD"
    ):
        why_not(
            load_rules(CASES / "events_without_a_key" / "rule.yaml"),
            [CASES / "events_without_a_key" / "log.jsonl"],
            rule="pair", key=None, at=None, lateness_us=0, now_us=0,
        )  # fmt: skip
