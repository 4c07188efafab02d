"""Topics with another number of partitions than there are domains are repartitioned, by all roles alike."""

import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.topology.plan import Plan, Repartition, uneven_topics
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.pipeline.topology.topics import KnownTopics, check_partitions
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord

PAIR = "rules: [{name: pair, within: 1s, all: [{as: a, stream: orders}, {as: b, stream: payments}]}]"


def plan_of(text: str, domains: int = 4, **partitions: int) -> Plan:
    return KnownTopics({f"mono.{name}": count for name, count in partitions.items()}, domains).plan(load_rules(text))


def test_a_topic_with_another_number_of_partitions_is_repartitioned():
    plan = plan_of(PAIR, orders=6, payments=3)
    assert plan.repartitions == (
        Repartition("orders", "mono.orders", "key", "keyed.key.orders", 6),
        Repartition("payments", "mono.payments", "key", "keyed.key.payments", 3),
    )
    assert plan.topics == ("keyed.key.orders", "keyed.key.payments")
    assert plan.inputs == ("mono.orders", "mono.payments")
    assert "repartition mono.orders (6 partitions) by key -> keyed.key.orders" in plan.describe()


def test_topics_that_are_even_or_do_not_exist_yet_are_read_as_they_are():
    for partitions in ({"orders": 4, "payments": 4}, {"orders": 4}, {}):
        assert plan_of(PAIR, **partitions).topics == ("mono.orders", "mono.payments")


def test_what_stands_beside_a_copy_is_copied_too_unless_its_partitioner_is_known():
    # Producers of other libraries may partition by another function than that by which the copies are made.
    assert plan_of(PAIR, orders=6, payments=4).topics == ("keyed.key.orders", "keyed.key.payments")
    mixed = PAIR.replace("payments", "axon_1")
    assert plan_of(mixed, orders=6, axon_1=4).topics == ("keyed.key.orders", "mono.axon_1")


def test_only_the_groups_that_read_an_uneven_topic_are_concerned():
    text = """
rules:
  - {name: pair, within: 1s, all: [{as: a, stream: orders}, {as: b, stream: payments}]}
  - {name: alone, by: device, seq: [{as: a, stream: readings}]}
streams: [{name: readings, key: device}]
"""
    assert plan_of(text, orders=6, payments=6, readings=4).topics == (
        "keyed.key.orders",
        "keyed.key.payments",
        "mono.readings",
    )


@pytest.mark.parametrize(("declared", "topic"), [("true", "keyed.device.readings"), ("null", "mono.readings")])
def test_a_stream_that_its_producer_partitions_itself_is_copied_where_it_meets_a_copy(declared, topic):
    text = f"""
streams: [{{name: readings, key: {{field: device, partitioned: {declared}}}}}, {{name: alarms, key: site}}]
rules: [{{name: r, by: device, within: 1s, all: [{{as: a, stream: readings}}, {{as: b, stream: alarms}}]}}]
"""
    assert plan_of(text).topics == tuple(sorted(["keyed.device.alarms", topic]))
    assert plan_of(text.replace("key: site", "key: device")).repartitions == ()


def test_a_stream_that_is_keyed_anew_is_copied_once_from_all_of_its_partitions():
    text = "rules: [{name: r, by: place, seq: [{as: a, stream: orders}]}]"
    assert plan_of(text, orders=6).repartitions == (
        Repartition("orders", "mono.orders", "place", "keyed.place.orders", 6),
    )


def test_topics_of_the_pipeline_itself_are_never_uneven():
    assert uneven_topics({"mono.a": 3, "b": 2, "metrics.w": 3, "control.clock": 1, "alerts": 3, "c": 4}, 4) == {
        "mono.a": 3,
        "b": 2,
    }


def test_a_reader_of_copies_waits_for_every_partition_of_the_original():
    repartition = Repartition("weather", "mono.weather", "place", "keyed.place.weather", 3)
    columns = {"timestamp": [1_750_000_000_000_000], "key": ["k"], "place": ["p"]}
    value = encode_frame(Frame.from_columns("weather", "run", columns))
    ((copy,), _) = Repartitioner(repartition, 2, lateness_us=0).step(2, [RawRecord(0, 1_750_000_000_000, None, value)])
    assert copy.frame.peers == ("weather@/0", "weather@/1", "weather@/2")


def test_a_topic_that_grows_while_a_worker_runs_is_a_change():
    known = KnownTopics({"mono.a": 4, "mono.b": 6}, 4)
    topics = ["mono.a", "mono.b", "mono.c"]
    assert known.changes({"mono.a": 4, "mono.b": 6, "mono.c": 4, "mono.d": 9}, topics) == []
    (line,) = known.changes({"mono.a": 6, "mono.b": 6}, topics)
    assert line.startswith("topic 'mono.a' has 6 partitions now, and had 4 when this worker began")
    (line,) = known.changes({"mono.c": 1}, topics)
    assert line.startswith("topic 'mono.c' has 1 partitions now, and had 4")


def test_only_topics_that_the_pipeline_writes_must_have_its_number_of_partitions():
    wanted = dict.fromkeys(["mono.a", "shop.orders", "alerts", "late"], 4)
    check_partitions({"mono.a": 3, "shop.orders": 12, "alerts": 4}, wanted)
    with pytest.raises(InvalidSettings, match=r"topic 'alerts': expected 4 partitions, got 3; .*_PARTITIONS=3"):
        check_partitions({"mono.a": 4, "alerts": 3, "late": 3}, wanted)
    with pytest.raises(InvalidSettings, match=r"got different numbers \(3: alerts; 4: late\)"):
        check_partitions({"alerts": 3, "late": 4}, wanted)
    with pytest.raises(InvalidSettings, match="'simulations': expected 1 partition, got 3"):
        check_partitions({"simulations": 3}, wanted | {"simulations": 1})
