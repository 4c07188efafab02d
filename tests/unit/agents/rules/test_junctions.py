"""Junctions in rule files: what is refused, at its place, and how rules are grouped by the junctions before them."""

import pytest

from astrocyte import InvalidRules, RuleSet, load_rules, match
from astrocyte.agents.cep.explain.mermaid import junctions_mermaid
from astrocyte.agents.rules.graph.links import depths
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.schemas.errors import InvalidRule

RULES = """
rules:
  - {name: pair, within: 1s, all: [{as: a, stream: axon_1}, {as: b, stream: axon_2}], emit: {level: "a.value"}}
  - {name: heard, seq: [{as: w, stream: wave, where: "level > 1"}], emit: {level: "w.level"}}
windows:
  - {name: rate, from: axon_1, every: 1s, select: {n: "count()"}}
junctions:
  - {name: wave, JUNCTION}
"""


def problems(junction: str, rules: str = RULES) -> list[tuple[int | None, str, str]]:
    with pytest.raises(InvalidRules) as caught:
        load_rules(rules.replace("JUNCTION", junction))
    return [(each.line, each.field, each.message) for each in caught.value.problems]


@pytest.mark.parametrize(
    ("junction", "field", "message"),
    [
        ("from: piar", "from", "there is no rule 'piar' in the file; did you mean 'pair'?"),
        ("from: 'wave_*'", "from", "no rule of the file has a name like 'wave_*'"),
        ("from: rate", "from", "'rate' is a window; a junction leads matches on: name a rule that reads it"),
        ("from: []", "from", "names no rule; name one, or a pattern such as wave_*"),
        ("from: pair, key: place", "key", "rule 'pair' emits no 'place'; add it to its emit"),
        ("from: pair, where: 'levle > 1'", "where", "events of the junction have no field 'levle'; did you mean"),
        ("from: pair, where: 'level > '", "where", "not an expression: "),
        ("from: pair, where: \"strength == 'a'\"", "where", "which is a number, with text"),
        ("from: pair, where: 'timed_out == 1'", "where", "; write timed_out == true"),
        ("from: pair, damping: 0", "damping", "expected a value greater than 0, got 0"),
        ("from: pair, max_hops: 0", "max_hops", "expected a value greater than or equal to 1, got 0"),
        ("from: pair, dampin: 0.5", "dampin", "unknown field 'dampin'; did you mean 'damping'?"),
        ("from: heard", "from", "the junction leads back to rules from which it comes: heard -> wave -> heard"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_its_place(junction, field, message):
    ((line, found, text),) = problems(junction)
    assert line == 8
    assert found == field
    assert message in text


@pytest.mark.parametrize(
    ("forms", "field", "message"),
    [
        ("over: 2s, above: 10, below: 1", "forms", "above 10 is never exceeded: the window has 10 buckets"),
        ("over: 2s, above: 1, below: 3", "forms", "a co-activity of 2 would form the junction and dissolve it"),
        ("over: 2s, every: 300ms, above: 1, below: 1", "forms", "over 2s is no multiple of every 300ms"),
        ("over: 5us, above: 1, below: 1", "forms", "over 5us cannot be divided by 10; give the length of its buckets"),
        ("over: 2h, every: 1s, above: 1, below: 1", "forms", "has 7,200 buckets of 1s; the limit is 1,000"),
        ("over: 2s, above: 1, below: 0", "forms.below", "expected a value greater than or equal to 1, got 0"),
        ("above: 1, below: 1", "forms.over", "is missing"),
        ("over: 2s, above: 1, below: 1, with: rate", "forms.with", "'rate' is made by this file; name a stream of"),
        ("over: 2s, above: 1, below: 1, with: []", "forms.with", "names no stream; name one of which an event shows"),
    ],
)  # fmt: skip
def test_bounds_between_which_nothing_could_form_are_refused_at_their_place(forms, field, message):
    with_ = "" if "with" in forms else ", with: axon_2"
    ((line, found, text),) = problems(f"from: pair, forms: {{{forms}{with_}}}")
    assert (line, found) == (8, field)
    assert message in text


FORMS = "from: pair, forms: {with: axon_2, over: 2s, above: 1, below: 1}"


def test_streams_that_show_activity_are_read_by_the_group_that_reads_the_junction():
    ruleset = load_rules(RULES.replace("JUNCTION", FORMS))
    plan = make_plan(ruleset)
    assert [sorted(group.topics) for group in plan.groups] == [["axon_1", "axon_2"], ["axon_2", "wave"]]
    assert plan.forming == ("wave",)
    assert RuleSet.model_validate_json(ruleset.model_dump_json()) == ruleset
    assert "forms above 1 of 10 in 2s, dissolves below 1" in junctions_mermaid(ruleset)
    with pytest.raises(InvalidRules, match="unknown stream 'axon_2'"):
        load_rules(RULES.replace("JUNCTION", FORMS), known_streams=["axon_1"])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{name: other, by: level, seq: [{as: w, stream: wave}]}", "correlates by different fields (heard by key"),
        (
            "{name: other, within: 1s, seq: [{as: w, stream: wave}, {as: f, stream: far}]}",
            "is behind different numbers of junctions (heard behind 1, other behind 2)",
        ),
    ],
)
def test_all_that_reads_a_junction_that_forms_decides_alike(rule, message):
    text = RULES.replace("windows:", f"  - {rule}\nwindows:") + "  - {name: far, from: heard}\n"
    ((_, field, found),) = problems(FORMS, text)
    assert field == "forms"
    assert message in found


def test_a_junction_of_a_circle_is_always_there():
    forms = "forms: {with: axon_2, over: 2s, above: 1, below: 1}"
    with pytest.raises(InvalidRules, match="such a junction is always there: leave forms out"):
        load_rules(CIRCLE.replace("BOUND", f"max_hops: 2, damping: 0.5, {forms}"))


def test_a_circle_through_two_junctions_is_refused():
    text = RULES.replace("{name: wave, JUNCTION}", "{name: wave, from: echo}\n  - {name: back, from: heard}")
    echo = "  - {name: echo, seq: [{as: b, stream: back}], emit: {level: 'b.level'}}\n"
    with pytest.raises(InvalidRules, match="from which it comes: heard -> wave -> echo -> back -> heard"):
        load_rules(text.replace("windows:", f"{echo}windows:"))


CIRCLE = """
rules:
  - {name: seed, seq: [{as: a, stream: axon_1}], emit: {to: "a.value"}}
  - {name: relay, within: 1s, seq: [{as: w, stream: wave}, {as: b, stream: axon_2}], emit: {to: "b.value"}}
  - {name: heard, seq: [{as: w, stream: wave}]}
junctions:
  - {name: wave, from: [seed, relay], key: to, BOUND}
"""


def test_a_circle_with_a_bound_has_a_group_for_each_generation():
    plan = make_plan(load_rules(CIRCLE.replace("BOUND", "max_hops: 2, damping: 0.5")))
    groups = [(group.name, [rule.name for rule in group.ruleset.rules]) for group in plan.groups]
    assert groups == [("key.0", ["seed"]), ("key+1.1", ["relay"]), ("key+2.2", ["relay"]), ("key+3", ["heard"])]
    assert [sorted(group.newest) for group in plan.groups] == [[], ["wave"], ["wave.hop2"], []]
    for group in plan.groups:  # as snapshots hold them
        assert RuleSet.model_validate_json(group.ruleset.model_dump_json()) == group.ruleset
    versions = {rule.content_version for group in plan.groups for rule in group.ruleset.rules if rule.name == "relay"}
    assert len(versions) == 1  # so the ids of its matches do not depend on the generation
    assert [link.topic for link in plan.links] == [
        "keyed.key.wave", "keyed.key.wave.hop2", "keyed.key.wave.hop3",
    ]  # fmt: skip


@pytest.mark.parametrize("bound", ["max_hops: 2", "damping: 0.5", "max_hops: 2, damping: 1"])
def test_a_circle_without_a_whole_bound_is_refused(bound):
    with pytest.raises(InvalidRules, match="give it max_hops, and a damping below 1"):
        load_rules(CIRCLE.replace("BOUND", bound))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("{as: w, stream: wave}]}", "{as: w, stream: relay}]}", "to which a junction leads back"),
        ("{as: w, stream: wave}, {as: b", "{as: w, stream: wave, optional: true}, {as: b", "neither negated nor"),
        (
            "junctions:",
            "windows: [{name: n, from: wave, every: 1s, select: {n: 'count()'}}]\njunctions:",
            "in a circle",
        ),
    ],
)
def test_what_a_circle_may_not_hold_is_refused(before, after, message):
    text = CIRCLE.replace("BOUND", "max_hops: 2, damping: 0.5").replace(before, after)
    with pytest.raises(InvalidRules, match=message):
        load_rules(text)


