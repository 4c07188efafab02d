"""Odd names, values and files: the report is a screen of plain text, and the rule file is valid and matches."""

from __future__ import annotations

import json

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.inspect.report import NothingFound
from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
from astrocyte.pipeline.analysis.inspect.sample import Sample
from astrocyte.pipeline.analysis.inspect.starting.starter import make_starter
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.console import say, short
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.topics import TopicPartition
from tests.support.logs import write_log

START_S = 1_759_055_400


def run(*arguments: str):
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def readings(count: int = 30, **more: object) -> list[bytes]:
    return [orjson.dumps({"timestamp": START_S + n, "v": n, "user": f"u{n % 3}", **more}) for n in range(count)]


def log_of(folder, topics, values=None) -> str:
    records = [
        ConsumedRecord(topic, 0, n, START_S * 1000 + n, b"k%d" % (n % 2), value)
        for topic in topics
        for n, value in enumerate(values or readings())
    ]
    return str(write_log(folder / "events.jsonl", records, partitions=1))


def started(path: str):
    request = Request(path, Settings())
    sample = take_sample(request)
    found = inspect(request, sample)
    starter = make_starter(request, sample, found, path="x.yaml")
    run_, outputs = run_rules(load_rules(starter.text), [path], lateness_us=found.recommended_us)
    matches = sum(len(output.multi_events) for output in outputs)
    assert matches == sum(starter.matches.values()) > 0
    assert run_.counters.dead == 0
    return starter


@pytest.mark.parametrize(
    "topics", [["mono.S", "S"], ["a.b-c", "a.b_c"], ["x.high_v", "v"], ["a", "a_busy"], ["a", "a_per_1s", "b"]]
)
def test_streams_rules_and_windows_of_any_topics_have_names_of_their_own(tmp_path, topics):
    made = started(log_of(tmp_path, topics)).ruleset
    names = [each.name for part in (made.streams, made.windows, made.rules) for each in part]
    assert len(set(names)) == len(names)
    assert len(made.streams) == len(topics)


@settings(max_examples=12)
@given(
    st.lists(
        st.text("ab._-S", min_size=1, max_size=5).map("mono.".__add__) | st.text("ab._-S", min_size=1, max_size=5),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_a_starter_for_any_topics_is_valid_and_matches(tmp_path_factory, topics):
    topics = [topic for topic in topics if topic.strip(".") and topic != "mono."]
    if topics:
        started(log_of(tmp_path_factory.mktemp("topics"), topics))


@pytest.mark.parametrize("name", ["every_event", "high_v"])
def test_a_rule_is_not_called_as_the_stream_of_a_file(tmp_path, name):
    path = tmp_path / f"{name}.jsonl"
    path.write_bytes(b"\n".join(readings()))
    made = started(str(path)).ruleset
    assert name not in {rule.name for rule in made.rules}


ODD = [
    "\x1b[31m",
    "a\nb",
    "a\r- z: 1",
    "\x7f",
    "\x85",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\U000e0001",
    "${a} {b} %s",
    "é" * 400,
]


def is_plain(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


@settings(max_examples=8)
@given(st.sampled_from(ODD), st.sampled_from(ODD), st.sampled_from(ODD), st.booleans())
def test_odd_names_and_values_are_escaped_on_the_screen_and_in_the_rule_file(
    tmp_path_factory, name, value, other, in_log
):
    folder = tmp_path_factory.mktemp("odd")
    values = readings(**{name: value, "state": other, name + "_id": value + other})
    values += readings(**{name: 7, "state": "b"})
    path = folder / "events.jsonl"
    path.write_bytes(b"\n".join(values))
    if in_log:
        path = folder / "log.jsonl"
        write_log(
            path,
            [ConsumedRecord("x", 0, n, START_S * 1000, value.encode(), each) for n, each in enumerate(values)],
            partitions=1,
        )
    starter = started(str(path))
    assert is_plain(starter.text)
    assert len(max(starter.text.splitlines(), key=len)) < 1500
    (stream,) = load_rules(starter.text).streams
    assert name in stream.fields
    done = run("inspect", str(path), "--write", str(folder / "x.yaml"))
    assert is_plain(done.stdout)
    assert is_plain(done.stderr)
    assert len(done.stdout) < 8000


@pytest.mark.parametrize("length", [1015, 1024, 5000])
@pytest.mark.parametrize("role", ["number", "text", "key", "time", "id", "nested"])
def test_a_very_long_name_of_a_field_gives_a_rule_file(tmp_path, length, role):
    name = "y" * length
    bodies = [orjson.loads(each) for each in readings()]
    for number, body in enumerate(bodies):
        if role == "key":
            body[name + "_device"] = body.pop("user")
        elif role == "time":
            body[name + "_time"] = body.pop("timestamp")
        elif role == "id":
            body[name + "_id"] = f"event {number}"
        else:
            body[name] = {"number": number, "text": "ab"[number % 2], "nested": {name: number}}[role]
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, bodies)))
    starter = started(str(path))
    assert max(len(rule.name) for rule in starter.ruleset.rules) < 130
    assert len(run("inspect", str(path)).stdout) < 4000


