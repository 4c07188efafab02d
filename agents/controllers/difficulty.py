"""Adaptive difficulty: holds a population's accuracy at a target, and scales rewards by its rolling average.

The law is integral control of the logarithm of difficulty. Accuracy depends on difficulty d through a logistic curve,
so its log-odds are linear in ln d, with a slope that was measured (``sensitivity``; ``astrocyte study control``)::

    logit(accuracy) = sensitivity * (ability - ln d)

From each result the controller computes the ability under the difficulty in force, and moves its estimate towards that
by ``share``. The difficulty is the one at which this ability gives the target::

    share   = h / (closed + theta),  theta = T / 2 + delay,  closed = max(response, theta)
    ability = ability + share * (logit(accuracy) / sensitivity + ln d - ability)
    ln d    = ability - logit(target) / sensitivity, within limits

T is the length of the window and h the time since the one before, T or less (windows may overlap). ``share`` is the
integral gain for a process without dynamics of its own, but with a dead time theta: half a window, of which a mean is
old on average, and the delay of the command (Skogestad 2003, Journal of Process Control 13:291, SIMC; Åström & Hägglund
2006, Advanced PID Control). As the estimate uses the difficulty after its limits, it does not wind up while a limit
holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Self

import orjson

from astrocyte.agents.controllers.base import Controller
from astrocyte.agents.controllers.checks import check_limits, check_name, check_number, warn_of_missing
from astrocyte.agents.controllers.rows import is_number, rows_with, within
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.events import ControlEvent
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import NEVER_US, iso_from_us

__all__ = ["DifficultyController", "DifficultyState"]

_SECOND_US: Final = 1_000_000
_ACCURACIES: Final = (0.01, 0.99)
"""Accuracies beyond count as these: at 0 and 1 the log-odds are infinite."""


@dataclass(frozen=True, slots=True)
class RunDifficulty:
    """State of one simulation."""

    difficulty: float = 1.0
    """Factor that was commanded last."""
    reward: float = 1.0
    ability: float | None = None
    """Estimate: ln of the difficulty at which half of the answers would be right."""
    historical: float | None = None
    """Rolling average of the accuracy."""
    seen_us: int = NEVER_US


@dataclass(frozen=True, slots=True)
class DifficultyState:
    """State of a `DifficultyController`, by simulation."""

    runs: Mapping[str, RunDifficulty] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The state as JSON."""
        return orjson.dumps({"runs": {run: asdict(each) for run, each in self.runs.items()}})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """State of `to_bytes`."""
        return cls({run: RunDifficulty(**each) for run, each in orjson.loads(data)["runs"].items()})


