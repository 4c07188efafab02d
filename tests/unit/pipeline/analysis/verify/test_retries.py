"""``verify`` after the rules were mended and the dead letters were sent again."""

from __future__ import annotations

from itertools import count

import orjson
import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.analysis.verify import verify
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.dead_letters import letters_of, retried_messages
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.settings import load_settings
from astrocyte.schemas.topics import DEAD_LETTERS, MULTI_EVENTS
from tests.support.logs import T0_US, write_log
from tests.support.pair_log import with_outputs
from tests.support.stored import store_in_sql

MENDED = """
rules:
  - {name: large, seq: [{as: a, stream: S}], emit: {n: a.n}}
"""
STRICT = MENDED + "validators: [{stream: S, where: n < 4, reason: too much}]\n"
HOUR_US = 3_600_000_000
REFUSED = 6


def events():
    """Ten events, of which the strict rules refuse six."""
    return [
        ConsumedRecord(
            "mono.S", 0, n, T0_US // 1000, b"k", orjson.dumps({"timestamp": T0_US + n * 1_000_000, "n": n}), ()
        )
        for n in range(10)
    ]


@pytest.fixture
def records(tmp_path):
    """Input, results of the strict rules, what a retry sent, and results that the mended rules made of that."""
    first = with_outputs(load_rules(STRICT), write_log(tmp_path / "first.jsonl", events()), tmp_path / "strict.jsonl")
    found = list(read_log(first))
    messages, refused = retried_messages(each.letter for each in letters_of(found).found)
    assert (len(messages), refused) == (REFUSED, [])
    again = [
        ConsumedRecord("mono.S", 0, 10 + n, T0_US // 1000, each.key, each.value, each.headers)
        for n, each in enumerate(messages)
    ]
    _, outputs = run_rules(load_rules(MENDED), [write_log(tmp_path / "again.jsonl", again)], lateness_us=HOUR_US)
    offsets = count(sum(each.topic == MULTI_EVENTS for each in found))
    made = [
        ConsumedRecord(MULTI_EVENTS, 0, next(offsets), T0_US // 1000, each.key, each.value, tuple(each.headers))
        for output in outputs
        for each in output.multi_events
    ]
    assert len(made) == REFUSED
    return [*found, *again, *made]


def verified(tmp_path, records, *, where=("topics", "sql")):
    rules = load_rules(MENDED)
    log = write_log(tmp_path / "all.jsonl", records)
    address = f"sqlite:///{tmp_path}/rows.db"
    store_in_sql(address, rules, list(read_log(log)))
    settings = load_settings(sql_url=address, partitions=2, lateness="1h")
    return verify(settings, logs=[log], ruleset=rules, where=where, now_us=T0_US)


def place(done, name):
    return next(each for each in done.places if each.name == name)


def test_results_of_events_that_were_sent_again_are_equal_and_said(tmp_path, records):
    done = verified(tmp_path, records)
    assert done.holds, done.differences
    for name in ("topic multi.events", "sql multi_event_sources"):
        assert place(done, name).found == 10
        assert sum(place(done, name).notes.values()) == REFUSED
    for name in ("topic dead_letters", "sql dead_letters"):
        assert sum(place(done, name).left_out.values()) == REFUSED


def test_another_value_of_such_a_result_is_wrong(tmp_path, records):
    last = records[-1]
    changed = last._replace(value=orjson.dumps(orjson.loads(last.value) | {"confidence": 0.5}))
    multi = place(verified(tmp_path, [*records[:-1], changed], where=("topics",)), "topic multi.events")
    assert (multi.wrong, sum(multi.notes.values())) == (1, REFUSED - 1)
    (difference,) = multi.differences
    assert [each.name for each in difference.changes] == ["confidence"]


def test_a_letter_of_earlier_rules_that_was_not_sent_again_is_not_expected(tmp_path, records):
    kept = [each for each in records if each.topic != "mono.S" or each.offset != 15]
    letters = place(verified(tmp_path, kept[:-1], where=("topics",)), f"topic {DEAD_LETTERS}")
    assert (letters.unexpected, sum(letters.left_out.values())) == (1, REFUSED - 1)