def test_a_line_for_the_user_moves_no_cursor(capsys):
    say("a\x1b[2J \u202e b\nc\td")
    assert capsys.readouterr().err == "a\\x1b[2J \\u202e b\nc\td\n"
    assert short("\x1b" * 100, 12) == "\\x1b\\x1b\\..."


def test_messages_that_are_json_arrays_are_called_that(tmp_path):
    values = [b"[" + each + b"," + each + b"]" for each in readings()]
    path = log_of(tmp_path, ["x"], values)
    done = run("inspect", path)
    shown = " ".join(done.stdout.split())
    assert done.exit_code == 1
    assert "CSV" not in shown
    assert "the messages are JSON arrays; give each event a message or line of its own" in shown
    assert "refused 30 (decode), such as x[0]@0: expected a JSON object, got a JSON array of 2" in shown
    with pytest.raises(NothingFound, match="the messages are JSON arrays"):
        run("inspect", path, "--write", str(tmp_path / "x.yaml"))


@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_that_is_one_json_array_says_so_and_what_to_do(tmp_path, indent):
    path = tmp_path / "events.json"
    path.write_text(json.dumps([orjson.loads(each) for each in readings()], indent=indent))
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [{name: every, by: null, seq: [{as: a, stream: events}]}]")
    for command in (["inspect", str(path)], ["match", str(rules), str(path)]):
        with pytest.raises(
            InvalidLog, match=r"events\.json: it holds a JSON array; expected one JSON object a line, such as 'jq"
        ):
            run(*command)


def test_a_file_of_one_object_over_several_lines_says_what_to_do(tmp_path):
    path = tmp_path / "event.json"
    path.write_text(json.dumps(orjson.loads(readings()[0]), indent=2))
    with pytest.raises(
        InvalidLog, match=r"it holds JSON objects over several lines, .*; expected one JSON object a line"
    ):
        run("inspect", str(path))


@pytest.mark.parametrize(("delimiter", "written"), [(";", '";"'), ("\t", r'"\t"'), ("|", '"|"')])
def test_match_says_which_delimiter_a_file_of_csv_has_and_what_to_write(tmp_path, delimiter, written):
    path, rules = tmp_path / "rooms.csv", tmp_path / "rules.yaml"
    lines = ["at,user,v", *(f"{START_S + n},u{n % 3},{n}" for n in range(20))]
    path.write_text("\n".join(lines).replace(",", delimiter))
    text = (
        "streams: [{{name: rooms, key: user, time: {{field: at, unit: s}}{} }}]\n"
        "rules: [{{name: every, seq: [{{as: a, stream: rooms}}]}}]\n"
    )
    rules.write_text(text.format(""))
    said = " ".join(run("match", str(rules), str(path)).stderr.split())
    assert f"its delimiter looks like {delimiter!r}; write decoder: {{name: csv, delimiter: {written}}}" in said
    rules.write_text(text.format(f", decoder: {{name: csv, delimiter: {written}}}"))
    result = run("match", str(rules), str(path))
    assert "delimiter" not in result.stderr
    assert "20 multi events" in result.stderr


HEADS = [
    ("2025-09-28T10:30:00Z,u0,a", True),
    ("u0,5.25,a", True),
    ("u0,1,a", True),
    ("1759055400,u0,1", True),
    ("time,user,v", False),
    ("country,2019,2020", False),
    (",0,1", False),
    ("x,nan,inf", False),
]