@dataclass(frozen=True, slots=True)
class DifficultyController(Controller):
    """Holds a population's accuracy at ``target`` by the difficulty of its problems; the law is above.

    Its input is the results of a window; ``field`` is the mean accuracy in each. A command is given where the
    difficulty in force would leave the estimated accuracy more than ``deadband`` from the target.

    The reward is ``target / historical``, within ``reward_limits``: problems that stay hard are rewarded more. The
    historical accuracy is an exponential moving average with the time constant ``history_s``; a reward that differs by
    less than ``reward_step`` of itself is not commanded. Limits that are equal hold a value still.

    Raises InvalidSettings for settings with which it could not control. Results without ``field`` change nothing; where
    none had it yet that is logged.
    """

    stream: str = "population_second"
    field: str = "accuracy"
    target: float = 0.6
    deadband: float = 0.01
    sensitivity: float = 0.8
    """Fall of the log-odds of accuracy when ln(difficulty) rises by 1."""
    response_s: float = 10.0
    """Time constant of the closed loop, in seconds of event time. Disturbances that pass sooner are left alone."""
    delay_s: float = 1.5
    """From the end of a window until a command for it takes effect, in seconds of event time."""
    history_s: float = 60.0
    limits: tuple[float, float] = (0.01, 100.0)
    reward_limits: tuple[float, float] = (0.5, 2.0)
    reward_step: float = 0.02

    def __post_init__(self) -> None:
        check_name("stream", self.stream, "a window")
        check_name("field", self.field, "a field of its results")
        check_number("target accuracy", self.target)
        if not 0 < self.target < 1:
            raise InvalidSettings(f"target accuracy {self.target}; expected a number between 0 and 1")
        for name in ("sensitivity", "response_s", "history_s"):
            check_number(name, getattr(self, name), above=0)
        for name in ("deadband", "delay_s", "reward_step"):
            check_number(name, getattr(self, name), least=0)
        for name in ("limits", "reward_limits"):
            check_limits(name, getattr(self, name))

    def initial(self) -> DifficultyState:
        """State before the first frame."""
        return DifficultyState()

    def dump(self, state: DifficultyState) -> bytes:
        """The state as JSON."""
        return state.to_bytes()

    def load(self, data: bytes) -> DifficultyState:
        """State of `dump`."""
        return DifficultyState.from_bytes(data)

    def step(self, state: DifficultyState, frame: Frame) -> tuple[DifficultyState, list[ControlEvent]]:
        """Process the results of one frame; one message for each result that changes difficulty or reward.

        The length of a window is that of its result (``window_start`` and ``window_end``), else the time since the
        result before; a first result without either changes nothing.
        """
        if frame.stream != self.stream:
            return state, []
        if not frame.has(self.field):
            # Results of a window in which nothing was tried may lack it; only where it never came is it worth a word.
            if not state.runs:
                warn_of_missing("controller difficulty", frame, (self.field,))
            return state, []
        runs, messages = dict(state.runs), []
        for row in rows_with(frame, ("simulation_id", self.field, "final", "window_start", "window_end")):
            accuracy, time_us = row[self.field], row["timestamp"]
            run = row["simulation_id"] or frame.run
            known = runs.get(run, RunDifficulty())
            if row["final"] is False or not is_number(accuracy) or time_us <= known.seen_us:
                continue
            window_s, every_s = _lengths(row, known.seen_us)
            changed = self._adapt(known, float(accuracy), self.share(window_s, every_s), every_s)
            runs[run] = changed = replace(changed, seen_us=time_us)
            if (changed.difficulty, changed.reward) != (known.difficulty, known.reward):
                values: dict[str, Any] = {
                    "difficulty": changed.difficulty, "reward": changed.reward, "accuracy": float(accuracy),
                }  # fmt: skip
                at = iso_from_us(time_us)
                messages.append(ControlEvent(control="difficulty", timestamp=at, run=run, values=values))
        return DifficultyState(runs), messages

    def share(self, window_s: float, every_s: float) -> float:
        """By how much the estimate moves towards the result of a window of that length, 0 to 1."""
        dead_s = window_s / 2 + self.delay_s
        return every_s / (max(self.response_s, dead_s) + dead_s)

    def _adapt(self, known: RunDifficulty, accuracy: float, share: float, every_s: float) -> RunDifficulty:
        wanted = _log_odds(self.target) / self.sensitivity
        in_force = math.log(known.difficulty)
        ability = wanted + in_force if known.ability is None else known.ability
        measured = _log_odds(within(accuracy, _ACCURACIES)) / self.sensitivity + in_force
        ability += share * (measured - ability)
        expected = 1.0 / (1.0 + math.exp(-self.sensitivity * (ability - in_force)))
        difficulty = known.difficulty
        if abs(expected - self.target) > self.deadband:
            difficulty = within(math.exp(ability - wanted), self.limits)
        historical = self.target if known.historical is None else known.historical
        historical += (1.0 - math.exp(-every_s / self.history_s)) * (accuracy - historical)
        reward = within(self.target / historical if historical > 0 else math.inf, self.reward_limits)
        if abs(reward - known.reward) <= self.reward_step * known.reward:
            reward = known.reward
        return replace(known, difficulty=difficulty, reward=reward, ability=ability, historical=historical)


def _lengths(row: Mapping[str, Any], seen_us: int) -> tuple[float, float]:
    """Length of a result's window and the time since the result before, which is at most that; in seconds."""
    since_us = None if seen_us == NEVER_US else row["timestamp"] - seen_us
    start_us, end_us = row["window_start"], row["window_end"]
    window_us = since_us or 0 if start_us is None or end_us is None else end_us - start_us
    every_us = window_us if since_us is None else min(since_us, window_us)
    return window_us / _SECOND_US, every_us / _SECOND_US


def _log_odds(share: float) -> float:
    return math.log(share / (1.0 - share))
