"""What is proposed for messages that nobody has declared, and that it is read so."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
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
