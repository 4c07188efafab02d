"""The shipped controllers: pure step functions from metrics and scores to messages on ``control.<name>``.

``step(state, frame)`` returns the next state and the messages. A controller object holds only settings; the state is a
value that is passed in, so that equal frames from an equal state give equal messages. Rows that were processed before
(repeated after a crash) have no effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import orjson

from astrocyte.agents.controllers.base import Controller
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.events import ControlEvent
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import NEVER_US, iso_from_us

__all__ = ["DifficultyController", "DifficultyState", "Elite", "GeneticController", "GeneticState"]


@dataclass(frozen=True, slots=True)
class RunDifficulty:
    """State of one simulation."""

    difficulty: float = 1.0
    reward: float = 1.0
    historical: float | None = None
    seen_us: int = NEVER_US


@dataclass(frozen=True, slots=True)
class DifficultyState:
    """State of a `DifficultyController`, by simulation."""

    runs: Mapping[str, RunDifficulty] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The state as JSON."""
        return orjson.dumps({"runs": dict(self.runs)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """State of `to_bytes`."""
        return cls({run: RunDifficulty(**each) for run, each in orjson.loads(data)["runs"].items()})


@dataclass(frozen=True, slots=True)
class DifficultyController(Controller):
    """Keeps a population's rolling accuracy near ``target`` by changing the difficulty of its problems.

    Its input is the results of a window over ``problem_solving``; ``field`` is the mean accuracy. Where the accuracy
    differs from the target by more than ``deadband``, the difficulty is multiplied by
    ``exp(gain * (accuracy - target))``, within ``limits``. The reward is ``target / historical``, within
    ``reward_limits``. The historical accuracy is an exponential moving average with the weight ``memory``, so that
    problems that stay hard are rewarded more.
    """

    stream: str = "population_stats"
    field: str = "mean_accuracy"
    target: float = 0.6
    deadband: float = 0.05
    gain: float = 1.0
    memory: float = 0.2
    limits: tuple[float, float] = (0.1, 10.0)
    reward_limits: tuple[float, float] = (0.5, 2.0)

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise InvalidSettings(f"target accuracy {self.target}; expected a number between 0 and 1")
        if not 0 < self.memory <= 1 or self.deadband < 0 or self.gain <= 0:
            raise InvalidSettings(
                f"memory {self.memory}, deadband {self.deadband}, gain {self.gain}; expected memory above 0 and at "
                "most 1, deadband of 0 or more and gain above 0"
            )

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
        """Process the results of one frame; one message for each result that changes difficulty or reward."""
        if frame.stream != self.stream or not frame.has(self.field):
            return state, []
        runs, messages = dict(state.runs), []
        for row in _rows(frame, ("simulation_id", self.field, "final")):
            accuracy, time_us = row[self.field], row["timestamp"]
            run = row["simulation_id"] or frame.run
            known = runs.get(run, RunDifficulty())
            if row["final"] is False or not _finite(accuracy) or time_us <= known.seen_us:
                continue
            runs[run] = changed = self._adapt(known, float(accuracy), time_us)
            if (changed.difficulty, changed.reward) != (known.difficulty, known.reward):
                values: dict[str, Any] = {
                    "difficulty": changed.difficulty, "reward": changed.reward, "accuracy": float(accuracy),
                }  # fmt: skip
                messages.append(_message("difficulty", time_us, run, values))
        return DifficultyState(runs), messages

    def _adapt(self, known: RunDifficulty, accuracy: float, time_us: int) -> RunDifficulty:
        error = accuracy - self.target
        difficulty = known.difficulty
        if abs(error) > self.deadband:
            difficulty = _within(difficulty * math.exp(self.gain * error), self.limits)
        historical = accuracy if known.historical is None else known.historical
        historical += self.memory * (accuracy - historical)
        reward = _within(self.target / historical if historical > 0 else math.inf, self.reward_limits)
        # Two digits: a reward that follows every small fluctuation would cause many messages with no real effect.
        return RunDifficulty(difficulty, round(reward, 2), historical, time_us)


@dataclass(frozen=True, slots=True)
class Elite:
    """A snapshot of the elite pool."""

    agent_id: str
    snapshot_id: int
    karma: float
    since_us: int


@dataclass(frozen=True, slots=True)
class GeneticState:
    """State of a `GeneticController`."""

    pool: tuple[Elite, ...] = ()
    """Best first; of equal scores the older first."""
    seen: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Newest (timestamp, snapshot_id) by agent."""
    improved: int = 0
    updates: int = 0
    mutation_rate: float | None = None

    def to_bytes(self) -> bytes:
        """The state as JSON."""
        return orjson.dumps(
            {
                "pool": list(self.pool), "seen": dict(self.seen), "improved": self.improved, "updates": self.updates,
                "mutation_rate": self.mutation_rate,
            }
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """State of `to_bytes`."""
        parts = orjson.loads(data)
        pool = tuple(Elite(**each) for each in parts.pop("pool"))
        seen = {agent: (time, snapshot) for agent, (time, snapshot) in parts.pop("seen").items()}
        return cls(pool, seen, **parts)


@dataclass(frozen=True, slots=True)
class GeneticController(Controller):
    """Selection, crossover and mutation rate of a genetic algorithm, from ``dna.karma_updated``.

    A snapshot of karma ``elite_karma`` or more joins the elite pool (at most ``capacity``; the worst is removed), and
    leaves it when its score falls below. An improvement of more than ``crossover_delta`` triggers a crossover of the
    agent with the best elite of another agent. After every ``trial`` scores the mutation rate changes by Rechenberg's
    one-fifth rule: up if more than a fifth improved, else down. All messages are for control ``ga``; ``action`` is
    elite, retire, crossover or mutation_rate.
    """

    source: ClassVar[Literal["window", "stream"]] = "stream"

    elite_karma: float = 0.85
    crossover_delta: float = 0.1
    capacity: int = 100
    trial: int = 20
    rate: float = 0.1
    rate_limits: tuple[float, float] = (0.01, 0.5)
    stream: str = "dna.karma_updated"

    def __post_init__(self) -> None:
        if self.capacity < 1 or self.trial < 1:
            raise InvalidSettings(f"capacity {self.capacity} and trial {self.trial}; expected at least 1 of each")

    def initial(self) -> GeneticState:
        """State before the first frame."""
        return GeneticState()

    def dump(self, state: GeneticState) -> bytes:
        """The state as JSON."""
        return state.to_bytes()

    def load(self, data: bytes) -> GeneticState:
        """State of `dump`."""
        return GeneticState.from_bytes(data)

    def step(self, state: GeneticState, frame: Frame) -> tuple[GeneticState, list[ControlEvent]]:
        """Process the scores of one frame, in their order."""
        if frame.stream != self.stream:
            return state, []
        messages: list[ControlEvent] = []
        seen = dict(state.seen)
        for row in _rows(frame, ("agent_id", "snapshot_id", "karma_score", "score_delta")):
            agent, snapshot, karma = row["agent_id"], row["snapshot_id"], row["karma_score"]
            if agent is None or snapshot is None or not _finite(karma):
                continue
            place = (row["timestamp"], int(snapshot))
            if place <= seen.get(agent, (NEVER_US, 0)):
                continue
            seen[agent] = place
            messages += [_message("ga", row["timestamp"], frame.run, values) for values in self._score(state, row)]
            state = self._remember(state, row)
            if state.updates == self.trial:
                up = state.improved * 5 > state.updates
                rate = _within((state.mutation_rate or self.rate) * (1.22 if up else 1 / 1.22), self.rate_limits)
                messages.append(
                    _message("ga", row["timestamp"], frame.run, {"action": "mutation_rate", "mutation_rate": rate})
                )
                state = replace(state, improved=0, updates=0, mutation_rate=rate)
        return replace(state, seen=seen), messages

    def _pool(self, state: GeneticState, row: Mapping[str, Any]) -> tuple[Elite, ...]:
        """The pool after one score."""
        snapshot, karma = int(row["snapshot_id"]), float(row["karma_score"])
        before = next((elite for elite in state.pool if elite.snapshot_id == snapshot), None)
        others = [elite for elite in state.pool if elite.snapshot_id != snapshot]
        if karma >= self.elite_karma:
            since_us = row["timestamp"] if before is None else before.since_us
            others.append(Elite(row["agent_id"], snapshot, karma, since_us))
        others.sort(key=lambda elite: (-elite.karma, elite.since_us, elite.snapshot_id))
        return tuple(others[: self.capacity])

    def _score(self, state: GeneticState, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Values of the messages that one score causes."""
        pool = self._pool(state, row)
        known = {elite.snapshot_id for elite in state.pool}
        left = known - {elite.snapshot_id for elite in pool}
        for elite in pool:
            if elite.snapshot_id not in known:
                yield {
                    "action": "elite", "agent_id": elite.agent_id, "snapshot_id": elite.snapshot_id,
                    "karma_score": elite.karma,
                }  # fmt: skip
        for elite in state.pool:
            if elite.snapshot_id in left:
                yield {"action": "retire", "agent_id": elite.agent_id, "snapshot_id": elite.snapshot_id}
        delta = row["score_delta"]
        if _finite(delta) and delta > self.crossover_delta:
            partner = next((elite for elite in pool if elite.agent_id != row["agent_id"]), None)
            yield {
                "action": "crossover", "agent_id": row["agent_id"], "snapshot_id": int(row["snapshot_id"]),
                "score_delta": float(delta), "partner_agent_id": partner.agent_id if partner else None,
                "partner_snapshot_id": partner.snapshot_id if partner else None,
            }  # fmt: skip

    def _remember(self, state: GeneticState, row: Mapping[str, Any]) -> GeneticState:
        pool, delta = self._pool(state, row), row["score_delta"]
        if not _finite(delta):
            return replace(state, pool=pool)  # a first score is not an improvement
        return replace(state, pool=pool, improved=state.improved + (delta > 0), updates=state.updates + 1)


def _rows(frame: Frame, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Rows with these fields and the timestamp; a missing field is None."""
    columns = {name: frame.values(name) if frame.has(name) else [None] * frame.num_rows for name in names}
    columns["timestamp"] = frame.timestamps().tolist()
    for row in range(frame.num_rows):
        yield {name: values[row] for name, values in columns.items()}


def _message(control: str, time_us: int, run: str, values: dict[str, Any]) -> ControlEvent:
    return ControlEvent(control=control, timestamp=iso_from_us(time_us), run=run, values=values)


def _within(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
