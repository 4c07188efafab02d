"""Scores of a scenario's rules over several seeds: a world with planted anomalies and a quiet one for each seed.

Each world is simulated into a temporary log, as fast as it can be, over which the rules run as in ``astrocyte match``.
In the first the kinds of anomalies come one after the other, each with its default strength, in an order and at times
drawn from the seed; in the second there are none, so that every alert there is a false one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from astrocyte.agents.rules.graph.links import needed_for
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.backtest import backtest
from astrocyte.pipeline.analysis.score import Planted, planted_in, score_outputs
from astrocyte.pipeline.analysis.unused_report import refusal_lines
from astrocyte.pipeline.simulation.log_sink import LogSink
from astrocyte.pipeline.simulation.run import scenario_config, world_settings
from astrocyte.pipeline.simulation.steering import Steering
from astrocyte.schemas.times import iso_from_us
from astrocyte.simulator.run import simulate
from astrocyte.simulator.scenario import Scenario, load_scenario

__all__ = ["TrialScore", "Trials", "behind_alerts", "run_trials"]

_HOUR_S: Final = 3_600.0
_FRAME_TICKS: Final = 100
"""Long frames: nobody waits for one, and reading a log costs more for each frame than for its rows."""


@dataclass(slots=True)
class TrialScore:
    """What one rule found over all seeds."""

    rule: str
    kinds: set[str] = field(default_factory=set)
    """Kinds of anomalies that it should find."""
    planted: int = 0
    found: int = 0
    alerts: int = 0
    """Alerts in the worlds with anomalies."""
    true_alerts: int = 0
    """Alerts that belong to an anomaly that names the rule."""
    delays_us: list[int] = field(default_factory=list)
    quiet_alerts: int = 0
    """Alerts in the quiet worlds."""

    @property
    def recall(self) -> float | None:
        """Share of the anomalies that were found; None if none was planted."""
        return self.found / self.planted if self.planted else None

    @property
    def precision(self) -> float | None:
        """Share of the alerts that belong to an anomaly; None without alerts."""
        return self.true_alerts / self.alerts if self.alerts else None

    def as_json(self, quiet_s: float) -> dict[str, Any]:
        """The figures; delays in seconds. ``quiet_s``: length of all quiet worlds together."""
        delays = np.asarray(self.delays_us, np.float64) / 1e6
        return {
            "rule": self.rule,
            "kinds": sorted(self.kinds),
            "planted": self.planted,
            "found": self.found,
            "recall": self.recall,
            "alerts": self.alerts,
            "precision": self.precision,
            "median_delay_s": float(np.median(delays)) if len(delays) else None,
            "max_delay_s": float(delays.max()) if len(delays) else None,
            "false_alarms_per_hour": self.quiet_alerts / quiet_s * _HOUR_S,
        }


@dataclass(slots=True)
class Trials:
    """Scores of the rules of a scenario that raise alerts."""

    scenario: str
    seconds: float
    """Simulated time of each world."""
    size: int | None = None
    """Size of the worlds, where it is not the default one."""
    steered: bool = False
    """Whether controllers steered the worlds."""
    seeds: int = 0
    scores: dict[str, TrialScore] = field(default_factory=dict)
    missed: list[tuple[int, Planted]] = field(default_factory=list)
    """Anomalies that were not found, each with the seed of its world."""
    unscored: list[str] = field(default_factory=list)
    """What was not scored, and why."""
    refused: list[str] = field(default_factory=list)
    """Of the first world with refused events: how many, and why."""

    def as_json(self) -> dict[str, Any]:
        """The figures of all rules."""
        quiet_s = self.seconds * self.seeds
        return {
            "scenario": self.scenario,
            "seconds": self.seconds,
            "size": self.size,
            "steered": self.steered,
            "seeds": self.seeds,
            "rules": [each.as_json(quiet_s) for each in self.scores.values()],
            "missed": [
                {"seed": seed, "kind": each.kind, "rule": each.rule, "timestamp": iso_from_us(each.start_us)}
                for seed, each in self.missed
            ],
            "unscored": self.unscored,
            "refused": self.refused,
        }


def run_trials(
    scenario: str,
    ruleset: RuleSet,
    *,
    seeds: Iterable[int],
    seconds: float,
    size: int | None = None,
    steered: bool = False,
    slack_us: int,
    done: Callable[[int], object] | None = None,
) -> Trials:
    """Simulate, run the rules and score; ``done`` is called after each seed with their number so far.

    ``steered``: the registered controllers of the scenario's controls act on all worlds, as in a demo.
    """
    trials = Trials(scenario, seconds, size, steered)
    read = behind_alerts(ruleset)
    trials.scores = {rule.name: TrialScore(rule.name) for rule in ruleset.rules if rule.alert is not None}
    absent: dict[str, set[str]] = {}
    unplanted = set(load_scenario(scenario).Config.plant_kinds)
    idle: list[str] = []
    with tempfile.TemporaryDirectory(prefix="astrocyte-score-") as folder:
        log = Path(folder) / "world.jsonl.zst"

        def simulated(seed: int, *, planted: bool) -> Path:
            settings = world_settings(scenario, seconds, planted=planted, seed=seed)
            unplanted.difference_update(plant["kind"] for plant in settings.get("plants", ()))
            config = scenario_config(scenario, settings, size)
            steered_by = ruleset if steered else None
            idle[:] = _simulate(load_scenario(scenario), config, seed, log, seconds=seconds, steered_by=steered_by)
            return log

        for seed in seeds:
            planted = planted_in(simulated(seed, planted=True))
            found = backtest(read, [log], lateness_us=0)
            trials.refused = trials.refused or refusal_lines(found.run)
            for each in score_outputs(ruleset, planted, found.made, found.raised, slack_us=slack_us):
                if each.absent:
                    absent.setdefault(each.rule, set()).update(missed.kind for missed in each.missed)
                elif each.rule in trials.scores:
                    score = trials.scores[each.rule]
                    score.kinds |= {plant.kind for plant in planted if plant.required and plant.rule == each.rule}
                    score.planted += each.planted
                    score.found += each.found
                    score.alerts += each.matches
                    score.true_alerts += each.true_matches
                    score.delays_us += each.delays_us
                    trials.missed += [(seed, missed) for missed in each.missed]
            for alert in backtest(read, [simulated(seed, planted=False)], lateness_us=0).raised:
                trials.scores[alert.rule].quiet_alerts += 1
            trials.seeds += 1
            if done is not None:
                done(trials.seeds)
    trials.unscored = [
        *(f"rule {rule.name!r} raises no alert" for rule in ruleset.rules if rule.alert is None),
        *(f"anomalies of kind {kind!r}: {seconds:g} s have no room for one" for kind in sorted(unplanted)),
        *_unnamed(trials, unplanted),
        *(
            f"anomalies of kind {', '.join(sorted(kinds))}: "
            + (f"rule {name!r} is not in the rule files" if name else "they name no rule")
            for name, kinds in sorted(absent.items())
        ),
        *idle,
    ]  # fmt: skip
    return trials


def behind_alerts(ruleset: RuleSet) -> RuleSet:
    """The rules with alerts and what they read, directly or not: other windows and statistics would only cost time."""
    return needed_for(ruleset, [rule.name for rule in ruleset.rules if rule.alert is not None])


def _unnamed(trials: Trials, unplanted: Collection[str]) -> Iterator[str]:
    """Rules for which nothing was planted."""
    kinds = load_scenario(trials.scenario).Config.plant_kinds
    for score in trials.scores.values():
        if not score.planted:
            named = [kind for kind in sorted(unplanted) if score.rule in kinds[kind].rules]
            yield (
                f"rule {score.rule!r}: no anomaly of kind {', '.join(named)} was planted"
                if named
                else f"no anomaly of {trials.scenario} names rule {score.rule!r}"
            )


def _simulate(
    world: Scenario, config: Any, seed: int, log: Path, *, seconds: float, steered_by: RuleSet | None
) -> list[str]:
    """Write the log of one world; returns which controllers did nothing, with the windows of ``steered_by``."""
    sink = LogSink(log, partitions=1, form="frames", overwrite=True, source=f"astrocyte score {world.name}")
    try:
        if steered_by is None:
            simulate(world, config, seed=seed, seconds=seconds, sink=sink, frame_ticks=_FRAME_TICKS)
            return []
        steering = Steering(sink, world, config, steered_by)
        simulate(
            world, config, seed=seed, seconds=seconds, sink=steering, control_source=steering.commands,
            progress=steering.progress,
        )  # fmt: skip
    finally:
        sink.close()
    return steering.idle
