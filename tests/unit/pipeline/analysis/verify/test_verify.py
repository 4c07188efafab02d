"""``verify``: each kind of loss, repetition and change is found in the place where it is, and nothing else is."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import sqlite3
from contextlib import closing

import orjson
import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.agents.sinks.base import SinkError
from astrocyte.pipeline.analysis.verify import Span, verify
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.settings import load_settings
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import decode_frame
from astrocyte.schemas.topics import ALERTS, MULTI_EVENTS
from tests.support.logs import T0_US, write_log
from tests.support.pair_log import PAIR, SECOND, STRICT, in_frames, spikes, with_outputs
from tests.support.stored import store_in_sql, store_points

WINDOWED = (
    PAIR
    + """
windows:
  - {name: rate, source: axon_1, every: 10s, select: {count: count()}}
"""
)
NOW_US = T0_US
OUTPUTS = (MULTI_EVENTS, ALERTS)


@pytest.fixture(scope="module")
def made(tmp_path_factory, pair):
    """A log with the outputs of its rule, and what the sinks store of it."""
    folder = tmp_path_factory.mktemp("made")
    plain = write_log(folder / "plain.jsonl.zst", in_frames(spikes()))
    log = with_outputs(pair, plain, folder / "log.jsonl.zst")
    records = list(read_log(log))
    store_in_sql(f"sqlite:///{folder}/rows.db", pair, records)
    store_points(folder / "influx", pair, records)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of it, to be damaged."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def verified(folder, rules, *, log=None, where=None, **options):
    settings = load_settings(
        sql_url=f"sqlite:///{folder}/rows.db", influx_dir=folder / "influx", partitions=2, lateness="1s"
    )
    logs = [log or folder / "log.jsonl.zst"]
    return verify(settings, logs=logs, ruleset=rules, where=where, now_us=NOW_US, **options)


def place(done, name):
    return next(each for each in done.places if each.name == name)


def counted(each):
    return {"lost": each.lost, "twice": each.twice, "wrong": each.wrong, "unexpected": each.unexpected}


def only(**counts):
    return {"lost": 0, "twice": 0, "wrong": 0, "unexpected": 0} | counts


def changed(folder, sql, *values):
    with closing(sqlite3.connect(folder / "rows.db")) as connection, connection:
        assert connection.execute(sql, values).rowcount == 1


def rewritten(folder, change, *, to="changed.jsonl.zst"):
    """The log with what ``change`` makes of the list of its messages."""
    return write_log(folder / to, change(list(read_log(folder / "log.jsonl.zst"))))


def of_topic(records, topic):
    return [each for each in records if each.topic == topic]


def test_what_the_sinks_have_stored_is_equal(made, pair):
    done = verified(made, pair)
    assert done.holds, done.differences
    assert {each.name: (each.expected, each.found) for each in done.places if each.found} == {
        "topic multi.events": (96, 96),
        "topic alerts": (96, 96),
        "sql simulations": (1, 1),
        "sql spikes": (192, 192),
        "sql multi_events": (96, 96),
        "sql multi_event_sources": (192, 192),
        "sql alerts": (96, 96),
        f"influx {made}/influx": (384, 384),
    }
    assert done.events["received"] == done.events["processed"] == 192
    assert done.missing_events == 0


def test_a_log_without_what_was_decided_about_overload_says_so_where_events_may_be_left_out(made, tmp_path):
    sampled = load_rules(f"{PAIR}streams:\n  - {{name: axon_1, overload: {{policy: sample, share: 0.5}}}}")
    (note,) = [each for each in verified(made, sampled).not_compared if "control.sampling" in each]
    assert "events of mono.axon_1 that a worker left out" in note
    records = list(read_log(made / "log.jsonl.zst"))
    whole = write_log(
        tmp_path / "whole.jsonl.zst", [*records, ConsumedRecord("control.sampling", 0, 0, 0, b"k", b"{}")]
    )
    for rules, log in ((sampled, whole), (load_rules(PAIR), made / "log.jsonl.zst")):
        assert not [each for each in verified(made, rules, log=log).not_compared if "control.sampling" in each]


@pytest.fixture(scope="module")
def damaged(made, pair, tmp_path_factory):
    """The comparison of a database and of files after one damage of each kind."""
    folder = tmp_path_factory.mktemp("damaged") / "copy"
    shutil.copytree(made, folder)
    changed(folder, "DELETE FROM alerts WHERE alert_id = (SELECT min(alert_id) FROM alerts)")
    changed(folder, "UPDATE spikes SET value = 99.5 WHERE axon = 'axon_2' AND id = 3")
    changed(folder, "INSERT INTO spikes SELECT axon, 9999, simulation_id, timestamp, domain, type, value, recorded_at "
                    "FROM spikes WHERE axon = 'axon_1' AND id = 0")  # fmt: skip
    changed(folder, "INSERT INTO simulations (simulation_id, status) VALUES ('other', 'running')")
    changed(folder, "INSERT INTO spikes SELECT axon, 1, 'other', timestamp, domain, type, value, recorded_at "
                    "FROM spikes WHERE axon = 'axon_1' AND id = 0")  # fmt: skip
    points(folder, damaged_points)
    return verified(folder, pair)


def points(folder, change):
    (path,) = (folder / "influx").glob("points-*.lp.gz")
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    path.write_bytes(gzip.compress("".join(change(lines)).encode()))


def damaged_points(lines):
    """Without the last point, one of the others changed, one twice, and one that nothing made."""
    at = next(number for number, line in enumerate(lines) if line.startswith("axon_1") and "value=7 " in line)
    kept = [*lines[:at], lines[at].replace("value=7 ", "value=8 "), *lines[at + 1 : -1]]
    return [*kept, lines[3], "axon_1,type=A value=1 1700000000000000000\n"]


def differences(done, name, kind):
    return [each for each in place(done, name).differences if each.kind == kind]


def of_points(done):
    return done.places[-1].name


def test_a_deleted_row_is_lost(damaged):
    assert not damaged.holds
    assert counted(place(damaged, "sql alerts")) == only(lost=1)
    (difference,) = differences(damaged, "sql alerts", "lost")
    assert "rule pair" in difference.about


def test_a_changed_value_is_named_with_both_values(damaged):
    (difference,) = differences(damaged, "sql spikes", "wrong")
    assert [(each.name, each.expected, each.found) for each in difference.changes] == [("value", 3.0, 99.5)]


def test_a_row_that_nothing_made_is_unexpected(damaged):
    assert counted(place(damaged, "sql spikes")) == only(unexpected=1, wrong=1)
    (difference,) = differences(damaged, "sql spikes", "unexpected")
    assert "id 9999" in difference.identity


def test_rows_of_runs_that_the_log_does_not_hold_are_left_out_and_counted(damaged):
    assert sum(place(damaged, "sql spikes").left_out.values()) == 1


def test_each_damage_to_points_is_counted_as_what_it_is(damaged):
    assert counted(place(damaged, of_points(damaged))) == only(lost=1, twice=1, wrong=1, unexpected=1)


def test_a_point_that_is_there_twice_is_shown_with_its_lines(damaged):
    (difference,) = differences(damaged, of_points(damaged), "twice")
    assert "points-000001.lp.gz, line 4 and 3" in difference.at


def test_a_point_with_another_value_is_wrong_and_not_lost(damaged):
    (difference,) = differences(damaged, of_points(damaged), "wrong")
    assert [(each.name, each.expected, each.found) for each in difference.changes] == [
        ("value", "double 7.0", "double 8.0")
    ]


def test_places_without_damage_are_equal(damaged):
    equal = [each.name for each in damaged.places if each.holds]
    assert {"topic multi.events", "topic alerts", "sql multi_events", "sql multi_event_sources"} <= set(equal)


def test_rows_that_retention_has_removed_are_left_out_and_counted(folder, pair):
    # Dead letters are kept for 90 days by the time at which they were written.
    bad = [each._replace(value=b"{", offset=10_000) for each in list(read_log(folder / "log.jsonl.zst"))[:1]]
    log = rewritten(folder, lambda records: records + bad)
    soon = verified(folder, pair, log=log, where=("sql",))
    assert counted(place(soon, "sql dead_letters")) == only(lost=1)
    settings = load_settings(sql_url=f"sqlite:///{folder}/rows.db", partitions=2, lateness="1s")
    later_us = T0_US + 91 * 86_400 * SECOND
    late = verify(settings, logs=[log], ruleset=pair, where=("sql",), now_us=later_us)
    assert late.holds
    assert sum(place(late, "sql dead_letters").left_out.values()) == 1


def test_a_database_that_is_behind_its_log_has_lost_nothing(made, pair, tmp_path):
    records = list(read_log(made / "log.jsonl.zst"))
    first = [each for each in records if each.offset < 6]
    store_in_sql(f"sqlite:///{tmp_path}/rows.db", pair, first)
    done = verified(tmp_path, pair, log=made / "log.jsonl.zst", where=("sql",))
    assert done.holds, done.differences
    assert 0 < place(done, "sql spikes").found < 192
    assert place(done, "sql multi_events").found == 6


def test_a_database_that_is_ahead_of_its_log_has_nothing_unexpected(folder, pair):
    log = rewritten(folder, lambda records: [each for each in records if each.offset < 6 or each.topic in OUTPUTS])
    done = verified(folder, pair, log=log, where=("sql",))
    assert done.holds, done.differences
    assert sum(place(done, "sql spikes").left_out.values()) > 0


def test_a_multi_event_that_is_not_in_its_topic_is_lost_there_alone(folder, pair):
    gone = of_topic(list(read_log(folder / "log.jsonl.zst")), MULTI_EVENTS)[20]
    log = rewritten(folder, lambda records: [each for each in records if each != gone])
    done = verified(folder, pair, log=log)
    assert [each.name for each in done.places if not each.holds] == ["topic multi.events"]
    (difference,) = done.differences
    assert (difference.kind, difference.identity) == ("lost", orjson.loads(gone.value)["event_id"])


def test_a_record_with_another_value_is_wrong(folder, pair):
    def change(records):
        at = next(number for number, each in enumerate(records) if each.topic == ALERTS)
        body = orjson.loads(records[at].value) | {"severity": "critical"}
        records[at] = records[at]._replace(value=orjson.dumps(body))
        return records

    done = verified(folder, pair, log=rewritten(folder, change), where=("topics",))
    assert counted(place(done, "topic alerts")) == only(wrong=1)
    assert [(each.name, each.found) for each in done.differences[0].changes] == [("severity", "critical")]


def again(records, **changes):
    first = of_topic(records, MULTI_EVENTS)[0]
    body = orjson.loads(first.value) | changes
    return [*records, first._replace(offset=1_000, value=orjson.dumps(body))]


def test_a_record_that_a_worker_wrote_again_after_a_crash_is_said_and_no_difference(folder, pair):
    done = verified(folder, pair, log=rewritten(folder, again), where=("topics",))
    assert done.holds
    assert sum(place(done, "topic multi.events").notes.values()) == 1


def test_one_id_with_two_contents_is_wrong(folder, pair):
    log = rewritten(folder, lambda records: again(records, confidence=0.5))
    done = verified(folder, pair, log=log, where=("topics",))
    assert counted(place(done, "topic multi.events")) == only(wrong=1)


def test_true_in_place_of_one_is_another_value(folder, pair):
    def change(records):
        at = next(number for number, each in enumerate(records) if each.topic == MULTI_EVENTS)
        body = orjson.loads(records[at].value)
        assert body["confidence"] == 1
        records[at] = records[at]._replace(value=orjson.dumps(body | {"confidence": True}))
        return records

    done = verified(folder, pair, log=rewritten(folder, change), where=("topics",))
    assert counted(place(done, "topic multi.events")) == only(wrong=1)


def test_a_record_that_no_rule_makes_is_unexpected(folder, pair):
    log = rewritten(folder, lambda records: again(records, event_id="made-up"))
    done = verified(folder, pair, log=log, where=("topics",))
    assert counted(place(done, "topic multi.events")) == only(unexpected=1)
    assert done.differences[0].at == "multi.events[0]@1000"


@pytest.fixture
def corrected(folder, pair):
    """The folder of a worker whose rule was eventual: all matches provisional, one of them retracted later."""

    def change(records):
        rest = [each for each in records if each.topic not in OUTPUTS]
        for topic, names in ((MULTI_EVENTS, ("event_id",)), (ALERTS, ("alert_id", "multi_event_id"))):
            made = of_topic(records, topic)
            body = orjson.loads(made[0].value) | dict.fromkeys(names, "taken-back")
            taken_back = made[0]._replace(value=orjson.dumps(body))
            states = [(each, "provisional") for each in (*made, taken_back)]
            states += [*((each, "confirmed") for each in made), (taken_back, "retracted")]
            rest += [
                each._replace(offset=offset, headers=(*each.headers, ("ce_status", status.encode())))
                for offset, (each, status) in enumerate(states)
            ]
        return rest

    log = rewritten(folder, change)
    (folder / "rows.db").unlink()
    shutil.rmtree(folder / "influx")
    records = list(read_log(log))
    store_in_sql(f"sqlite:///{folder}/rows.db", pair, records)
    store_points(folder / "influx", pair, records)
    return log


def test_matches_of_eventual_rules_are_compared_by_their_final_state(corrected, folder, pair):
    done = verified(folder, pair, log=corrected)
    assert done.holds, done.differences
    for name in ("topic multi.events", "topic alerts", "sql multi_events", "sql alerts"):
        assert place(done, name).found == 96, name
    assert place(done, f"influx {folder}/influx").found == 384
    assert list(place(done, "topic multi.events").notes.values()) == [98]
    for name, noted in (("sql multi_events", 1), ("sql multi_event_sources", 2), ("sql alerts", 1)):
        assert list(place(done, name).notes.values()) == [noted], name


def test_a_match_that_the_database_holds_to_be_retracted_is_lost_if_it_stands(corrected, folder, pair):
    one = "event_id = (SELECT min(event_id) FROM multi_events)"
    changed(folder, f"UPDATE multi_events SET status = 'retracted' WHERE {one}")
    done = verified(folder, pair, log=corrected, where=("sql",))
    assert counted(place(done, "sql multi_events")) == only(lost=1)


def test_a_database_of_an_earlier_version_is_compared(folder, pair):
    for table in ("multi_events", "alerts"):
        with closing(sqlite3.connect(folder / "rows.db")) as connection, connection:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN status")
    done = verified(folder, pair, where=("sql",))
    assert done.holds, done.differences
    assert place(done, "sql multi_events").found == 96


def test_records_of_another_version_of_a_rule_are_left_out_and_counted(made):
    done = verified(made, load_rules(STRICT), where=("topics",))
    multi = place(done, "topic multi.events")
    assert counted(multi) == only()
    # The recorded ones of the old version, and those of its time that the new one would have made.
    assert sum(multi.left_out.values()) + multi.waiting == 96 + 85


def test_results_before_the_beginning_of_a_log_that_was_cut_are_left_out(folder, pair):
    inside = rewritten(folder, lambda records: [each for each in records if each.topic in OUTPUTS or each.offset >= 4])
    done = verified(folder, pair, log=inside, where=("topics",))
    assert done.holds, done.differences
    assert done.since_us > T0_US
    assert sum(place(done, "topic multi.events").left_out.values()) > 0
    assert place(done, "topic multi.events").found > 0


def test_alerts_whose_pause_began_in_what_is_gone_are_left_out(tmp_path):
    rules = load_rules(PAIR.replace("    alert:", "    cool_down: 10s\n    alert:"))
    plain = write_log(tmp_path / "plain.jsonl.zst", in_frames(spikes()))
    records = list(read_log(with_outputs(rules, plain, tmp_path / "log.jsonl.zst")))
    store_in_sql(f"sqlite:///{tmp_path}/rows.db", rules, records)
    store_points(tmp_path / "influx", rules, records)
    log = rewritten(tmp_path, lambda records: [each for each in records if each.topic in OUTPUTS or each.offset >= 5])
    done = verified(tmp_path, rules, log=log)
    assert done.holds, done.differences
    for name in ("topic alerts", "sql alerts", f"influx {tmp_path}/influx"):
        assert any("cool_down" in why for why in place(done, name).left_out), name
    assert place(done, "topic multi.events").found == place(done, "sql multi_events").found == 56


def test_results_that_retention_has_removed_from_their_topic_are_left_out(folder, pair):
    def change(records):
        return [each for each in records if each.topic not in OUTPUTS or each.offset >= 40]

    done = verified(folder, pair, log=rewritten(folder, change), where=("topics",))
    assert done.holds, done.differences
    multi = place(done, "topic multi.events")
    assert (multi.found, multi.expected, sum(multi.left_out.values())) == (56, 56, 40)


def test_offsets_that_are_missing_in_a_log_are_said(folder, pair):
    log = rewritten(folder, lambda records: [each for each in records if not (each.topic == "mono.axon_1"
                                                                             and each.offset == 5)])  # fmt: skip
    done = verified(folder, pair, log=log, where=("topics",))
    assert not done.holds
    assert any("mono.axon_1[0]: 1 offsets" in line for line in done.not_compared)


def test_a_range_of_event_time_is_compared_alone(folder, pair):
    changed(folder, "DELETE FROM alerts WHERE alert_id = (SELECT alert_id FROM alerts ORDER BY timestamp LIMIT 1)")
    later = verified(folder, pair, span=Span(T0_US + 3 * SECOND, T0_US + 9 * SECOND))
    assert later.holds
    assert place(later, "sql alerts").expected == place(later, "topic alerts").expected == 16
    assert place(later, f"influx {folder}/influx").found == 64


def test_late_events_and_dead_letters_are_accounted_for(folder, pair):
    def change(records):
        first = next(each for each in records if each.topic == "mono.axon_1")
        body = {"timestamp": "2023-01-01T00:00:00Z", "key": "d1", "type": "A", "value": 1.0}
        late = first._replace(offset=500, value=orjson.dumps(body), headers=())
        return [*records, late, late._replace(offset=501, value=b"[")]

    done = verified(folder, pair, log=rewritten(folder, change), where=("topics",))
    assert (done.events["received"], done.events["dead"]) == (194, 1)
    assert sum(done.events[name] for name in ("processed", "late", "dead")) == 194
    assert done.missing_events == 0


def test_results_of_windows_are_compared_with_those_in_the_database(made, tmp_path):
    rules = load_rules(WINDOWED)
    plain = write_log(tmp_path / "plain.jsonl.zst", in_frames(spikes()))
    settings = load_settings(sql_url=f"sqlite:///{tmp_path}/rows.db", partitions=2, lateness="1s")
    records = list(read_log(with_outputs(rules, plain, tmp_path / "log.jsonl.zst")))
    store_in_sql(f"sqlite:///{tmp_path}/rows.db", rules, records)
    changed(tmp_path, "UPDATE window_results SET value = 1000 WHERE rowid = (SELECT min(rowid) FROM window_results)")
    done = verify(settings, logs=[tmp_path / "log.jsonl.zst"], ruleset=rules, now_us=NOW_US)
    assert [each.name for each in done.places if not each.holds] == ["sql window_results"]
    assert counted(place(done, "sql window_results")) == only(wrong=1)
    assert place(done, "topic metrics.rate").found == place(done, "sql window_results").found > 10


def test_results_of_one_step_that_go_to_several_partitions_are_equal(tmp_path):
    """As where a producer partitions keys in another way than the workers: rows of a part keep their numbers."""
    rules = load_rules(WINDOWED)
    plain = write_log(tmp_path / "plain.jsonl.zst", in_frames(spikes(), partitions=1))
    log = with_outputs(rules, plain, tmp_path / "log.jsonl.zst")
    results = of_topic(read_log(log), "metrics.rate")
    assert "seq" in decode_frame(results[0].value).batch.schema.names
    assert {each.partition for each in results} == {0, 1}
    done = verify(load_settings(partitions=2, lateness="1s"), logs=[log], ruleset=rules, now_us=NOW_US)
    assert done.holds, done.differences
    assert place(done, "topic metrics.rate").found > 10


def test_a_log_without_anything_to_compare_is_an_error(made, pair):
    with pytest.raises(AstrocyteError, match="nothing to compare"):
        verify(load_settings(partitions=2), logs=[made / "plain.jsonl.zst"], ruleset=pair, now_us=NOW_US)


def test_nothing_is_written(folder, pair):
    def digests():
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm"))
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.stat().st_size}

    before = digests()
    verified(folder, pair)
    assert digests() == before


def test_a_database_that_is_not_there_is_an_error_and_is_not_made(folder, pair):
    (folder / "rows.db").unlink()
    with pytest.raises(SinkError, match="cannot be opened for reading"):
        verified(folder, pair, where=("sql",))
    assert not (folder / "rows.db").exists()


def test_differences_beyond_the_limit_are_counted_and_passed_on(folder, pair):
    with closing(sqlite3.connect(folder / "rows.db")) as connection, connection:
        connection.execute("DELETE FROM alerts")
    passed = []
    done = verified(folder, pair, where=("sql",), show=2, on_difference=passed.append)
    assert place(done, "sql alerts").lost == len(passed) == 96
    assert len(done.differences) == 2
