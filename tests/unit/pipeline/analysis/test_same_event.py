"""The same mapping is the same event in a log, a list of mappings, and files of JSON lines, CSV and Parquet."""

import csv
import gzip
import uuid
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte import RuleSet, load_rules, match
from astrocyte.agents.domain import Counters
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import record_line
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.values.mixed import column_of
from tests.support.logs import write_log

A_DAY = 86_400_000_000
EMIT = "emit: {amount: a.amount, count: a.count, note: a.note, flag: a.flag, kind: a.type, seq: a.seq, any: a.any}"
DECLARED = load_rules(f"""
streams:
  - name: orders
    key: customer
    time: {{field: at, unit: ms}}
    id: order
    fields: {{amount: float64, count: int64, note: string, flag: bool, seq: int64, order: string, any: {{}}}}
    on_type_error: "null"
rules:
  - {{name: seen, by: customer, seq: [{{as: a, stream: orders}}], {EMIT}}}
""")
UNDECLARED = load_rules(f"rules:\n  - {{name: seen, seq: [{{as: a, stream: orders}}], {EMIT}}}\n")

WORDS = st.text(st.sampled_from("abcxyzäß '\",;\n"), min_size=1, max_size=8).map(lambda text: "w" + text)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)
COUNTS = st.integers(-(2**53), 2**53)
TIMES_MS = st.integers(1_700_000_000_000, 1_700_000_000_000 + A_DAY // 1000 - 1)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "amount": st.none() | FLOATS | COUNTS | WORDS | st.booleans(),
    "count": st.none() | COUNTS | FLOATS | WORDS | st.booleans(),
    "note": st.none() | WORDS,
    "flag": st.none() | st.booleans(),
    "seq": COUNTS,
    "type": st.none() | WORDS,
    "any": st.none() | FLOATS | COUNTS | WORDS | st.booleans(),
}


