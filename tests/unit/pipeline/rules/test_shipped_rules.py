"""The shipped rule files: they load, and each rule fires on a small input and not on a near miss."""

from __future__ import annotations

from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astrocyte import CATALOG, Match, load_rules, match
from astrocyte.agents.ingest.dicts import frames_of
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.topology.rule_files import join_rule_sets, shipped_rules

FILES = shipped_rules()
STREAMS = [event_type.stream for event_type in CATALOG]
Event = dict[str, Any]


def rules_of(name: str) -> RuleSet:
    return load_rules(FILES[name], known_streams=STREAMS)


def at(stream: str, seconds: float, kind: str = "x", *, key: str = "k", **fields: Any) -> Event:
    return {"stream": stream, "timestamp": round(seconds * 1e6), "key": key, "type": kind, **fields}


def snapshots(*spans: tuple[float, float, dict[str, float]]) -> list[Event]:
    """population_metrics ten times a second: (from, to, values) one after the other."""
    base = {
        "total_population": 1000, "avg_accuracy": 0.5, "genome_diversity": 2.0, "avg_generation": 3.0,
        "energy_efficiency": 1.0, "births": 10, "deaths": 10, "avg_energy": 8.0,
    }  # fmt: skip
    return [
        at("population_metrics", tick / 10, "snapshot", key="sim", simulation_id="sim", tick=tick, **{**base, **values})
        for begin, end, values in spans
        for tick in range(round(begin * 10), round(end * 10))
    ]


def births(*spans: tuple[int, int, int], rate: int = 25) -> list[Event]:
    """Births by second, ``rate`` of them, among which so many mutants: (from, to, mutants)."""
    return [
        at("evolutionary_events", second + number / (2 * rate), kind, key="0", simulation_id="sim", event_type=kind,
           cell_id=number, mutation_magnitude=0.1, fitness_delta=0.01)
        for begin, end, mutants in spans
        for second in range(begin, end)
        for number in range(rate)
        for kind in ("birth", "mutation")[: 1 + (number < mutants)]
    ]  # fmt: skip


def falling(rate: float, seconds: float = 2.0) -> list[Event]:
    """population_metrics of a population that falls from 1,000 by a rate a second."""
    tenths = [(tick / 10, 1000 * exp(-rate * tick / 10)) for tick in range(round(10 * seconds))]
    return snapshots(*((at_s, at_s + 0.1, {"total_population": round(left)}) for at_s, left in tenths))


def steps(*rows: dict[str, Any]) -> list[Event]:
    base = {
        "total_agents": 100, "total_resources": 1000.0, "resources_consumed": 5.0, "dominant_genome_ratio": 0.5,
        "combat_encounters": 0, "successful_attacks": 0, "resources_shared": 1.0,
    }  # fmt: skip
    return [
        at("simulation_steps", number, "step", key="sim", simulation_id="sim", step_number=number, **{**base, **row})
        for number, row in enumerate(rows)
    ]


def spike(axon: int, seconds: float, kind: str, value: float, key: str = "d1") -> Event:
    return at(f"axon_{axon}", seconds, kind, key=key, value=value)


def karma(seconds: float, snapshot: int, score: float, before: float | None, agent: str = "agent-1") -> Event:
    delta = None if before is None else score - before
    return at(
        "dna.karma_updated", seconds, key=agent, agent_id=agent, snapshot_id=snapshot, version=snapshot,
        karma_score=score, previous_score=before, score_delta=delta,
    )  # fmt: skip


def scores(*seconds: tuple[int, float]) -> list[Event]:
    """(number, karma) of the scores in each second."""
    return [
        karma(second + number / 40, second * 100 + number, value, value, f"agent-{number}")
        for second, (count, value) in enumerate(seconds)
        for number in range(count)
    ]


def mutation(seconds: float, snapshot: int, parent: int, agent: str = "agent-1") -> Event:
    fields = {"agent_id": agent, "snapshot_id": snapshot, "parent_snapshot_id": parent}
    return at("dna.mutation_applied", seconds, key=agent, **fields)


def created(seconds: float, snapshot: int, parent: int, reason: str, agent: str = "agent-1") -> Event:
    return at(
        "dna.snapshot_created", seconds, key=agent, agent_id=agent, snapshot_id=snapshot, parent_snapshot_id=parent,
        source="manual", reason=reason, dna_size=12, traits_count=5,
    )  # fmt: skip