def test_one_engine_does_not_run_a_circle():
    ruleset = load_rules(CIRCLE.replace("BOUND", "max_hops: 2, damping: 0.5"))
    with pytest.raises(InvalidRule, match="run these rules by 'astrocyte match' or in a worker"):
        match(ruleset, [])


def test_a_rule_whose_matches_wait_needs_eager():
    held = RULES.replace("seq: [{as: w", "skip: past_last, seq: [{as: w").replace(
        "rules:\n", "rules:\n  - {name: held, within: 1s, skip: past_last, seq: [{as: x, stream: axon_3}]}\n"
    )
    ((_, field, message),) = problems(
        "from: held", held.replace(', where: "level > 1"', "").replace(', emit: {level: "w.level"}', "")
    )
    assert field == "from"
    assert "rule 'held' has skip past_last" in message
    assert "emit: eager" in message


def test_a_rule_may_not_emit_what_the_junction_sets():
    ((_, _, message),) = problems("from: pair", RULES.replace('{level: "a.value"}', '{level: "1", strength: "2"}'))
    assert message == "rule 'pair' emits 'strength', which the junction sets; name it otherwise there"


def test_the_rules_of_a_junction_share_their_by():
    other = RULES.replace("windows:", "  - {name: other, by: value, seq: [{as: a, stream: axon_1}]}\nwindows:")
    ((_, field, message),) = problems("from: [pair, other]", other)
    assert field == "from"
    assert "its rules correlate by different fields (pair by key, other by value)" in message


