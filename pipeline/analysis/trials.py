"""Scores of a scenario's rules over several seeds: a world with planted anomalies and a quiet one for each seed.

Each world is simulated into a temporary log, over which the rules run as in ``astrocyte match``. In the first the kinds
of anomalies come one after the other, each with its default strength; in the second there are none, so that every alert
there is a false one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.backtest import backtest
from astrocyte.pipeline.analysis.score import planted_in, score_outputs
from astrocyte.pipeline.analysis.unused_report import refusal_lines
from astrocyte.pipeline.simulation.log_sink import LogSink
from astrocyte.pipeline.simulation.run import scenario_config, world_settings
from astrocyte.simulator.run import simulate
from astrocyte.simulator.scenario import load_scenario

__all__ = ["TrialScore", "Trials", "run_trials"]

_HOUR_S: Final = 3_600.0


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
            "mean_delay_s": float(delays.mean()) if len(delays) else None,
            "max_delay_s": float(delays.max()) if len(delays) else None,
            "false_alarms_per_hour": self.quiet_alerts / quiet_s * _HOUR_S,
        }


@dataclass(slots=True)
class Trials:
    """Scores of the rules of a scenario that raise alerts."""

    scenario: str
    seconds: float
    """Simulated time of each world."""
    seeds: int = 0
    scores: dict[str, TrialScore] = field(default_factory=dict)
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
            "seeds": self.seeds,
            "rules": [each.as_json(quiet_s) for each in self.scores.values()],
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
    slack_us: int,
    done: Callable[[int], object] | None = None,
) -> Trials:
    """Simulate, run the rules and score; ``done`` is called after each seed with their number so far."""
    trials = Trials(scenario, seconds)
    trials.scores = {rule.name: TrialScore(rule.name) for rule in ruleset.rules if rule.alert is not None}
    absent: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory(prefix="astrocyte-score-") as folder:
        log = Path(folder) / "world.jsonl.zst"
        for seed in seeds:
            _simulate(scenario, seed, seconds, size, log, planted=True)
            planted = planted_in(log)
            found = backtest(ruleset, [log], lateness_us=0)
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
            _simulate(scenario, seed, seconds, size, log, planted=False)
            for alert in backtest(ruleset, [log], lateness_us=0).raised:
                trials.scores[alert.rule].quiet_alerts += 1
            trials.seeds += 1
            if done is not None:
                done(trials.seeds)
    trials.unscored = [
        *(f"rule {rule.name!r} raises no alert" for rule in ruleset.rules if rule.alert is None),
        *(f"no anomaly of {scenario} names rule {each.rule!r}" for each in trials.scores.values() if not each.planted),
        *(
            f"anomalies of kind {', '.join(sorted(kinds))}: "
            + (f"rule {name!r} is not in the rule files" if name else "they name no rule")
            for name, kinds in sorted(absent.items())
        ),
    ]  # fmt: skip
    return trials


def _simulate(scenario: str, seed: int, seconds: float, size: int | None, log: Path, *, planted: bool) -> None:
    world = load_scenario(scenario)
    config = scenario_config(scenario, world_settings(scenario, seconds, planted=planted), size)
    sink = LogSink(log, partitions=1, form="frames", overwrite=True, source=f"astrocyte score {scenario}")
    try:
        simulate(world, config, seed=seed, seconds=seconds, sink=sink)
    finally:
        sink.close()
