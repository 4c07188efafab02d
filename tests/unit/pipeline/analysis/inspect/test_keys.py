"""Which member is proposed as the key: a table of members with what they are, and what the Kafka key says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from astrocyte.pipeline.analysis.inspect.proposals.keys import key_rank
from astrocyte.pipeline.analysis.inspect.proposals.proposal import Seen
from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
from astrocyte.pipeline.analysis.inspect.starting.starter import make_starter
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.settings import Settings
from tests.support.logs import write_log

START_S = 1_759_055_400
START = datetime.fromtimestamp(START_S, UTC)
EVENTS = 120

NAMED, ID, OTHER, NONE = 0, 1, 2, None
MEMBERS: dict[str, tuple[int | None, Callable[[int], Any]]] = {
    # What identifies a thing that comes back.
    "remote_addr": (NAMED, lambda n: f"10.0.0.{n % 49}"),
    "clientIp": (NAMED, lambda n: f"2001:db8::{n % 7}"),
    "MMSI": (NAMED, lambda n: 219_000_003 + n % 4 if n % 19 else None),
    "userId": (NAMED, lambda n: n % 30),
    "userid": (NAMED, lambda n: f"u{n % 30}"),
    "username": (NAMED, lambda n: ("ann", "bob", "eve")[n % 3]),
    "Device Name": (NAMED, lambda n: f"pump {n % 6}"),
    "hostname": (NAMED, lambda n: f"web-{n % 2}"),
    "account": (NAMED, lambda n: n % 20),
    "meter.serial": (NAMED, lambda n: f"{n % 9:08}"),
    "order_no": (NAMED, lambda n: 1000 + n // 4),
    "ce_partitionkey": (NAMED, lambda n: f"run/{n % 40}"),
    "trace_id": (ID, lambda n: f"{n % 17:032x}"),
    "id": (ID, lambda n: n % 8),
    "topic_key": (ID, lambda n: f"k{n % 8}"),
    "label": (OTHER, lambda n: f"line {n % 12}"),
    # Times, also such as nothing here can read.
    "time_local": (NONE, lambda n: f"01/Nov/2026:10:{n // 2:02}:{n % 2:02} +0100"),
    "day": (NONE, lambda n: f"2026-11-{1 + n % 20:02}"),
    "eta": (NONE, lambda n: (START + timedelta(hours=n % 10)).isoformat()),
    "order_date": (NONE, lambda n: f"2026/11/{1 + n % 20}"),
    "session_at": (NONE, lambda n: START_S + n % 30),
    # One for each event, or its place.
    "ce_id": (NONE, lambda n: str(n // 2)),
    "event_id": (NONE, lambda n: str(n // 2)),
    "uuid": (NONE, lambda n: f"{n:032x}"),
    "device_id": (NONE, lambda n: n),
    "__index_level_0__": (NONE, lambda n: n // 2),
    "Unnamed: 0": (NONE, lambda n: n // 2),
    "row_number": (NONE, lambda n: n % 40),
    # Kinds of events or things.
    "VesselType": (NONE, lambda n: ("tanker", "cargo", "ferry")[n % 3]),
    "deviceModel": (NONE, lambda n: f"m{n % 6}"),
    "card_type": (NONE, lambda n: f"t{n % 6}"),
    "http_user_agent": (NONE, lambda n: f"curl/{n % 8}"),
    "status": (NONE, lambda n: str(200 + n % 6)),
    "flag": (NONE, lambda n: ("NO", "SE", "DK")[n % 3]),
    "country": (NONE, lambda n: f"c{n % 20}"),
    "ok": (NONE, lambda n: n % 2 == 0),
    # Measurements and messages.
    "device_temperature": (NONE, lambda n: n % 9),
    "session_duration": (NONE, lambda n: n % 30),
    "heading": (NONE, lambda n: n % 5 * 90),
    "request_time": (NONE, lambda n: f"0.{n % 40:03}"),
    "body_bytes_sent": (NONE, lambda n: "-" if n % 2 else str(n % 40)),
    "celsius": (NONE, lambda n: n % 10 / 2),
    "line": (NONE, lambda n: f"something went wrong again, for the {n % 10}th time, and nobody knows what it was"),
    # Few events have it.
    "referrer_account": (NONE, lambda n: n % 9 if n % 2 else None),
}


@pytest.mark.parametrize("path", MEMBERS)
def test_a_key_is_what_identifies_a_thing_that_comes_back(path):
    rank, value_of = MEMBERS[path]
    values = [(n, value_of(n)) for n in range(EVENTS)]
    seen = Seen(path, path, [value for _, value in values if value is not None])
    found = key_rank(seen, EVENTS)
    assert (None if found is None else found[0]) == rank


def test_of_several_the_one_that_is_named_as_a_thing_is_proposed_and_others_are_named():
    paths = ("time_local", "status", "request_time", "label", "remote_addr", "trace_id", "VesselType")
    ranks = {path: key_rank(Seen(path, path, [MEMBERS[path][1](n) for n in range(EVENTS)]), EVENTS) for path in paths}
    found = sorted((rank, path) for path, rank in ranks.items() if rank is not None)
    assert [path for _, path in found] == ["remote_addr", "trace_id", "label"]


def inspected(tmp_path, records: list[ConsumedRecord], partitions: int = 1):
    request = Request(str(write_log(tmp_path / "log.jsonl", records, partitions=partitions)), Settings())
    sample = take_sample(request)
    found = inspect(request, sample)
    (report,) = found.reports
    return report, make_starter(request, sample, found, path="rules.yaml")


def transfers(composite: dict[str, str], *, debezium: bool) -> list[ConsumedRecord]:
    """Accounts of two banks; their Kafka key is made of the members that ``composite`` names."""
    records = []
    for n in range(120):
        row = {"bank": "DE" if n % 3 else "FR", "account": n % 7, "cents": n}
        key = orjson.dumps({name: row[member] for name, member in composite.items()})
        body = row | {"ts": START_S + n}
        if debezium:
            body = {"op": "c", "before": None, "after": row, "source": {"ts_ms": (START_S + n) * 1000}}
        records.append(ConsumedRecord("bank.tx", 0, n, (START_S + n) * 1000, key, orjson.dumps(body)))
    return records


@pytest.mark.parametrize("debezium", [True, False])
def test_a_key_of_two_columns_stays_whole(tmp_path, debezium):
    report, starter = inspected(tmp_path, transfers({"bank": "bank", "account": "account"}, debezium=debezium))
    assert report.key_field == "key"
    assert len(report.keys.counts) == 14
    assert {rule.by for rule in starter.ruleset.rules} == {"key"}
    (hint,) = [hint for hint in report.hints if "columns" in hint]
    assert hint.startswith("the Kafka key has 2 columns, bank and account: rules by key correlate by both")
    assert "other keys" not in " ".join(report.hints)
    assert f"# {hint}" in starter.text


def test_a_key_of_one_column_is_that_column(tmp_path):
    report, _ = inspected(tmp_path, transfers({"account": "account"}, debezium=True))
    assert report.key_field == "account"
    assert not any("columns" in hint for hint in report.hints)


def test_a_kafka_key_of_each_message_is_no_key_where_a_member_is_one(tmp_path):
    records = []
    for n in range(80):
        body = orjson.dumps({"ts": START_S + n, "message_id": f"m{n}", "device": f"d{n % 5}", "v": n})
        records.append(ConsumedRecord("plant.raw", n % 2, n // 2, (START_S + n) * 1000, b"m%d" % n, body))
    report, _ = inspected(tmp_path, records, partitions=2)
    assert report.proposal.declaration["key"] == {"field": "device", "partitioned": False}
    assert "key: device, else nearly every event has a key of its own" in report.proposal.needs


def test_no_rule_is_made_of_the_index_of_a_table(tmp_path):
    rows = [{"ts": START_S + n, "ship": f"s{n % 4}", "__index_level_0__": n} for n in range(80)]
    path = tmp_path / "ais.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    request = Request(str(path), Settings())
    sample = take_sample(request)
    starter = make_starter(request, sample, inspect(request, sample), path="rules.yaml")
    assert "__index_level_0__ >" not in starter.text
