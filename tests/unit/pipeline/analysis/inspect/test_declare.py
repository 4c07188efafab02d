"""What is proposed for messages that nobody has declared, and that it is read so."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from astrocyte.pipeline.analysis.inspect.report import Inspection
from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
from astrocyte.pipeline.analysis.inspect.text import render
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.settings import Settings, load_settings
from tests.support.logs import write_log

START_S = 1_759_055_400
START = datetime.fromtimestamp(START_S, UTC)


def messages(
    bodies: Sequence[Any], *, topic: str = "shop.orders", keys: Sequence[bytes | None] = (), partitions: int = 1
) -> list[ConsumedRecord]:
    found = []
    offsets = [0] * partitions
    for number, body in enumerate(bodies):
        key = keys[number] if keys else None
        place = number % partitions
        value = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        found.append(ConsumedRecord(topic, place, offsets[place], START_S * 1000 + number, key, value))
        offsets[place] += 1
    return found


def report_on(tmp_path, records: Sequence[ConsumedRecord], partitions: int = 1, settings: Settings | None = None):
    path = write_log(tmp_path / f"log{len(list(tmp_path.iterdir()))}.jsonl", records, partitions=partitions)
    request = Request(str(path), settings or Settings())
    (report,) = inspect(request, take_sample(request)).reports
    return report


def proposed(tmp_path, bodies: Sequence[Any], **options: Any) -> dict[str, Any]:
    partitions = options.get("partitions", 1)
    report = report_on(tmp_path, messages(bodies, **options), partitions)
    assert report.refused == []
    assert report.reading.events == sum(body is not None for body in bodies)
    return {name: value for name, value in report.proposal.declaration.items() if name not in ("name", "topic")}


@pytest.mark.parametrize(
    ("write", "unit"),
    [
        (lambda n: START_S + n, "s"),
        (lambda n: START_S + n / 8, "s"),
        (lambda n: (START_S + n) * 1000, "ms"),
        (lambda n: str((START_S + n) * 1000), "ms"),
        (lambda n: (START_S + n) * 1_000_000, "us"),
        (lambda n: (START_S + n) * 1_000_000_000, "ns"),
        (lambda n: (START + timedelta(seconds=n)).isoformat(), None),
    ],
)
@pytest.mark.parametrize("name", ["timestamp", "ts", "created_at", "eventTime"])
def test_the_time_and_its_unit_are_found(tmp_path, write, unit, name):
    bodies = [{name: write(n), "amount": n} for n in range(40)]
    assert proposed(tmp_path, bodies)["time"] == {"field": name} | ({"unit": unit} if unit else {})


def test_a_time_inside_an_object_is_found_by_its_path(tmp_path):
    bodies = [{"meta": {"recorded_at": START_S + n}, "amount": n} for n in range(40)]
    assert proposed(tmp_path, bodies)["time"] == {"field": "meta.recorded_at", "unit": "s"}


def test_a_number_without_a_name_of_time_is_no_time(tmp_path):
    report = report_on(tmp_path, messages([{"serial": START_S + n} for n in range(40)]))
    assert "time" not in report.proposal.declaration
    assert report.proposal.time == "the time of the Kafka message"


def test_a_date_that_is_not_iso_is_named_with_an_example(tmp_path):
    report = report_on(tmp_path, messages([{"when": f"28/Sep/2025:10:30:{n:02}"} for n in range(40)]))
    assert report.proposal.hints[0].startswith(
        "when looks like a time but is not ISO 8601, such as '28/Sep/2025:10:30:00'"
    )


@pytest.mark.parametrize("text", ["10.0.0.4", "192.168.100.250", "1.12.3", "00:1b:44:11:22:33", "2025.1.2.3"])
def test_an_address_or_a_version_looks_like_no_time(tmp_path, text):
    report = report_on(tmp_path, messages([{"where": text, "v": n} for n in range(40)]))
    assert not any("looks like a time" in hint for hint in report.hints)


@pytest.mark.parametrize("text", ["28.09.2025", "2025/9/28", "28-Sep-2025 10:30", "9/28/25", "Sep 28 10:30:00"])
def test_dates_in_other_forms_look_like_a_time(tmp_path, text):
    report = report_on(tmp_path, messages([{"when": text, "v": n} for n in range(40)]))
    assert f"when looks like a time but is not ISO 8601, such as {text!r}: convert it first" in report.hints


def rows_file(tmp_path, rows: Sequence[dict[str, Any]]):
    path = tmp_path / "sensors.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    request = Request(str(path), Settings())
    (report,) = inspect(request, take_sample(request)).reports
    return report


@pytest.mark.parametrize("name", ["measured_at", "timestamp"])
def test_the_time_is_what_most_rows_have_and_the_device_with_another_clock_is_named(tmp_path, name):
    rows = [
        {name: n * 500 if n % 8 == 3 else START_S * 1000 + n * 500, "device": f"d{n % 8}", "celsius": n % 9}
        for n in range(400)
    ]
    report = rows_file(tmp_path, rows)
    assert report.proposal.declaration["time"] == {"field": name, "unit": "ms"}
    assert report.reading.events == 400
    (line,) = report.problems  # the number of all its events, and no other one of a part of them
    assert line.startswith("50 events of device 'd3' are far from the others in time, such as that of 1970-")


def test_times_that_several_devices_have_wrong_now_and_then_are_counted_with_an_example(tmp_path):
    rows = [
        {"measured_at": 1500 if n % 40 == 7 else START_S * 1000 + n * 500, "device": f"d{n % 7}", "celsius": n % 9}
        for n in range(400)
    ]
    report = rows_file(tmp_path, rows)
    assert report.problems[0] == (
        "10 of 400 values of measured_at studied are no time of these days, such as 1500: correct them before they are "
        "sent, or refuse them by a validator"
    )


def test_a_file_of_which_a_part_is_studied_gives_one_number_of_the_events_of_a_wrong_clock(tmp_path):
    rows = [
        {"ts": n / 2 if n % 8 == 3 else START_S + n / 2} | ({"device": f"d{n % 8}"} if n % 50 else {})
        for n in range(5000)
    ]
    report = rows_file(tmp_path, rows)
    wrong = sum(n % 8 == 3 and n % 50 != 0 for n in range(5000))
    assert [line[: line.index(" events")] for line in report.problems] == [str(wrong)]
    assert report.without_key == "100 events without device take part in no rule by it"
    assert not any("studied" in line for line in (*report.problems, *report.notes))


def test_rows_without_the_time_that_most_have_are_counted(tmp_path):
    rows = [{"timestamp": START_S * 1000 + n, "v": n} if n % 4 else {"v": n} for n in range(80)]
    report = rows_file(tmp_path, rows)
    assert report.proposal.time == "timestamp, ms, in 75.0% of the events; the others are refused"
    assert (report.reading.events, report.proposal.problem) == (60, None)


def test_a_time_that_some_cloudevents_lack_is_given_with_its_share(tmp_path):
    bodies = [
        {"specversion": "1.0", "id": str(n), "source": "/s", "type": "t", "data": {"v": n}}
        | ({"time": (START + timedelta(seconds=n)).isoformat()} if n % 10 else {})
        for n in range(100)
    ]
    report = report_on(tmp_path, messages(bodies))
    assert report.proposal.time == (
        "time, ISO 8601 text, in 90.0% of the events; the time of the Kafka message in the others"
    )


def test_a_key_that_some_clicks_lack_goes_before_a_kind_of_events_and_what_looks_like_an_id_is_named(tmp_path):
    bodies = [
        {"ts": START_S + n, "id": f"c{n % 395}", "action": "view" if n % 5 < 3 else ("cart", "buy")[n % 2], "v": n % 9}
        | ({"user_id": n % 40 if n % 3 else f"u{n % 40}"} if n % 14 else {})
        for n in range(400)
    ]
    report = report_on(tmp_path, messages(bodies))
    assert report.proposal.declaration["key"] == "user_id"
    assert report.without_key == "29 events without user_id take part in no rule by it"
    assert "id" not in report.proposal.declaration  # five events share theirs with another event
    assert any(hint.startswith("id looks like an id (395 of 400 values differ)") for hint in report.hints)


def test_the_field_that_equals_the_kafka_key_is_the_key(tmp_path):
    bodies = [{"ts": START_S + n, "user": f"u{n % 5}", "room": f"r{n % 3}"} for n in range(40)]
    keys = [body["user"].encode() for body in bodies]
    assert proposed(tmp_path, bodies, keys=keys)["key"] == "user"


def test_binary_keys_are_read_as_the_numbers_that_they_are(tmp_path):
    bodies = [{"ts": START_S + n, "customer": n % 7} for n in range(40)]
    keys = [struct.pack(">q", body["customer"]) for body in bodies]
    assert proposed(tmp_path, bodies, keys=keys)["key"] == {"field": "customer", "reading": "int64"}
    keys = [struct.pack(">i", 1000 + n % 7) for n in range(40)]
    assert proposed(tmp_path, bodies, keys=keys)["key"] == {"field": "key", "reading": "int32"}


def test_messages_without_a_kafka_key_are_keyed_by_a_field_of_the_body(tmp_path):
    bodies = [{"ts": START_S + n, "deviceId": f"d{n % 5}", "value": n} for n in range(40)]
    assert proposed(tmp_path, bodies)["key"] == "deviceId"
    assert proposed(tmp_path, bodies, partitions=2)["key"] == {"field": "deviceId", "partitioned": False}


def test_a_key_inside_an_object_gets_a_name_and_so_do_the_other_members(tmp_path):
    bodies = [{"ts": START_S + n, "user": {"id": f"u{n % 5}", "country": "DE"}} for n in range(40)]
    found = proposed(tmp_path, bodies)
    assert found["key"] == {"field": "user_id", "path": "user.id"}
    assert found["fields"] == {"user_id": {"path": "user.id"}, "user_country": {"path": "user.country"}}


def test_a_member_that_is_different_in_each_event_is_its_id_unless_other_events_share_it(tmp_path):
    bodies = [{"ts": START_S + n, "id": n, "code": f"c{n % 3}"} for n in range(40)]
    assert proposed(tmp_path, bodies)["id"] == "id"
    again = [*bodies, bodies[7]]  # sent twice
    assert proposed(tmp_path, again)["id"] == "id"
    shared = [body | {"id": body["id"] // 4} for body in bodies]
    assert "id" not in proposed(tmp_path, shared)


def change(number: int) -> dict[str, Any]:
    row = {"order_id": number % 8, "customer_id": number % 3, "amount": 1.5 * number, "updated_at": START_S + number}
    return {"op": "c", "before": None, "after": row, "source": {"ts_ms": (START_S + number) * 1000}}


def test_debezium_is_keyed_by_the_row_of_its_kafka_key(tmp_path):
    bodies = [change(number) for number in range(40)]
    keys = [orjson.dumps({"schema": {}, "payload": {"order_id": number % 8}}) for number in range(40)]
    found = proposed(tmp_path, [*bodies, None], keys=[*keys, keys[0]])
    assert found == {"decoder": "debezium", "key": {"field": "order_id", "partitioned": True}}


def changes_in_three_partitions(odd: str) -> list[ConsumedRecord]:
    """Changes by order; of every twentieth the Kafka key, its form, or only the partition is another."""
    records: list[ConsumedRecord] = []
    for number in range(240):
        order = number * 7 % 27
        body = {"op": "c", "before": None, "after": {"order_id": order, "amount": 1.5 * number}}
        body["source"] = {"ts_ms": (START_S + number) * 1000}
        key = orjson.dumps({"order_id": order})
        is_odd = number % 20 == 7
        if is_odd and odd == "key":
            key = orjson.dumps({"order_id": 1000 + number})
        elif is_odd and odd == "form":
            key = orjson.dumps({"schema": {}, "payload": {"order_id": order}})
        place = (order + is_odd) % 3
        offset = sum(record.partition == place for record in records)
        records.append(ConsumedRecord("shop.orders", place, offset, START_S * 1000, key, orjson.dumps(body)))
    return records


@pytest.mark.parametrize("odd", ["key", "form", "partition"])
def test_a_key_with_events_in_several_partitions_is_never_declared_as_partitioned(tmp_path, odd):
    report = report_on(tmp_path, changes_in_three_partitions(odd), partitions=3)
    assert report.keys.spread > 0
    assert report.proposal.declaration["key"] == {"field": "order_id", "partitioned": False}
    assert not report.keys_never_meet
    assert "declare 'key:" not in render(Inspection("x", "log", complete=True, reports=[report]), width=120)


@pytest.mark.parametrize("odd", ["key", "partition"])
def test_the_key_that_is_advised_for_cloudevents_is_the_one_that_is_written(tmp_path, odd):
    records: list[ConsumedRecord] = []
    for number in range(240):
        user, is_odd = f"u{number * 7 % 27}", number % 20 == 7
        body = {"specversion": "1.0", "id": str(number), "source": "/s", "type": "t", "data": {"user": user}}
        body["time"] = (START + timedelta(seconds=number)).isoformat()
        place = (number * 7 % 27 + is_odd) % 3
        key = b"other %d" % number if is_odd and odd == "key" else user.encode()
        offset = sum(record.partition == place for record in records)
        records.append(ConsumedRecord("shop.orders", place, offset, START_S * 1000, key, orjson.dumps(body)))
    report = report_on(tmp_path, records, partitions=3)
    assert (report.key_field, report.keys.spread > 0) == ("user", True)
    assert report.proposal.declaration["key"] == {"field": "user", "partitioned": False}
    if odd == "key":
        assert "user differs from the Kafka key in 12 of 240 messages studied" in report.hints


def test_a_kafka_key_that_is_no_field_and_lies_in_several_partitions_is_repartitioned(tmp_path):
    bodies = [{"ts": START_S + number, "value": number} for number in range(40)]
    keys = [b"k%d" % (number // 2 % 5) for number in range(40)]
    found = proposed(tmp_path, bodies, keys=keys, partitions=2)
    assert found["key"] == {"field": "key", "partitioned": False}


def test_cloudevents_of_both_modes_are_found(tmp_path):
    when = [(START + timedelta(seconds=n)).isoformat() for n in range(40)]
    bodies = [
        {"specversion": "1.0", "id": str(n), "source": "/s", "type": "reading", "time": when[n], "data": {"v": n}}
        for n in range(0, 40, 2)
    ]
    records = messages(bodies)
    for number, n in enumerate(range(1, 40, 2), len(records)):
        names = {"specversion": "1.0", "id": str(n), "source": "/s", "type": "reading", "time": when[n]}
        headers = tuple((f"ce_{name}", text.encode()) for name, text in names.items())
        records.append(ConsumedRecord("shop.orders", 0, number, START_S * 1000, None, orjson.dumps({"v": n}), headers))
    report = report_on(tmp_path, records)
    assert (report.counts, report.refused) == ({"cloudevents": 40}, [])
    assert report.proposal.declaration == {"name": "orders", "topic": "shop.orders", "decoder": "cloudevents"}


def test_lines_of_csv_are_found_with_their_delimiter_and_the_names_of_the_first_line(tmp_path):
    lines = [f"{START_S + n};attic;{n / 4}".encode() for n in range(40)]
    report = report_on(tmp_path, messages(lines))
    found = report.proposal.declaration
    assert found["decoder"] == {"name": "csv", "columns": ["column_1", "column_2", "column_3"], "delimiter": ";"}
    assert found["time"] == {"field": "column_1", "unit": "s"}
    assert report.reading.events == 40
    report = report_on(tmp_path, messages([b"time;room;value", *lines]))
    assert report.proposal.declaration["decoder"]["columns"] == ["time", "room", "value"]


def test_avro_says_where_its_schemas_have_to_be_named(tmp_path):
    report = report_on(tmp_path, messages([b"\0\0\0\0\x05" + bytes([n, n]) for n in range(10)]))
    assert report.counts == {"avro": 10}
    assert "schemas 5" in report.proposal.problem
    assert "ASTROCYTE_AVRO_REGISTRY" in report.proposal.problem


def test_avro_is_read_where_its_schemas_are_known(tmp_path, monkeypatch):
    fastavro = pytest.importorskip("fastavro", reason="the extra avro is not installed")
    schema = {
        "type": "record",
        "name": "Room",
        "fields": [{"name": "ts", "type": "long"}, {"name": "v", "type": "int"}],
    }
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "5.avsc").write_bytes(orjson.dumps(schema))
    values = []
    for n in range(10):
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), {"ts": START_S * 1000 + n, "v": n})
        values.append(b"\0\0\0\0\x05" + stream.getvalue())
    monkeypatch.setenv("ASTROCYTE_AVRO_SCHEMAS", str(tmp_path / "schemas"))
    report = report_on(tmp_path, messages(values), settings=load_settings())
    assert report.refused == []
    assert report.reading.events == 10
    assert report.counts == {"avro": 10}


def test_streams_of_topics_with_the_same_last_name_stay_apart(tmp_path):
    records = [
        *messages([{"ts": START_S + n} for n in range(5)], topic="shop.orders"),
        *messages([{"ts": START_S + n} for n in range(5)], topic="bank.orders"),
    ]
    path = write_log(tmp_path / "log.jsonl", records, partitions=1)
    request = Request(str(path), Settings())
    reports = inspect(request, take_sample(request)).reports
    assert [report.contract.stream for report in reports] == ["bank_orders", "shop_orders"]
