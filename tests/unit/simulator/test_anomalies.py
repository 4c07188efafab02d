"""Planted anomalies: defaults of each kind, kinds in turn, and a rule and a plant for each other."""

from __future__ import annotations

from typing import Any

import pytest

from astrocyte import load_rules
from astrocyte.pipeline.simulation.run import scenario_config, world_settings
from astrocyte.pipeline.topology.rule_files import shipped_rules
from astrocyte.simulator.anomalies import Plant, PlantKind, planting
from astrocyte.simulator.config import configure
from astrocyte.simulator.scenario import load_scenario
from astrocyte.simulator.scenarios.cells.config import CellsConfig
from tests.support.bursts import BurstsConfig

KINDS = {
    "short": PlantKind(("a",), ticks=10, rest=5),
    "long": PlantKind(("b",), ticks=100, rest=0),
    "last": PlantKind(rest=0, once=True),
}


def test_a_plant_has_the_strength_and_length_of_its_kind_unless_it_says_otherwise() -> None:
    given: list[Any] = [
        {"kind": "breakthrough", "at_tick": 1},
        {"kind": "breakthrough", "at_tick": 2, "strength": 0.2},
        Plant(kind="breakthrough", at_tick=3),
        Plant(kind="breakthrough", at_tick=4, ticks=7, strength=0.5),
    ]
    config = configure(CellsConfig, {"plants": given})
    assert [(plant.ticks, plant.strength) for plant in config.plants] == [(200, 0.9), (200, 0.2), (200, 0.9), (7, 0.5)]
    assert configure(BurstsConfig, {"plants": [{"kind": "left", "at_tick": 1}]}).plants[0].strength == 0.5


def test_kinds_are_planted_in_turn_while_there_is_room() -> None:
    plants = planting(KINDS, 20, 160)
    assert [(plant["kind"], plant["at_tick"]) for plant in plants] == [
        ("short", 20), ("long", 35), ("last", 135), ("short", 136),
    ]  # fmt: skip
    assert planting(KINDS, 20, 30) == [{"kind": "last", "at_tick": 20}]
    assert planting({}, 0, 100) == []


def test_a_seed_draws_the_turn_and_the_delays_of_the_kinds_and_each_has_its_room() -> None:
    drawn = [planting(KINDS, 20, 400, seed=seed, spread=20) for seed in range(20)]
    assert drawn[3] == planting(KINDS, 20, 400, seed=3, spread=20)
    assert {plants[0]["kind"] for plants in drawn} == set(KINDS)
    assert len({plants[0]["at_tick"] for plants in drawn}) > 5
    for plants in drawn:
        assert {plant["kind"] for plant in plants} == set(KINDS)
        assert [plant["kind"] for plant in plants].count("last") == 1
        free = 20
        for plant in plants:
            assert free <= plant["at_tick"] <= free + 20
            free = plant["at_tick"] + KINDS[plant["kind"]].room(380)
        assert free <= 400


def test_a_kind_whose_rules_compare_with_the_past_is_planted_once_there_is_one() -> None:
    kinds = {"early": PlantKind(ticks=10, rest=5), "compared": PlantKind(ticks=10, rest=5, after=60)}
    assert [(plant["kind"], plant["at_tick"]) for plant in planting(kinds, 20, 100)] == [
        ("early", 20), ("early", 35), ("early", 50), ("compared", 65), ("early", 80),
    ]  # fmt: skip
    assert planting({"compared": kinds["compared"]}, 20, 80) == [{"kind": "compared", "at_tick": 60}]
    assert planting({"compared": kinds["compared"]}, 20, 70) == []
    for seed in range(20):
        plants = planting(kinds, 20, 400, seed=seed, spread=9)
        assert min(plant["at_tick"] for plant in plants if plant["kind"] == "compared") >= 60


def test_a_kind_that_says_no_rest_is_planted_a_few_times_however_long_the_run_is() -> None:
    for ticks in (40, 480, 100_000):
        plants = planting({"robbery": PlantKind(("robbed",)), "swarm": PlantKind(("swarms",), ticks=3)}, 10, 10 + ticks)
        assert 7 <= len(plants) <= 8
        assert {plant["kind"] for plant in plants} == {"robbery", "swarm"}


@pytest.mark.parametrize("name", sorted(shipped_rules()))
def test_every_planted_kind_names_rules_that_exist_and_every_alert_has_a_plant(name: str) -> None:
    ruleset = load_rules(shipped_rules()[name])
    alerts = {rule.name for rule in ruleset.rules if rule.alert is not None}
    kinds = load_scenario(name).Config.plant_kinds
    named = {rule for kind in kinds.values() for rule in kind.rules}
    if name == "axons":  # coincidences have a rate instead of times
        named = {"strong_A_and_B_within_2s"}
    assert named == alerts
    for kind in kinds.values():
        assert alerts.issuperset(kind.may_follow)


@pytest.mark.parametrize("name", sorted(shipped_rules()))
def test_a_demo_of_twenty_seconds_plants_something_and_a_quiet_world_nothing(name: str) -> None:
    planted = scenario_config(name, world_settings(name, 20.0), None)
    quiet = scenario_config(name, world_settings(name, 20.0, planted=False), None)
    assert quiet.plants == ()
    assert planted.plants or planted.plant_hz > 0 == quiet.plant_hz
    ends = [(plant.at_tick + plant.ticks) * planted.tick_us for plant in planted.plants]
    assert all(end_us <= 20_000_000 for end_us in ends)
    kinds = {plant["kind"] for plant in world_settings(name, 120.0).get("plants", ())}
    assert kinds == set(planted.plant_kinds)
