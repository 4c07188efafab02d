"""What is suggested for a misspelt name is allowed at that very place, all over a rule file."""

import copy

import pytest
import yaml

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.problems import InvalidRules

FILE = yaml.safe_load("""
rules:
  - name: hot
    by: room
    within: {time: 2s, closed: true}
    skip: {kind: to_first, step: one}
    max_partials: {limit: 100, policy: drop_newest}
    emit: {level: last(one.value), shop: last(one.shop)}
    emit_mode: eager
    alert: {severity: warning, message: hot}
    on_timeout: {emit: {level: '1.0', shop: "'none'"}, alert: {severity: info, message: over}}
    group: {within: 10s, by: level}
    seq:
      - {as: one, stream: heat, where: value > 1, min: 1, until: {where: value < 1, stream: heat}}
      - {not: {as: calm, stream: heat, where: value < 0}}
      - any: [{as: two, stream: heat}, {seq: [{as: three, stream: heat}, {as: four, stream: heat}]}]
  - {name: both, by: room, within: 1s, all: [{as: a, stream: heat}, {as: b, stream: heat}], emit: {shop: a.shop}}
windows:
  - {name: rate, from: heat, by: room, every: 10s, late: revise, keep: 5s, select: {most: max(value)}}
insight:
  - {name: out, statistic: forecast, size: 60s, horizons: [10s], targets: [{field: size, scale: log}], stream: counts}
  - {statistic: trends, size: 60s, interval: 1s, series: [{stream: counts, field: size}]}
  - {statistic: selection, size: 60s, traits: [metabolism]}
junctions:
  - {name: wave, from: hot, key: shop, where: level > 1, forms: {with: heat, over: 10s, every: 1s, above: 2, below: 1}}
streams:
  - name: heat
    key: {field: room}
    time: {field: at, unit: ms}
    id: nr
    decoder: {name: json}
    fields: {value: {type: float64}, shop: {type: string}, path: {type: string}}
    overload: {policy: sample, share: 0.1}
  - {name: counts, key: run, fields: {size: float64, run: string}}
validators:
  - {stream: heat, require: [value], set: {double: value * 2}, rename: {double: twice}}
""")
FREE = {"emit", "set", "rename", "fields", "select", "decoder", "traits", "bounds", "options"}
"""Members of these mappings are names of the user's own, or the options of a decoder."""


def mappings(value, path=()):
    """Paths of the mappings whose keys the language fixes."""
    if isinstance(value, dict):
        if not path or path[-1] not in FREE:
            yield path
        for key, each in value.items():
            yield from mappings(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from mappings(each, (*path, index))


PLACES = list(mappings(FILE))
EVERY_NAME = """
name description by within seq all any pairing skip emit_mode max_partials max_matches emit confidence alert on_timeout
cool_down group consistency at_end version time closed limit policy kind step on_missing to_first to_last severity
message as stream where not contiguity min max times optional greedy consecutive combinations gap until within_prev
from every size sliding session offset select late keep statistic lineage child parent birth death traits individual
follow level effects magnitude changes bins bounds series bandwidth part resamples min_samples horizons targets field
scale interval most_lag classes key delay damping min_strength max_hops forms with over above below topic decoder id
fields on_type_error overload path reading partitioned unit type text share non_finite require reason use set rename
drop sample rules windows insight junctions streams validators
""".split()  # noqa: SIM905  a list of 120 strings is hard to read


GROUP = {"seq", "all", "any"}


def placed(value, path):
    for part in path:
        value = value[part]
    return value


def with_key(path, key):
    """The entry of a path, alone, with one more key at that place."""
    if not path:
        return {key: "x"}
    section, index, *inside = path
    entry = copy.deepcopy(FILE[section][index])
    placed(entry, inside)[key] = "x"
    return {section: [entry]}


def unknown_at(path, key):
    """The message on an unknown field of that name, with the path of the field; None if it is known there."""
    try:
        load_rules(with_key(path, key))
    except InvalidRules as refused:
        return next((each for each in refused.problems if f"unknown field {key!r}" in each.message), None)
    return None


def misspelt(name):
    return f"{name[:-1]}e{name[-1]}" if len(name) > 2 else f"{name}e"


def test_the_file_is_valid():
    assert load_rules(FILE).rules


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)) or "file")
def test_a_misspelt_field_gets_a_suggestion_that_the_place_allows(path):
    allowed = {name for name in EVERY_NAME if unknown_at(path, name) is None}
    if path[-2:-1] and path[-2] in ("seq", "all", "any") and not GROUP.intersection(placed(FILE, path)):
        allowed -= GROUP  # it would be a group, not a step
    assert allowed
    for name in EVERY_NAME:
        found = unknown_at(path, misspelt(name))
        assert found is not None
        meant = found.message.partition("did you mean '")[2].removesuffix("'?")
        assert not meant or meant in allowed, f"{misspelt(name)}: {meant}"
        if name in allowed:
            assert meant == name
        fields = [str(part) for part in path[2:] if part != "not"]
        assert found.field == ".".join([*fields, misspelt(name)])


