"""The reported cases in every form: the same rule gives the same matches and values wherever its events come from.

Offline over a log, in a worker's domain message by message, in frames (one for all events, and one for each), and in
Python with `match` and an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from astrocyte import Engine, RuleSet, load_rules, match
from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.agents.ingest.validate import Validators
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.topology.plan import Plan, decoders_of, make_plan
from astrocyte.schemas.arrow.columns import column_name
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.json.text import loads
from astrocyte.schemas.times import time_us
from astrocyte.schemas.values.mixed import column_of

CASES = Path(__file__).parent / "real"
LATENESS_US = 1_000_000
HELD: dict[str, tuple[list[dict[str, Any]], int]] = {
    # case: emitted values of each match, and the number of refused events
    "text_beside_numbers": ([{"v": 5}, {"v": 7}], 0),
    "large_integer_beside_a_fraction": ([{"v": 2**53 + 1}], 0),
    "declared_stream_number_is_text": ([{"v": 5.0}, {"v": 7.0}], 1),
    "text_in_a_mean": ([{"m": 6.0, "s": 12.0, "n": 4}], 0),
    "sum_beyond_63_bits": ([{"total": 12 * 10**18, "mean": 4e18, "again": 8 * 10**18, "beyond": 3.2e19}], 0),
    "integers_and_fractions_of_two_streams": ([{"v": 2**53 + 1}, {"v": 0.5}], 0),
    "true_beside_numbers": ([{"v": True}, {"v": 1}, {"v": 1.0}], 0),
    "nan_with_a_policy": ([{}, {}], 0),
    "nan_without_a_policy": ([{"v": 1}], 1),
    "event_id_is_a_code": ([{}, {}], 0),
    "fields_with_reserved_names": ([{"seq": 7}], 0),
    "top_level_wins_over_metadata": ([{}], 0),
    "metadata_is_text": ([{}], 0),
    "topic_without_prefix": ([{}], 0),
    "events_without_a_key": ([], 0),
    "readme_events_as_json": ([{}], 0),
    "comment_in_a_block": ([{}], 0),
    "micro_sign": ([{}], 0),
    "lower_case_constants": ([{}], 0),
    "hyphen_in_backquotes": ([{}], 0),
    "steps_then_absence": ([{}], 0),
    "hour_24": ([{}], 0),
    "word_utc": ([{}], 0),
    "time_in_quotes": ([{}], 0),
    "time_in_quotes_like_a_year": ([{}], 0),
    "gap_of_seven_years": ([{}] * 5, 0),
    "clock_boots_in_1970": ([{}] * 5, 0),
}
MESSAGES = {
    "clock_begins_in_2036": ([{}] * 4, 1),
    "clock_jumps_to_2036": ([{}] * 4, 1),
    "declared_number_is_text": ([{"v": 5.0}, {"v": 7.0}], 1),
}
"""Only messages have clocks to doubt, and are held to the catalog: a program's mappings are taken at their word."""


class Case:
    """One case: its rules, and its messages as every form of input."""

    def __init__(self, name: str) -> None:
        self.log = CASES / name / "log.jsonl"
        self.rules: RuleSet = load_rules(CASES / name / "rule.yaml")
        self.records: list[ConsumedRecord] = list(read_log(self.log))
        self.plan: Plan = make_plan(self.rules, existing={record.topic for record in self.records})

    def offline(self) -> tuple[list[Any], int]:
        _, outputs = run_rules(self.rules, [self.log], lateness_us=LATENESS_US)
        return self._found(outputs)

    def worker(self) -> tuple[list[Any], int]:
        messages = (
            (each.topic, RawRecord(each.offset, each.timestamp_ms, each.key, each.value)) for each in self.records
        )
        return self._fed(messages)

    def one_frame(self) -> tuple[list[Any], int]:
        return self._fed(self._messages(lambda record: record.topic))

    def frames(self) -> tuple[list[Any], int]:
        return self._fed(self._messages(lambda record: (record.topic, record.offset)))

    def python_frames(self) -> tuple[list[Any], int]:
        result = match(self.rules, [frame for _, frame in self._frames(lambda record: record.topic)])
        return [dict(each.emit) for each in result], len(result.refused)

    def python(self) -> tuple[list[Any], int]:
        result = match(self.rules, [self._mapping(each) for each in self.records])
        return [dict(each.emit) for each in result], len(result.refused)

    def engine(self) -> tuple[list[Any], int]:
        engine = Engine(self.rules)
        found = [each for record in self.records for each in engine.push_event(self._mapping(record))]
        output = engine.flush()
        return [dict(each.emit) for each in [*found, *output.matches.matches()]], engine.refused

    def _stream(self, record: ConsumedRecord) -> str:
        return self.plan.contracts.of_topic(record.topic).stream

    def _mapping(self, record: ConsumedRecord) -> Mapping[str, Any]:
        key = None if record.key is None else record.key.decode()
        return {"stream": self._stream(record), "key": key, **loads(record.value or b"")}

    def _frames(self, group: Callable[[ConsumedRecord], Any]) -> list[tuple[ConsumedRecord, Frame]]:
        parts: dict[Any, list[ConsumedRecord]] = {}
        for record in self.records:
            parts.setdefault(group(record), []).append(record)
        frames = []
        for records in parts.values():
            bodies = [loads(record.value or b"") for record in records]
            names = dict.fromkeys(name for body in bodies for name in body if name != "timestamp")
            columns = {column_name(name): column_of([body.get(name) for body in bodies]) for name in names}
            columns["timestamp"] = np.array([time_us(body["timestamp"]) for body in bodies])
            columns["key"] = [None if record.key is None else record.key.decode() for record in records]
            stream = self._stream(records[0])
            frames.append((records[0], Frame.from_columns(stream, "run", columns, first_seq=records[0].offset)))
        return frames

    def _messages(self, group: Callable[[ConsumedRecord], Any]) -> list[tuple[str, RawRecord]]:
        return [
            (first.topic, RawRecord(first.offset, first.timestamp_ms, None, encode_frame(frame)))
            for first, frame in self._frames(group)
        ]

    def _fed(self, messages: Any) -> tuple[list[Any], int]:
        groups = [
            DomainGroup(each.field, Engine(each.ruleset, validated=True), each.topics) for each in self.plan.groups
        ]
        domain = Domain(
            0, groups, topics=self.plan.topics, lateness_us=LATENESS_US, validators=Validators(self.rules.validators),
            decoders=decoders_of(self.plan.contracts),
        )  # fmt: skip
        outputs = [domain.feed(topic, [raw]) for topic, raw in messages]
        return self._found([*outputs, domain.mark_all_idle(), domain.flush()])

    def _found(self, outputs: Any) -> tuple[list[Any], int]:
        total = DomainOutput()
        for output in outputs:
            total.extend(output)
        assert total.late == []
        return [orjson.loads(each.value).get("metadata", {}) for each in total.multi_events], len(total.dead_letters)


