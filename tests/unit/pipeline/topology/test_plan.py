import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.topology.plan import ALL_KEYS, Repartition, checked_plan, make_plan
from astrocyte.pipeline.topology.rule_updates import LiveRules
from astrocyte.schemas.catalog import Catalog, EventType
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.topics import is_legal, keyed_topic, stream_of

CATALOG = Catalog()
CATALOG.register(EventType("vitals", "island", {"cell": "int64", "energy": "float32"}))
CATALOG.register(EventType("spikes", "domain", {"value": "float64"}))


def plan_of(text: str):
    return make_plan(load_rules(text), CATALOG)


def test_a_rule_by_the_message_key_reads_the_streams_themselves():
    plan = plan_of("rules: [{name: r, by: key, within: 2s, all: [{as: a, stream: spikes}, {as: b, stream: vitals}]}]")
    assert plan.topics == ("mono.spikes", "mono.vitals")
    assert plan.repartitions == ()


def test_naming_the_streams_own_key_needs_no_other_topic():
    plan = plan_of("rules: [{name: r, by: domain, within: 2s, seq: [{as: a, stream: spikes}]}]")
    assert plan.topics == ("mono.spikes",)


def test_a_rule_by_another_field_reads_the_repartitioned_stream():
    plan = plan_of("rules: [{name: r, by: cell, within: 2s, seq: [{as: a, stream: vitals}]}]")
    assert plan.repartitions == (Repartition("vitals", "mono.vitals", "cell", "keyed.cell.vitals"),)
    assert plan.topics == ("keyed.cell.vitals",)
    assert "repartition mono.vitals by cell -> keyed.cell.vitals" in plan.describe()


def test_a_window_is_read_inside_its_group_and_over_a_topic_by_another():
    text = """
windows: [{name: mean_energy, from: vitals, by: island, every: 10s, select: {energy: mean(energy)}}]
rules:
  - {name: inside, by: island, within: 60s, seq: [{as: a, stream: mean_energy}]}
  - {name: outside, by: energy, within: 60s, seq: [{as: a, stream: mean_energy}]}
"""
    plan = plan_of(text)
    assert [group.topics for group in plan.groups] == [
        {"vitals": "mono.vitals"},
        {"mean_energy": "keyed.energy.mean_energy"},
    ]
    assert plan.repartitions == (
        Repartition("mean_energy", "metrics.mean_energy", "energy", "keyed.energy.mean_energy"),
    )


def test_a_rule_whose_matches_another_group_reads_is_exported():
    text = """
rules:
  - {name: burst, by: domain, within: 1s, seq: [{as: a, stream: spikes}]}
  - {name: anywhere, by: null, within: 1s, seq: [{as: a, stream: burst}]}
"""
    plan = plan_of(text)
    assert plan.groups[0].exports == frozenset({"burst"})
    assert plan.groups[1].field == ALL_KEYS


@pytest.mark.parametrize("by", ["key", "place"])
def test_a_declared_stream_of_the_users_own_says_what_its_key_means(by):
    text = f"""
streams: [{{name: weather, key: place}}]
rules: [{{name: r, by: {by}, within: 1s, seq: [{{as: a, stream: weather}}]}}]
"""
    assert plan_of(text).repartitions == ()


def test_cyclic_rules_have_no_checked_plan():
    text = """
rules:
  - {name: one, within: 1s, seq: [{as: a, stream: two}, {as: b, stream: spikes}]}
  - {name: two, within: 1s, seq: [{as: a, stream: one}, {as: b, stream: spikes}]}
"""
    with pytest.raises(InvalidRule, match="circle: one -> two -> one"):
        checked_plan(load_rules(text))


def test_a_rule_that_is_too_large_has_no_checked_plan():
    text = """
rules:
  - name: big
    within: 1s
    seq: [{seq: [{as: a, stream: spikes, times: 1000}, {as: b, stream: vitals, times: 1000}], times: 20}]
"""
    with pytest.raises(InvalidRule, match="more than 20000 states"):
        checked_plan(load_rules(text))


def test_a_cycle_across_groups_is_refused_with_its_names():
    text = """
windows: [{name: sums, from: one, by: island, every: 10s, select: {n: count()}}]
rules:
  - {name: apart, by: key, within: 1s, seq: [{as: a, stream: two}]}
  - {name: one, by: key, within: 1s, seq: [{as: a, stream: two}]}
  - {name: two, by: n, within: 1s, seq: [{as: a, stream: sums}]}
"""
    wanted = r"circle: sums -> one -> two -> sums \(sums by island, one by key, two by n\); break it"
    with pytest.raises(InvalidRule, match=wanted):
        plan_of(text)


