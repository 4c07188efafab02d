"""Rules over recorded logs without a broker: the matches of the pipeline, back-tests, verification and scores."""

from __future__ import annotations

import json
import random

import numpy as np
import orjson
import pytest
import typer
from typer.testing import CliRunner

from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.yaml import load_rules
from astrocyte.pipeline.analysis.backtest import Made, backtest, compare, verify
from astrocyte.pipeline.analysis.inputs import survey
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.analysis.score import Planted, planted_in, score, score_matches
from astrocyte.pipeline.cli import log as cli_log
from astrocyte.pipeline.cli import rules as cli_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.recording.shift import repartition
from astrocyte.schemas.errors import InvalidRule, InvalidSettings
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import ALERTS, CLOCK, MULTI_EVENTS
from tests.support.logs import T0_US, axon_frame, frame_messages, json_messages, write_log

app = typer.Typer()
cli_rules.register(app)
cli_log.register(app)

PAIR = """
rules:
  - name: pair
    by: key
    within: 2s
    all:
      - {as: a, stream: axon_1, where: "type == 'A'"}
      - {as: b, stream: axon_2, where: "type == 'B'"}
    emit: {integrated_value: "a.value + b.value"}
    alert: {severity: warning, message: "{a.value} and {b.value}"}
"""
STRICT = PAIR.replace("\"type == 'A'\"", "\"type == 'A' and value > 10\"")
SECOND = 1_000_000
LATENESS = SECOND


def spikes(steps: int = 12) -> list[Frame]:
    """Frames of axon_1 (A) and axon_2 (B), a second apart; in each, eight keys meet within 10 ms."""
    keys = [f"d{i}" for i in range(8)]
    frames = []
    for step in range(steps):
        times = [step * 3 * SECOND + i for i in range(8)]
        ahead = T0_US + times[-1] - 8
        later = [time + 10_000 for time in times]
        meta = {"seq": step * 8, "watermark_us": ahead, "origin": "sim", "peers": ("axon_1", "axon_2")}
        frames.append(axon_frame("axon_1", keys, times, types="A", **meta))
        frames.append(axon_frame("axon_2", keys, later, types="B", **meta))
    return frames


def in_frames(frames: list[Frame], partitions: int = 2) -> list[ConsumedRecord]:
    offsets: dict[tuple[str, int], int] = {}
    return [message for frame in frames for message in frame_messages(frame, partitions, offsets)]


def in_json(frames: list[Frame], partitions: int = 2) -> list[ConsumedRecord]:
    offsets: dict[tuple[str, int], int] = {}
    messages = []
    for frame in frames:
        for message in json_messages(frame):
            (placed,) = repartition(message, 1, partitions)
            place = (placed.topic, placed.partition)
            messages.append(placed._replace(offset=offsets.get(place, 0)))
            offsets[place] = offsets.get(place, 0) + 1
    return messages


def matches(ruleset: RuleSet, path, lateness_us: int = LATENESS) -> list[dict]:
    _, outputs = run_rules(ruleset, [path], lateness_us=lateness_us)
    return [orjson.loads(record.value) for output in outputs for record in output.multi_events]


@pytest.fixture(scope="module")
def pair():
    return load_rules(PAIR)


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path / "run.jsonl.zst", in_frames(spikes()))


def test_matches_have_the_shape_of_multi_events_and_lead_back_to_their_messages(pair, log):
    found = matches(pair, log)
    assert len(found) == 12 * 8
    first = found[0]
    assert first["event_type"] == "MULTI_ORIGINATED"
    assert first["correlation_rule"] == "pair"
    assert len(first["source_events"]) == 2
    assert first["lineage"].keys() == {"axon_1", "axon_2"}
    entry = first["lineage"]["axon_1"]
    assert (entry["topic"], entry["step"]) == ("mono.axon_1", "a")
    ids = {text for record in read_log(log) if (record.topic, record.partition, record.offset) ==
           ("mono.axon_1", entry["partition"], entry["offset"]) for text in _ids(record)}  # fmt: skip
    assert entry["event_id"] in ids


def _ids(record: ConsumedRecord) -> list[str]:
    from astrocyte.pipeline.recording.frames import frames_of

    return [text for *_, frame in frames_of([record]) for text in frame.id_strings()]


