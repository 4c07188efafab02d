"""Of which topics a worker may leave events out: streams that all rules read as they are, by declaration or setting."""

import pytest

from astrocyte import load_rules
from astrocyte.pipeline.roles.correlation.domains import policies_of
from astrocyte.pipeline.roles.worker import environment_of
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.topology.plan import make_plan, refuse_topics
from astrocyte.pipeline.topology.topics import KnownTopics
from astrocyte.schemas.errors import InvalidRule, InvalidSettings

TEXT = """
streams:
  - {name: A, key: sensor, overload: %s}
rules:
  - {name: one, by: sensor, within: 1s, seq: [{as: a, stream: A}, {as: b, stream: B}]}
  - {name: two, by: key, any: [{as: c, stream: C}]}
  - {name: deaths, by: key, any: [{as: e, stream: truth}]}
  - {name: both, by: sensor, any: [{as: o, stream: one}]}
"""
SAMPLE = '{"policy": "sample", "share": 0.5, "above": 40}'


def policies(text: str, settings: Settings, **existing: int) -> dict[str, str]:
    known = KnownTopics({f"mono.{name}": count for name, count in existing.items()}, 4)
    found = policies_of("correlate", load_rules(text), known, settings)
    return {topic: policy.policy for topic, policy in found.items()}


def test_declared_streams_have_their_policy_and_all_others_that_of_the_settings():
    assert policies(TEXT % "latest", load_settings()) == {"mono.A": "latest"}
    everywhere = load_settings(overload=SAMPLE)
    # B is read from a copy by `sensor`, `truth` is critical, and `one` is made by a rule.
    assert policies(TEXT % "latest", everywhere) == {"mono.A": "latest", "mono.C": "sample"}
    assert policies(TEXT % "block", everywhere) == {"mono.C": "sample"}
    assert policies(TEXT % "block", everywhere, C=3) == {}, "a topic of another number of partitions is copied"


def test_only_correlate_leaves_events_out():
    known = KnownTopics({}, 4)
    assert policies_of("insight", load_rules(TEXT % "latest"), known, load_settings(overload=SAMPLE)) == {}


def test_a_policy_of_a_stream_that_is_repartitioned_for_a_rule_is_refused():
    copied = "streams: [{name: A, overload: latest}]\nrules: [{name: r, by: place, any: [{as: a, stream: A}]}]"
    with pytest.raises(InvalidRule, match="stream 'A' declares overload latest, and rules read it repartitioned by"):
        refuse_topics(make_plan(load_rules(copied)))
    refuse_topics(make_plan(load_rules(copied.replace("latest", "block"))))
    refuse_topics(make_plan(load_rules(copied.replace("by: place", "by: key"))))


def test_the_setting_is_a_name_or_json_and_goes_to_child_processes(monkeypatch):
    assert load_settings().overload.policy == "block"
    monkeypatch.setenv("ASTROCYTE_OVERLOAD", SAMPLE)
    settings = load_settings()
    assert (settings.overload.share, settings.overload.begins_above) == (0.5, 40)
    monkeypatch.setenv("ASTROCYTE_OVERLOAD", environment_of(settings)["ASTROCYTE_OVERLOAD"])
    assert load_settings() == settings
    monkeypatch.setenv("ASTROCYTE_OVERLOAD", "drop_oldest")
    assert load_settings().overload.policy == "drop_oldest"
    monkeypatch.setenv("ASTROCYTE_OVERLOAD", "sample")
    with pytest.raises(InvalidSettings, match=r"ASTROCYTE_OVERLOAD\): policy sample needs"):
        load_settings()
