"""An event that is not used has one cause, and is listed once, whatever rules and copies it meets."""

import json

import numpy as np
import orjson
import pytest

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.values.mixed import column_of
from tests.support.logs import write_log
from tests.support.match_command import event, files, lines, run


def rejected(tmp_path, declaration: str, by: str) -> tuple[str, list[dict]]:
    """Clicks with ids, of which some are repeated, some lack the user, and some both; one is late as well."""
    events = [
        (0, "a", "u1"),
        (1, "b", None),
        (1, "b", None),
        (2, "a", "u1"),
        (3, "c", "u2"),
        (3, "c", "u2"),
        (4, "d", None),
    ]
    records = [
        ConsumedRecord(
            "web.clicks", 0, offset, 1_772_359_200_000, None,
            orjson.dumps({"ts": f"2026-03-01T10:00:{second:02}Z", "id": name, "user": user, "v": 1 if offset else "x"}),
        )
        for offset, (second, name, user) in enumerate(events)
    ]  # fmt: skip
    (tmp_path / "rules.yaml").write_text(
        f"streams: [{{name: clicks, topic: web.clicks, id: id, key: {declaration}}}]\n"
        f"rules: [{{name: two, by: {by}, within: 1m, seq: [{{as: a, stream: clicks, where: 'v == 1'}}]}}]"
    )
    path = write_log(tmp_path / "log.jsonl", records, partitions=1)
    rejects = tmp_path / "rejects.jsonl"
    result = run("match", str(tmp_path / "rules.yaml"), str(path), "--rejects", str(rejects), "--lateness", "1m")
    return result.stderr, [json.loads(line) for line in rejects.read_text().splitlines()]


@pytest.mark.parametrize("declaration", ["user", "{field: user, partitioned: false}", "v"])
def test_an_event_that_is_repeated_and_lacks_the_key_has_one_cause(tmp_path, declaration):
    said, found = rejected(tmp_path, declaration, "user")
    assert sorted((each["offset"], each["cause"]) for each in found) == [
        (1, "no_key"), (2, "no_key"), (3, "duplicate"), (5, "duplicate"), (6, "no_key"),
    ]  # fmt: skip
    assert "3 events of clicks without 'user'" in said
    assert "2 events of " in said


@pytest.mark.parametrize("declaration", ["user", "{field: user, partitioned: false}", "v"])
def test_values_of_another_kind_are_counted_once_also_where_the_stream_is_repartitioned(tmp_path, declaration):
    said, _ = rejected(tmp_path, declaration, "user")
    assert said.count("is of another kind") == 1
    assert "field 'v' of clicks is of another kind than at first in 6 events" in said


BY_SHIP = "{name: by_ship, by: ship, seq: [{as: u, stream: s, where: n > 0}]}"
OTHERS = {
    "a rule by another field": "rules: [%s, {name: by_zone, by: zone, seq: [{as: u, stream: s}]}]",
    "a rule without a field": "rules: [%s, {name: any, by: null, seq: [{as: u, stream: s}]}]",
    "a window by another": "rules: [%s]\nwindows: [{name: w, from: s, by: zone, every: 1m, select: {c: count()}}]",
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("in_frames", [False, True])
def test_an_event_without_the_key_of_one_rule_that_another_uses_is_counted_and_not_listed(tmp_path, other, in_frames):
    rows = [{"ship": 1, "zone": 3, "n": 1}, {"ship": None, "zone": 3, "n": 2}, {"ship": 2, "zone": 4, "n": 3}]
    if in_frames:
        times = 1_772_359_200_000_000 + np.arange(3)
        columns = {name: column_of([row[name] for row in rows]) for name in rows[0]}
        frame = Frame.from_columns("s", "r", {"timestamp": times, "key": ["k"] * 3, "type": ["s"] * 3, **columns})
        records = [ConsumedRecord("mono.s", 0, 0, 1_772_359_200_000, None, encode_frame(frame))]
    else:
        records = [event(number, "mono.s", **row) for number, row in enumerate(rows)]
    rejects = tmp_path / "rejects.jsonl"
    result = run("match", *files(tmp_path, OTHERS[other] % BY_SHIP, *records), "--rejects", str(rejects))
    place = "mono.s[0]@0 row 1" if in_frames else "mono.s[0]@1"
    assert f"1 event of s without 'ship' took part in none of the rules that correlate by it, such as {place}" in lines(
        result
    )
    assert rejects.read_text() == ""


def test_an_event_without_the_keys_of_all_rules_is_listed_once(tmp_path):
    rejects = tmp_path / "rejects.jsonl"
    rules = OTHERS["a rule by another field"] % BY_SHIP
    given = files(tmp_path, rules, event(0, "mono.s", ship=1, n=1), event(1, "mono.s", n=1))
    run("match", *given, "--rejects", str(rejects))
    assert [json.loads(line)["offset"] for line in rejects.read_text().splitlines()] == [1]