def one_key_an_id(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events, those of one id with the key of the first: of two keys each partition has its own first event."""
    keys: dict[str, str] = {}
    return [{**event, "customer": keys.setdefault(event["order"], event["customer"])} for event in events]


declared_events = st.lists(
    st.fixed_dictionaries(
        {**FIELDS, "at": TIMES_MS, "customer": WORDS, "order": WORDS | st.uuids().map(str)}
    ),
    min_size=1, max_size=6,
).map(one_key_an_id)  # fmt: skip


def plain(event_ids: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    times = TIMES_MS.map(lambda time: time * 1000)
    own = {
        "timestamp": times | times.map(iso_from_us),
        "key": WORDS,
        "stream": st.just("orders"),
        "event_id": event_ids,
    }
    return st.lists(st.fixed_dictionaries({**FIELDS, **own}), min_size=1, max_size=6)


plain_events = plain(st.none()) | plain(st.uuids().map(str) | WORDS)

Seen = list[tuple[Any, ...]]


def of_files(rules: RuleSet, path: Path, stream: str | None = None) -> tuple[Seen, Counters, list[str]]:
    run, outputs = run_rules(rules, [path], lateness_us=A_DAY, stream=stream)
    found, ids = [], []
    for output in outputs:
        for record in output.multi_events:
            body = orjson.loads(record.value)
            values = body["metadata"]
            found.append((body["timestamp"], record.key.decode(), *(values[name] for name in rules.rules[0].emit)))
            ids.append(body["event_id"])
    return sorted(found, key=repr), run.counters, sorted(ids)


def write_all(folder: Path, events: list[dict[str, Any]]) -> dict[str, Path]:
    """The events in every form."""
    paths = {name: folder / f"events.{name}" for name in ("log", "jsonl", "csv", "parquet")}
    lines = [orjson.dumps(event) for event in events]
    paths["log"].write_bytes(
        b"".join(record_line(ConsumedRecord("mono.orders", 0, at, 1, None, line)) for at, line in enumerate(lines))
    )
    paths["jsonl"].write_bytes(b"\n".join(lines))
    with paths["csv"].open("w", newline="") as file:
        writer = csv.DictWriter(file, list(events[0]))
        writer.writeheader()
        writer.writerows({name: value if value is not None else "" for name, value in row.items()} for row in events)
    names = list(events[0])
    columns: dict[str, Any] = {name: [event[name] for event in events] for name in names}
    if any(isinstance(value, str) for value in columns.get("timestamp", ())):
        columns["timestamp"] = [str(value) for value in columns["timestamp"]]
    pq.write_table(pa.table({name: column_of(values) for name, values in columns.items()}), paths["parquet"])
    return paths


@pytest.mark.parametrize("rules", [DECLARED, UNDECLARED], ids=["declared", "undeclared"])
def test_the_same_mapping_is_the_same_event_everywhere(rules, tmp_path_factory):
    @given(declared_events if rules is DECLARED else plain_events)
    @settings(max_examples=60)
    def holds(events: list[dict[str, Any]]) -> None:
        paths = write_all(tmp_path_factory.mktemp("forms"), events)
        log, counters, ids = of_files(rules, paths["log"])
        assert counters.dead == 0
        for name in ("jsonl", "csv", "parquet"):
            assert of_files(rules, paths[name])[::2] == (log, ids), name
        python = match(rules, events)
        assert sorted(((iso_from_us(each.time_us), each.key, *each.emit.values()) for each in python), key=repr) == log

    holds()


def test_the_check_sees_a_difference(tmp_path):
    events = [{"timestamp": 1_700_000_000_000_000, "key": "k", "stream": "orders", "amount": 1.5, "seq": 1}]
    other = [{**events[0], "amount": 2.5}]
    paths = write_all(tmp_path, events)
    assert of_files(UNDECLARED, paths["jsonl"])[0] != of_files(UNDECLARED, write_all(tmp_path, other)["log"])[0]


TWO = load_rules("""
rules:
  - {name: a, seq: [{as: a, stream: orders}]}
  - {name: b, seq: [{as: b, stream: refunds}]}
""")


def test_events_of_a_file_belong_to_the_streams_that_they_name(tmp_path):
    path = tmp_path / "events.jsonl"
    lines = [{"stream": "orders", "ts": 1}, {"source_stream": "stream:refunds", "ts": 2}, {"stream": "else", "ts": 3}]
    path.write_bytes(b"\n".join(orjson.dumps({"key": "k", **line}) for line in lines))
    _, outputs = run_rules(TWO, [path], lateness_us=0)
    found = [orjson.loads(record.value) for output in outputs for record in output.multi_events]
    assert [(each["correlation_rule"], each["timestamp"]) for each in found] == [
        ("a", "1970-01-01T00:00:01Z"),
        ("b", "1970-01-01T00:00:02Z"),
    ]


def test_an_event_of_a_file_without_a_stream_needs_the_option(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"ts": 1, "key": "k"}\n')
    with pytest.raises(
        InvalidSettings, match=r"line 1 names no stream, and the rules read orders, refunds; give --stream"
    ):
        run_rules(TWO, [path], lateness_us=0)
    _, outputs = run_rules(TWO, [path], lateness_us=0, stream="refunds")
    (record,) = [record for output in outputs for record in output.multi_events]
    assert orjson.loads(record.value)["correlation_rule"] == "b"


def test_a_member_stream_names_the_stream_unless_the_command_does_and_then_it_is_a_field(tmp_path):
    rules = load_rules("rules: [{name: r, seq: [{as: a, stream: containers, where: \"stream == 'stdout'\"}]}]")
    path = tmp_path / "events.jsonl"
    path.write_text('{"time": "2026-01-01T00:00:00Z", "key": "k", "stream": "stdout", "log": "x"}\n')
    for stream, count in ((None, 0), ("containers", 1)):
        _, outputs = run_rules(rules, [path], lateness_us=0, stream=stream)
        assert sum(len(output.multi_events) for output in outputs) == count


def test_a_line_that_is_no_json_is_a_dead_letter_and_the_others_are_read(tmp_path):
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"ts": 1, "key": "k"}\nnot json\n\n{"ts": 2, "key": "k"}\n{"key": "no time"}\n'))
    seen = load_rules("rules: [{name: r, seq: [{as: a, stream: orders}]}]")
    _, outputs = run_rules(seen, [path], lateness_us=0)
    outputs = list(outputs)
    assert sum(len(output.multi_events) for output in outputs) == 2
    assert [letter.offset for output in outputs for letter in output.dead_letters] == [1, 3]


def test_logs_and_files_of_events_are_not_read_together(tmp_path):
    paths = write_all(tmp_path, [{"timestamp": 1_700_000_000_000_000, "key": "k", "stream": "orders"}])
    with pytest.raises(InvalidSettings, match=r"is a recorded log and .* a file of events"):
        run_rules(UNDECLARED, [paths["log"], paths["jsonl"]], lateness_us=0)
    with pytest.raises(InvalidSettings, match="--stream is for files of events"):
        run_rules(UNDECLARED, [paths["log"]], lateness_us=0, stream="orders")


def test_a_file_of_debezium_lines_is_read_as_its_stream_declares(tmp_path):
    rules = load_rules("""
streams: [{name: orders, decoder: debezium, key: {field: id, partitioned: true}}]
rules: [{name: r, by: id, seq: [{as: a, stream: orders}]}]
""")
    path = tmp_path / "events.jsonl"
    path.write_text('{"op": "c", "source": {"ts_ms": 1000}, "after": {"id": 3}}\n')
    _, outputs = run_rules(rules, [path], lateness_us=0)
    (record,) = [record for output in outputs for record in output.multi_events]
    assert (orjson.loads(record.value)["timestamp"], record.key) == ("1970-01-01T00:00:01Z", b"3")


def test_times_and_binary_values_of_parquet_have_a_json_form(tmp_path):
    path = tmp_path / "events.parquet"
    table = pa.table(
        {
            "timestamp": pa.array([1_700_000_000_000_000_123], pa.timestamp("ns")),
            "key": ["k"],
            "note": pa.array([b"\xff"]),
            "amount": pa.array([1], pa.decimal128(5, 2)),
        }
    )
    pq.write_table(table, path)
    ((time, key, amount, _, note, *_),) = of_files(UNDECLARED, path)[0]
    assert (time, key, amount, note) == ("2023-11-14T22:13:20Z", "k", 1.0, "0xff")
    assert uuid.UUID(of_files(UNDECLARED, path)[2][0]).version == 8


def test_a_number_that_is_not_finite_is_refused_in_every_file(tmp_path):
    rules = load_rules("""
streams: [{name: orders, fields: {amount: float64}}]
rules: [{name: r, seq: [{as: a, stream: orders}]}]
""")
    amounts = ("NaN", "-Infinity", "1.5")
    lines = [f'{{"ts": {at}, "key": "k", "amount": {text}}}' for at, text in enumerate(amounts)]
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    lines = [f"{at},k,{text}" for at, text in enumerate(amounts)]
    (tmp_path / "events.csv").write_text("\n".join(["ts,key,amount", *lines]))
    table = {"ts": [0, 1, 2], "key": ["k"] * 3, "amount": [float(text) for text in amounts]}
    pq.write_table(pa.table(table), tmp_path / "events.parquet")
    for name in ("events.jsonl", "events.csv", "events.parquet"):
        outputs = list(run_rules(rules, [tmp_path / name], lateness_us=0)[1])
        assert sum(len(output.multi_events) for output in outputs) == 1
        assert [letter.reason for output in outputs for letter in output.dead_letters] == [
            "field 'amount' is nan; expected a finite number",
            "field 'amount' is -inf; expected a finite number",
        ]


def test_a_log_written_by_this_project_is_still_a_log(tmp_path):
    record = ConsumedRecord("mono.orders", 0, 0, 1, b"k", b'{"ts": 1}')
    assert len(of_files(UNDECLARED, write_log(tmp_path / "run.jsonl", [record]))[0]) == 1
