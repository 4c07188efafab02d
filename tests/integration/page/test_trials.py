"""Trials of rules in a process of its own: equal to a backtest, cancelled, bounded, with the lineage of each match."""

import asyncio

import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.backtest import backtest, compare
from astrocyte.pipeline.page.rules.bench import RuleBench
from astrocyte.pipeline.page.rules.in_force import InForce
from astrocyte.pipeline.page.rules.trials import Trials
from astrocyte.pipeline.page.sources.database import DatabaseSource
from astrocyte.pipeline.page.sources.log import LogSource
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.settings import load_settings
from astrocyte.schemas.errors import InvalidRule, InvalidSettings
from tests.support.logs import write_log
from tests.support.pair_log import LATENESS, PAIR, STRICT, in_frames, spikes, truth

EXPLODES = """
rules:
  - name: explodes
    by: null
    max_partials: 4000000
    within: 1h
    seq:
      - {as: x0, stream: axon_1}
""" + "".join(f"      - {{as: x{n}, stream: axon_1, contiguity: followed_by_any}}\n" for n in range(1, 8))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    planted = truth("pair", [("d0", 0, 10_000, [["axon_1", 0], ["axon_2", 0]])])
    bare = write_log(folder / "bare.jsonl.zst", in_frames(spikes()))
    return write_log(folder / "run.jsonl.zst", [*read_log(bare), planted])


def trials(log, said=None, **more):
    config = {"messages": {"log": str(log)}, "lateness_us": LATENESS, "clock_tolerance_us": 3_600_000_000} | more
    return Trials(config, (lambda _values: None) if said is None else said.append)


async def test_a_trial_finds_what_two_backtests_find(log):
    said = []
    bench = trials(log, said)
    before = InForce({"pairs": PAIR})
    try:
        found = (await bench.run(before, before.with_text("pairs", STRICT), "pairs"))["result"]
        (rule,) = found["rules"]
        a, b = (backtest(load_rules(each), [log], lateness_us=LATENESS) for each in (PAIR, STRICT))
        (expected,) = compare(a.made, b.made)
        assert (rule["both"], rule["only_before"], rule["only_after"]) == (expected.both, len(expected.only_a), 0)
        assert rule["kind"] == "changed"
        assert rule["before"]["matches"] == sum(rule["before"]["buckets"]) == a.rules["pair"].matches
        assert rule["after"]["alerts"] == b.rules["pair"].alerts
        assert (rule["before"]["score"]["found"], rule["after"]["score"]["found"]) == (1, 0)
        assert found["events"] == a.counters.received
        assert said[-1] == {"state": "idle"}
        listed = {each.event_id for each in expected.only_a}
        assert len(rule["lists"]["only_before"]) == len(listed)
        for each in rule["lists"]["only_before"][:2]:
            shown = (await bench.why("pair", each["n"], after=False))["explained"]
            assert shown["event_id"] in listed
            assert shown["sources"][0]["topic"] == "mono.axon_1"
            assert shown["sources"][0]["event"]["type"] == "A"
        assert "no such match" in (await bench.why("pair", 10**6, after=True))["failed"]
        # A rule more, and one less.
        more = PAIR + STRICT.replace("\nrules:\n", "").replace("name: pair", "name: strict")
        found = (await bench.run(before, before.with_text("pairs", more), "pairs"))["result"]
        assert [(each["name"], each["kind"], each["only_after"]) for each in found["rules"]] == [
            ("strict", "new", expected.both)
        ]
        assert found["unchanged"] == ["pair"]
        gone = before.with_text("pairs", "rules: []")
        (rule,) = (await bench.run(before, gone, "pairs"))["result"]["rules"]
        assert (rule["kind"], rule["only_before"], rule["after"]) == ("removed", 96, None)
    finally:
        await bench.close()


async def test_a_newer_trial_takes_the_place_of_one_that_runs(log):
    bench = trials(log)
    before = InForce({"pairs": PAIR})
    try:
        first, found = await asyncio.gather(
            bench.run(before, before.with_text("new", EXPLODES), "new"),
            bench.run(before, before.with_text("pairs", STRICT), "pairs"),
        )
        assert first == {"superseded": True}
        assert found["result"]["rules"][0]["name"] == "pair"
        second, _ = await asyncio.gather(bench.run(before, before.with_text("pairs", STRICT), "pairs"), bench.cancel())
        assert second == {"superseded": True}
    finally:
        await bench.close()


async def test_a_rule_that_needs_too_much_memory_is_cut_and_the_next_trial_answers(log):
    bench = trials(log, most_memory=64 << 20)
    before = InForce({"pairs": PAIR})
    try:
        found = await bench.run(before, before.with_text("new", EXPLODES), "new")
        assert "memory" in found["failed"]
        found = await bench.run(before, before.with_text("pairs", STRICT), "pairs")
        assert found["result"]["rules"][0]["only_before"] == 11
    finally:
        await bench.close()


async def test_a_rule_that_takes_too_long_is_cut_and_says_what_to_do(log):
    bench = trials(log, limit_s=1.0)
    before = InForce({"pairs": PAIR})
    try:
        found = await bench.run(before, before.with_text("new", EXPLODES), "new")
        assert "cut after 1 s" in found["failed"]
        assert "max_partials" in found["failed"]
    finally:
        await bench.close()


async def test_a_history_beyond_the_bound_is_refused_in_words(log):
    bench = trials(log, most_events=10)
    before = InForce({"pairs": PAIR})
    try:
        found = await bench.run(before, before.with_text("pairs", STRICT), "pairs")
        assert "at most 10 events" in found["failed"]
    finally:
        await bench.close()


async def test_an_invalid_text_is_refused_by_the_trial_too(log):
    bench = trials(log)
    before = InForce({"pairs": PAIR})
    try:
        found = await bench.run(before, before.with_text("pairs", "rules: ["), "pairs")
        assert "not YAML" in found["failed"]
    finally:
        await bench.close()


async def test_a_database_says_that_it_has_no_history(tmp_path, log):
    rules = tmp_path / "pairs.yaml"
    rules.write_text(PAIR)
    bench = RuleBench(DatabaseSource("sqlite:///:memory:"), [rules], load_settings())
    assert "database" in (await bench.listed())["history"]
    assert "database" in (await bench.trial("pairs", STRICT, again=False))["unavailable"]
    with pytest.raises(InvalidSettings, match="--write"):
        RuleBench(LogSource(log), [rules], load_settings(), write=True)
    for name in ("", "a/b", "x" * 101):
        with pytest.raises(InvalidRule):
            await bench.check(name, PAIR)
    with pytest.raises(InvalidRule, match="at most 200,000"):
        await bench.check("pairs", "#" * 200_001)