def test_a_rule_that_reads_its_own_matches_is_a_cycle():
    with pytest.raises(InvalidRule, match=r"circle: one -> one \(one by key\)"):
        plan_of("rules: [{name: one, by: key, within: 1s, seq: [{as: a, stream: one}]}]")


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("visitor", {"web.clicks": "visitor"}),
        ("{field: visitor, partitioned: false}", {}),
        ("{field: visitor, partitioned: true}", {}),
        ("session", {}),
    ],
)
def test_a_topic_that_is_read_as_it_is_is_taken_to_be_partitioned_by_its_key(key, found):
    plan = plan_of(f"""
streams: [{{name: clicks, topic: web.clicks, key: {key}}}]
rules:
  - {{name: r, by: visitor, seq: [{{as: a, stream: clicks}}]}}
  - {{name: own, by: domain, seq: [{{as: a, stream: spikes}}]}}
  - {{name: anywhere, by: null, seq: [{{as: a, stream: other}}]}}
""")
    assert plan.partitioned_by == found


@pytest.mark.parametrize("field", ["a/b c", "é", "b" * 260, "a.b"])
def test_a_copy_by_any_field_has_a_topic_that_kafka_takes(field):
    topic = keyed_topic("moves", field)
    assert is_legal(topic)
    assert stream_of(topic) == "moves"
    assert keyed_topic("moves", field + "x") != topic
    assert keyed_topic("moves", "place") == "keyed.place.moves"


def test_a_copy_whose_topic_would_have_too_long_a_name_is_refused():
    rules = load_rules(f"rules: [{{name: r, by: {'b' * 60}, seq: [{{as: a, stream: {'s' * 200}}}]}}]")
    with pytest.raises(InvalidRule, match=r"which Kafka does not take: it has 267 characters, and .* 249 at most"):
        checked_plan(rules)


@pytest.mark.parametrize(
    ("by", "where"),
    [("key", "is read from the topic 'mono.größe'"), ("null", "is repartitioned by 'null' into the topic")],
)
def test_a_stream_whose_topic_kafka_does_not_take_is_refused_with_the_characters_and_planned_without_a_broker(
    by, where
):
    rules = load_rules(f"rules: [{{name: r, by: {by}, seq: [{{as: a, stream: größe}}]}}]")
    assert make_plan(rules).streams == ("größe",)
    with pytest.raises(InvalidRule, match="which Kafka does not take: it has 'ö', 'ß'; a topic has") as refused:
        checked_plan(rules)
    assert f"stream 'größe' {where}" in str(refused.value)


def test_a_stream_that_is_named_by_a_pattern_is_refused():
    rules = load_rules("rules: [{name: r, any: [{as: a, stream: 'dna.*'}]}]")
    with pytest.raises(InvalidRule, match=r"stream 'dna\.\*' looks like a pattern; .* write a step for each"):
        make_plan(rules)


READS_A = "rules: [{name: one, seq: [{as: a, stream: A}]}]"
ANOTHER_OF_A = "streams: [{name: Z, topic: mono.A}]\nrules: [{name: x, seq: [{as: a, stream: Z}]}]"


@pytest.mark.parametrize(
    "text",
    [
        ANOTHER_OF_A[:-1] + ", {name: one, seq: [{as: a, stream: A}]}]",
        f"streams: [{{name: Z, topic: mono.A}}]\n{READS_A}",
        f"{ANOTHER_OF_A}\nwindows: [{{name: w, from: A, every: 1s, select: {{n: count()}}}}]",
    ],
)
def test_a_stream_of_the_default_topic_and_a_declared_one_of_the_same_topic_are_refused_with_both_names(text):
    with pytest.raises(InvalidRule, match=r"streams 'Z' and 'A' both read the topic 'mono.A'"):
        plan_of(text)


def test_a_declared_stream_does_not_take_the_topic_of_a_listed_one():
    with pytest.raises(InvalidRule, match=r"streams 'mine' and 'vitals' both read the topic 'mono.vitals'"):
        plan_of("streams: [{name: mine, topic: mono.vitals}]\nrules: [{name: x, seq: [{as: a, stream: mine}]}]")


def test_published_rules_with_another_stream_of_a_topic_are_refused_and_the_old_ones_stay():
    live = LiveRules(load_rules(READS_A), accept=lambda ruleset: make_plan(ruleset, CATALOG))
    change = live.apply("z", ANOTHER_OF_A.encode())
    assert "streams 'Z' and 'A' both read the topic 'mono.A'" in change.refused
    assert [each.name for each in live.ruleset.rules] == ["one"]