def kernel(seconds: float, number: int, kind: str, regime: str = "geometric", kappa: float = 60.0) -> Event:
    return at(
        "kernel_geometry", seconds, kind, key="sim", kernel_id=number, god_name="Athena", regime=regime, kappa=kappa,
        phi=0.7, domain="logic", ecological_niche="n", success_count=3, failure_count=1,
    )  # fmt: skip


def updates(*counts: int) -> list[Event]:
    """So many updates in each second."""
    return [kernel(second + n / count, n, "updated") for second, count in enumerate(counts) for n in range(count)]


def war(seconds: float, attacker: int, defender: int, winner: int, phis: tuple[float, float] = (0.6, 0.6)) -> Event:
    return at(
        "war_history", seconds, "war", key="sim", war_id=round(seconds * 10), mode="flow", attacker_id=attacker,
        defender_id=defender, winner_id=winner, attacker_phi=phis[0], defender_phi=phis[1],
        phi_delta=phis[0] - phis[1], rounds=3,
    )  # fmt: skip


def starved(count: int, spread: float, cause: str = "starvation") -> list[Event]:
    return [
        at(
            "health_incidents", number * spread / count, cause, key="r0", step_number=number, agent_id=number,
            cause=cause, health_before=1.0, health_after=0.0,
        )
        for number in range(count)
    ]  # fmt: skip


FIGHT = {"combat_encounters": 3, "successful_attacks": 1, "resources_shared": 0.0}

# rule: (file, input on which it fires, near miss)
CASES: dict[str, tuple[str, list[Event], list[Event]]] = {
    "type_A_and_B_within_2s": (
        "axons",
        [spike(2, 0.0, "B", 15.0), spike(1, 1.9, "A", 10.0)],
        [spike(2, 0.0, "B", 15.0), spike(1, 2.0, "A", 10.0)],
    ),
    "strong_A_and_B_within_2s": (
        "axons",
        [spike(1, 0.0, "A", 21.0), spike(2, 1.0, "B", 23.0)],
        [spike(1, 0.0, "A", 21.0), spike(2, 1.0, "B", 24.0)],
    ),
    "rising_A_B_C": (
        "axons",
        [spike(1, 0.0, "A", 1.0), spike(2, 0.2, "B", 2.0), spike(3, 0.4, "C", 3.0)],
        [spike(1, 0.0, "A", 1.0), spike(2, 0.2, "B", 2.0), spike(3, 0.4, "C", 2.0)],
    ),
    "unanswered_A": (
        "axons",
        [spike(1, 0.0, "A", 25.0), spike(2, 1.0, "B", 2.0)],
        [spike(1, 0.0, "A", 25.0), spike(2, 0.9, "B", 2.0)],
    ),
    "axon_3_burst": (
        "axons",
        [spike(3, number * 0.04, "C", 1.0) for number in range(5)],
        [spike(3, number * 0.04, "C", 1.0) for number in (0, 1, 2, 4, 5)],
    ),
    "population_collapse": (
        "cells",
        snapshots((0, 5, {}), (5, 6, {"total_population": 499})),
        snapshots((0, 5, {}), (5, 6, {"total_population": 500})),
    ),
    "evolutionary_breakthrough": (
        "cells",
        snapshots((0, 5, {}), (5, 7, {"avg_accuracy": 0.71})),
        snapshots((0, 5, {}), (5, 7, {"avg_accuracy": 0.69})),
    ),
    "stagnation": ("cells", births((0, 20, 20), (20, 26, 3)), births((0, 20, 20), (20, 26, 4))),
    "runaway_mutation": ("cells", births((0, 20, 5), (20, 26, 22)), births((0, 20, 5), (20, 26, 21))),
    "extinction_risk": ("cells", falling(0.07), falling(0.05)),
    "resource_depletion": (
        "cells",
        snapshots((0, 5, {}), (5, 8, {"energy_efficiency": 0.5})),
        snapshots((0, 5, {}), (5, 8, {"energy_efficiency": 0.66})),
    ),
    "diversity_bottleneck": (
        "cells",
        snapshots((0, 5, {}), (5, 8, {"genome_diversity": 1.79})),
        snapshots((0, 5, {}), (5, 8, {"genome_diversity": 1.81})),
    ),
    "bottleneck_and_recovery": (
        "cells",
        snapshots((0, 5, {}), (5, 8, {"total_population": 90}), (8, 12, {"total_population": 600})),
        snapshots((0, 5, {}), (5, 8, {"total_population": 90}), (8, 12, {"total_population": 450})),
    ),
    "agent_population_crash": ("ecology", steps({}, {"total_agents": 49}), steps({}, {"total_agents": 50})),
    "resource_exhaustion": (
        "ecology",
        steps({}, {"total_resources": 199.0}),
        steps({}, {"total_resources": 199.0, "resources_consumed": 0.0}),
    ),
    "starvation_wave": ("ecology", starved(20, 0.9), starved(20, 1.2)),
    "genome_sweep": (
        "ecology",
        steps({"dominant_genome_ratio": 0.2}, {}, {"dominant_genome_ratio": 0.7}),
        steps({"dominant_genome_ratio": 0.4}, {}, {"dominant_genome_ratio": 0.7}),
    ),
    "conflict_without_sharing": ("ecology", steps(*[FIGHT] * 5), steps(*[FIGHT] * 4, {}, FIGHT)),
    "regime_breakdown": (
        "kernels",
        [kernel(0, 7, "updated"), kernel(5, 7, "updated", "breakdown", 90.0)],
        [kernel(0, 7, "updated"), kernel(5, 8, "updated", "breakdown", 90.0)],
    ),
    "winning_streak": (
        "kernels",
        [war(0, 1, 2, 1), war(1, 3, 1, 1), war(9, 4, 1, 1)],
        [war(0, 1, 2, 1), war(1, 3, 1, 3), war(9, 4, 1, 1)],
    ),
    "upset": ("kernels", [war(0, 1, 2, 1, (0.1, 0.9))], [war(0, 1, 2, 2, (0.1, 0.9))]),
    "training_stops": (
        "kernels",
        updates(40, 40, 40, 40, 15, 4, 0, 40, 40),
        updates(40, 40, 40, 40, 15, 16, 0, 40, 40),
    ),
    "mutation_improved": (
        "dna",
        [mutation(0, 102, 101), karma(5, 102, 0.82, 0.75)],
        [mutation(0, 102, 101), karma(5, 101, 0.82, 0.75)],
    ),
    "crossover_due": ("dna", [karma(0, 102, 0.82, 0.71)], [karma(0, 102, 0.82, 0.73)]),
    "elite_snapshot": ("dna", [karma(0, 103, 0.89, 0.82)], [karma(0, 103, 0.89, 0.86)]),
    "mutation_never_scored": (
        "dna",
        [mutation(0, 102, 101), karma(10, 102, 0.8, 0.75)],
        [mutation(0, 102, 101), karma(9, 102, 0.8, 0.75)],
    ),
    "karma_breakthrough": (
        "dna",
        scores((20, 0.6), (20, 0.81), (20, 0.81)),
        scores((20, 0.6), (20, 0.79), (19, 0.9), (20, 0.81)),
    ),
    "evolution_stalls": (
        "dna",
        [mutation(0.5, 102, 101), mutation(7.5, 103, 102)],
        [mutation(0.5, 102, 101), mutation(4.5, 103, 102)],
    ),
    "regression_and_rollback": (
        "dna",
        [mutation(0, 104, 102), karma(5, 104, 0.6, 0.82), created(60, 105, 102, "Rollback to version 2")],
        [mutation(0, 104, 102), karma(5, 104, 0.6, 0.82), created(60, 105, 102, "Manual save")],
    ),
}