def same(found: tuple[list[Any], int], expected: tuple[list[Any], int]) -> None:
    assert (sorted(map(repr, found[0])), found[1]) == (sorted(map(repr, expected[0])), expected[1])


@pytest.mark.parametrize("form", ["offline", "worker", "one_frame", "frames", "python_frames", "python", "engine"])
@pytest.mark.parametrize("name", HELD)
def test_a_case_has_the_same_matches_and_values_in_every_form(name, form):
    same(getattr(Case(name), form)(), HELD[name])


@pytest.mark.parametrize("form", ["offline", "worker", "one_frame", "frames"])
@pytest.mark.parametrize("name", MESSAGES)
def test_a_wrong_clock_or_a_value_of_another_type_costs_its_own_event_in_every_form_of_message(name, form):
    same(getattr(Case(name), form)(), MESSAGES[name])


@pytest.mark.parametrize("form", ["offline", "worker", "python", "engine"])
def test_times_as_the_api_writes_them_are_read_from_json_where_their_unit_is_declared(form):
    same(getattr(Case("times_of_the_api_in_json"), form)(), ([{}], 0))


def test_small_numbers_without_a_declared_unit_are_seconds_in_json_and_microseconds_in_python():
    case = Case("times_of_the_api_in_json")
    case.rules = case.rules.model_copy(update={"streams": ()})
    case.plan = make_plan(case.rules)
    same(case.offline(), ([], 0))
    same(case.python(), ([{}], 0))


def tapped(*arguments: str) -> list[str]:
    done = CliRunner().invoke(app, ["tap", "--log", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def test_tap_shows_a_time_in_milliseconds_as_the_moment_that_it_is():
    log = str(CASES / "tap_time_in_milliseconds" / "log.jsonl")
    (line,) = tapped(log, "--columns")
    assert line.split() == ["2026-03-01T10:00:00Z", "mono.meters[0]@0", "m1", "value=1"]


@pytest.mark.parametrize(("bound", "shown"), [("1772359200000000", 1), ("1772359200000001", 0)])
def test_a_condition_of_tap_sees_the_time_in_microseconds_as_a_rule_does(bound, shown):
    log = str(CASES / "tap_time_in_milliseconds" / "log.jsonl")
    assert len(tapped(log, "--json", "--where", f"timestamp >= {bound}")) == shown


@pytest.mark.parametrize("form", [["--columns"], ["--json"], ["-J"], ["--raw"], ["-f", "%T %s\n"], []])
def test_tap_shows_a_message_whose_kafka_time_is_beyond_the_calendar(form):
    (line,) = tapped(str(CASES / "tap_kafka_time_in_microseconds" / "log.jsonl"), *form)
    if form == ["--columns"]:
        assert line.split() == ["1772359200000000", "ms", "mono.meters[0]@0", "m1", "value=1"]
    else:
        assert "value" in line


@pytest.mark.parametrize("options", [[], ["--shift"], ["--rate", "2"], ["--loop"]])
def test_replay_plans_a_log_whose_kafka_time_is_beyond_the_calendar(options):
    log = str(CASES / "tap_kafka_time_in_microseconds" / "log.jsonl")
    done = CliRunner().invoke(app, ["replay", log, "--dry-run", *options])
    assert done.exit_code == 0, done.output
    assert "mono.meters: 1 messages" in done.output
