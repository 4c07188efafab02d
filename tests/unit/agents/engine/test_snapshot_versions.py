"""A snapshot of rules whose version is set by hand."""

from astrocyte import Engine, load_rules

RULES = "rules: [{name: r, version: v1, within: 10s, seq: [{as: a, stream: A}, {as: b, stream: B}]}]"


def test_a_rule_with_a_version_of_its_own_keeps_its_partial_matches_over_a_restart():
    engine = Engine(load_rules(RULES))
    engine.push_events([{"stream": "A", "timestamp": 0, "key": "k"}])
    engine.advance(5_000_000)
    restored = Engine(load_rules(RULES))
    restored.restore(engine.snapshot())
    restored.push_events([{"stream": "B", "timestamp": 6_000_000, "key": "k"}])
    assert [match.version for match in restored.flush().matches] == ["v1"]
