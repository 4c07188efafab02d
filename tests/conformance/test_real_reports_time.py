"""Times and clocks that stopped pipelines elsewhere, through the offline run and through a domain as in a worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord

REAL = Path(__file__).parent / "real"
CASES = {
    "clock_boots_in_1970": (5, 0),
    "clock_begins_in_2036": (4, 1),
    "clock_jumps_to_2036": (4, 1),
    "gap_of_seven_years": (5, 0),
    "time_in_ns": (1, 0),
    "time_in_quotes": (1, 0),
    "time_in_quotes_like_a_year": (1, 0),
    "hour_24": (1, 0),
    "word_utc": (1, 0),
}
"""Matches and dead letters."""
TIMES = {
    "time_in_ns": "2026-03-01T10:00:00Z",
    "time_in_quotes": "2026-03-01T10:00:00Z",
    "time_in_quotes_like_a_year": "2024-03-11T02:11:40Z",
    "hour_24": "2026-03-02T00:00:00Z",
    "word_utc": "2026-03-01T10:00:00Z",
}


def rules(name: str):
    return load_rules((REAL / name / "rule.yaml").read_text())


@pytest.mark.parametrize(("name", "expected"), CASES.items())
def test_a_recorded_log_gives_its_matches_and_dead_letters(name, expected):
    run, outputs = run_rules(rules(name), [REAL / name / "log.jsonl"], lateness_us=1_000_000)
    found = [orjson.loads(record.value) for output in outputs for record in output.multi_events]
    assert (len(found), run.counters.dead, run.counters.late) == (*expected, 0)
    if name in TIMES:
        assert found[0]["timestamp"] == TIMES[name]


@pytest.mark.parametrize(("name", "expected"), CASES.items())
def test_a_domain_gives_the_same_record_by_record(name, expected):
    domain = Domain(0, [DomainGroup("key", Engine(rules(name)), {"A": "mono.A"})], topics=["mono.A"])
    made, dead = 0, 0
    for record in read_log(REAL / name / "log.jsonl"):
        output = domain.feed("mono.A", [RawRecord(record.offset, record.timestamp_ms, record.key, record.value)])
        made, dead = made + len(output.multi_events), dead + len(output.dead_letters)
    for output in (domain.mark_all_idle(), domain.flush()):
        made, dead = made + len(output.multi_events), dead + len(output.dead_letters)
    assert (made, dead) == expected


def test_a_frame_with_times_in_nanoseconds_is_a_dead_letter_that_says_so():
    domain = Domain(0, [DomainGroup("key", Engine(rules("time_in_ns")), {"A": "mono.A"})], topics=["mono.A"])
    columns = {"timestamp": np.array([1_772_359_200_000_000_000]), "key": ["k"]}
    value = encode_frame(Frame.from_columns("A", "run", columns))
    (letter,) = domain.feed("mono.A", [RawRecord(0, 1_700_000_000_000, None, value)]).dead_letters
    assert "another unit" in letter.reason


def test_a_log_with_half_a_character_is_refused_in_one_line():
    result = CliRunner().invoke(app, ["tap", "--log", str(REAL / "half_a_character" / "log.jsonl"), "--columns"])
    shown = str(result.exception) if result.exception else result.output
    assert "after 0 records: a lone surrogate in 'key'" in shown
    assert result.exit_code == 1
