"""Orchestrates a genetic algorithm by the scores of its agents: breeding pool, crossover, mutation rate.

Each simulation has a pool, trials and a mutation rate of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any, ClassVar, Final, Literal, Self

import orjson

from astrocyte.agents.controllers.base import Controller
from astrocyte.agents.controllers.checks import check_count, check_limits, check_name, check_number, warn_of_missing
from astrocyte.agents.controllers.rows import is_number, rows_with, within
from astrocyte.schemas.events import ControlEvent
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import iso_from_us

__all__ = ["Elite", "GeneticController", "GeneticState"]

_RECHENBERG: Final = 0.2
"""The one-fifth rule (Rechenberg 1973, Evolutionsstrategie): more successes ask for larger changes, fewer for less."""


@dataclass(frozen=True, slots=True)
class Elite:
    """A snapshot of the breeding pool."""

    agent_id: str
    snapshot_id: int
    karma: float
    since_us: int


@dataclass(frozen=True, slots=True)
class Score:
    """The newest score of an agent."""

    time_us: int
    snapshot_id: int
    karma: float


@dataclass(frozen=True, slots=True)
class RunGenetics:
    """State of one simulation."""

    pool: tuple[Elite, ...] = ()
    """Best first; of equal scores the older first."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    """By agent."""
    bar: float | None = None
    """Median of the agents' scores when the present trial began."""
    successes: int = 0
    trials: int = 0
    mutation_rate: float | None = None
    paired: tuple[str, ...] = ()
    """Agents whose crossover was commanded and is not scored yet, oldest first."""


