"""Rules under disorder: what is made on arrival and in order, against engines that are given one event at a time."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from astrocyte import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.history.disorder import early_rules, run_disordered
from astrocyte.pipeline.analysis.history.tapes import History
from astrocyte.pipeline.analysis.inputs import Inputs
from astrocyte.pipeline.cli.app import app
from astrocyte.schemas.ids import mixed
from tests.support.logs import axon_frame, frame_messages, write_log

RULES = load_rules("""
rules:
  - {name: pair, within: 400ms, all: [{as: a, stream: axon_1}, {as: b, stream: axon_2, where: "value > a.value"}]}
  - {name: rise, within: 1s, seq: [{as: a, stream: axon_1}, {not: {stream: axon_1}}, {as: b, stream: axon_2}]}
  - {name: many, seq: [{as: n, stream: counts, where: "n > 2"}]}
windows:
  - {name: counts, from: axon_1, every: 1s, select: {n: "count()"}}
""")
LATENESS_US = 500_000


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    rng, offsets, messages = np.random.default_rng(5), {}, []
    for stream in ("axon_1", "axon_2"):
        times = np.cumsum(rng.integers(1, 90_000, 150))
        keys = [f"d{each}" for each in rng.integers(4, size=150)]
        messages += frame_messages(axon_frame(stream, keys, times, types="AB", seq=0, origin="p"), 1, offsets)
    return write_log(tmp_path_factory.mktemp("disorder") / "log.jsonl.zst", messages)


@pytest.fixture(scope="module")
def tapes(log):
    history = History(lambda ruleset: Inputs(ruleset, [log]), 2_000_000, 10**12, 10**6)
    return history.tapes(early_rules(RULES))


def run(tapes, *amounts_us, every_us=1, seed=0):
    options = {"lateness_us": LATENESS_US, "every_us": every_us, "seed": seed}
    return list(run_disordered(early_rules(RULES), tapes, amounts_us, **options))


def test_what_is_less_than_the_lateness_changes_no_match_that_is_made_in_order(tapes):
    none, little, much = run(tapes, 0, LATENESS_US // 2, 3 * LATENESS_US)
    assert none.rules.keys() == {"pair", "rise"}
    for each in (none, little):
        assert (each.events, each.late) == (300, 0)
        assert [rule.ordered_recall for rule in each.rules.values()] == [1, 1]
    for rule in none.rules.values():
        assert len(rule.truth) > 20
        assert (rule.precision, rule.recall, rule.corrected) == (1, 1, 0)
        assert max(rule.early_delays_us) == 0, "each event is taken when it comes"
        assert min(rule.ordered_delays_us) >= LATENESS_US
    assert 0.2 < little.rules["pair"].precision < 1
    assert much.late > 0
    assert much.rules["pair"].ordered_recall < 1


@pytest.mark.parametrize("amount_us", [40_000, 300_000])
def test_what_is_made_on_arrival_is_what_single_events_give_in_the_order_of_arrival(tapes, amount_us):
    (found,) = run(tapes, amount_us, seed=3)
    truth: dict[bytes, int] = {}
    early, retracted = set(), set()
    for group in tapes.groups:
        for tape in group.tapes:
            events = []
            for each in (taken.frame for step in tape.steps for taken in step.frames):
                words = each.ids() ^ np.uint64(3 * 0x9E3779B97F4A7C15 & 2**64 - 1)
                delays = np.floor(mixed(words) / 2.0**64 * (amount_us + 1)).astype(np.int64)
                for place, row in enumerate(each.rows()):
                    event = {name: row[name] for name in ("key", "type", "value", "timestamp")}
                    event["event_id"] = f"{each.stream} {place}"
                    events.append((row["timestamp"] + int(delays[place]), each.stream, event))
            engine = Engine(early_rules(group.group.ruleset))
            newest = 0
            made = []
            for _, stream, event in sorted(events, key=lambda each: each[:2]):
                made += engine.push_event({"stream": stream, **event})
                newest = max(newest, event["timestamp"])
                made += engine.advance(newest - LATENESS_US).matches
            made += engine.flush().matches
            early |= {match.id for match in made if match.status == "provisional"}
            retracted |= {match.id for match in made if match.status == "retracted"}
            truth |= {match.id: match.time_us for match in made if match.status in ("final", "confirmed")}
    whole = found.together()
    assert found.late == 0
    assert (len(whole.early), len(whole.retracted), len(whole.truth)) == (len(early), len(retracted), len(truth))
    assert len(whole.retracted) > 10


def test_the_same_seed_gives_the_same_and_another_one_another_order(tapes):
    one, again, other = (run(tapes, 200_000, seed=seed)[0].as_json() for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_the_command_prints_a_table_and_json_and_draws(log, tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("""
rules:
  - {name: pair, within: 400ms, all: [{as: a, stream: axon_1}, {as: b, stream: axon_2, where: "value > a.value"}]}
  - {name: many, seq: [{as: n, stream: counts, where: "n > 2"}]}
windows:
  - {name: counts, from: axon_1, every: 1s, select: {n: "count()"}}
""")
    runner = CliRunner()
    plot = tmp_path / "disorder.png"
    command = ["match", str(path), str(log), "--lateness", "500ms", "--disorder", "100ms, 0s"]
    done = runner.invoke(app, [*command, "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    first, none, some = done.stdout.splitlines()[:3]
    assert first.split()[:3] == ["disorder", "late", "on"]
    assert (none.split()[0], some.split()[0]) == ("none", "100ms")
    assert "left out, since they read results, which are never made on arrival: many" in done.stderr
    assert plot.read_bytes()[:4] == b"\x89PNG"
    found = orjson.loads(runner.invoke(app, [*command, "--json"]).stdout)
    assert [each["disorder_s"] for each in found["amounts"]] == [0, 0.1]
    assert found["amounts"][0]["rules"][0]["in_order"]["recall"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--disorder", "soon"], "expected durations such as 0s,10ms"),
        (["--disorder", "1s", "--plot", "x.svg"], "the figure is a PNG"),
        (["--plot", "x.png"], "give both"),
    ],
)
def test_options_that_cannot_be_meant_are_one_line(log, options, said):
    done = CliRunner().invoke(app, ["match", "axons", str(log), *options])
    assert done.exit_code != 0
    assert said in str(done.exception or done.output)
