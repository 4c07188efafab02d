"""Rules behind junctions: live workers find what the offline run finds, on several partitions, also after kill -9."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.live_cases import Case, check_case

RULES = """
rules:
  - name: pair
    by: key
    within: 2s
    all:
      - {as: a, stream: axon_1, where: "type == 'A'"}
      - {as: b, stream: axon_2, where: "type == 'B'"}
    emit: {level: "a.value + b.value", value: "b.value", confidence: "min(a.value, b.value) / max(a.value, b.value)"}
  - name: unanswered
    by: key
    within: 1s
    seq:
      - {as: a, stream: axon_1, where: "value > 12"}
      - not: {as: b, stream: axon_2}
    emit: {level: "a.value"}
  - name: echo                       # the same level in two domains, whatever their keys
    by: key
    within: 3s
    seq:
      - {as: first, stream: levels}
      - {as: second, stream: levels}
    emit: {value: "first.level", left: "second.strength"}
  - name: met                        # behind two junctions, with events that are repartitioned by their value
    by: value
    within: 5s
    all:
      - {as: far, stream: echoes}
      - {as: c, stream: axon_3}
    emit: {hops: "far.hops + 0", near: "c.value"}
    alert: {severity: info, message: "level {far.value:.0f} after {far.hops} junctions"}
  - {name: strong, by: value, seq: [{as: a, stream: axon_1, where: "value > 15"}], emit: {value: "a.value"}}
  - name: relay                      # in a circle: on to the value below, for three generations
    by: value
    within: 1s
    seq:
      - {as: pulse, stream: pulses}
      - {as: c, stream: axon_3}
    emit: {value: "c.value - 1", hops_before: "pulse.hops + 0"}
windows:
  - {name: levels_per_second, from: levels, every: 1s, select: {events: "count()", strongest: "max(strength)"}}
junctions:
  - {name: levels, from: [pair, unanswered], key: level, where: "level > 3", delay: 200ms, damping: 0.9}
  - {name: pulses, from: [strong, relay], key: value, delay: 20ms, damping: 0.5, max_hops: 3}
  - {name: echoes, from: echo, key: value, delay: 50ms, damping: 0.5, min_strength: 0.02, max_hops: 3}
"""
FORMING = """
rules:
  - name: bound                      # where domains of both sides have been active together
    by: value
    within: 2s
    seq:
      - {as: far, stream: bonds}
      - {as: c, stream: axon_3}
    emit: {whence: "far.led_from", near: "c.value"}
junctions:
  - {name: bonds, from: pair, key: value, delay: 30ms, forms: {with: axon_3, over: 5s, above: 1, below: 1}}
"""
CASES = (
    Case("restarted", "short", 3, "frames", 2, scenarios=("axons",)),
    Case("before", "default", 2, "json", 1, scenarios=("axons",)),
)
ON_KAFKA = Case("restarted", "short", 3, "frames", 2, "kafka", scenarios=("axons",))


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "linked.yaml"
    path.write_text(RULES)
    return path


@pytest.fixture
def forming(tmp_path: Path) -> Path:
    """The same rules with a junction that forms and dissolves."""
    rules, junctions = FORMING.partition("rules:\n")[2].split("junctions:\n")
    path = tmp_path / "forming.yaml"
    path.write_text(RULES.replace("windows:\n", f"{rules}windows:\n") + junctions)
    return path


@pytest.mark.parametrize("case", CASES, ids=str)
def test_live_is_offline_behind_junctions(case, own_embedded, rules, tmp_path):
    check_linked(check_case(case, own_embedded.address, tmp_path, [rules]))


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES, ids=str)
def test_live_is_offline_behind_junctions_that_form(case, own_embedded, forming, tmp_path):
    found = check_case(case, own_embedded.address, tmp_path, [forming])
    check_linked(found)
    assert found["topology"] > 10


@pytest.mark.soak
@pytest.mark.kafka
def test_live_is_offline_behind_junctions_on_kafka(empty_kafka, forming, tmp_path):
    check_linked(check_case(ON_KAFKA, empty_kafka.address, tmp_path, [forming]))


def check_linked(found: Mapping[str, int]) -> None:
    assert found["multi"] > 100
    assert found["alerts"] > 0
    assert found["windows"] > 0
    assert found["late"] == found["dead"] == 0