def found_by(rule: str, file: str, events: list[Event]) -> list[Match]:
    return [found for found in match(rules_of(file), events) if found.rule == rule]


def messages_of(rule: str, file: str, events: list[Event]) -> list[str]:
    """Messages of the rule's alerts, single ones and those of groups."""
    made = match(rules_of(file), events)
    single = [found.alert.message for found in made if found.rule == rule and found.alert is not None]
    return single + [alert.message for alert in made.grouped if alert.rule == rule]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_shipped_file_loads_against_the_catalog(name: str) -> None:
    rules = rules_of(name)
    assert rules.rules
    assert rules.windows
    assert all(rule.description for rule in rules.rules)


def test_all_files_can_run_together() -> None:
    join_rule_sets(rules_of(name) for name in FILES)


def test_every_shipped_rule_has_a_case() -> None:
    assert {rule.name for name in FILES for rule in rules_of(name).rules} == CASES.keys()


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_fires_once_on_its_input_and_not_on_a_near_miss(rule: str) -> None:
    file, hit, miss = CASES[rule]
    found = found_by(rule, file, hit)
    assert len(found) == 1
    assert found_by(rule, file, miss) == []
    spec = next(each for each in rules_of(file).rules if each.name == rule)
    if spec.alert is not None:
        (message,) = messages_of(rule, file, hit)
        assert "{" not in message
        assert "null" not in message


