"""Files of events: a line or row that cannot be read is refused alone, wherever in the file it stands."""

import base64
import gzip

import orjson
import pytest
from typer.testing import CliRunner

from astrocyte import load_rules, match
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.recording.event_files import form_of
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.reader import read_log

RULES = "rules: [{name: r, by: null, seq: [{as: a, stream: S}], emit: {i: a.i}}]"
TWO = RULES[:-1] + ", {name: q, by: null, seq: [{as: a, stream: T}]}]"
BOM = b"\xef\xbb\xbf"
DEEP = b'{"timestamp":"2025-09-28T10:30:00Z","d":' + b"[" * 2000 + b"]" * 2000 + b"}"
UNWRITABLE = b'{"timestamp":"2025-09-28T10:30:00Z","d":' + b"[" * 900 + b"]" * 900 + b"}"


def line(number: int, **more: object) -> bytes:
    return orjson.dumps({"timestamp": f"2025-09-28T10:30:0{number}Z", "i": number, **more})


def matched(tmp_path, name: str, data: bytes, rules: str = RULES):
    """Emitted values of `match`, and the dead letters as (offset, reason, payload)."""
    (tmp_path / "rules.yaml").write_text(rules)
    (tmp_path / name).write_bytes(data)
    files = [str(tmp_path / "rules.yaml"), str(tmp_path / name)]
    done = CliRunner().invoke(app, ["match", *files, "--rejects", str(tmp_path / "rejects")])
    assert done.exit_code == 0, done.output
    assert "Traceback" not in done.output
    matches = [orjson.loads(each) for each in done.stdout.splitlines() if each.startswith("{")]
    emitted = [match.get("metadata", {}).get("i") for match in matches]
    rejects = [orjson.loads(each) for each in (tmp_path / "rejects").read_bytes().splitlines()]
    return emitted, [(each["topic"], each["offset"], each["reason"], each.get("payload_b64")) for each in rejects]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("bad", [
    b'{"i":"\\ud800"}', b"garbage", b'{"i":', b"7", b"[1]", b"\xff\xfe", b"\0" * 5, b"\xff\xfe\0", DEEP, UNWRITABLE,
])  # fmt: skip
def test_a_bad_line_is_one_dead_letter_wherever_it_stands(tmp_path, bad, place):
    lines = [line(1), line(2)]
    lines.insert(place, bad)
    emitted, refused = matched(tmp_path, "S.jsonl", b"\n".join(lines) + b"\n")
    assert emitted == [1, 2]
    assert [(topic, offset) for topic, offset, _, _ in refused] == [("mono.S", place)]
    assert "failed" not in refused[0][2]


@pytest.mark.parametrize("first", [True, False])
def test_a_bad_line_of_a_file_that_names_its_streams_is_refused_in_that_of_a_neighbour(tmp_path, first):
    lines = [line(1, stream="T"), line(2, stream="S")]
    lines.insert(0 if first else 1, b"garbage")
    emitted, refused = matched(tmp_path, "both.jsonl", b"\n".join(lines), TWO)
    assert len(emitted) == 2
    assert [(topic, offset) for topic, offset, _, _ in refused] == [("mono.T", 0 if first else 1)]


def test_the_form_is_that_of_the_first_object_and_a_file_without_one_is_no_file_of_events(tmp_path):
    record = b'{"topic":"mono.S","partition":0,"offset":0,"ts":1,"key":null,"payload":"{}"}\n'
    for data, form in (
        (b"garbage\n" + line(1), "json"), (b"garbage\n" + record, "log"), (b"\n\n" + line(1), "json"),
        (b"garbage\n", "log"), (b"", "log"), (b"[\n" + line(1) + b"\n]\n", "log"), (BOM + record, "log"),
        (BOM + line(1), "json"), (gzip.compress(BOM + line(1)), "json"),
    ):  # fmt: skip
        (tmp_path / "file").write_bytes(data)
        assert form_of(tmp_path / "file") == form, data