NAMES = """
rules:
  - {name: hot, by: room, seq: [{as: one, stream: heat, where: value > 1}], emit: {level: one.value, shop: one.shop}}
  - {name: cold, by: room, seq: [{as: one, stream: heat, where: value < 1}], emit: {shop: one.shop}}
  - {name: again, seq: [{as: one, stream: waves}]}
windows: [{name: rates, from: heat, every: 10s, select: {most: max(value)}}]
junctions: [{name: waves, from: [hot, cold], key: shop, forms: {with: heat, over: 10s, above: 2, below: 1}}]
streams: [{name: heat, fields: {value: float64, shop: string, room: string}}]
validators: [{stream: heat, set: {double: value * 2, fourfold: double * 2}}]
insight: [{statistic: early_warning, size: 60s, series: [births]}]
"""


@pytest.mark.parametrize(
    ("written", "misspelt", "meant"),
    [
        ("as: one, stream: waves", "as: one, stream: wavs", "waves"),
        ("as: one, stream: waves", "as: one, stream: agains", None),
        ("from: heat", "from: rate", "heat"),
        ("from: heat", "from: hots", "hot"),
        ("with: heat", "with: heatt", "heat"),
        ("with: heat", "with: rate", "heat"),
        ("from: [hot, cold]", "from: [hot, colds]", "cold"),
        ("key: shop", "key: kee", "key"),
        ("key: shop", "key: shopp", "shop"),
        ("key: shop", "key: rom", "room"),
        ("key: shop", "key: levels", None),
        ("key: shop", "key: shop, where: shp == 'a'", "shop"),
        ("key: shop", "key: shop, where: timestmp > 1", "timestamp"),
        ("stream: heat, set", "stream: heatt, set", "heat"),
        ("stream: heat, set", "stream: hott, set", "heat"),
        ("fourfold: double * 2", "fourfold: doubl * 2", "double"),
        ("fourfold: double * 2", "fourfold: fourfld * 2", None),
        ("series: [births]", "series: [brths]", "births"),
        ("series: [births]", "series: [births], stream: wavess", "rates"),
    ],
)
def test_what_a_misspelt_name_may_mean_is_allowed_where_it_stands(written, misspelt, meant):
    assert written in NAMES
    load_rules(NAMES, known_streams={"population_metrics"})
    with pytest.raises(InvalidRules) as refused:
        load_rules(NAMES.replace(written, misspelt), known_streams={"population_metrics"})
    found = {each.message.partition("did you mean '")[2].removesuffix("'?") for each in refused.value.problems}
    assert found == {meant or ""}


def test_an_eventual_rule_is_not_led_to_what_rules_make():
    rules = "{name: hot, seq: [{as: a, stream: s}]}, {name: b, consistency: eventual, seq: [{as: a, stream: hto}]}"
    with pytest.raises(InvalidRules, match="unknown stream 'hto'; declare it"):
        load_rules(f"rules: [{rules}]", known_streams={"s"})


def test_a_validator_of_what_the_file_makes_is_refused():
    with pytest.raises(InvalidRules) as refused:
        load_rules(NAMES.replace("stream: heat, set", "stream: hot, set"))
    (found,) = refused.value.problems
    assert (found.line, found.column, found.field) == (9, 23, "stream")
    assert found.message.startswith("'hot' is a rule of this file; validators see events that are sent to it")


@pytest.mark.parametrize("field", ["group", "step"])
def test_the_words_that_part_steps_from_groups_are_fields_as_others(field):
    with pytest.raises(InvalidRules, match=f"junction 'j': {field}: unknown field '{field}'"):
        load_rules({"junctions": [{"name": "j", "from": "r", field: 1}]})


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ("rules: [{name: r, seq: [{as: a, stream: s, where: v > > 1}]}]", "a.where"),
        ("rules: [{name: r, seq: [{as: a, stream: s, min: 1, until: v > > 1}]}]", "a.until"),
        ("rules: [{name: r, seq: [{as: a, stream: s}], emit: {v: a.v > > 1}}]", "emit.v"),
        ("rules: [{name: r, seq: [{as: a, stream: s}], confidence: a.v > > 1}]", "confidence"),
        ("rules: [{name: r, seq: [{as: a, stream: s}], alert: {message: '{a.v > > 1}'}}]", "alert.message"),
        (
            "rules: [{name: r, within: 1s, seq: [{as: a, stream: s}], on_timeout: {emit: {v: a >}}}]",
            "on_timeout.emit.v",
        ),
        ("windows: [{name: w, from: s, every: 1s, where: v > > 1, select: {n: count()}}]", "where"),
        ("windows: [{name: w, from: s, every: 1s, select: {n: sum(v) > > 1}}]", "select.n"),
        ("junctions: [{name: j, from: r, where: v > > 1}]", "where"),
        ("validators: [{stream: s, where: v > > 1}]", "where"),
        ("validators: [{stream: s, set: {v: v > > 1}}]", "set.v"),
    ],
)
def test_a_syntax_error_names_the_field_of_its_expression_once(entry, field):
    with pytest.raises(InvalidRules) as refused:
        load_rules(entry)
    (found,) = refused.value.problems
    assert found.field == field
    assert str(found).count(f"{field}: ") == 1
    assert found.line == 1
    assert found.column in (entry.rindex("> 1") + 1 if "> 1" in entry else len(entry), entry.index(">") + 1)
