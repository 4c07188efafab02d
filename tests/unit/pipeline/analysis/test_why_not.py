"""`why-not` follows the events that `match` uses, and says which others of the key there were."""

import json

import orjson
import pytest
from typer.testing import CliRunner

from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.record import ConsumedRecord
from tests.support.logs import write_log

START_MS = 1_772_366_400_000
DIRECT = """
validators: [{stream: meters, where: "raw < 90", set: {value: raw * 2}}]
rules: [{name: rising, within: 1m, seq: [{as: a, stream: meters}, {as: b, stream: meters, where: "value > a.value"}]}]
"""
COPIED = """
streams: [{name: meters, key: {field: site, partitioned: false}}]
validators: [{stream: meters, where: "raw < 90", set: {value: raw * 2}}]
rules:
  - name: rising
    by: site
    within: 1m
    seq: [{as: a, stream: meters}, {as: b, stream: meters, where: "value > a.value"}]
"""
SEVEN = "00000000-0000-4000-8000-000000000007"
EVENTS = [
    {"at_s": 0, "raw": 1},
    {"at_s": 10, "raw": 2, "event_id": SEVEN},
    {"at_s": 3, "raw": 50},
    {"at_s": 11, "raw": 95},
    {"at_s": 10, "raw": 2, "event_id": SEVEN},
    {"at_s": 90_000, "raw": 3},
    {"at_s": 12, "raw": 1},
]
CAUSES = {"late": [2], "refused (validate)": [3], "duplicate": [4], "refused (clock)": [5]}


def record(offset: int, at_s: int, **fields: object) -> ConsumedRecord:
    body = {"timestamp": START_MS + at_s * 1000, "site": "s", **fields}
    key = b"other" if at_s == 12 else b"s"
    return ConsumedRecord("mono.meters", 0, offset, START_MS, key, orjson.dumps(body))


@pytest.mark.parametrize("rules", [DIRECT, COPIED], ids=["direct", "copied"])
def test_events_that_take_no_part_are_named_and_not_followed(rules, tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(rules)
    records = [record(offset, **event) for offset, event in enumerate(EVENTS)]
    log = str(write_log(tmp_path / "log.jsonl", records, partitions=1))
    arguments = ["--rules", str(path), "--rule", "rising", "--key", "s", log]
    report = json.loads(CliRunner().invoke(app, ["why-not", *arguments, "--json"]).stdout)
    found: dict[str, list[int]] = {}
    for each in report["unused"]:
        found.setdefault(each["cause"], []).append(each["offset"])
    assert found == CAUSES
    matched = CliRunner().invoke(app, ["match", str(path), log]).stdout.splitlines()
    assert report["matches"] == len(matched) == 1
    assert report["events"] == 2 + (rules == COPIED)
    text = CliRunner().invoke(app, ["why-not", *arguments]).stdout
    assert "not among them: 1 late, such as mono.meters[0]@2" in text