@pytest.mark.parametrize("data", [line(1).decode().encode("utf-16"), b"SQLite format 3\0\n" * 2000, b"\0" * 5000])
def test_a_file_without_a_line_that_can_be_read_is_said_to_be_binary(tmp_path, data):
    (tmp_path / "file.jsonl").write_bytes(data)
    with pytest.raises(InvalidLog, match="other binary data"):
        list(read_log(tmp_path / "file.jsonl"))


def test_a_byte_order_mark_is_no_part_of_an_event_or_a_log(tmp_path):
    assert matched(tmp_path, "S.jsonl", BOM + line(1) + b"\n" + line(2)) == ([1, 2], [])
    assert matched(tmp_path, "S.csv", BOM + b"i,timestamp\n1,2025-09-28T10:30:00Z\n") == ([1], [])
    log = tmp_path / "log.jsonl"
    log.write_bytes(BOM + b'{"topic":"mono.S","partition":0,"offset":0,"ts":1,"key":null,"payload":"{}"}\n')
    assert [record.offset for record in read_log(log)] == [0]


HEADER = b"timestamp,i\n"
GOOD = b"2025-09-28T10:30:01Z,1\n", b"2025-09-28T10:30:02Z,2\n"


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"2025-09-28T10:30:01Z", "has 1 values; expected 2: timestamp, i"),
        (b"2025-09-28T10:30:01Z,1,2", "has 3 values"),
        (b'2025-09-28T10:30:01Z,"x"y', "',' expected after '\"'"),
        (b'2025-09-28T10:30:01Z,"x', "a quotation mark is not closed"),
        (b"2025-09-28T10:30:01Z,\xe9", "not text in UTF-8"),
        (b'{"a":1}', "has 1 values"),
        (b"\0" * 5, "has 1 values"),
    ],
)
def test_a_bad_row_of_csv_is_one_dead_letter_with_its_line(tmp_path, bad, reason, place):
    lines = list(GOOD)
    lines.insert(place, bad + b"\n")
    emitted, refused = matched(tmp_path, "S.csv", HEADER + b"".join(lines))
    assert emitted == [1, 2]
    ((topic, offset, said, payload),) = refused
    assert (topic, offset) == ("mono.S", place)
    assert said.startswith(f"line {place + 2}")
    assert reason in said
    assert payload is None or base64.b64decode(payload) == bad


def test_a_value_of_csv_over_several_lines_is_one_value_and_the_lines_after_it_keep_their_numbers(tmp_path):
    data = b'timestamp,i\r\n2025-09-28T10:30:01Z,"a\r\nb"\r\n\r\n2025-09-28T10:30:02Z\r\n'
    emitted, refused = matched(tmp_path, "S.csv", data)
    assert emitted == ["a\r\nb"]
    assert [reason for _, _, reason, _ in refused] == ["line 5 has 1 values; expected 2: timestamp, i"]


ONE_STREAM = 'rules: [{name: r, by: null, seq: [{as: a, stream: temperature, where: "i > 3"}], emit: {i: a.i}}]'


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize(("member", "prefix"), [("stream", ""), ("source_stream", "stream:"), ("source_stream", "")])
def test_an_event_belongs_to_the_stream_that_it_names_also_where_the_rules_read_only_one(
    tmp_path, form, member, prefix
):
    named = [
        {"timestamp": "2025-09-28T10:30:00Z", "i": 4, member: f"{prefix}temperature"},
        {"timestamp": "2025-09-28T10:30:01Z", "i": 5, member: f"{prefix}humidity"},
        {"timestamp": "2025-09-28T10:30:02Z", "i": 6, member: None},
    ]
    if form == "jsonl":
        data = b"\n".join(map(orjson.dumps, named))
    else:
        rows = [list(named[0]), *([value or "" for value in each.values()] for each in named)]
        data = "\n".join(",".join(map(str, row)) for row in rows).encode()
    emitted, refused = matched(tmp_path, f"events.{form}", data, ONE_STREAM)
    assert (emitted, refused) == ([4, 6], [])
    assert [found.emit["i"] for found in match(load_rules(ONE_STREAM), named)] == [4, 6]
    done = CliRunner().invoke(app, ["match", str(tmp_path / "rules.yaml"), str(tmp_path / f"events.{form}")])
    assert "no rule reads the topics mono.humidity (1)" in done.stderr
