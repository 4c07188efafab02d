"""The events of a history as the engines of a rule set take them, decoded and judged once.

A rule that is edited is given the same events as long as it reads streams that its group reads already, so that a
further edit costs only the matching. A change of a validator, a declared stream, or the streams that a group reads
makes new tapes, which costs as much as `backtest`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.engine.tape import Recorder, Tape, TapeTooLarge
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.named_fields import correlated_fields
from astrocyte.pipeline.analysis.inputs import RunInputs
from astrocyte.pipeline.analysis.offline import OfflineRun
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.topology.plan import KeyGroup, Plan
from astrocyte.pipeline.topology.topics import KnownTopics, results_of

__all__ = ["GroupTapes", "History", "HistoryInputs", "Interrupted", "Tapes", "TooLarge"]

_KEPT: Final = 2
"""Sets of tapes that are kept: those of the rules that run, and those of the edited ones."""
_LOOK_EVERY: Final = 200
"""Messages between looks whether the tapes are still wanted."""


class Interrupted(Exception):
    """The tapes that were being made are not wanted any more."""


class TooLarge(MemoryError):
    """The history holds more events than may be kept."""


class HistoryInputs(RunInputs, Protocol):
    """What rules run over: known before, and its messages."""

    def records(self) -> Iterator[ConsumedRecord]:
        """All messages, in order."""


@dataclass(frozen=True, slots=True)
class GroupTapes:
    """Tapes of one group of rules, one for each of its domains."""

    group: KeyGroup
    tapes: tuple[Tape, ...]


@dataclass(frozen=True, slots=True)
class Tapes:
    """Tapes of all groups."""

    groups: tuple[GroupTapes, ...]
    events: int
    """Events that were received, as `backtest` counts them."""
    late: int
    dead: int

    @property
    def times_us(self) -> tuple[int, int] | None:
        """Oldest and newest time of an event; None without events."""
        found = [times for each in self.groups for tape in each.tapes if (times := tape.times_us()) is not None]
        return (min(first for first, _ in found), max(last for _, last in found)) if found else None


@dataclass(slots=True)
class History:
    """Tapes by what decides about their content. ``inputs`` opens the messages for a rule set.

    ``most_events`` bounds the events of all tapes of one rule set.
    """

    inputs: Callable[[RuleSet], HistoryInputs]
    lateness_us: int
    clock_tolerance_us: int
    most_events: int
    _known: dict[Hashable, Tapes] = field(default_factory=dict)

    def tapes(
        self,
        ruleset: RuleSet,
        *,
        wanted: Callable[[], bool] = lambda: True,
        progress: Callable[[int], object] = lambda _messages: None,
    ) -> Tapes:
        """The tapes for a rule set, made where none fit.

        Raises Interrupted once ``wanted`` says no, TooLarge, InvalidRule and InvalidLog.
        """
        inputs = self.inputs(ruleset)
        plan = KnownTopics(inputs.found.partitions, inputs.found.count).plan(ruleset)
        name = _name(ruleset, plan)
        if name not in self._known:
            self._known[name] = self._made(ruleset, plan, _watched(inputs.records(), wanted, progress), inputs)
        self._known[name] = self._known.pop(name)  # the one that was used last is dropped last
        while len(self._known) > _KEPT:
            del self._known[next(iter(self._known))]
        return self._known[name]

    def _made(self, ruleset: RuleSet, plan: Plan, records: Iterator[ConsumedRecord], inputs: RunInputs) -> Tapes:
        found: list[tuple[KeyGroup, list[Tape]]] = []

        def make_engine(group: KeyGroup) -> Engine:
            recorder = Recorder(
                group.ruleset,
                exports=group.exports,
                carriers=group.carriers,
                newest=group.newest,
                running=bool(_read_elsewhere(group, plan)),
                most_rows=self.most_events,
            )
            if not found or found[-1][0] is not group:
                found.append((group, []))
            found[-1][1].append(recorder.tape)
            return recorder

        run = OfflineRun(
            ruleset,
            inputs,
            lateness_us=self.lateness_us,
            clock_tolerance_us=self.clock_tolerance_us,
            make_engine=make_engine,
        )
        try:
            for _ in run.run(records):
                pass
        except TapeTooLarge:
            raise TooLarge from None
        counters = run.counters
        for _, tapes in found:
            for tape in tapes:
                tape.finish()
        return Tapes(
            tuple(GroupTapes(group, tuple(tapes)) for group, tapes in found),
            counters.received,
            counters.late,
            counters.dead,
        )


def _watched(
    records: Iterator[ConsumedRecord], wanted: Callable[[], bool], progress: Callable[[int], object]
) -> Iterator[ConsumedRecord]:
    for number, record in enumerate(records):
        if number % _LOOK_EVERY == 0:
            if not wanted():
                raise Interrupted
            progress(number)
        yield record


def _read_elsewhere(group: KeyGroup, plan: Plan) -> set[str]:
    """What a group makes and another one reads."""
    made = {*results_of(group.ruleset), *group.exports, *(link.junction for link in group.links)}
    return {stream for other in plan.groups if other is not group for stream in other.topics} & made


def _name(ruleset: RuleSet, plan: Plan) -> Hashable:
    """What decides which events the engines take, and where event time stands between them."""
    entrance = RuleSet(streams=ruleset.streams, validators=ruleset.validators).model_dump_json()
    groups = tuple((each.name, each.role, tuple(sorted(each.topics.items()))) for each in plan.groups)
    correlated = tuple((stream, tuple(sorted(by))) for stream, by in sorted(correlated_fields(ruleset).items()))
    makers = tuple(each.ruleset.model_dump_json() for each in plan.groups if _read_elsewhere(each, plan))
    return entrance, groups, plan.repartitions, correlated, makers
