"""Consistency by rule: strong and eventual rules in one engine, in every combination, change and restart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte import Engine, Match, load_rules, match
from astrocyte.agents.rules.model import Consistency, RuleSet
from astrocyte.pipeline.analysis.backtest import backtest
from astrocyte.pipeline.analysis.history.results import find_matches
from astrocyte.pipeline.analysis.history.tapes import History
from astrocyte.pipeline.analysis.inputs import Inputs
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.frames import Frame
from tests.support.logs import T0_US
from tests.support.search import examples
from tests.unit.agents.engine.test_input_order import DELAYS, LATENESS, RULES, by_time, delayed, frames_of, histories

LEVELS = st.sampled_from([None, "strong", "eventual"])
ONE = load_rules("""
rules:
  - {name: seen, seq: [{as: a, stream: s1, where: "type == 'A'"}]}
  - {name: heard, consistency: eventual, seq: [{as: a, stream: s1, where: "type == 'A'"}]}
""")
FROM_STREAMS = ("pair", "every_pair", "rise", "missing")
"""Rules of `RULES` over incoming streams."""


def with_levels(levels: dict[str, Consistency | None]) -> RuleSet:
    """The rules with their own consistency, and two over one event."""
    own = [rule.model_copy(update={"consistency": levels.get(rule.name)}) for rule in RULES.rules]
    return RuleSet(rules=(*own, *ONE.rules), windows=RULES.windows)


def run(
    rules: RuleSet,
    frames: list[Frame],
    *,
    consistency: Consistency = "strong",
    immediate: bool = False,
    restarts: frozenset[int] = frozenset(),
    later: RuleSet | None = None,
) -> Iterator[Match]:
    """All matches; ``later`` are rules that come into force with the fourth frame."""

    def engine_of(rules: RuleSet) -> Engine:
        return Engine(rules, consistency=consistency, immediate=immediate)

    engine, newest = engine_of(rules), 0
    for step, frame in enumerate(frames):
        if step == 3 and later is not None:
            engine.update(later)
        engine.push(frame)
        newest = max(newest, int(frame.timestamps().max()))
        yield from engine.advance(newest - LATENESS).matches
        if step in restarts:
            snapshot, rules = engine.snapshot(), engine.ruleset
            engine = engine_of(rules)
            engine.restore(snapshot)
    yield from engine.flush().matches
    assert engine.size() == {"waiting": 0, "rows": 0, "provisional": 0}
    for rule, counts in engine.corrections.items():
        assert counts["provisional"] == counts["confirmed"] + counts["retracted"], rule


@examples(12, search=60)
@given(
    rows=histories(),
    shuffle=DELAYS,
    levels=st.fixed_dictionaries(dict.fromkeys(FROM_STREAMS, LEVELS)),
    others=st.sampled_from(["strong", "eventual"]),
    immediate=st.booleans(),
    restarts=st.frozensets(st.integers(0, 12), max_size=2),
    toggled=st.booleans(),
)
def test_each_rule_comes_out_as_its_own_consistency_says_and_ends_as_in_order(
    rows: dict[str, list[dict[str, Any]]],
    shuffle: list[int],
    levels: dict[str, Consistency | None],
    others: Consistency,
    immediate: bool,
    restarts: frozenset[int],
    toggled: bool,
) -> None:
    frames = delayed(frames_of(rows), shuffle)
    decided = ("final", "confirmed")
    expected = by_time([match for match in run(with_levels({}), frames) if match.status in decided])
    later = with_levels({name: levels[other] for name, other in zip(FROM_STREAMS, FROM_STREAMS[::-1], strict=True)})
    found = list(
        run(
            with_levels(levels), frames, consistency=others, immediate=immediate, restarts=restarts,
            later=later if toggled else None,
        )
    )  # fmt: skip
    last: dict[str, Match] = {}
    for each in found:
        before = last[each.id].status if each.id in last else None
        if each.status in ("confirmed", "retracted"):
            assert before == "provisional", each
        else:
            assert before is None or (each.status == "final" and before == "retracted"), each
        last[each.id] = each
    assert by_time([each for each in last.values() if each.status != "retracted"]) == expected
    assert "provisional" not in {each.status for each in last.values()}
    level = {rule.name: rule.consistency or others for rule in with_levels(levels).rules}
    for each in found:
        if not toggled and (level[each.rule] == "strong" or each.rule == "twice"):
            assert each.status == "final", each


def test_a_strong_rule_and_an_eventual_one_of_one_pattern_run_side_by_side() -> None:
    rules = load_rules("""