def test_ids_depend_neither_on_the_form_nor_on_the_partitions_nor_on_the_order(pair, tmp_path, log):
    expected = {match["event_id"] for match in matches(pair, log)}
    assert len(expected) == 96
    json_log = write_log(tmp_path / "json.jsonl.zst", in_json(spikes()))
    assert {match["event_id"] for match in matches(pair, json_log)} == expected
    five = write_log(tmp_path / "five.jsonl.zst", in_frames(spikes(), partitions=5), partitions=5)
    assert {match["event_id"] for match in matches(pair, five)} == expected
    records = in_json(spikes())
    numbers = random.Random(3)
    shuffled = sorted(records, key=lambda item: item.timestamp_ms + numbers.randrange(400))
    shuffled_log = write_log(tmp_path / "shuffled.jsonl", _with_offsets(shuffled))
    assert {match["event_id"] for match in matches(pair, shuffled_log)} == expected


def test_frames_that_a_replay_repartitions_give_the_same_ids(pair, log, tmp_path):
    divided = [part for record in read_log(log) for part in repartition(record, 2, 5)]
    path = write_log(tmp_path / "divided.jsonl.zst", _with_offsets(divided), partitions=5)
    run, outputs = run_rules(pair, [path], lateness_us=0)
    found = [orjson.loads(record.value)["event_id"] for output in outputs for record in output.multi_events]
    assert run.counters.late == 0
    assert sorted(found) == sorted(match["event_id"] for match in matches(pair, log))


def _with_offsets(records: list[ConsumedRecord]) -> list[ConsumedRecord]:
    offsets: dict[tuple[str, int], int] = {}
    placed = []
    for record in records:
        place = (record.topic, record.partition)
        placed.append(record._replace(offset=offsets.get(place, 0)))
        offsets[place] = offsets.get(place, 0) + 1
    return placed


def test_records_that_are_not_events_are_counted_and_the_others_are_matched(pair, tmp_path):
    records = in_json(spikes(2))
    bad = [
        ConsumedRecord("mono.axon_1", 0, 900 + n, 0, b"k", value)
        for n, value in enumerate((b"{", None, b"\xff\xff\xff\xff"))
    ]
    path = write_log(tmp_path / "a.jsonl", [*records[:4], *[item for item in records[4:] if item.topic != "x"], *bad])
    run, outputs = run_rules(pair, [path], lateness_us=LATENESS)
    assert sum(len(output.multi_events) for output in outputs) == 16
    assert run.counters.dead == 3
    assert run.counters.received == 32 + 3


def test_late_events_are_counted_and_not_matched(pair, tmp_path):
    records = in_json(
        [axon_frame("axon_1", ["k"], [0], types="A"), axon_frame("axon_2", ["k"], [60 * SECOND], types="B")], 1
    )
    late = in_json([axon_frame("axon_2", ["k"], [1000], types="B", seq=9)], 1)
    path = write_log(tmp_path / "a.jsonl", _with_offsets(records + late), partitions=1)
    run, outputs = run_rules(pair, [path], lateness_us=LATENESS)
    assert sum(len(output.multi_events) for output in outputs) == 0
    assert run.counters.late == 1


def test_a_topic_missing_from_the_log_does_not_delay_the_watermark(pair, tmp_path):
    path = write_log(tmp_path / "a.jsonl", in_frames([frame for frame in spikes() if frame.stream == "axon_1"]))
    run, outputs = run_rules(pair, [path], lateness_us=LATENESS)
    assert list(outputs) == []
    assert run.counters.processed == 96


def about_idleness(offset: int, positions: dict[str, int], **meta) -> ConsumedRecord:
    body = {"partition": 0, "idle": [], "until_us": None, "active": [], "asserting": False, "positions": positions}
    return ConsumedRecord(CLOCK, 0, offset, 0, b"0", orjson.dumps(body | meta))


def test_the_idleness_that_a_worker_recorded_is_repeated_with_its_end(pair, tmp_path):
    events = in_json(spikes(), partitions=1)
    topics = sorted({record.topic for record in events})
    first = dict.fromkeys(topics, 1)
    gone = about_idleness(0, first, idle=topics, until_us=T0_US + 3_600_000_000)
    path = write_log(tmp_path / "gone.jsonl", [*events, gone])
    run, outputs = run_rules(pair, [path], lateness_us=LATENESS)
    list(outputs)
    assert run.counters.late > 0, "event time went on for an hour while all was idle"
    back = about_idleness(1, {}, active=topics, restored=True)
    path = write_log(tmp_path / "back.jsonl", [*events, gone, back])
    run, outputs = run_rules(pair, [path], lateness_us=LATENESS)
    list(outputs)
    assert run.counters.late == 0, "the worker crashed after this and read again from the beginning"