@pytest.mark.parametrize(("head", "is_data"), HEADS)
def test_a_first_line_of_csv_that_looks_like_data_is_said(tmp_path, head, is_data):
    path = tmp_path / "rooms.csv"
    path.write_text(head + "\n" + "".join(f"2025-09-28T10:30:{n:02}Z,u{n % 3},{n}\n" for n in range(20)))
    rules = tmp_path / "rules.yaml"
    first = json.dumps(head.partition(",")[0] or "x")
    rules.write_text(
        f"streams: [{{name: rooms, time: {first}}}]\n"
        "rules: [{name: every, by: null, seq: [{as: a, stream: rooms}]}]\n"
    )
    said = " ".join(run("inspect", str(path)).stdout.split())
    assert ("looks like data; it is taken as the names of the columns" in said) == is_data
    assert ("put a line of names before it" in run("match", str(rules), str(path)).stderr) == is_data


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_columns_of_one_name_are_said_by_inspect_and_match(tmp_path, delimiter):
    path = tmp_path / "rooms.csv"
    rows = ["time,user,v,v", *(f"2025-09-28T10:30:{n:02}Z,u{n % 3},{n},9" for n in range(20))]
    path.write_text("\n".join(rows).replace(",", delimiter))
    rules = tmp_path / "rooms.yaml"
    done = run("inspect", str(path), "--write", str(rules))
    said = f"{path}: 2 columns are called 'v', of which only the last one is used; give each a name of its own"
    assert said in " ".join(done.stdout.split())
    assert said in " ".join(rules.read_text().split())
    assert said in run("match", str(rules), str(path)).stderr
    assert said in " ".join(run("inspect", str(path), "--rules", str(rules)).stdout.split())
    assert said in json.loads(run("inspect", str(path), "--json").stdout)["reports"][0]["hints"]


def test_columns_of_one_name_in_parquet_are_refused(tmp_path):
    path = tmp_path / "rooms.parquet"
    pq.write_table(pa.table([pa.array([START_S]), pa.array([1]), pa.array([2])], names=["timestamp", "v", "v"]), path)
    with pytest.raises(
        InvalidLog, match=r"rooms\.parquet: several columns are called 'v'; give each a name of its own"
    ):
        run("inspect", str(path))


def events_of(folder, *events: dict) -> str:
    path = folder / "events.jsonl"
    path.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in events))
    return str(path)


@pytest.mark.parametrize(
    "streams",
    [
        ("a b",),
        ("a b", "good"),
        ("a b", "a:b", "a_b"),
        ("ü", "good"),
        ("a" * 300, "good"),
        ("\0", "a\nb"),
        ("", "good"),
    ],
)
def test_streams_whose_names_are_no_topics_get_one_each_and_the_rules_match(tmp_path, streams):
    rows = [{"timestamp": START_S + n, "key": "k", "v": n} for n in range(12)]
    path = events_of(tmp_path, *({"stream": stream, **row} for row in rows for stream in streams))
    assert run("inspect", path).exit_code == 0
    made = started(path)
    assert len({each.topic or each.name for each in made.ruleset.streams}) == len(streams)
    assert len(made.matches) == len(streams)


def test_a_stream_that_no_topic_can_be_called_after_has_a_rule_file_also_without_a_key(tmp_path):
    assert started(events_of(tmp_path, *({"ts": START_S + n, "stream": "été", "v": n} for n in range(9)))).matches


@pytest.mark.parametrize("row", [{"": 1}, {"": "a", "v": 1}, {"o": {"": "a"}, "v": 1}, {"o": {"": {"b": 1}}}])
def test_a_member_without_a_name_is_left_out_of_the_rule_file_which_says_so(tmp_path, row):
    rows = [{**row, "ts": START_S + n, "id": f"x{n}", "k": "ab"[n % 2]} for n in range(12)]
    text = started(events_of(tmp_path, *rows)).text
    assert ("whose name is empty" in text) == ("" in row)


@pytest.mark.parametrize("name", [" ", "\u00a0", "\t "])
def test_a_member_with_a_blank_name_is_left_out_with_a_note(tmp_path, name):
    rows = [{"ts": START_S + n, name: "ab"[n % 2], "o": {name: n}, "v": n} for n in range(12)]
    path = events_of(tmp_path, *rows)
    note = f"the member whose name is blank ({name!a}) is left out: nothing can declare or read it"
    assert note in started(path).text
    assert note.replace("\\", "") in " ".join(run("inspect", path).output.replace("\\", "").split())


def test_a_blank_name_in_the_header_of_csv_is_left_out(tmp_path):
    path = tmp_path / "blank.csv"
    path.write_text("ts,sensor, ,v\n" + "".join(f"{START_S + n},{'ab'[n % 2]},x,{n}\n" for n in range(9)))
    (stream,) = started(str(path)).ruleset.streams
    assert list(stream.fields) == ["ts", "sensor", "v"]