def test_the_axons_rule_emits_value_and_confidence() -> None:
    (found,) = found_by("type_A_and_B_within_2s", *CASES["type_A_and_B_within_2s"][:2])
    assert found.integrated_value == 25.0
    assert found.confidence == pytest.approx(10 / 15)
    assert found.key == "d1"


def test_the_confidence_of_a_strong_pair_is_at_least_nine_tenths() -> None:
    (found,) = found_by("strong_A_and_B_within_2s", *CASES["strong_A_and_B_within_2s"][:2])
    assert found.confidence >= 0.9


def alerts_by_phase(rule: str, *spans: tuple[float, float, dict[str, float]]) -> list[int]:
    """How often the rule fires in ten worlds, in each of which all spans but the first begin a tenth later."""
    events: list[Event] = []
    for tenth in range(10):
        (begin, end, first), *others = spans
        late = [(begin + tenth / 10, end + tenth / 10, values) for begin, end, values in others]
        own = {"key": f"sim{tenth}", "simulation_id": f"sim{tenth}"}
        events += [{**event, **own} for event in snapshots((begin, end + tenth / 10, first), *late)]
    found = found_by(rule, "cells", events)
    return [sum(each.key == f"sim{tenth}" for each in found) for tenth in range(10)]


@pytest.mark.parametrize("earned", [0.9, 1.75, 4.0])
def test_a_depletion_is_found_once_wherever_in_a_second_it_begins_and_however_rich_the_world_was(earned: float) -> None:
    usual = {"energy_efficiency": earned}
    # Half of the cells have starved after half a second, and leave more for the others.
    spans = [(8, 8.6, {"energy_efficiency": 0.3 * earned}), (8.6, 9.3, {"energy_efficiency": 0.6 * earned})]
    assert alerts_by_phase("resource_depletion", (0, 8, usual), *spans, (9.3, 14, usual)) == [1] * 10


@pytest.mark.parametrize(("rule", "died"), [("population_collapse", 1350), ("bottleneck_and_recovery", 1990)])
def test_deaths_are_found_although_the_population_has_grown_back_before_the_next_snapshot(rule: str, died: int) -> None:
    few, full = {"total_population": 1400}, {"total_population": 2048, "deaths": 110, "births": 110}
    for share, alerts in ((1.0, 1), (0.8, 0)):
        deaths = round(share * died)
        hit = {"total_population": 1134, "deaths": deaths, "births": 1134 - 2048 + deaths}
        spans = [(2, 8, full), (8, 8.1, hit), (8.1, 14, full)]
        assert alerts_by_phase(rule, (0, 2, few), *spans) == [alerts] * 10


def test_a_loss_of_diversity_that_chance_explains_is_no_bottleneck() -> None:
    few = {"total_population": 900, "births": 870, "deaths": 970}  # 30 survivors, which have grown back
    for diversity, alerts in ((1.77, 0), (1.75, 1)):
        events = snapshots((0, 5, {}), (5, 5.1, {**few, "genome_diversity": diversity}))
        assert len(found_by("diversity_bottleneck", "cells", events)) == alerts


def test_one_great_fall_of_the_population_is_no_risk_of_extinction() -> None:
    spans = [(0, 8, {}), (8, 12, {"total_population": 200}), (12, 20, {"total_population": 900})]
    assert found_by("extinction_risk", "cells", snapshots(*spans)) == []


@pytest.mark.parametrize("rate", [10, 50, 150])
def test_the_shares_of_mutants_of_a_steady_world_raise_no_alert_whatever_its_size(rate: int) -> None:
    drawn = np.random.default_rng(rate)
    seconds = [(at_s, at_s + 1, int(drawn.binomial(rate, 0.2))) for at_s in range(45)]
    for rule in ("stagnation", "runaway_mutation"):
        assert found_by(rule, "cells", births(*seconds, rate=rate)) == []


@pytest.mark.parametrize(("before", "now", "alerts"), [(0, 5, 1), (0, 3, 0), (5, 22, 1), (5, 15, 0), (16, 25, 0)])
def test_mutations_run_away_where_their_share_doubles_or_that_of_copies_halves(
    before: int, now: int, alerts: int
) -> None:
    # Of 125 births a window: 16 of 25 are mutants before leaves 45 copies, of which half is too few to tell from none.
    assert len(found_by("runaway_mutation", "cells", births((0, 20, before), (20, 26, now)))) == alerts


