"""The matcher: outputs of rules, for any division of rows, snapshots and keys."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from astrocyte.agents.cep.match_columns import TIMEOUT, MatchBatch
from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.cep.sequence.operator import SkipError
from astrocyte.agents.rules.model import Group, Rule, Step
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.frames import Frame


def step(name, condition=None, **options):
    return Step(name=name, stream=options.pop("stream", "s"), where=condition, **options)


def kind(name, letter=None, **options):
    return step(name, f"type == '{letter or name.upper()}'", **options)


def frame(text, *, stream="s", times=None, keys=None, **columns):
    """Events of one type a letter, one second apart."""
    count = len(text)
    data = {
        "timestamp": np.array(times if times is not None else range(count), np.int64) * 1_000_000,
        "key": keys if keys is not None else ["k"] * count,
        "type": list(text),
    }
    return Frame.from_columns(stream, "run", data | columns)


def outputs(matcher, batch):
    """(rule, key, kind, seconds, {step: refs}) of every output."""
    strings = matcher.key_strings(batch).to_pylist()
    found = []
    for index in range(len(batch)):
        rule = matcher.rules[batch.rule[index]]
        labels: dict[str, list[int]] = {}
        for row in range(batch.offsets[index], batch.offsets[index + 1]):
            labels.setdefault(rule.positive[batch.step[row]], []).append(int(batch.ref[row]))
        seconds = int(batch.time_us[index]) / 1_000_000
        found.append((rule.name, strings[index], int(batch.kind[index]), seconds, labels))
    return found


def run(rules, *frames, end=None, **options):
    """All outputs of the rules over the frames, with time going on to ``end`` seconds."""
    rules = [rules] if isinstance(rules, Rule) else rules
    matcher = Matcher(rules, **options)
    found, first = [], 0
    for each in frames:
        found += outputs(matcher, matcher.process(matcher.prepare(each, first)))
        first += each.num_rows
    if end is not None:
        found += outputs(matcher, matcher.advance(int(end * 1_000_000)))
    return found


def labels(found):
    return [each[4] for each in found]


def test_followed_by_takes_the_first_that_fits_and_followed_by_any_every_one():
    next_one = Rule(name="r", seq=[kind("a"), kind("b")])
    every = Rule(name="r", seq=[kind("a"), kind("b", contiguity="followed_by_any")])
    assert labels(run(next_one, frame("AABB"))) == [{"a": [0], "b": [2]}, {"a": [1], "b": [2]}]
    assert len(run(every, frame("AABB"))) == 4


def test_next_means_the_next_event_of_the_rules_streams_and_of_the_key():
    rule = Rule(name="r", seq=[kind("a"), kind("b", contiguity="next")])
    assert labels(run(rule, frame("AXB"))) == []
    assert labels(run(rule, frame("AXB", keys=["k", "other", "k"]))) == [{"a": [0], "b": [2]}]


@pytest.mark.parametrize(("closed", "count"), [(False, 0), (True, 1)])
def test_window_is_half_open_unless_closed(closed, count):
    rule = Rule(name="r", within={"time": "2s", "closed": closed}, seq=[kind("a"), kind("b")])
    assert len(run(rule, frame("AB", times=[0, 2]))) == count


def test_absence_is_decided_when_the_window_closes_and_carries_that_time():
    rule = Rule(name="r", within="5s", seq=[kind("a"), kind("n", "B", negated=True)])
    assert run(rule, frame("A"), end=4.999) == []
    assert run(rule, frame("A"), end=5) == [("r", "k", 0, 5.0, {"a": [0]})]
    assert run(rule, frame("AB", times=[0, 4]), end=9) == []
    assert run(rule, frame("AB", times=[0, 5]), end=9) == [("r", "k", 0, 5.0, {"a": [0]})]


def test_absence_after_an_event_counts_from_that_event():
    rule = Rule(name="r", seq=[kind("a"), kind("b"), kind("n", "C", negated=True, within_prev="2s")])
    assert run(rule, frame("AB", times=[0, 7]), end=30) == [("r", "k", 0, 9.0, {"a": [0], "b": [1]})]


def test_timeouts_are_an_output_of_their_own_only_where_asked_for():
    without_timeout = Rule(name="r", within="5s", seq=[kind("a"), kind("b")])
    with_timeout = Rule(name="r", within="5s", seq=[kind("a"), kind("b")], on_timeout=True)
    assert run(without_timeout, frame("A"), end=9) == []
    assert run(with_timeout, frame("A"), end=9) == [("r", "k", TIMEOUT, 5.0, {"a": [0]})]


def test_any_takes_the_alternative_that_arrives_and_labels_it():
    rule = Rule(name="r", seq=[kind("a"), Group(any=[kind("b"), kind("c")])])
    assert labels(run(rule, frame("AXC"))) == [{"a": [0], "c": [2]}]
    top = Rule(name="r", any=[kind("a"), kind("b"), step("rest", "type != 'X'")])
    assert labels(run(top, frame("AXBC"))) == [{"a": [0]}, {"b": [2]}, {"rest": [3]}]


def test_alternatives_can_be_sequences():
    one, two = Group(seq=[kind("b"), kind("c")]), Group(seq=[kind("d", "B"), kind("e")])
    rule = Rule(name="r", seq=[kind("a"), Group(any=[one, two])])
    assert labels(run(rule, frame("ABC"))) == [{"a": [0], "b": [1], "c": [2]}]
    assert labels(run(rule, frame("ABE"))) == [{"a": [0], "d": [1], "e": [2]}]


def test_all_inside_a_sequence_takes_its_steps_in_any_order():
    rule = Rule(name="r", seq=[kind("a"), Group(all=[kind("b"), kind("c")]), kind("d")])
    expected = [{"a": [0], "b": [2], "c": [1], "d": [3]}]
    assert labels(run(rule, frame("ACBD"))) == expected
    assert labels(run(rule, frame("ACXD"))) == []
    guarded = Rule(
        name="r", seq=[kind("a"), Group(all=[kind("b"), kind("c"), kind("n", "X", negated=True)]), kind("d")]
    )
    assert labels(run(guarded, frame("ACXBD"))) == []


def test_negation_between_lifts_where_an_optional_step_was_taken():
    rule = Rule(name="r", seq=[kind("a"), kind("n", "N", negated=True), kind("o", optional=True), kind("b")])
    assert labels(run(rule, frame("ANB"))) == []
    assert {"a": [0], "o": [1], "b": [3]} in labels(run(rule, frame("AONB")))


def test_conditions_over_earlier_events_use_running_values():
    rule = Rule(
        name="r",
        within="100s",
        seq=[kind("a"), step("b", "type == 'B' and value > mean(b.value) or count(b) == 0", min=3, consecutive=True)],
        skip="past_last",
    )
    values = np.array([0.0, 1.0, 2.0, 3.0, 1.0])
    assert labels(run(rule, frame("ABBBB", value=values), end=200)) == [{"a": [0], "b": [1, 2, 3]}]


def test_integers_beyond_float_precision_are_compared_exactly_with_earlier_events():
    rule = Rule(name="r", seq=[kind("a"), kind("b"), step("c", "type == 'C' and value == a.value + 1")])
    big = 2**60
    values = np.array([big, 0, big, big + 1, big + 2], np.int64)
    assert labels(run(rule, frame("ABCCC", value=values))) == [{"a": [0], "b": [1], "c": [3]}]


def test_strings_are_compared_with_strings_of_earlier_events():
    rule = Rule(name="r", seq=[kind("a"), step("b", "type == 'B' and name == a.name and other != a.name")])
    found = run(rule, frame("ABB", name=["x", "y", "x"], other=["q", "q", None]))
    assert found == []
    found = run(rule, frame("ABB", name=["x", "y", "x"], other=["q", "q", "q"]))
    assert labels(found) == [{"a": [0], "b": [2]}]
    ordered = Rule(name="r", seq=[kind("a"), step("b", "type == 'B' and name > a.name")])
    assert labels(run(ordered, frame("AB", name=["x", "y"]))) == [{"a": [0], "b": [1]}]
    assert run(ordered, frame("AB", name=["y", "x"])) == []


def test_null_and_missing_fields_never_compare_with_earlier_events():
    rule = Rule(name="r", seq=[kind("a"), step("b", "type == 'B' and value != a.value")])
    assert run(rule, frame("AB", value=pa.array([None, 1.0]))) == []
    assert run(rule, frame("AB")) == []


def test_events_without_a_key_take_part_in_no_keyed_rule_but_in_one_without_key():
    keyed = Rule(name="keyed", seq=[kind("a")])
    free = Rule(name="free", by=None, seq=[kind("a"), kind("b")])
    found = run([keyed, free], frame("AB", keys=[None, "x"]))
    assert found == [("free", "", 0, 1.0, {"a": [0], "b": [1]})]


def test_correlation_field_can_be_any_column():
    rule = Rule(name="r", by="unit", seq=[kind("a"), kind("b")])
    found = run(rule, frame("AABB", unit=np.array([1, 2, 2, 1])))
    assert sorted((each[1], tuple(each[4]["b"])) for each in found) == [("1", (3,)), ("2", (2,))]


def test_rules_over_several_streams_take_each_step_from_its_stream():
    rule = Rule(name="r", seq=[step("a", stream="s"), step("b", stream="t")])
    assert labels(run(rule, frame("XX"), frame("Y", stream="t", times=[5]))) == [
        {"a": [0], "b": [2]},
        {"a": [1], "b": [2]},
    ]


def test_next_is_broken_by_an_event_of_another_stream_of_the_rule_only():
    rule = Rule(name="r", seq=[step("a", stream="s"), step("b", stream="t", contiguity="next")])
    apart, between = frame("Y", stream="u", times=[1]), frame("X", times=[2])
    assert labels(run(rule, frame("X"), apart, frame("Y", stream="t", times=[5]))) == [{"a": [0], "b": [2]}]
    assert labels(run(rule, frame("X"), between, frame("Y", stream="t", times=[5]))) == [{"a": [1], "b": [2]}]


def test_until_ends_a_loop_and_may_be_of_another_stream():
    loop = Step(name="b", stream="s", where="type == 'B'", min=1, until={"where": "type == 'S'", "stream": "t"})
    rule = Rule(name="r", within="60s", seq=[kind("a"), loop, kind("c")])
    stop = frame("S", stream="t", times=[2])
    assert labels(run(rule, frame("AB"), stop, frame("BC", times=[3, 4]))) == [{"a": [0], "b": [1], "c": [4]}]


def test_group_repeats_as_a_whole():
    rule = Rule(name="r", seq=[Group(seq=[kind("a"), kind("b")], times=2), kind("c")])
    assert labels(run(rule, frame("ABXABC"))) == [{"a": [0, 3], "b": [1, 4], "c": [5]}]
    assert labels(run(rule, frame("ABC"))) == []


def test_greedy_loop_leaves_no_event_to_the_next_step():
    lazy = Rule(name="r", seq=[kind("a", min=1), step("b", "type != 'X'")])
    greedy = Rule(name="r", seq=[kind("a", min=1, greedy=True), step("b", "type != 'X'")], skip="past_last")
    assert {"a": [0], "b": [1]} in labels(run(lazy, frame("AAB")))
    assert labels(run(greedy, frame("AAB"))) == [{"a": [0, 1], "b": [2]}]


def test_gap_and_within_prev_bound_the_time_between_events():
    gap = Rule(name="r", seq=[kind("a", times=3, gap="2s")])
    assert len(run(gap, frame("AAA", times=[0, 1, 2]))) == 1
    assert run(gap, frame("AAA", times=[0, 1, 3])) == []
    prev = Rule(name="r", seq=[kind("a"), kind("b", within_prev="2s")])
    assert len(run(prev, frame("AB", times=[0, 1]))) == 1
    assert run(prev, frame("AB", times=[0, 2])) == []


def test_final_mode_withholds_a_match_while_an_earlier_one_may_complete_and_eager_does_not():
    pattern = [step("a", "type == 'A'"), step("b", "type == 'B' and value > a.value")]
    values = np.array([9.0, 1.0, 2.0])
    final = Rule(name="r", within="10s", seq=pattern, skip="past_last")
    eager = Rule(name="r", within="10s", seq=pattern, skip="past_last", emit_mode="eager")
    assert run(final, frame("AAB", value=values)) == []
    assert run(final, frame("AAB", value=values), end=10) == [("r", "k", 0, 2.0, {"a": [1], "b": [2]})]
    assert labels(run(eager, frame("AAB", value=values))) == [{"a": [1], "b": [2]}]


@pytest.mark.parametrize(
    ("skip", "expected"),
    [
        ("none", [[0, 1], [0, 1, 2], [1, 2]]),
        ("past_last", [[0, 1]]),
        ("to_next", [[0, 1], [1, 2]]),
        ({"to_last": "a"}, [[0, 1], [1, 2]]),
    ],
)
def test_skip_strategies(skip, expected):
    rule = Rule(name="r", seq=[kind("a", min=2, consecutive=True)], skip=skip)
    assert [each["a"] for each in labels(run(rule, frame("AAA")))] == expected


def test_skip_to_a_missing_step_is_an_error_where_asked_for():
    rule = Rule(
        name="r",
        seq=[kind("a"), kind("o", optional=True), kind("b")],
        skip={"kind": "to_first", "step": "o", "on_missing": "error"},
    )
    with pytest.raises(SkipError, match="no event of step 'o'"):
        run(rule, frame("AB"))


@pytest.mark.parametrize(("policy", "first"), [("drop_oldest", [3, 4]), ("drop_newest", [0, 1])])
def test_partial_matches_of_a_key_are_bounded_and_cut_ones_are_counted(policy, first):
    rule = Rule(name="r", seq=[kind("a"), kind("b")], max_partials={"limit": 2, "policy": policy})
    matcher = Matcher([rule], room=4)
    batch = matcher.process(matcher.prepare(frame("AAAAAB")))
    assert [each["a"][0] for each in labels(outputs(matcher, batch))] == first
    assert matcher.counters()[0]["cut"] == 3


def test_memory_of_what_waits_is_bounded_too():
    rule = Rule(
        name="r",
        seq=[kind("a"), step("b", "type == 'B' and value > a.value")],
        skip="to_next",
        max_partials=3,
    )
    count = 100
    values = np.array([1e9] + [1.0, 2.0] * count)
    matcher = Matcher([rule], room=4)
    matcher.process(matcher.prepare(frame("A" + "AB" * count, value=values)))
    assert matcher._sequence.size()["runs"] <= 10


def test_counters_count_events_partials_matches_timeouts_and_time():
    ticks = iter(range(0, 10**9, 5_000))
    rule = Rule(name="r", within="3s", seq=[kind("a"), kind("b")], on_timeout=True)
    matcher = Matcher([rule], clock=lambda: next(ticks))
    matcher.process(matcher.prepare(frame("AAXB", times=[0, 4, 5, 6])))
    matcher.advance(20_000_000)
    (counters,) = matcher.counters()
    assert counters == {
        "events": 3, "partials": 2, "matches": 1, "timeouts": 1, "cut": 0, "work": 3, "microseconds": 5,
    }  # fmt: skip


RULES = [
    Rule(name="pairs", within="5s", seq=[kind("a"), kind("b", contiguity="followed_by_any")]),
    Rule(
        name="loop", within="8s", seq=[kind("a"), step("b", "type == 'B' and value > last(a.value)", min=1), kind("c")]
    ),
    Rule(name="absent", within="3s", seq=[kind("a"), kind("n", "B", negated=True)], on_timeout=True),
    Rule(name="skipping", within="9s", seq=[kind("a", min=1), kind("c")], skip="past_last"),
    Rule(name="gaps", seq=[kind("a"), kind("b", within_prev="2s")], on_timeout=True, max_partials=50),
    Rule(name="strict", by="unit", seq=[kind("a"), kind("b", contiguity="next")]),
    Rule(name="both", within="4s", all=[kind("a"), kind("c")]),
]


def random_frame(seed, count=300):
    rng = random.Random(seed)
    times = np.cumsum([rng.choice([0, 0, 1, 1, 2]) for _ in range(count)])
    keys = [rng.choice("xyz") for _ in range(count)]
    values = np.array([rng.random() for _ in range(count)])
    units = np.array([rng.randrange(3) for _ in range(count)])
    return frame([rng.choice("ABCD") for _ in range(count)], times=times, keys=keys, value=values, unit=units)


def collected(seed, cut, *, save=False, advance=False, rules=RULES):
    """Outputs of all rules, sorted, with the rows cut into calls by ``cut`` and the state saved in between."""
    whole, matcher, found, start = random_frame(seed), Matcher(rules, room=4), [], 0
    while start < whole.num_rows:
        stop = min(start + cut(), whole.num_rows)
        prepared = matcher.prepare(whole.slice(start, stop), start)
        if save:
            snapshot = matcher.snapshot()
            matcher = Matcher(rules, room=4)
            matcher.restore(snapshot)
        found += outputs(matcher, matcher.process(prepared))
        if advance:
            found += outputs(matcher, matcher.advance(int(whole.timestamps()[stop - 1])))
        start = stop
    found += outputs(matcher, matcher.flush())
    assert matcher.low_water_us() is None
    return sorted(found, key=repr)


@pytest.mark.parametrize("seed", range(3))
def test_outputs_do_not_depend_on_how_rows_are_cut_nor_on_snapshots(seed):
    rng = random.Random(seed)
    whole = collected(seed, lambda: 1000)
    assert len(whole) > 100
    assert collected(seed, lambda: rng.randint(1, 40)) == whole
    assert collected(seed, lambda: rng.randint(1, 40), save=True) == whole
    assert collected(seed, lambda: rng.randint(1, 40), advance=True, save=True) == whole


@pytest.mark.parametrize("seed", range(3))
def test_single_events_give_the_matches_of_frames(seed):
    whole, matcher, found = random_frame(seed), Matcher(RULES, room=4), []
    for ref, row in enumerate(whole.rows()):
        found += outputs(matcher, matcher.process_event("s", row, ref))
    found += outputs(matcher, matcher.flush())
    assert sorted(found, key=repr) == collected(seed, lambda: 1000)


def test_single_events_carry_large_integers_and_strings():
    rule = Rule(name="r", seq=[kind("a"), step("b", "type == 'B' and value == a.value + 1 and name == a.name")])
    matcher = Matcher([rule])
    rows = [("A", 2**60, "x"), ("B", 2**60, "x"), ("B", 2**60 + 1, "y"), ("B", 2**60 + 1, "x")]
    found = [
        len(matcher.process_event("s", {"timestamp": 0, "key": "k", "type": t, "value": v, "name": n}, ref))
        for ref, (t, v, n) in enumerate(rows)
    ]
    assert found == [0, 0, 0, 1]


def test_unchanged_rules_keep_their_partial_matches_when_others_change():
    one, two = RULES[0], RULES[1]
    changed = Rule(name="loop", within="20s", seq=two.seq)
    matcher = Matcher([one, two], room=4)
    matcher.process(matcher.prepare(frame("A", value=np.array([0.5]))))
    matcher.update([changed, one])
    batch = matcher.process(matcher.prepare(frame("BC", times=[1, 2], value=np.array([0.9, 0.1])), 1))
    assert labels(outputs(matcher, batch)) == [{"a": [0], "b": [1]}]
    assert [matcher.rules[index].name for index in batch.rule] == ["pairs"]


def test_rows_prepared_before_a_change_of_rules_stay_valid():
    one, two = RULES[0], RULES[1]
    matcher = Matcher([one], room=4)
    early = matcher.prepare(frame("AB", value=np.array([0.5, 0.9])))
    matcher.update([two, one])
    matcher.update([one, RULES[2]])
    batch = matcher.process(early)
    assert labels(outputs(matcher, batch)) == [{"a": [0], "b": [1]}]


def test_refused_rules_leave_the_old_ones_in_force():
    matcher = Matcher([RULES[0]])
    with pytest.raises(InvalidRule, match="two rules are named"):
        matcher.update([RULES[1], RULES[1]])
    assert matcher.rules == (RULES[0],)


def test_snapshot_of_other_rules_is_refused():
    snapshot = Matcher([RULES[0]]).snapshot()
    with pytest.raises(InvalidRule, match="other rules"):
        Matcher([RULES[1]]).restore(snapshot)


def test_removed_rule_leaves_nothing_behind():
    matcher = Matcher(RULES, room=4)
    matcher.process(matcher.prepare(random_frame(1)))
    matcher.update([])
    assert matcher.low_water_us() is None
    size = matcher._sequence.size()
    assert (size["runs"], size["events"], size["timers"]) == (0, 0, 0)


def test_low_water_and_live_refs_follow_the_partial_matches():
    rule = Rule(name="r", within="10s", seq=[kind("a"), kind("b"), kind("c")])
    matcher = Matcher([rule])
    matcher.process(matcher.prepare(frame("AXAB", times=[0, 1, 5, 6]), 100))
    assert matcher.low_water_us() == 0
    assert matcher.live_refs().tolist() == [100, 102, 103]
    matcher.advance(12_000_000)
    assert matcher.low_water_us() == 5_000_000
    matcher.advance(15_000_000)
    assert matcher.low_water_us() is None


def test_keys_without_references_are_removed():
    rule = Rule(name="r", within="1s", seq=[kind("a"), kind("b")])
    matcher = Matcher([rule], waiting=tuple)
    matcher._keys["key"].least = 100
    for start in range(0, 2000, 50):
        keys = [f"key-{start + number}" for number in range(50)]
        matcher.process(matcher.prepare(frame("A" * 50, times=[start] * 50, keys=keys)))
        matcher.advance((start + 2) * 1_000_000)
    assert len(matcher._keys["key"]) < 300
    assert matcher._keys["key"].numbers < 500


def test_outputs_of_one_instant_keep_their_order_when_sorted_by_time():
    batch = MatchBatch(
        np.array([0, 0, 1], np.int32), np.zeros(3, np.int32), np.array([5, 2, 2]), np.zeros(3, np.int8),
        np.array([0, 1, 3, 4]), np.array([0, 0, 1, 0], np.int16), np.array([7, 8, 9, 10]),
    )  # fmt: skip
    ordered = batch.by_time()
    assert ordered.rule.tolist() == [0, 1, 0]
    assert ordered.ref.tolist() == [8, 9, 10, 7]
    assert ordered.offsets.tolist() == [0, 2, 3, 4]


def test_frames_of_streams_no_rule_reads_have_no_rows():
    matcher = Matcher([RULES[0]])
    assert len(matcher.prepare(frame("AB", stream="other"))) == 0
    assert len(matcher.process(matcher.prepare(frame("DD")))) == 0
    assert matcher.streams == {"s"}


def test_many_predicates_of_one_stream_are_looked_up_by_string():
    rules = [
        Rule(
            name=f"r{n}", within="5s", seq=[step("a", f"type == 'T{n}' and value > {n}"), step("b", f"type == 'T{n}'")]
        )
        for n in range(120)
    ]
    types = [f"T{n}" for n in (3, 5, 3, 5)]
    data = {"timestamp": np.arange(4) * 1000, "key": ["k"] * 4, "type": types, "value": np.array([9.0, 1.0, 0.0, 0.0])}
    found = run(rules, Frame.from_columns("s", "run", data))
    assert [(each[0], each[4]) for each in found] == [("r3", {"a": [0], "b": [2]})]