rules:
  - {name: sure, within: 10us, seq: [{as: a, stream: A}, {as: b, stream: B}]}
  - {name: fast, consistency: eventual, within: 10us, seq: [{as: a, stream: A}, {as: b, stream: B}]}
""")
    engine = Engine(rules)
    found: list[tuple[str, str, int]] = []
    for stream, time_us in (("A", 1), ("B", 3), ("B", 2)):
        engine.push_events([{"stream": stream, "timestamp": time_us, "key": "k"}])
        output = engine.advance(0)
        found += [(match.rule, match.status, match.time_us) for match in output.matches]
    assert found == [("fast", "provisional", 3)]
    found = [(match.rule, match.status, match.time_us) for match in engine.advance(20).matches]
    assert found == [("sure", "final", 2), ("fast", "final", 2), ("fast", "retracted", 3)]
    assert engine.corrections == {"fast": {"provisional": 1, "confirmed": 0, "retracted": 1}}
    assert engine.counters()["fast"]["retracted"] == 1
    assert "retracted" not in engine.counters()["sure"]


def test_events_pushed_alone_give_what_is_provisional_and_what_is_final_at_once() -> None:
    engine = Engine(ONE, immediate=True)
    found = engine.push_event({"stream": "s1", "timestamp": 5, "key": "k", "type": "A"})
    assert Counter((match.rule, match.status) for match in found) == {("heard", "provisional"): 1, ("seen", "final"): 1}
    ends = engine.flush().matches
    assert [(match.rule, match.status) for match in ends] == [("heard", "confirmed")]


def test_consistency_is_no_part_of_the_version_and_changing_it_keeps_partial_matches() -> None:
    text = "rules:\n  - {name: two, within: 9us, seq: [{as: a, stream: A}, {as: b, stream: B}]%s}\n"
    before, after = (load_rules(text % level) for level in ("", ", consistency: eventual"))
    assert before.rules[0].content_version == after.rules[0].content_version
    engine = Engine(before)
    engine.push_events([{"stream": "A", "timestamp": 1, "key": "k"}])
    engine.update(after)
    engine.push_events([{"stream": "B", "timestamp": 2, "key": "k"}, {"stream": "A", "timestamp": 3, "key": "k"}])
    engine.push_events([{"stream": "B", "timestamp": 4, "key": "k"}])
    statuses = [(match.time_us, match.status) for match in engine.flush().matches]
    assert statuses == [(4, "provisional"), (2, "final"), (4, "confirmed")]


@pytest.mark.parametrize("made", ["counts", "pair"])
def test_a_rule_over_results_cannot_be_eventual(made: str) -> None:
    text = f"""
rules:
  - {{name: pair, within: 9us, all: [{{as: a, stream: s1}}, {{as: b, stream: s2}}]}}
  - {{name: many, consistency: eventual, within: 1s, seq: [{{as: one, stream: {made}}}, {{as: two, stream: s1}}]}}
windows:
  - {{name: counts, from: s1, every: 5us, select: {{n: "count()"}}}}
"""
    with pytest.raises(InvalidRule, match=f"'many': consistency eventual .* {made!r} is made"):
        load_rules(text)


def test_events_that_are_all_there_give_each_match_once_and_final(tmp_path: Path) -> None:
    text = "rules:\n  - {name: two, %swithin: 9s, seq: [{as: a, stream: A}, {as: b, stream: B}]}\n"
    strong, eventual = (load_rules(text % level) for level in ("", "consistency: eventual, "))
    order = [("A", 1), ("B", 4), ("B", 3), ("A", 5), ("B", 6)]
    events = [{"stream": stream, "timestamp": T0_US + at * 1_000_000, "key": "k"} for stream, at in order]
    wanted = match(strong, events)
    found = match(eventual, events)
    assert [(each.id, each.status) for each in found] == [(each.id, "final") for each in wanted]
    assert len(wanted) > 1
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, events)))
    options: dict[str, Any] = {"lateness_us": 5_000_000, "clock_tolerance_us": 10**12}
    one, other = (backtest(rules, [path], **options) for rules in (strong, eventual))
    assert one.made == other.made
    assert len(one.made) == len(wanted)
    history = History(lambda rules: Inputs(rules, [path]), 5_000_000, 10**12, 10**6)
    tried = find_matches(eventual, history.tapes(eventual), only={"two"})
    assert tried["two"].made() == one.made