def test_fields_of_its_events_are_known_to_rules_that_read_it():
    ((_, _, message),) = problems("from: pair", RULES.replace("level > 1", "lvl > 1"))
    assert message == "stream wave has no field 'lvl'; did you mean 'level'?"


def test_rules_behind_junctions_have_groups_of_their_own():
    text = RULES.replace("JUNCTION", "from: pair, key: level").replace(
        "windows:", "  - {name: far, by: w, seq: [{as: x, stream: beyond}]}\nwindows:"
    )
    text = text.replace('{level: "w.level"}', '{w: "w.level"}')
    text += "  - {name: beyond, from: heard, key: w, damping: 0.5, delay: 2s, max_hops: 4, min_strength: 0.1}\n"
    ruleset = load_rules(text)
    assert {name: depth for name, depth in depths(ruleset).items() if depth} == {"heard": 1, "beyond": 1, "far": 2}
    plan = make_plan(ruleset)
    assert [(group.name, sorted(rule.name for rule in group.ruleset.rules)) for group in plan.groups] == [
        ("key", ["pair"]), ("key+1", ["heard"]), ("w+2", ["far"]),
    ]  # fmt: skip
    assert [link[:3] for link in plan.links] == [
        ("wave", "key", "keyed.key.wave"), ("beyond", "w", "keyed.w.beyond"),
    ]  # fmt: skip
    assert plan.repartitions == ()
    assert plan.inputs == ("mono.axon_1", "mono.axon_2")
    assert "junction beyond: heard -> keyed.w.beyond" in plan.describe()
    drawn = junctions_mermaid(ruleset)
    assert 'pair -- "wave, key level" --> heard' in drawn
    assert "beyond, key w, delay 2s, damping 0.5, from strength 0.1, up to 4 hops" in drawn


def test_nodes_of_a_diagram_have_names_of_their_own():
    text = """
rules:
  - {name: a.b, seq: [{as: x, stream: axon_1}]}
  - {name: a_b, seq: [{as: x, stream: axon_1}]}
  - {name: end, seq: [{as: x, stream: both}]}
junctions:
  - {name: both, from: "a*"}
  - {name: beyond, from: end}
"""
    assert junctions_mermaid(load_rules(text)).splitlines()[2:] == [
        '    a_b["a.b<br/>by key"]',
        '    a_b_["a_b<br/>by key"]',
        '    end_["end<br/>by key"]',
        '    no_rule(["no rule"])',
        '    a_b -- "both, key key" --> end_',
        '    a_b_ -- "both, key key" --> end_',
        '    end_ -- "beyond, key key" --> no_rule',
    ]


def test_a_statistic_reads_no_junction():
    statistic = "{statistic: diversity, name: d, size: 1s, stream: wave, traits: [level], bounds: {level: [0, 1]}}"
    text = RULES.replace("JUNCTION", "from: pair").replace('{level: "a.value"}', '{level: "a.value", cell_id: "1"}')
    with pytest.raises(InvalidRules, match="make a window over it"):
        load_rules(f"{text}insight:\n  - {statistic}\n")


def test_a_value_that_a_rule_emits_by_the_name_of_a_field_of_its_match_has_no_known_type():
    text = RULES.replace('{level: "a.value"}}', '{level: "a.value", confidence: "\'high\'"}}', 1)
    load_rules(text.replace("JUNCTION", "from: pair, where: \"confidence == 'high'\""))
