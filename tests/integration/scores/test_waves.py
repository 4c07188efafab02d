"""Waves that pass from domain to domain are found by a rule behind a junction, and by no rule over one domain."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from astrocyte import load_rules
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.analysis.score import score
from astrocyte.pipeline.simulation.log_sink import LogSink
from astrocyte.simulator.run import simulate

RULES = """
rules:
  - name: strong_pair
    by: key
    within: 20ms
    all:
      - {as: a, stream: axon_1, where: "type == 'A' and value >= 100"}
      - {as: b, stream: axon_2, where: "type == 'B' and value == a.value"}
    emit: {level: "a.value", place: "a.key"}
  - name: wave_over_domains
    by: key
    within: 1s
    seq:
      - {as: first, stream: FRONT}
      - {as: second, stream: FRONT, where: "place != first.place", within_prev: 500ms}
      - {as: third, stream: FRONT, where: "place != first.place and place != second.place", within_prev: 500ms}
    skip: past_last
    alert: {severity: warning, message: "a wave of strength {first.level:.0f} from {first.place} to {third.place}"}
"""
LINKED = load_rules(RULES.replace("FRONT", "front") + "junctions:\n  - {name: front, from: strong_pair, key: level}\n")
UNLINKED = load_rules(RULES.replace("FRONT", "strong_pair"))
"""The same rule over the pairs of its own domain."""
SEEDS = (1, 2, 3)
SECONDS = 30.0
SETTINGS = {"domains": 96, "rate_hz": (1.0, 1.0, 1.0), "plant_hz": 0.05, "wave_hz": 0.01}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A world for each seed, over four partitions."""
    folder = tmp_path_factory.mktemp("waves")
    found = []
    for seed in SEEDS:
        log = folder / f"{seed}.jsonl.zst"
        sink = LogSink(log, partitions=4, form="frames", source="test")
        try:
            simulate("axons", SETTINGS, seed=seed, seconds=SECONDS, sink=sink)
        finally:
            sink.close()
        found.append(log)
    return found


@pytest.mark.time_limit(180, "compiles a world and simulates it three times")
def test_a_rule_behind_a_junction_finds_the_waves_and_rules_over_one_domain_do_not(logs):
    total: Counter[str] = Counter()
    for log in logs:
        found = {each.rule: each for each in score(LINKED, [log], lateness_us=0, slack_us=1_000_000)}
        waves = found["wave_over_domains"]
        total += Counter(planted=waves.planted, found=waves.found, made=waves.matches, true=waves.true_matches)
        run, outputs = run_rules(UNLINKED, [log], lateness_us=0)
        bodies = [record.value for output in outputs for record in output.multi_events]
        total["alone"] += sum(b"wave_over_domains" in body for body in bodies)
        total["pairs"] += sum(b'"correlation_rule":"strong_pair"' in body for body in bodies)
        assert run.partitions == 4
    assert total["planted"] > 50
    assert total["found"] >= 0.95 * total["planted"]
    assert total["true"] >= 0.95 * total["made"]
    assert total["alone"] == 0
    # What a rule over one domain sees is as often a decoy: four pairs for a wave, one for each decoy.
    assert total["pairs"] > 4.5 * total["planted"]
