"""One group of a domain: the engine of the rules that correlate by one field, and the watermarks of its topics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.accounting import Intake
from astrocyte.agents.event_time.sources import Observed, Source
from astrocyte.agents.event_time.watermarks import Watermarks
from astrocyte.agents.ingest.decode import RETRY_ORIGIN
from astrocyte.agents.ingest.faults import OperatorFailed, apart, reason_of
from astrocyte.agents.promises import Promises, Sent
from astrocyte.agents.rules.graph.links import Link
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import NEVER_US, iso_from_us
from astrocyte.schemas.topics import TopicPartition

if TYPE_CHECKING:
    from astrocyte.agents.engine.engine import Engine
    from astrocyte.agents.engine.output import EngineOutput

__all__ = ["DomainGroup", "GroupTime", "Lane", "push", "push_late", "unraised"]


@dataclass(frozen=True, slots=True)
class DomainGroup:
    """One engine of a domain and the topics that feed it, by stream.

    Its junctions have ``links`` to ``domains`` domains, each of which has the same group. Other groups read the streams
    ``results`` that it makes, and wait for its event time.
    """

    field: str
    engine: Engine
    topics: Mapping[str, str]
    links: Sequence[Link] = ()
    domains: int = 1
    results: Collection[str] = ()


def unraised(groups: Iterable[DomainGroup]) -> dict[str, dict[str, int]]:
    """By rule: alerts that ``cool_down`` suppressed, and that ``group`` joined to an earlier one."""
    alerts = [group.engine.alerts for group in groups]
    return {rule: each.counts(rule) for each in alerts for rule in sorted({*each.suppressed, *each.grouped})}


@dataclass(frozen=True, slots=True)
class GroupTime:
    """Event time of the rules and windows of a domain that correlate by one field."""

    field: str
    topics: frozenset[str]
    watermarks: Watermarks
    waiting: int
    """Rows that wait for the watermark, once for each stratum and window that reads them."""


class Lane:
    """One engine and the watermarks of the topics that feed it.

    Every group has watermarks of its own, since a group that reads another's windows is always behind that one.
    """

    def __init__(
        self,
        name: str,
        engine: Engine | None,
        topics: frozenset[str],
        watermarks: Watermarks,
        promises: Promises | None = None,
    ) -> None:
        self.name, self.engine, self.topics, self.watermarks = name, engine, topics, watermarks
        self.promises = promises
        self.correlated: dict[str, str] = {}
        """By stream: the field by which rules correlate it. An event in which it is null takes part in none."""
        self.update()

    def update(self) -> None:
        """Take over the engine's rules."""
        rules = () if self.engine is None else self.engine.rules
        self.correlated = {stream: rule.by for rule in rules if rule.by is not None for stream in rule.streams}

    @classmethod
    def of(cls, group: DomainGroup, partition: int, clock: Callable[[frozenset[str]], Watermarks]) -> Lane:
        """The lane of a group in the domain of a partition; ``clock`` makes the watermarks of topics."""
        topics, promises = frozenset(group.topics.values()), None
        if group.links or group.results:
            promises = Promises(group.field, partition, group.domains, group.engine, group.links, results=group.results)
        return cls(group.field, group.engine, topics, clock(topics), promises)

    def heard(self, source: Source, frame: Frame, *, one_by_one: bool, linked: bool) -> Observed:
        """Advance the watermarks by a frame of a source; ``linked``: of a junction, or of results of another group.

        Its peers are announced, so that a slow start of one makes nothing late. A linked frame without an origin, which
        versions wrote that promised nothing, says nothing of event time.
        """
        if linked and not frame.origin:
            return self.watermarks.judged(frame.timestamps())
        named = frame.end or not self.watermarks.has_announced(source)
        named = named or (linked and self.watermarks.is_idle(source))
        peers = self._peers(source, frame) if named else []
        if linked:
            self.watermarks.wake(source, peers)
        verdict = self.watermarks.observe(
            source,
            frame.timestamps(),
            watermark_us=frame.watermark_us,
            end=frame.end,
            one_by_one=one_by_one,
            peers=peers,
            trusted=linked,
        )
        if frame.origin == RETRY_ORIGIN:
            # Old events, sent again one at a time: the partition's producers determine its event time.
            self.watermarks.mark_idle(source)
        return verdict

    def silenced(self, source: Source, frame: Frame, *, linked: bool) -> None:
        """Take over a report that a source is silent; of a copy it says nothing of what is still to be copied."""
        self.watermarks.silence(source, self._peers(source, frame), whole=linked)

    def _peers(self, source: Source, frame: Frame) -> list[Source]:
        """The sources that a frame names as written by its producer, or as written like its source."""
        prefix = source.topic.removesuffix(frame.stream)
        named = [(prefix + stream, origin) for stream, _, origin in (peer.partition("@") for peer in frame.peers)]
        peers = [source._replace(topic=name, origin=origin or frame.origin) for name, origin in named]
        return [peer for peer in peers if peer.topic in self.topics]

    def wake(self, topics: Collection[str]) -> list[Sent]:
        """Reports that the lane's junctions may lead something on, where sources of these topics are waited for."""
        if self.promises is None or self.watermarks.passive or self.topics.isdisjoint(topics):
            return []
        return self.promises.wake()

    def silence(self, topics: Collection[str], *, stands: bool, again: bool) -> list[Sent]:
        """Reports that nothing comes of the lane for others, if its sources are of these topics and all are idle.

        See `Domain.report_silence`.
        """
        if self.promises is None or not self.watermarks.passive or not self.topics.issubset(topics):
            return []
        return [] if self.promises.pending and not stands else self.promises.silence(again=again)

    def run(self, step: Callable[[], EngineOutput], partition: int, *, ended: bool) -> tuple[EngineOutput, list[Sent]]:
        """The output of a step of the lane's engine, and what its junctions send. Raises OperatorFailed."""
        before_us = NEVER_US if self.engine is None else self.engine.watermark_us
        by = self.name or "null"
        try:
            result = step()
        except Exception as error:
            reason_of(f"correlating by {by}", error)
            cause = str(error) if isinstance(error, AstrocyteError) else f"{type(error).__name__}: {error}"
            raise OperatorFailed(
                f"partition {partition}: rules and windows by {by} failed while they processed the events "
                f"after {iso_from_us(before_us) if before_us > NEVER_US else 'the start'}: {cause}; their state is "
                "not valid any more. Nothing of this was acknowledged: mend or remove the rule or window and start "
                "again, from the last snapshot"
            ) from error
        if self.promises is None:
            return result, []
        return result, self.promises.lead(result.led, result.frames, ended=ended, passive=self.watermarks.passive)

    def snapshot(self, engine: Engine) -> dict[str, Any]:
        """The state of event time, of the engine and of what was reported to others."""
        promises = b"{}" if self.promises is None else self.promises.snapshot()
        return {"clock": self.watermarks.snapshot(), "engine": engine.snapshot(), "promises": promises}

    def restore(self, engine: Engine, snapshot: Mapping[str, Any]) -> None:
        """Restore the state of `snapshot`, but for event time."""
        engine.restore(snapshot["engine"])
        if self.promises is not None:
            self.promises.restore(snapshot.get("promises"))

    def restore_clock(self, clock: Mapping[str, Any], partition: int, linked: Collection[str]) -> set[str]:
        """Restore event time for the topics that the lane reads now; returns those that it read then."""
        self.watermarks.restore(clock)
        places = [TopicPartition(topic, partition) for topic in self.topics]
        before = {place.topic for place in self.watermarks.expect(places, anew=self.engine is None)}
        self.watermarks.await_named(place for place in places if place.topic in linked)
        return before

    def renumber(self, first: int) -> None:
        """Number what leaves the lane from here on."""
        if self.engine is not None:
            self.engine.junctions.renumber(first)
        if self.promises is not None:
            self.promises.renumber(first)

    def time(self, engine: Engine) -> GroupTime:
        """Event time, and what waits for it in the lane's engine."""
        return GroupTime(self.name, self.topics, self.watermarks, engine.size()["waiting"])


