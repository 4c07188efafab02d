"""Rules over logs whose topics have different numbers of partitions: the matches, counts and places do not change.

Alerts of several keys in one group depend on the number of domains, which is that of the worker.
"""

import zlib

import orjson
import pytest
from typer.testing import CliRunner

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.offline import OfflineRun, run_rules
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import LogHeader
from astrocyte.pipeline.recording.writer import LogWriter
from astrocyte.schemas.partitioning import partition_of

RULES = """
streams: [{name: orders, id: id}, {name: payments, id: id}]
rules: [{name: paid, within: 10s, seq: [{as: a, stream: orders}, {as: b, stream: payments}]}]
"""
START_MS = 1_759_055_400_000
COUNT = 40


def crc32(key: bytes, partitions: int) -> int:
    """The default partitioning of librdkafka's clients."""
    return zlib.crc32(key) % partitions


GROUPED = RULES.replace(
    "rules: [{name: paid, ",
    """rules:
  - {name: many, alert: {severity: info, message: x}, group: {within: 1s, by: null}, seq: [{as: a, stream: orders}]}
  - {name: paid, alert: {severity: info, message: y}, group: {within: 1s, by: n}, emit: {n: "a.value % 3"}, """,
)[:-2]


def log(path, partitions, *, partition=partition_of, late=(), domains=None):
    """Orders of 7 customers, each paid a second later; ``late``: payments that come when the next minute has begun."""
    messages = []
    for number in range(COUNT):
        key = b"c%d" % (number % 7)
        for stream, at_ms in (("orders", number * 100), ("payments", number * 100 + 1000)):
            messages.append((at_ms, stream, key, number))
    messages.sort()
    if late:
        messages.append((60_000, "payments", b"c0", COUNT))
        messages += [(at_ms, "payments", b"c0", COUNT + 1 + at) for at, at_ms in enumerate(late)]
    offsets: dict[tuple[str, int], int] = {}
    header = LogHeader({f"mono.{stream}": count for stream, count in partitions.items()}, domains=domains)
    with LogWriter(path, header) as writer:
        for at_ms, stream, key, number in messages:
            place = (f"mono.{stream}", partition(key, partitions[stream]))
            offset = offsets[place] = offsets.get(place, -1) + 1
            body = {"timestamp": START_MS + at_ms, "id": f"{stream}{number}", "value": number}
            writer.write(ConsumedRecord(*place, offset, START_MS + at_ms, key, orjson.dumps(body)))
    return path


def found(path, rules=RULES, *, domains=None) -> tuple[list[str], OfflineRun, list]:
    run, outputs = run_rules(load_rules(rules), [path], lateness_us=2_000_000, domains=domains)
    made = list(outputs)
    ids = sorted(orjson.loads(each.value)["event_id"] for out in made for each in out.multi_events)
    return ids, run, [each for out in made for each in out.late]


@pytest.mark.parametrize("partitions", [(2, 3), (3, 2), (1, 4), (5, 5)])
def test_matches_do_not_depend_on_the_numbers_of_partitions(tmp_path, partitions):
    expected, one, _ = found(log(tmp_path / "one.jsonl", {"orders": 1, "payments": 1}))
    assert len(expected) == COUNT
    ids, run, late = found(log(tmp_path / "log.jsonl", dict(zip(("orders", "payments"), partitions, strict=True))))
    assert ids == expected
    assert run.counters.as_dict() == one.counters.as_dict()
    assert late == []
    assert run.counters.processed == 2 * COUNT


def test_keys_that_producers_place_by_another_function_meet_in_topics_of_unequal_numbers(tmp_path):
    expected, _, _ = found(log(tmp_path / "one.jsonl", {"orders": 1, "payments": 1}))
    ids, run, _ = found(log(tmp_path / "log.jsonl", {"orders": 3, "payments": 5}, partition=crc32))
    assert ids == expected
    assert run.key_places.apart == {}


def test_late_events_of_a_topic_with_another_number_of_partitions_count_once(tmp_path):
    late = [1000, 1200, 1400]
    _, one, _ = found(log(tmp_path / "one.jsonl", {"orders": 1, "payments": 1}, late=late))
    _, run, _ = found(log(tmp_path / "log.jsonl", {"orders": 2, "payments": 3}, late=late))
    assert one.counters.late == 3
    assert run.counters.as_dict() == one.counters.as_dict()


def alerts(path, *, domains=None):
    """Grouped alerts, and the counts of events."""
    run, outputs = run_rules(load_rules(GROUPED), [path], lateness_us=2_000_000, domains=domains)
    made = sorted((each.value for output in outputs for each in output.alerts), key=bytes)
    return [orjson.loads(value) for value in made], run.counters.as_dict()


@pytest.mark.parametrize("domains", [1, 2, 3, 7])
@pytest.mark.parametrize("partitions", [(5, 2), (1, 1), (3, 3)])
def test_groups_of_several_keys_are_those_of_a_worker_with_that_number_of_domains(tmp_path, domains, partitions):
    expected, counts = alerts(log(tmp_path / "even.jsonl", {"orders": domains, "payments": domains}))
    assert len({each["rule"] for each in expected}) == 2
    uneven = dict(zip(("orders", "payments"), partitions, strict=True))
    assert alerts(log(tmp_path / "set.jsonl", uneven), domains=domains) == (expected, counts)
    named = log(tmp_path / "named.jsonl", uneven, domains=domains)
    assert alerts(named) == alerts(named, domains=4) == (expected, counts)


def test_the_number_of_domains_of_a_log_is_that_of_its_header_else_the_setting_else_that_of_its_topics(tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(GROUPED)
    named = log(tmp_path / "named.jsonl", {"orders": 3, "payments": 2}, domains=2)
    plain = log(tmp_path / "plain.jsonl", {"orders": 3, "payments": 2})

    def printed(path, **env) -> list[bytes]:
        done = CliRunner().invoke(app, ["match", str(rules), str(path), "--alerts"], env=env)
        assert done.exit_code == 0, done.output
        return sorted(done.stdout_bytes.splitlines())

    two, three = printed(named), printed(plain)
    assert two != three
    assert printed(named, ASTROCYTE_PARTITIONS="3") == printed(plain, ASTROCYTE_PARTITIONS="2") == two
    assert printed(plain, ASTROCYTE_PARTITIONS="3") == three