@dataclass(frozen=True, slots=True)
class GeneticState:
    """State of a `GeneticController`, by simulation."""

    runs: Mapping[str, RunGenetics] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The state as JSON."""
        return orjson.dumps({"runs": {run: asdict(each) for run, each in self.runs.items()}})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """State of `to_bytes`."""
        runs = {}
        for run, parts in orjson.loads(data)["runs"].items():
            pool = tuple(Elite(**each) for each in parts.pop("pool"))
            scores = {agent: Score(**each) for agent, each in parts.pop("scores").items()}
            runs[run] = RunGenetics(pool, scores, paired=tuple(parts.pop("paired")), **parts)
        return cls(runs)


@dataclass(frozen=True, slots=True)
class GeneticController(Controller):
    """Selection, crossover and mutation rate of a genetic algorithm, from ``dna.karma_updated``.

    - **elite**: an agent whose newest score is ``elite_karma`` or more is in the pool from which mates are taken, if it
      is among the best ``capacity``; **retire** when it no longer is.
    - **crossover**: an improvement of more than ``crossover_delta`` pairs the agent with the best elite of another
      agent. The pair is dissolved, by a crossover without a partner, when the agent is scored again.
    - **mutation_rate**: after every ``trial`` scores of changed agents, by Rechenberg's one-fifth rule: up by
      ``factor`` if more than a fifth were successes, else down by it, within ``rate_limits``. A success is a score
      above the median of all agents as it was when the trial began: the child would be selected. An improvement on its
      own parent would be no measure of mutation, since a weak agent is improved by nearly any mate.

    All messages are for control ``ga``; ``action`` is one of these four. Raises InvalidSettings for settings with which
    it could not control.
    """

    source: ClassVar[Literal["window", "stream"]] = "stream"

    elite_karma: float = 0.85
    crossover_delta: float = 0.1
    capacity: int = 10
    trial: int = 50
    rate: float = 0.1
    factor: float = 1.22
    rate_limits: tuple[float, float] = (0.01, 0.25)
    stream: str = "dna.karma_updated"

    def __post_init__(self) -> None:
        check_name("stream", self.stream, "a stream of scores")
        for name in ("elite_karma", "crossover_delta"):
            check_number(name, getattr(self, name))
        for name in ("capacity", "trial"):
            check_count(name, getattr(self, name))
        check_number("rate", self.rate, above=0)
        check_number("factor", self.factor, above=1)
        check_limits("rate_limits", self.rate_limits)

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
        if not state.runs:
            warn_of_missing("controller ga", frame, ("agent_id", "snapshot_id", "karma_score"))
        run = frame.run
        before = state.runs.get(run, RunGenetics())
        # Copied once for a frame, and not for each of its rows.
        known = replace(before, scores=dict(before.scores))
        messages: list[ControlEvent] = []
        for row in rows_with(frame, ("agent_id", "snapshot_id", "karma_score", "score_delta")):
            agent, snapshot, karma = row["agent_id"], row["snapshot_id"], row["karma_score"]
            if agent is None or snapshot is None or not is_number(karma):
                continue
            score = Score(row["timestamp"], int(snapshot), float(karma))
            last = known.scores.get(agent)
            if last is not None and (score.time_us, score.snapshot_id) <= (last.time_us, last.snapshot_id):
                continue
            delta = float(row["score_delta"]) if is_number(row["score_delta"]) else None
            known, found = self._score(known, agent, score, delta)
            at = iso_from_us(score.time_us)
            messages += [ControlEvent(control="ga", timestamp=at, run=run, values=values) for values in found]
        return GeneticState({**state.runs, run: known}) if known != before else state, messages

    def _score(
        self, known: RunGenetics, agent: str, score: Score, delta: float | None
    ) -> tuple[RunGenetics, list[dict[str, Any]]]:
        """State and values of the messages after one score; ``known.scores`` is this frame's own copy."""
        pool = self._pool(known.pool, agent, score)
        found = list(_moved(known.pool, pool))
        paired = known.paired
        if agent in paired:
            paired = tuple(other for other in paired if other != agent)
            if delta is None or delta <= self.crossover_delta:
                found.append(_crossover(agent, score, delta, None))
        if delta is not None and delta > self.crossover_delta:
            partner = next((elite for elite in pool if elite.agent_id != agent), None)
            if partner is not None:
                found.append(_crossover(agent, score, delta, partner))
                paired = (*paired, agent)
        known.scores[agent] = score  # type: ignore[index]
        known = replace(known, pool=pool, paired=paired)
        if delta is None:
            return known, found  # a first score says nothing of mutation
        bar = median(each.karma for each in known.scores.values()) if known.bar is None else known.bar
        known = replace(known, bar=bar, trials=known.trials + 1, successes=known.successes + (score.karma > bar))
        if known.trials == self.trial:
            up = known.successes > _RECHENBERG * known.trials
            rate = (known.mutation_rate or self.rate) * (self.factor if up else 1 / self.factor)
            rate = within(rate, self.rate_limits)
            found.append({"action": "mutation_rate", "mutation_rate": rate})
            known = replace(known, bar=None, successes=0, trials=0, mutation_rate=rate)
        return known, found

    def _pool(self, pool: tuple[Elite, ...], agent: str, score: Score) -> tuple[Elite, ...]:
        """The pool after one score. The agent's older snapshot is not what it would pass on."""
        if score.karma < self.elite_karma and all(elite.agent_id != agent for elite in pool):
            return pool
        since_us = next((elite.since_us for elite in pool if elite.agent_id == agent), score.time_us)
        others = [elite for elite in pool if elite.agent_id != agent]
        if score.karma >= self.elite_karma:
            others.append(Elite(agent, score.snapshot_id, score.karma, since_us))
        others.sort(key=lambda elite: (-elite.karma, elite.since_us, elite.snapshot_id))
        return tuple(others[: self.capacity])


def _moved(before: tuple[Elite, ...], after: tuple[Elite, ...]) -> Iterator[dict[str, Any]]:
    """Values of the messages that make one pool of another, by agent."""
    old, new = ({elite.agent_id for elite in pool} for pool in (before, after))
    for elite in after:
        if elite.agent_id not in old:
            yield {
                "action": "elite", "agent_id": elite.agent_id, "snapshot_id": elite.snapshot_id,
                "karma_score": elite.karma,
            }  # fmt: skip
    for elite in before:
        if elite.agent_id not in new:
            yield {"action": "retire", "agent_id": elite.agent_id, "snapshot_id": elite.snapshot_id}


def _crossover(agent: str, score: Score, delta: float | None, partner: Elite | None) -> dict[str, Any]:
    return {
        "action": "crossover", "agent_id": agent, "snapshot_id": score.snapshot_id, "score_delta": delta,
        "partner_agent_id": partner.agent_id if partner else None,
        "partner_snapshot_id": partner.snapshot_id if partner else None,
    }  # fmt: skip