def test_the_trust_of_a_worker_s_clock_is_repeated(pair, tmp_path):
    """Without the record, the event that is ahead waits and is contradicted by what follows it."""
    hour = 3600 * SECOND
    times = [("k", 0), ("j", 1), ("k", 3 * hour), ("j", 2), ("k", 3)]
    events = []
    for seq, (key, at) in enumerate(times):
        (message,) = in_json([axon_frame("axon_1", [key], [at], types="A", seq=seq)], 1)
        events.append(message._replace(offset=seq, timestamp_ms=(T0_US + at) // 1000))
    trusted = about_idleness(0, {"mono.axon_1": 3}, trusted_us=T0_US + 3 * hour)
    counts = []
    for name, records in (("without", events), ("with", [*events, trusted])):
        run, outputs = run_rules(pair, [write_log(tmp_path / f"{name}.jsonl", records)], lateness_us=LATENESS)
        list(outputs)
        counts.append((run.counters.processed, run.counters.dead, run.counters.late))
    assert counts == [(4, 1, 0), (3, 0, 2)]


def test_the_trust_of_a_repartition_role_s_clock_is_repeated(tmp_path):
    """The copy of an event that is ahead is matched where the role has accepted it, and refused without the record."""
    hour = 3600 * SECOND
    times = [("k", 0), ("j", 1), ("k", 3 * hour), ("j", 2), ("k", 3)]
    events = []
    for seq, (key, at) in enumerate(times):
        (message,) = in_json([axon_frame("axon_1", [key], [at], types="A", seq=seq)], 1)
        events.append(message._replace(offset=seq, timestamp_ms=(T0_US + at) // 1000))
    rules = load_rules(
        """
        streams: [{name: axon_1, key: key}]
        rules:
          - {name: near, by: type, within: 1s, all: [{as: a, stream: axon_1}, {as: b, stream: axon_1}]}
        """
    )
    copy, source = "keyed.type.axon_1", {"mono.axon_1": 3}
    trusted = [
        about_idleness(0, {"mono.axon_1": 3}, trusted_us=T0_US + 3 * hour),
        about_idleness(1, source, repartition=copy, idle=False, trusted_us=T0_US + 3 * hour),
    ]
    counts = []
    for name, records in (("without", events), ("with", [*events, *trusted])):
        run, outputs = run_rules(rules, [write_log(tmp_path / f"{name}.jsonl", records)], lateness_us=LATENESS)
        late = sum(len(output.late) for output in outputs)
        counts.append((run.counters.processed, run.counters.dead, run.counters.late, late))
    # The two late events are reported where they are counted and where their copies are read.
    assert counts == [(4, 1, 0, 0), (3, 0, 2, 4)]


def test_the_pipeline_s_own_topics_are_no_input(pair, log, tmp_path):
    made = [ConsumedRecord("metrics.x", 0, 0, 1, b"k", b"{}"), ConsumedRecord(MULTI_EVENTS, 0, 0, 1, b"k", b"{}")]
    path = write_log(tmp_path / "b.jsonl", [*read_log(log), *made])
    assert len(matches(pair, path)) == 96
    assert survey([path]).count == 2


def test_rules_by_another_field_than_the_streams_key_find_their_matches(tmp_path):
    rules = load_rules(
        """
        streams: [{name: orders, key: order_id}, {name: refunds, key: refund_id}]
        rules:
          - name: bought_and_returned
            by: customer
            within: 10s
            seq:
              - {as: bought, stream: orders}
              - {as: returned, stream: refunds}
        """
    )
    base = T0_US // SECOND
    records = []
    for n in range(10):
        for topic, time in (("orders", base + n), ("refunds", base + n + 0.5)):
            value = orjson.dumps({"timestamp": time, "customer": f"c{n % 5}"})
            record = ConsumedRecord(f"mono.{topic}", 0, n, round(time * 1000), f"{topic}{n}".encode(), value)
            records += repartition(record, 1, 3)
    three = write_log(tmp_path / "three.jsonl", _with_offsets(records), partitions=3)
    one = write_log(
        tmp_path / "one.jsonl", _with_offsets([item._replace(partition=0) for item in records]), partitions=1
    )
    customers = [match["correlation_rule"] for match in matches(rules, three)]
    # Each order of a customer is followed by the refunds of both of its rounds, the second order by one.
    assert customers == ["bought_and_returned"] * 10
    assert len(matches(rules, one)) == 10


def test_a_backtest_counts_by_rule(pair, log):
    done = backtest(pair, [log], lateness_us=LATENESS)
    count = done.rules["pair"]
    assert (count.matches, count.alerts, len(count.keys)) == (96, 96, 8)
    assert count.first_us == T0_US + 10_000
    assert (done.counters.received, done.counters.late, done.counters.dead) == (192, 0, 0)


def test_a_rule_that_never_fires_is_listed(log):
    never = load_rules(PAIR.replace("'A'", "'Z'"))
    assert backtest(never, [log], lateness_us=LATENESS).rules["pair"].matches == 0


def test_two_versions_of_a_rule_are_compared_by_the_events_they_took(pair, log):
    a = backtest(pair, [log], lateness_us=LATENESS).made
    b = backtest(load_rules(STRICT), [log], lateness_us=LATENESS).made
    (difference,) = compare(a, b)
    assert difference.rule == "pair"
    assert difference.both == len(b) == 96 - 11
    assert len(difference.only_a) == 11
    assert difference.only_b == ()


def test_matches_that_repeat_are_counted_as_often():
    once = Made("1", "r", 0, None, ("x", "y"))
    (difference,) = compare([once, once._replace(event_id="2")], [once._replace(sources=("y", "x"))])
    assert (difference.both, len(difference.only_a), len(difference.only_b)) == (1, 1, 0)


def with_outputs(ruleset: RuleSet, path, to):
    """The log with what the rules make of it, as a recording of a whole pipeline has it."""
    records = list(read_log(path))
    offsets: dict[str, int] = {}
    _, outputs = run_rules(ruleset, [path], lateness_us=LATENESS)
    for output in outputs:
        for topic, made in ((MULTI_EVENTS, output.multi_events), (ALERTS, output.alerts)):
            for item in made:
                records.append(
                    ConsumedRecord(
                        topic, 0, offsets.get(topic, 0), T0_US // 1000, item.key, item.value, tuple(item.headers)
                    )
                )
                offsets[topic] = offsets.get(topic, 0) + 1
    return write_log(to, records)


def test_a_recorded_run_verifies_and_a_changed_rule_does_not(pair, log, tmp_path):
    recorded = with_outputs(pair, log, tmp_path / "recorded.jsonl.zst")
    done = verify(pair, [recorded], lateness_us=LATENESS)
    assert done.holds
    assert (done.same, done.alerts_same) == (96, 96)
    changed = verify(load_rules(STRICT), [recorded], lateness_us=LATENESS)
    assert not changed.holds
    assert (len(changed.missing), len(changed.extra), changed.other_version) == (96, 85, 85)


def test_a_log_without_outputs_cannot_be_verified(pair, log):
    with pytest.raises(InvalidLog, match="no multi events to compare with"):
        verify(pair, [log], lateness_us=LATENESS)


def truth(rule: str, rows: list[tuple[str, int, int, list]]) -> ConsumedRecord:
    frame = Frame.from_columns(
        "truth",
        "run-1",
        {
            "timestamp": np.array([T0_US + start for _, start, _, _ in rows]),
            "key": [key for key, *_ in rows],
            "type": ["planted"] * len(rows),
            "kind": ["coincidence"] * len(rows),
            "rule": [rule] * len(rows),
            "until": np.array([T0_US + until for *_, until, _ in rows]),
            "members": [json.dumps(members) for *_, members in rows],
        },
    )
    return frame_messages(frame, 1, {})[0]


def test_rules_are_scored_against_planted_anomalies(pair, log, tmp_path):
    planted = truth(
        "pair",
        [
            ("d0", 0, 10_000, [["axon_1", 0], ["axon_2", 0]]),
            ("d3", 3, 10_003, [["axon_2", 3], ["axon_1", 3]]),
            ("d9", 5, 10_005, [["axon_1", 900], ["axon_2", 901]]),
        ],
    )
    path = write_log(tmp_path / "a.jsonl", [*read_log(log), planted])
    assert [each.key for each in planted_in(path)] == ["d0", "d3", "d9"]
    (result,) = score(pair, [path], lateness_us=LATENESS, slack_us=0)
    assert (result.planted, result.found, result.matches, result.true_matches, result.exact) == (3, 2, 96, 2, 2)
    assert result.recall == pytest.approx(2 / 3)
    assert result.precision == pytest.approx(2 / 96)
    assert result.delays_us == [0, 0]
    assert [missed.key for missed in result.missed] == ["d9"]
    assert result.as_json(1)["missed"][0]["key"] == "d9"


def test_anomalies_whose_rule_is_not_in_the_files_are_reported_as_not_scored(pair, log, tmp_path):
    planted = truth("pair", [("d0", 0, 10_000, [["axon_1", 0], ["axon_2", 0]])])
    other = truth("lost", [("d1", 0, 5, []), ("d2", 3, 9, [])])._replace(offset=1)
    path = write_log(tmp_path / "a.jsonl", [*read_log(log), planted, other])
    first, absent = score(pair, [path], lateness_us=LATENESS, slack_us=0)
    assert (first.rule, first.absent, absent.rule, absent.absent, absent.planted) == ("pair", False, "lost", True, 2)
    rules = tmp_path / "rules.yaml"
    rules.write_text(PAIR)
    shown = run("score", str(rules), str(path))
    assert "not scored: 2 anomalies of kind coincidence; rule 'lost' is not in the rule files" in shown.stdout


def test_a_planted_interval_is_found_by_a_match_inside_it_or_soon_after():
    planted = [Planted("collapse", "r", "run", 100, 200), Planted("collapse", "r", "run", 1000, 1100)]

    def at(time_us: int, key: str = "run") -> Made:
        return Made(str(time_us), "r", time_us, key, ("x",))

    result = score_matches("r", planted, [at(99), at(150), at(220), at(2000)], slack_us=50)
    assert (result.found, result.true_matches, result.matches) == (1, 2, 4)
    assert result.delays_us == [50]
    assert score_matches("r", planted, [at(150, "other"), at(1050)], slack_us=0).found == 1
    nothing = score_matches("r", [], [], slack_us=0)
    assert (nothing.precision, nothing.recall) == (None, None)
    assert nothing.as_json()["delay_s"] is None


def test_a_match_of_half_the_planted_events_counts_and_is_not_exact():
    planted = [Planted("coincidence", "r", "k", 0, 100, frozenset({"a", "b"}))]
    result = score_matches("r", planted, [Made("1", "r", 90, "k", ("a", "chance"))], slack_us=0)
    assert (result.found, result.true_matches, result.exact) == (1, 1, 0)
    three = [Planted("triple", "r", "k", 0, 100, frozenset({"a", "b", "c"}))]
    assert score_matches("r", three, [Made("1", "r", 90, "k", ("a", "chance"))], slack_us=0).found == 0


def test_a_log_without_truth_cannot_be_scored(pair, log):
    with pytest.raises(InvalidLog, match=r"no planted events \(topic mono\.truth\)"):
        score(pair, [log], lateness_us=LATENESS, slack_us=0)


def run(*arguments: str):
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def rule_file(tmp_path):
    path = tmp_path / "pair.yaml"
    path.write_text(PAIR)
    return str(path)


def test_the_command_match_prints_multi_events_as_json_lines(rule_file, pair, log):
    result = run("match", rule_file, str(log))
    assert [json.loads(line) for line in result.stdout.splitlines()] == matches(pair, log)
    assert "96 multi events of 192 events (0 late, 0 unreadable)" in result.stderr
    alerts = run("match", rule_file, str(log), "--alerts").stdout.splitlines()
    assert json.loads(alerts[0])["message"] == "0.0 and 0.0"


def test_the_command_backtest_prints_counts_and_the_difference(rule_file, log, tmp_path):
    strict = tmp_path / "strict.yaml"
    strict.write_text(STRICT)
    body = json.loads(run("backtest", rule_file, str(log), "--against", str(strict), "--json").stdout)
    assert body["a"]["rules"]["pair"]["matches"] == 96
    assert body["difference"]["pair"]["only_a"] == 11
    assert len(body["difference"]["pair"]["examples_a"]) == 3
    text = run("backtest", rule_file, str(log), "--against", str(strict)).stdout
    assert "pair: both 85, only A 11, only B 0" in text


def test_the_command_replay_verify_reports_by_its_exit_status(rule_file, pair, log, tmp_path):
    recorded = str(with_outputs(pair, log, tmp_path / "recorded.jsonl.zst"))
    good = run("replay", recorded, "--verify", rule_file)
    assert good.exit_code == 0
    assert "96 the same, 0 recorded but not produced now" in good.stdout
    strict = tmp_path / "strict.yaml"
    strict.write_text(STRICT)
    bad = run("replay", recorded, "--verify", "--rules", str(strict), "--json")
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["multi_events"]["other_version"] == 85


def test_the_command_score_prints_figures(rule_file, log, tmp_path):
    planted = truth("pair", [("d0", 0, 10_000, [["axon_1", 0], ["axon_2", 0]])])
    path = str(write_log(tmp_path / "a.jsonl", [*read_log(log), planted]))
    body = json.loads(run("score", rule_file, path, "--json").stdout)
    assert body["rules"][0]["recall"] == 1
    assert "pair" in run("score", rule_file, path).stdout


def test_the_command_rules_check_prints_the_plan(rule_file):
    assert "mono.axon_1" in run("rules", "check", rule_file).stdout
    body = json.loads(run("rules", "check", rule_file, "--json").stdout)
    assert body["topics"] == ["mono.axon_1", "mono.axon_2"]
    with pytest.raises(InvalidRule, match="no rule file 'nope'"):
        run("rules", "check", "nope")


def test_a_bad_rule_file_is_refused_with_its_place(log, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(PAIR.replace("within", "withn"))
    with pytest.raises(InvalidRule, match=r"bad\.yaml:.*withn"):
        run("match", str(path), str(log))


SEQUENCE = """
rules:
  - name: rise
    by: key
    within: 2s
    seq:
      - {as: a, stream: axon_1, where: "type == 'A'"}
      - {as: b, stream: axon_2, where: "type == 'B' and value > 100"}
"""


def test_why_not_shows_what_each_attempt_waited_for_and_the_offsets_of_its_events(log, tmp_path):
    rules = tmp_path / "rise.yaml"
    rules.write_text(SEQUENCE)
    arguments = ["why-not", str(log), "--rules", str(rules), "--rule", "rise", "--key", "d3"]
    report = json.loads(run(*arguments, "--json").stdout)
    assert (report["events"], report["matches"], len(report["attempts"])) == (24, 0, 12)
    (step,) = [step for step in report["steps"] if step["step"] == "b"]
    assert step["failed"] == {"value > 100": 12}
    first = report["attempts"][0]
    assert first["waited_for"] == ["b"]
    assert first["ended"] == "window"
    assert first["taken"][0]["topic"] == "mono.axon_1"
    one = json.loads(run(*arguments, "--at", "4s", "--json").stdout)
    assert [attempt["began"] for attempt in one["attempts"]] == ["2023-11-14T22:13:23.000003Z"]
    text = run(*arguments).stdout
    assert "12 failed value > 100" in text
    assert "within of 2s expired at 2023-11-14T22:13:22.000003Z" in text


def test_why_not_of_an_all_marks_what_matched(rule_file, log):
    arguments = ["why-not", str(log), "--rules", rule_file, "--rule", "pair", "--key", "d3", "--json"]
    report = json.loads(run(*arguments, "--at", "3s").stdout)
    assert (report["events"], report["matches"]) == (2, 1)
    assert {attempt["ended"] for attempt in report["attempts"]} == {"matched"}
    assert all(attempt["taken"][0]["timestamp"] == attempt["began"] for attempt in report["attempts"])


def test_why_not_needs_a_rule_and_a_key_that_exist(rule_file, log):
    with pytest.raises(InvalidSettings, match="no rule 'x'; the files have pair"):
        run("why-not", str(log), "--rules", rule_file, "--rule", "x", "--key", "d1")
    with pytest.raises(InvalidSettings, match=r"--key is needed: rule 'pair' correlates by 'key'; keys in the log: d"):
        run("why-not", str(log), "--rules", rule_file, "--rule", "pair")
    with pytest.raises(InvalidSettings, match="key 'nope' has no events"):
        run("why-not", str(log), "--rules", rule_file, "--rule", "pair", "--key", "nope")


def test_rules_explain_draws_the_state_machine(rule_file):
    assert "flowchart" in run("rules", "explain", rule_file).stdout
    with pytest.raises(InvalidSettings, match="no rule 'x'"):
        run("rules", "explain", rule_file, "--rule", "x")
