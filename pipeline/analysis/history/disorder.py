"""What disorder does to rules: precision, recall and delay of the matches made on arrival and of those made in order.

The events of a log are given to engines as if each had been on its way for a time of its own, evenly distributed from
nothing to the amount of disorder, by a hash of its id and a seed. Every ``every_us`` the engines take what has arrived,
and event time is the newest one so far less the lateness, as in a worker with one source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.engine.output import EngineOutput
from astrocyte.agents.engine.tape import Player, Tape
from astrocyte.agents.event_time.event_store import Origin
from astrocyte.agents.matches.table import CONFIRMED, FINAL, PROVISIONAL, RETRACTED
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.history.tapes import Tapes
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.ids import mixed

__all__ = ["Disordered", "RuleUnderDisorder", "early_rules", "run_disordered"]

_GOLDEN: Final = 0x9E3779B97F4A7C15


@dataclass(slots=True)
class RuleUnderDisorder:
    """One rule under one amount of disorder. Times are microseconds of event time."""

    rule: str
    truth: set[bytes] = field(default_factory=set)
    """Matches without any disorder."""
    early: set[bytes] = field(default_factory=set)
    """Matches made on arrival."""
    retracted: set[bytes] = field(default_factory=set)
    ordered: set[bytes] = field(default_factory=set)
    """Matches of the ordered pass."""
    early_delays_us: list[int] = field(default_factory=list)
    """From the time of a match to when it was made on arrival, of those that stand."""
    ordered_delays_us: list[int] = field(default_factory=list)
    """The same of the ordered pass, without what only the end of the input decides."""
    _early_at: dict[bytes, int] = field(default_factory=dict)

    def note(self, identity: bytes, status: int, delay_us: int | None) -> None:
        """Take a match, ``delay_us`` after its own time; None of one that only the end of the input decides."""
        if status == PROVISIONAL:
            self.early.add(identity)
            if delay_us is not None:
                self._early_at[identity] = delay_us
            return
        early_us = self._early_at.pop(identity, None)
        if status == RETRACTED:
            self.retracted.add(identity)
            return
        self.ordered.add(identity)
        if delay_us is not None:
            self.ordered_delays_us.append(delay_us)
        if early_us is not None:
            self.early_delays_us.append(early_us)

    @property
    def precision(self) -> float | None:
        """Share of the matches made on arrival that are right; None without any."""
        return len(self.early & self.truth) / len(self.early) if self.early else None

    @property
    def recall(self) -> float | None:
        """Share of the right matches that were made on arrival; None where there is none."""
        return len(self.early & self.truth) / len(self.truth) if self.truth else None

    @property
    def corrected(self) -> float | None:
        """Share of the matches made on arrival that were retracted."""
        return len(self.retracted) / len(self.early) if self.early else None

    @property
    def ordered_recall(self) -> float | None:
        """Share of the right matches that the ordered pass made; below 1 where events were late."""
        return len(self.ordered & self.truth) / len(self.truth) if self.truth else None

    def as_json(self) -> dict[str, Any]:
        """Counts, shares, and delays in seconds (median, 95 %)."""
        return {
            "rule": self.rule,
            "matches": len(self.truth),
            "on_arrival": {
                "matches": len(self.early),
                "precision": self.precision,
                "recall": self.recall,
                "retracted": self.corrected,
                "delay_s": quantiles_s(self.early_delays_us),
            },
            "in_order": {
                "matches": len(self.ordered),
                "recall": self.ordered_recall,
                "delay_s": quantiles_s(self.ordered_delays_us),
            },
        }


def quantiles_s(delays_us: Sequence[int]) -> dict[str, float] | None:
    """Median and 95 % of times, in seconds."""
    if not delays_us:
        return None
    middle, most = np.percentile(np.array(delays_us), [50, 95]) / 1e6
    return {"p50": float(middle), "p95": float(most)}


@dataclass(slots=True)
class Disordered:
    """All rules under one amount of disorder."""

    amount_us: int
    rules: dict[str, RuleUnderDisorder]
    events: int = 0
    late: int = 0
    """Events that came after the lateness."""

    def as_json(self) -> dict[str, Any]:
        """The figures of all rules, and of them together."""
        return {
            "disorder_s": self.amount_us / 1e6,
            "events": self.events,
            "late": self.late,
            "together": self.together().as_json(),
            "rules": [each.as_json() for each in self.rules.values()],
        }

    def together(self) -> RuleUnderDisorder:
        """All rules as if they were one; the ids of matches name their rules."""
        whole = RuleUnderDisorder("all")
        for each in self.rules.values():
            whole.truth |= each.truth
            whole.early |= each.early
            whole.retracted |= each.retracted
            whole.ordered |= each.ordered
            whole.early_delays_us += each.early_delays_us
            whole.ordered_delays_us += each.ordered_delays_us
        return whole


class _Taking(Engine):
    """An engine over events that are numbered already."""

    def take(self, frame: Frame, origin: Origin) -> None:
        self._push(frame, origin, typed=True)


def early_rules(ruleset: RuleSet) -> RuleSet:
    """The rules that can be matched on arrival: those over incoming streams."""
    rules = [rule for rule in ruleset.rules if not ruleset.made.intersection(rule.streams)]
    return RuleSet(rules=tuple(rule.model_copy(update={"consistency": "eventual"}) for rule in rules),
                   streams=ruleset.streams)  # fmt: skip


def run_disordered(
    ruleset: RuleSet,
    tapes: Tapes,
    amounts_us: Sequence[int],
    *,
    lateness_us: int,
    every_us: int,
    seed: int = 0,
) -> Iterator[Disordered]:
    """The rules of `early_rules` under each amount of disorder, over the tapes of that rule set.

    Raises OperatorFailed as an engine does.
    """
    truth = {rule.name: set[bytes]() for rule in ruleset.rules}
    for domain, tape in _domains(ruleset, tapes):
        for ordered in tape.replay(Player(domain)):
            for name, identity, status, _ in _each(ordered):
                if status in (FINAL, CONFIRMED):
                    truth[name].add(identity)
    for amount_us in amounts_us:
        found = Disordered(amount_us, {name: RuleUnderDisorder(name, truth=of) for name, of in truth.items()})
        for domain, tape in _domains(ruleset, tapes):
            engine = _Taking(domain, validated=True)
            for output, now_us in _arrive(
                engine, tape, amount_us, lateness_us=lateness_us, every_us=every_us, seed=seed
            ):
                for name, identity, status, time_us in _each(output):
                    found.rules[name].note(identity, status, None if now_us is None else now_us - time_us)
            found.events += sum(each.frame.num_rows for step in tape.steps for each in step.frames)
            found.late += engine.late
        yield found


def _domains(ruleset: RuleSet, tapes: Tapes) -> Iterator[tuple[RuleSet, Tape]]:
    own = {rule.name: rule for rule in ruleset.rules}  # those of the tapes are not eventual
    for each in tapes.groups:
        rules = tuple(own[rule.name] for rule in each.group.ruleset.rules if rule.name in own)
        if rules:
            yield from ((RuleSet(rules=rules, streams=ruleset.streams), tape) for tape in each.tapes)


def _arrive(
    engine: _Taking, tape: Tape, amount_us: int, *, lateness_us: int, every_us: int, seed: int
) -> Iterator[tuple[EngineOutput, int | None]]:
    """Outputs of an engine, and when they are made; None at the end of the input."""
    taken = [each for step in tape.steps for each in step.frames if each.frame.stream in engine.streams]
    if not taken:
        return
    arrivals = [_arrival_us(each.frame, amount_us, seed) for each in taken]
    owner = np.repeat(np.arange(len(taken)), [len(each) for each in arrivals])
    row = np.concatenate([np.arange(len(each)) for each in arrivals])
    polled = -(-np.concatenate(arrivals) // every_us)
    order = np.lexsort((row, owner, polled))
    polled, owner, row = polled[order], owner[order], row[order]
    bounds = np.flatnonzero(np.diff(polled, prepend=polled[0] - 1, append=polled[-1] + 1))
    newest_us = None
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        parts = np.flatnonzero(np.diff(owner[first:last], prepend=-1, append=-1)) + first
        for begin, end in zip(parts[:-1].tolist(), parts[1:].tolist(), strict=True):
            each, rows = taken[owner[begin]], row[begin:end]
            frame = each.frame.take(rows)
            engine.take(frame, each.origin.take(rows))
            most = int(frame.timestamps().max())
            newest_us = most if newest_us is None else max(newest_us, most)
        assert newest_us is not None
        yield engine.advance(newest_us - lateness_us), int(polled[first]) * every_us
    yield engine.flush(), None


def _arrival_us(frame: Frame, amount_us: int, seed: int) -> NDArray[np.int64]:
    """When each row arrives."""
    with np.errstate(over="ignore"):
        words = frame.ids() ^ np.uint64(seed * _GOLDEN & 2**64 - 1)
    chance = mixed(words).astype(np.float64) / 2.0**64
    delays: NDArray[np.int64] = np.floor(chance * (amount_us + 1)).astype(np.int64)
    return frame.timestamps() + np.minimum(delays, amount_us)


def _each(output: EngineOutput) -> Iterator[tuple[str, bytes, int, int]]:
    table = output.matches
    if not len(table):
        return
    ids = table.ids.tobytes()
    names = [rule.name for rule in table.rules]
    for place, (rule, status, time_us) in enumerate(
        zip(table.rule.tolist(), table.status.tolist(), table.time_us.tolist(), strict=True)
    ):
        yield names[rule], ids[16 * place : 16 * place + 16], status, time_us