def push(
    intake: Intake, engine: Engine, kept: Frame, rows: NDArray[np.int64], on_time: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Give the rows that are on time to an engine; returns those that it refused as duplicates.

    A row on which the engine raises is noted as failed; the engine has then changed nothing for it.
    """
    if not on_time.any():
        return np.empty(0, np.int64)
    chosen = np.flatnonzero(on_time)
    repeated: list[NDArray[np.int64]] = []

    def attempt(first: int, last: int) -> None:
        part = chosen[first:last]
        frame, places = (kept, rows) if len(part) == kept.num_rows else (kept.take(part), rows[part])
        topic, partition, offsets = intake.origins(places)
        if engine.push(frame, topic=topic, partition=partition, offsets=offsets):
            repeated.append(places[engine.repeated])

    def refuse(at: int, error: Exception) -> None:
        intake.failed[int(rows[chosen[at]])] = reason_of("correlating an event", error)

    apart(len(chosen), attempt, refuse)
    return np.concatenate([np.empty(0, np.int64), *repeated])


def push_late(intake: Intake, engine: Engine, kept: Frame, rows: NDArray[np.int64], late: NDArray[np.bool_]) -> None:
    """Give late rows to the windows that revise their results."""
    chosen = np.flatnonzero(late)

    def attempt(first: int, last: int) -> None:
        engine.push_late(kept.take(chosen[first:last]))

    def refuse(at: int, error: Exception) -> None:
        intake.failed[int(rows[chosen[at]])] = reason_of("revising a window by a late event", error)

    apart(len(chosen), attempt, refuse)
