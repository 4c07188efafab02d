"""What the domains of the role correlate report: of all rules, also those that another role computes."""

import orjson
import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.roles.correlation.correlate import Correlator
from astrocyte.pipeline.roles.correlation.domains import domain_of, topics_of
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.topology.topics import KnownTopics
from astrocyte.schemas.json.reader import RawRecord

START_US = 1_772_359_200_000_000
STREAM = "streams: [{name: rooms, fields: {heat: {}, damp: {}}}]\n"
INSIGHT = STREAM + "insight: [{name: w, statistic: early_warning, size: 10s, stream: rooms, series: [heat]}]\n"
RULES = INSIGHT + "rules: [{name: r, by: key, seq: [{as: a, stream: other}]}]"


def records(*values: object) -> list[RawRecord]:
    return [
        RawRecord(offset, START_US // 1000, b"k", orjson.dumps({"ts": START_US + offset, "heat": value}))
        for offset, value in enumerate(values)
    ]


@pytest.fixture
def made():
    settings = load_settings()
    known = KnownTopics({}, settings.partitions)

    def domain(role: str, rules: str):
        ruleset = load_rules(rules)
        topics = topics_of(role, ruleset, known, settings)
        return domain_of(0, role, ruleset, known=known, settings=settings, topics=topics)

    return domain


def counted(domain) -> list[tuple[str, str, int]]:
    return [(cause, detail, each.count) for cause, _, detail, each in domain.unused]


def test_values_that_only_the_role_insight_reads_are_counted_by_correlate_as_match_counts_them(made):
    domain = made("correlate", RULES)
    domain.feed("mono.rooms", records(1.5, "n/a", "n/a"))
    assert counted(domain) == [("kind", "heat", 2), ("no_number", "heat", 2)]


def test_a_field_that_only_the_role_insight_names_and_that_never_came_is_named(made):
    domain = made("correlate", RULES)
    domain.feed("mono.rooms", [RawRecord(0, START_US // 1000, b"k", orjson.dumps({"ts": START_US, "damp": 1}))])
    (line, *_) = [line for line in domain.fields.absent(domain.made) if "heat" in line]
    assert "never came" in line


async def test_changed_rules_are_reported_for_as_well(made):
    domain = made("correlate", RULES)
    correlator = Correlator(
        lambda _: domain, None, None, None, lambda _: None, partitions=1,
        snapshot_interval_us=1_000_000, idle_timeout_us=1_000_000,
    )  # fmt: skip
    correlator._domains[0] = correlator._new(0)
    ruleset = load_rules(RULES.replace("[heat]", "[damp]"))
    plan = KnownTopics({}, 1).plan(ruleset).part("correlate")
    rulesets = {group.field: group.ruleset for group in plan.groups}
    await correlator.update(rulesets, "digest", reported=ruleset)
    domain.feed("mono.rooms", records(1.5, "n/a"))
    assert counted(domain) == []
    assert {each.field for each in domain.fields.named} >= {"damp"}
