"""Live workers emit what `astrocyte match` finds in the recorded log, row by row, whenever and however they run.

The long form (``make soak ARGS="-k live_equals_offline"``) covers every pair of: when workers start, timeouts,
partitions, form, number of workers, broker; with the shipped rules over all five scenarios. Rules are also drawn at
random.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.support.live_cases import MOMENTS, SHIPPED, TIMEOUTS, Case, check_case, covering, world_frames
from tests.support.live_rules import random_rule_file

FACTORS = {
    "scenarios": tuple((name,) for name in SHIPPED),
    "moment": MOMENTS,
    "timeouts": tuple(TIMEOUTS),
    "partitions": (1, 3),
    "form": ("frames", "json"),
    "workers": (1, 2),
    "broker": ("embedded", "kafka"),
}
SHORT = (
    Case("restarted", "short", 2, "frames", 1, scenarios=("kernels",)),
    Case("after", "short", 3, "json", 1, scenarios=("axons", "kernels")),
)
EVERY_ROLE = ("correlate", "sql", "influx", "audit", "file", "control")


def is_repeated(chosen: Mapping[str, Any]) -> bool:
    """Whether `match` can repeat what the workers did.

    Records without watermarks that come after a pause longer than the idle timeout are late in repartitioned streams
    live, and not offline (docs/operations.md). Where workers start or end between records, that may be such a pause.
    """
    if chosen["form"] == "frames" or chosen["timeouts"] == "long" or chosen["moment"] == "after":
        return True
    return chosen["timeouts"] == "default" and chosen["moment"] == "before"


LONG = [Case(**each) for each in covering(FACTORS, is_repeated)]


def broker_of(case: Case, request: pytest.FixtureRequest) -> str:
    """Address of an empty broker."""
    return str(request.getfixturevalue("own_embedded" if case.broker == "embedded" else "empty_kafka").address)


def marked(case: Case) -> object:
    return pytest.param(case, marks=pytest.mark.kafka if case.broker == "kafka" else (), id=str(case))


def check(case: Case, request: pytest.FixtureRequest, folder, record_property, rules=()) -> dict[str, object]:
    found = check_case(case, broker_of(case, request), folder, rules)
    record_property("experiment", {"case": str(case), "rules": rules[0].stem if rules else "shipped"} | found)
    return found


@pytest.mark.parametrize("case", [marked(case) for case in SHORT])
def test_live_is_offline(case, request, tmp_path, record_property):
    found = check(case, request, tmp_path, record_property)
    assert found["multi"] > 0
    assert found["alerts"] > 0
    assert found["windows"] > 0


@pytest.mark.soak
@pytest.mark.parametrize("case", [marked(case) for case in LONG])
def test_live_is_offline_in_the_long_form(case, request, tmp_path, record_property):
    found = check(case, request, tmp_path, record_property)
    assert found["multi"] + found["windows"] > 0


@pytest.mark.soak
@pytest.mark.parametrize("broker", ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_every_role_runs_beside_the_others(broker, request, tmp_path, record_property):
    case = Case("middle", "default", 2, "frames", 1, broker, roles=EVERY_ROLE)
    found = check(case, request, tmp_path, record_property)
    assert found["multi"] + found["windows"] > 0


@pytest.mark.soak
@pytest.mark.parametrize("number", range(10))
def test_live_is_offline_for_rules_drawn_at_random(number, search_seed, request, tmp_path, record_property):
    seed = search_seed + number
    draw = random.Random(seed)
    chosen = {name: draw.choice(values) for name, values in FACTORS.items()}
    case = Case(**chosen | ({} if is_repeated(chosen) else {"timeouts": "long"}))
    rules = tmp_path / f"drawn_{seed}.yaml"
    rules.write_text(random_rule_file([frame for name in case.scenarios for frame in world_frames(name)], seed))
    check(replace(case, broker="embedded" if number % 2 else "kafka"), request, tmp_path, record_property, (rules,))


def test_the_long_form_covers_every_pair_of_circumstances():
    names = list(FACTORS)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            seen = {(getattr(case, one), getattr(case, other)) for case in LONG}
            wanted = {(a, b) for a in FACTORS[one] for b in FACTORS[other]}
            assert seen == wanted
    for name in SHIPPED:
        assert sum(name in case.scenarios for case in LONG) >= 4