@pytest.mark.parametrize("name", ["a`b_id", "a\nb_id"])
def test_a_member_that_no_expression_can_write_is_no_key_and_a_note_says_so(tmp_path, name):
    rows = [{"ts": START_S + n, name: f"x{n % 3}", "v": n} for n in range(12)]
    path = events_of(tmp_path, *rows)
    (stream,) = started(path).ruleset.streams
    assert stream.key.field == "key"
    assert "left out as keys: a" in run("inspect", path).output


def lines_of(path, rows: list[dict[str, object]]) -> str:
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return str(path)


def test_numbers_that_are_hardly_times_are_named_with_their_reading(tmp_path):
    path = lines_of(tmp_path / "years.jsonl", [{"timestamp": year, "v": 1} for year in (2025, 2025, 2026)])
    said = " ".join(run("inspect", path).output.split())
    reading = "3 events have a number in timestamp that is hardly a time, such as 2025, read in s since 1970 as "
    assert f"problems {reading}1970-01-01T00:33:45Z: declare which member is the time" in said
    rules = tmp_path / "mine.yaml"
    rules.write_text("rules: [{name: r, seq: [{as: a, stream: A}]}]")
    with_rules = " ".join(run("inspect", path, "--rules", str(rules)).output.split())
    assert "3 events of A have a number in 'timestamp' that is hardly a time" in with_rules
    spelt = lines_of(tmp_path / "text.jsonl", [{"timestamp": f"1970-01-01T00:33:4{n}Z", "v": 1} for n in range(3)])
    assert "problems" not in run("inspect", spelt).output


def test_a_member_of_these_days_is_proposed_before_a_number_that_is_hardly_a_time(tmp_path):
    rows = [{"timestamp": n, "created_at": f"2025-01-01T00:00:0{n}Z"} for n in range(5)]
    said = " ".join(run("inspect", lines_of(tmp_path / "rows.jsonl", rows)).output.split())
    assert "time created_at, ISO 8601 text 2025-01-01T00:00:00Z to" in said
    assert (
        "declare time: created_at, else timestamp is, such as 0, read in s since 1970 as 1970-01-01T00:00:00Z" in said
    )
    assert "problems" not in said


def test_ticks_of_other_epochs_and_empty_keys_are_named(tmp_path):
    ticks = lines_of(tmp_path / "ticks.jsonl", [{"timestamp": 638_999_999_990_000_000 + n, "v": n} for n in range(3)])
    said = " ".join(run("inspect", ticks).output.split())
    assert "such as 638999999990000000, read in ns since 1970 as 1990-" in said
    rows = [{"timestamp": START_S + n, "key": "" if n % 3 else "pump", "v": n} for n in range(9)]
    said = " ".join(run("inspect", lines_of(tmp_path / "keys.jsonl", rows)).output.split())
    assert "problems 6 events have an empty key, which is a key like any other" in said


def test_numbers_of_several_units_are_named_and_no_unit_is_declared(tmp_path):
    factors = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
    lines = [
        orjson.dumps({"timestamp": (START_S + 4 * n + at) * factor, "v": n, "user": f"u{n % 3}"})
        for n in range(5)
        for at, factor in enumerate(factors.values())
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(b"\n".join([*lines, orjson.dumps({"timestamp": 2024, "v": 1, "user": "u1"})]))
    shown = run("inspect", str(path)).output
    words = " ".join(shown.split())
    assert "timestamp, numbers in s, ms, us, ns" in words
    assert "several units (s 5, ms 5, us 5, ns 5 of those studied)" in words
    assert "1 of 21 values of timestamp studied is no time of these days, such as 2024" in words
    assert "refused none" in words
    assert "time:" not in started(str(path)).text


@pytest.mark.parametrize(
    "topic",
    ["alerts", "multi.events", "late", "control.clock", "control.stats", "state.rules", "metrics.w", "keyed.a.S"],
)
def test_a_topic_that_the_pipeline_writes_is_named_as_such(topic):
    records = [ConsumedRecord(topic, 0, n, START_S * 1000 + n, b"k", value) for n, value in enumerate(readings())]
    sample = Sample(topic, "topic", broker="localhost:9092", known=(topic,))
    sample.records[TopicPartition(topic, 0)] = records
    with pytest.raises(NothingFound, match=rf"^topic {topic} on localhost:9092: written by Astrocyte itself"):
        inspect(Request(topic, Settings()), sample)