def test_the_end_of_many_mutations_is_no_stagnation() -> None:
    for begin in (20, 23):
        events = births((0, begin, 16), (begin, begin + 10, 72), (begin + 10, 50, 16), rate=80)
        assert [len(found_by(rule, "cells", events)) for rule in ("stagnation", "runaway_mutation")] == [0, 1]


@pytest.mark.parametrize("few", [(0, 0, 0, 0), (2, 2, 2, 2), (0, 3, 0, 2)])
def test_that_training_stops_is_found_whatever_part_of_a_second_is_left_of_it_and_whatever_wars_update(
    few: tuple[int, ...],
) -> None:
    for usual in (23, 40):
        for left in range(0, usual + 1, 4):
            events = updates(35, 35, 35, usual, left, *few, usual - left, 35, 35)
            assert len(messages_of("training_stops", "kernels", events)) == 1, (usual, left)


def test_that_many_updates_of_a_war_end_is_no_end_of_training() -> None:
    assert found_by("training_stops", "kernels", updates(35, 40, 30, 35, 100, 300, 200, 35, 30, 33, 35, 40)) == []


@pytest.mark.parametrize(("usual", "best"), [(0.55, 0.94), (0.87, 0.985)])
def test_a_breakthrough_of_scores_is_found_once_wherever_in_a_second_it_begins(usual: float, best: float) -> None:
    for tenth in range(10):
        parts = [(20, usual)] * 3 + [(20, usual + (best - usual) * tenth / 10), (20, best), (20, best), (20, usual)]
        assert len(found_by("karma_breakthrough", "dna", scores(*parts))) == 1, tenth


def test_earnings_that_rise_after_many_cells_have_died_and_fall_to_what_they_were_are_no_depletion() -> None:
    times = [(0, 8, 1.0), (8, 8.3, 4.0), (8.3, 8.8, 3.0), (8.8, 9.5, 1.6), (9.5, 14, 1.0)]
    spans = [(begin, end, {"energy_efficiency": 0.9 * rise}) for begin, end, rise in times]
    assert alerts_by_phase("resource_depletion", *spans) == [0] * 10


@pytest.mark.parametrize("accuracy", [(0.35, 0.7), (0.6, 0.86), (0.8, 0.97)])
def test_a_breakthrough_is_found_once_wherever_in_a_second_it_begins_and_however_good_the_cells_were(
    accuracy: tuple[float, float],
) -> None:
    usual, better = ({"avg_accuracy": value} for value in accuracy)
    spans = [(0, 8, usual), (8, 10, better), (10, 14, usual)]
    assert alerts_by_phase("evolutionary_breakthrough", *spans) == [1] * 10


def test_shipped_validators_refuse_unknown_types_and_values_that_are_not_finite() -> None:
    validators = Validators(rules_of("axons").validators)
    events = [spike(1, 0.0, "A", 1.0), spike(1, 0.1, "Q", 1.0), spike(1, 0.2, "A", float("nan"))]
    (frame,) = frames_of(events, ["axon_1"])
    passed = validators.apply(frame)
    assert passed.rows.tolist() == [0]
    assert passed.refused[0][1] == "a spike is of type A, B or C"


def test_rule_files_are_in_the_folder_of_the_pipeline() -> None:
    assert all(isinstance(path, Path) and path.parent.name == "rules" for path in FILES.values())


def test_a_collapse_is_measured_from_the_largest_population_not_from_the_oldest() -> None:
    rising = [(number / 10, (number + 1) / 10, {"total_population": 1080 + 20 * number}) for number in range(49)]
    events = snapshots(*rising, (4.9, 5.0, {"total_population": 2048}), (5.0, 6.0, {"total_population": 451}))
    (found,) = found_by("population_collapse", "cells", events)
    assert found.alert is not None
    assert found.alert.message == "population fell from 2048 to 451; 10 died since the snapshot before"
    assert found.confidence == pytest.approx(1 - 451 / 2048)


@pytest.mark.parametrize(
    ("rule", "rows", "message"),
    [
        (
            "agent_population_crash",
            [{"total_agents": 40}, {"total_agents": 80}, {"total_agents": 39}],
            "agents fell from 80 to 39",
        ),
        (
            "resource_exhaustion",
            [{"total_resources": 400.0}, {"total_resources": 1000.0}, {"total_resources": 150.0}],
            "resources fell from 1000 to 150",
        ),
    ],
)
def test_a_fall_in_the_ecology_is_measured_from_the_largest_value(
    rule: str, rows: list[dict[str, Any]], message: str
) -> None:
    (found,) = found_by(rule, "ecology", steps(*rows))
    assert found.alert is not None
    assert found.alert.message == message
