"""The rule file to begin with: it is valid, reads every event that can be read, and matches; and the command."""

from __future__ import annotations

import csv
import io
import json
import random
import sys
from datetime import UTC, datetime, timedelta

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.inspect.report import NothingFound
from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
from astrocyte.pipeline.analysis.inspect.starting.starter import make_starter
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.cli.app import app, main
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog, record_line
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.errors import InvalidSettings
from tests.support.logs import write_log

START = datetime(2025, 9, 28, 10, 30, tzinfo=UTC)
START_S = int(START.timestamp())


def run(*arguments: str, stdin: bytes | None = None):
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def ended(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of the command as a process has them."""
    monkeypatch.setattr("sys.argv", ["astrocyte", *arguments])
    monkeypatch.setattr("sys.path", list(sys.path))
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out, said.err


def clicks(users: int = 20) -> list[dict]:
    """Clicks of users, now and then some seconds out of order, with the time and the user inside objects."""
    draw = random.Random(7)
    found = []
    for user in range(users):
        at = draw.random() * 1000
        for _ in range(draw.randint(4, 12)):
            at += draw.expovariate(1 / 20)
            page = draw.choice(["home", "search", "product", "product", "cart", "checkout"])
            found.append((at, {"user": {"id": f"u{user}", "plan": "free"}, "page": page, "ms": draw.randint(5, 900)}))
    found.sort(key=lambda each: each[0] + draw.choice([0, 0, 0, 6 * draw.random()]))
    return [
        {"id": f"click-{number}", "created_at": (START + timedelta(seconds=at)).isoformat(), **body}
        for number, (at, body) in enumerate(found)
    ]


def sensor_rows() -> list[list[object]]:
    """Readings, some of which are text."""
    draw = random.Random(8)
    rows = []
    for number in range(400):
        value = draw.choice(["n/a", "ERR"]) if number % 40 == 7 else round(20 + draw.gauss(0, 3), 2)
        rows.append([(START_S + number) * 1000, f"s{number % 5}", value, "fault" if number % 33 == 5 else "ok", "007"])
    return rows


def write_csv(path, rows, delimiter: str = ",") -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["ts", "sensor", "temp", "state", "floor"])
    writer.writerows(rows)
    path.write_text(text.getvalue())


def matched(rules: str, *paths: str) -> int:
    return len(run("match", rules, *paths).stdout.splitlines())


def test_a_clickstream_goes_from_inspect_to_its_first_alert(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.jsonl").write_bytes(b"\n".join(map(orjson.dumps, clicks())))
    done = run("inspect", "clicks.jsonl", "--write", "clicks.yaml")
    assert done.exit_code == 0
    (stream,) = yaml.safe_load((tmp_path / "clicks.yaml").read_text())["streams"]
    assert stream["time"] == "created_at"
    assert stream["key"] == {"field": "user_id", "path": "user.id"}
    assert stream["id"] == "id"
    assert stream["fields"]["ms"] == "int64"
    assert stream["fields"]["user_plan"] == {"path": "user.plan", "type": "string"}
    command = next(line for line in done.stderr.splitlines() if "astrocyte match" in line)
    assert "--lateness 5s" in command
    found = run(*command.split()[1:])
    assert found.stdout.count("\n") == sum(map(int, _counts(done.stderr)))
    assert "0 late, 0 refused" in found.stderr
    assert run("match", "clicks.yaml", "clicks.jsonl", "--alerts").stdout != ""


def _counts(text: str) -> list[str]:
    line = next(line for line in text.splitlines() if "rules match" in line)
    return [part.split()[-1] for part in line.partition("match: ")[2].partition(". ")[0].split(", ")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_sensor_file_with_text_among_numbers_goes_from_inspect_to_its_first_alert(tmp_path, monkeypatch, delimiter):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "sensors.csv", sensor_rows(), delimiter)
    done = run("inspect", "sensors.csv", "--write", "sensors.yaml")
    assert "mixed   -      number 390, text 10" in done.stdout
    (stream,) = yaml.safe_load((tmp_path / "sensors.yaml").read_text())["streams"]
    assert stream["time"] == {"field": "ts", "unit": "ms"}
    assert stream["key"] == "sensor"
    assert stream["fields"]["temp"] == {}
    assert stream["fields"]["floor"] == "string"
    assert matched("sensors.yaml", "sensors.csv") == sum(map(int, _counts(done.stderr)))
    again = run("inspect", "sensors.csv", "--rules", "sensors.yaml")
    assert "3 rules, fit" in again.stdout


def test_where_no_suggested_rule_matches_the_file_says_how_often_its_only_rule_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The events with the highest scores have no key, so the rule over them matches nothing.
    events = [
        {"timestamp": START_S + n, "user_id": None if n in (70, 140) else f"u{n % 20}", "score": n % 10}
        for n in range(200)
    ]
    events[70]["score"] = events[140]["score"] = 1000
    (tmp_path / "scores.jsonl").write_bytes(b"\n".join(map(orjson.dumps, events)))
    done = run("inspect", "scores.jsonl", "--write", "scores.yaml")
    assert "rules match: every_event 200." in done.stderr
    assert "On the sample: 200 matches" in (tmp_path / "scores.yaml").read_text()


def test_a_parquet_file_is_inspected_and_matched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    times = pa.array([START + timedelta(seconds=number) for number in range(60)], pa.timestamp("ns", "UTC"))
    columns = {"measured_at": times, "device": [f"d{n % 3}" for n in range(60)], "value": [n / 4 for n in range(60)]}
    pq.write_table(pa.table(columns), tmp_path / "values.parquet")
    done = run("inspect", "values.parquet", "--write", "values.yaml")
    assert done.exit_code == 0
    assert matched("values.yaml", "values.parquet") == sum(map(int, _counts(done.stderr)))


def test_a_file_is_never_replaced_unless_that_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.jsonl").write_bytes(b"\n".join(map(orjson.dumps, clicks())))
    rules = tmp_path / "clicks.yaml"
    rules.write_text("mine")
    with pytest.raises(InvalidSettings, match="the file exists; --force replaces it"):
        run("inspect", "clicks.jsonl", "--write", "clicks.yaml")
    assert rules.read_text() == "mine"
    run("inspect", "clicks.jsonl", "--write", "clicks.yaml", "--force")
    assert load_rules(rules).rules


def test_a_rule_file_is_written_only_under_a_name_that_rules_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.jsonl").write_bytes(b"\n".join(map(orjson.dumps, clicks())))
    with pytest.raises(InvalidSettings, match=r"a rule file ends in \.yaml or \.yml"):
        run("inspect", "clicks.jsonl", "--write", "clicks.jsonl")


def test_a_file_without_a_time_says_what_is_missing_and_ends_with_a_failure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(orjson.dumps({"room": "attic", "value": n}) for n in range(9)))
    done = run("inspect", "x.jsonl")
    assert done.exit_code == 1
    assert "no member is a time that can be read" in " ".join(done.stdout.split())


def test_where_nothing_can_be_written_the_inspection_is_shown_and_then_why(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [{"when": f"28/Sep/2025:10:30:{n:02} +0200", "room": "attic", "value": n} for n in range(9)]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    plain = ended(monkeypatch, capsys, "inspect", "x.jsonl")
    status, shown, why = ended(monkeypatch, capsys, "inspect", "x.jsonl", "--write", "x.yaml")
    assert "when looks like a time but is not ISO 8601" in shown
    assert (status, shown) == plain[:2] == (1, shown)
    assert why.startswith("astrocyte: no rule file can be written: no member is a time")
    assert not (tmp_path / "x.yaml").exists()


def test_a_file_that_cannot_be_written_hides_no_inspection(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.jsonl").write_bytes(b"\n".join(map(orjson.dumps, clicks())))
    status, shown, why = ended(monkeypatch, capsys, "inspect", "clicks.jsonl", "--write", "nowhere/x.yaml", "--json")
    assert (orjson.loads(shown)["name"], status) == ("clicks.jsonl", 1)
    assert "nowhere/x.yaml cannot be written" in why


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_file_without_events_is_an_error(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(NothingFound, match=r"x\.jsonl: no events"):
        run("inspect", "x.jsonl")


def test_a_file_of_another_form_says_which_forms_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "values.txt").write_text("a;b\n1;2\n")
    with pytest.raises(
        InvalidLog, match=r"values\.txt, .*; expected a recorded log .* or CSV whose name ends in \.csv"
    ):
        run("inspect", "values.txt")


def test_messages_that_are_no_events_are_shown_and_end_with_a_failure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = [ConsumedRecord("notes", 0, n, START_S * 1000, None, b"hello %d" % n) for n in range(9)]
    write_log(tmp_path / "notes.jsonl", records, partitions=1)
    done = run("inspect", "notes.jsonl")
    assert done.exit_code == 1
    assert "form        unreadable; 1 partition" in done.stdout
    assert "refused     9 (decode), such as notes[0]@0: not JSON in UTF-8" in done.stdout


def test_standard_input_that_is_longer_than_the_limit_is_a_part(tmp_path):
    lines = [orjson.dumps({"timestamp": START_S + n, "key": "k"}) for n in range(30)]
    done = run("inspect", "-", "--json", "--limit", "20", stdin=b"\n".join(lines))
    body = json.loads(done.stdout)
    assert (body["complete"], body["reports"][0]["events"]) == (False, 20)


def test_a_file_that_is_not_there_is_named_with_the_nearest_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.jsonl").write_bytes(b"{}")
    with pytest.raises(InvalidSettings, match=r"no file 'click\.jsonl'; did you mean 'clicks\.jsonl'\?"):
        run("inspect", "click.jsonl")


def test_standard_input_holds_json_lines_or_the_output_of_kcat(tmp_path, monkeypatch):
    lines = [orjson.dumps({"timestamp": START_S + n, "key": "k", "value": n}) for n in range(30)]
    done = run("inspect", "-", "--json", "--stream", "visits", stdin=b"\n".join(lines))
    (report,) = json.loads(done.stdout)["reports"]
    assert (report["stream"], report["events"]) == ("visits", 30)
    records = [ConsumedRecord("shop.visits", n % 2, n // 2, START_S * 1000 + n, b"k", lines[n]) for n in range(30)]
    done = run("inspect", "-", "--json", stdin=b"".join(record_line(record, b64=False) for record in records))
    (report,) = json.loads(done.stdout)["reports"]
    assert (report["topic"], report["events"], report["partitions"]) == ("shop.visits", 30, {"0": 15, "1": 15})


def test_events_that_name_their_streams_are_reported_by_stream(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bodies = [
        {"timestamp": START_S + n, "key": f"k{n % 3}", "stream": ("temperature", "pressure")[n % 2], "value": n}
        for n in range(60)
    ]
    (tmp_path / "all.jsonl").write_bytes(b"\n".join(map(orjson.dumps, bodies)))
    done = run("inspect", "all.jsonl", "--json", "--write", "all.yaml")
    assert [report["stream"] for report in json.loads(done.stdout)["reports"]] == ["pressure", "temperature"]
    assert matched("all.yaml", "all.jsonl") > 0


def test_the_report_for_programs_has_the_figures_of_the_screen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "sensors.csv", sensor_rows())
    body = json.loads(run("inspect", "sensors.csv", "--json").stdout)
    (report,) = body["reports"]
    assert (body["complete"], report["form"], report["events"]) == (True, "csv", 400)
    assert report["key"] == {
        "field": "sensor",
        "distinct": 5,
        "without": 0,
        "heaviest": {"key": "s0", "share": 0.2},
        "in_several_partitions": 0,
    }
    assert report["time"]["first"] == "2025-09-28T10:30:00Z"
    temp = next(each for each in report["fields"] if each["name"] == "temp")
    assert temp["kinds"] == {"number": 390, "text": 10}


def test_rules_and_a_new_file_are_not_asked_for_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidSettings, match="give one of them"):
        run("inspect", "x.jsonl", "--rules", "axons", "--write", "x.yaml")


PLAIN_NAMES = [
    "value",
    "on",
    "null",
    "type",
    "key",
    "event_id",
    "seq",
    "and",
    "count",
    "timestamp_",
    "metadata",
    "stream",
]
ODD_NAMES = ["a b", "a.b", "user-agent", "x`y", "größe", "1st", "it's", 'it\'s "x"', "#tag", "{x}", "back\\slash"]
NAMES = st.sampled_from(PLAIN_NAMES + ODD_NAMES)
STRINGS = ["a", "b's", 'c"', "{d}", "2025-01-01", "12", "", "\\", "# no comment", "é"]
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.integers(2**53, 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(STRINGS)
    | st.lists(st.integers(0, 3), max_size=2)
    | st.dictionaries(st.sampled_from(["p", "q r", "id"]), st.integers(0, 3), max_size=2)
)


@settings(max_examples=30)
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=5), min_size=1, max_size=30), st.booleans())
def test_a_starter_for_any_events_is_valid_reads_them_all_and_matches(tmp_path_factory, bodies, in_topic):
    folder = tmp_path_factory.mktemp("starter")
    lines = [orjson.dumps({**body, "occurred": START_S + number}) for number, body in enumerate(bodies)]
    if in_topic:
        records = [
            ConsumedRecord("a.b", 0, n, START_S * 1000 + n, b"k%d" % (n % 2), line) for n, line in enumerate(lines)
        ]
        path = str(write_log(folder / "events.jsonl", records, partitions=1))
    else:
        path = str(folder / "events.jsonl")
        (folder / "events.jsonl").write_bytes(b"\n".join(lines))
    request = Request(path, Settings())
    sample = take_sample(request)
    found = inspect(request, sample)
    assume(any(report.reading.events for report in found.reports))
    refused = sum(each.count for report in found.reports for each in report.refused)
    starter = make_starter(request, sample, found, path="x.yaml")
    made, outputs = run_rules(load_rules(starter.text), [path], lateness_us=found.recommended_us)
    matches = sum(len(output.multi_events) for output in outputs)
    assert matches == sum(starter.matches.values()) > 0
    assert made.counters.dead == refused
