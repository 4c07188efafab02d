"""What a domain sends to those that wait for it: events, and how far event time has come.

That is what junctions lead on to other domains, and the results that other groups of the same domain read.

A receiver waits for every domain from which events may come. Each sends a watermark with its events and, where it has
none, with frames without rows: no event of the junction from it is older. That is the watermark of the group whose
rules are led on, plus the junction's delay (the lookahead of conservative simulation; Chandy and Misra 1979, where
such frames are called null messages). A domain whose sources are all idle reports that it is silent, as the repartition
role does, and then that it is awake, before it knows how far event time will be. Events are numbered, so that a
receiver takes each once although a domain repeats itself after a crash.

Results have one sender and one receiver, and no delay: the group's watermark is the promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal
from zlib import crc32

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.agents.ingest.copies import Copied, Copy
from astrocyte.agents.rules.graph.links import Link
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import CEILING_US, NEVER_US
from astrocyte.schemas.topics import metrics_topic

if TYPE_CHECKING:
    from astrocyte.agents.engine.engine import Engine
    from astrocyte.agents.engine.junctions import Led

__all__ = ["Promises", "Results", "Sent"]

STEP_US: Final = 100_000
"""Least advance of event time that is reported without an event: each costs a record on every partition."""


@dataclass(frozen=True, slots=True)
class Results:
    """A topic of results, of which the domain of each partition writes that partition alone."""

    stream: str
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Sent:
    """One frame for the topic of a link or of results."""

    link: Link | Results
    copy: Copy


class Promises:
    """The junctions that lead out of the group ``name`` of domain ``partition``, of ``domains`` that each have it.

    And those of its ``results`` (streams) that other groups read.
    """

    def __init__(
        self,
        name: str,
        partition: int,
        domains: int,
        engine: Engine,
        links: Sequence[Link],
        *,
        results: Iterable[str] = (),
    ) -> None:
        self.origin = f"{name}/{partition}"
        """Its name to those that wait for it."""
        # Other groups may feed the same junction, and events of each are numbered apart. The number must not change
        # when other groups come and go.
        self._source = _source_of(self.origin)
        for link in links:
            _refuse_equal(link, domains)
        self._engine = engine
        self._links: dict[str, list[Link]] = {}
        for link in links:
            self._links.setdefault(link.junction, []).append(link)
        self._peers = {
            link.junction: tuple(f"{link.junction}@{sender}" for sender in _senders(link, domains)) for link in links
        }
        """By junction: its sources in every receiver."""
        self._results = {stream: Results(stream, metrics_topic(stream), partition) for stream in sorted(results)}
        self._peers |= {stream: (f"{stream}@{self.origin}",) for stream in self._results}
        self._numbers: dict[str, int] = {}
        """By stream of results: number of the next one; the end of event time has a number as well."""
        self._sent_us: dict[str, int] = {}
        """By junction and stream of results: the newest watermark that was sent since event time began."""
        self._said: Literal["nothing", "awake", "silent"] = "nothing"

    @property
    def topics(self) -> list[str]:
        """Topics whose readers wait for it."""
        links = {link.topic for every in self._links.values() for link in every}
        return sorted({*links, *(results.topic for results in self._results.values())})

    @property
    def silent(self) -> bool:
        """Whether it has reported that nothing comes, and nothing since."""
        return self._said == "silent"

    def lead(
        self, made: Sequence[Led], frames: Sequence[Frame] = (), *, ended: bool = False, passive: bool = False
    ) -> list[Sent]:
        """What there is to send after a step of the engine, which made these events of junctions and these results.

        ``ended``: event time is over, and may begin anew. ``passive``: nothing delays event time, so that no more is to
        be waited for than before: once silence was reported, only events are news.
        """
        events = {each.junction.name: each for each in made}
        sent: list[Sent] = []
        for junction in self._engine.junctions.own:
            if junction.name not in self._links:
                continue  # no rule reads it
            name, reached_us, led = junction.name, self._engine.watermark_us, events.get(junction.name)
            promised_us = None if ended or reached_us == NEVER_US else min(reached_us + junction.delay_us, CEILING_US)
            if led is not None:
                numbers = np.arange(led.first, led.first + led.frame.num_rows)
                copied = Copied(self._source, int(numbers[-1]), numbers)
                sent += self._to(name, Copy(self._frame(name, led.frame, watermark_us=promised_us), copied))
            elif promised_us is not None:
                is_new = promised_us - self._sent_us.get(name, NEVER_US) >= STEP_US
                if not is_new or (passive and self.silent):
                    continue
                sent += self._to(name, Copy(self._frame(name, watermark_us=promised_us)))
            if promised_us is not None:
                self._sent_us[name] = promised_us
            if ended:
                sent += self._to(name, Copy(self._frame(name, end=True)))
                self._sent_us.pop(name, None)
        for stream in self._results:
            own = [frame for frame in frames if frame.stream == stream]
            sent += self._of_results(stream, own, ended=ended, passive=passive)
        if not sent and not passive:
            return self.wake()
        self._said = "awake" if sent else self._said
        return sent

    def _of_results(self, stream: str, frames: Sequence[Frame], *, ended: bool, passive: bool) -> list[Sent]:
        """The results of a step, and how far event time is; nothing but results once silence was reported."""
        reached_us, results = self._engine.watermark_us, self._results[stream]
        promised_us = None if ended or reached_us == NEVER_US else min(reached_us, CEILING_US)
        sent: list[Sent] = []
        for frame in frames:
            last_us = promised_us if frame is frames[-1] else None
            numbers = self._numbered(stream, frame.num_rows)
            copied = Copied(self._source, int(numbers[-1]), numbers)
            sent.append(Sent(results, Copy(self._frame(stream, frame, watermark_us=last_us), copied)))
        if not frames and promised_us is not None:
            is_new = promised_us - self._sent_us.get(stream, NEVER_US) >= STEP_US
            if not is_new or (passive and self.silent):
                return []
            sent.append(self._without_rows(stream, self._frame(stream, watermark_us=promised_us)))
        if promised_us is not None:
            self._sent_us[stream] = promised_us
        if ended:
            self._numbered(stream, 1)
            sent.append(self._without_rows(stream, self._frame(stream, end=True)))
            self._sent_us.pop(stream, None)
        return sent

    def _numbered(self, stream: str, count: int) -> NDArray[np.int64]:
        first = self._numbers.get(stream, 0)
        self._numbers[stream] = first + count
        return np.arange(first, first + count)

    def _without_rows(self, stream: str, frame: Frame, *, silent: bool = False) -> Sent:
        """A frame without rows, after the results up to here."""
        copied = Copied(self._source, self._numbers.get(stream, 0) - 1, np.empty(0, np.int64))
        return Sent(self._results[stream], Copy(frame, copied, silent))

    def renumber(self, first: int) -> None:
        """Number results from here on, where it is not known which numbers came before."""
        self._numbers = dict.fromkeys(self._results, first)

    def snapshot(self) -> bytes:
        """The numbers."""
        return orjson.dumps(self._numbers)

    def restore(self, snapshot: Any | None) -> None:
        """Restore the state of `snapshot`; versions before results were numbered have none."""
        self._numbers = {} if snapshot is None else orjson.loads(bytes(snapshot))

    def wake(self) -> list[Sent]:
        """Reports that this domain's rules have a source that is not idle, if it was not said."""
        if self._said == "awake":
            return []
        self._said = "awake"
        woken = [self._without_rows(stream, self._frame(stream)) for stream in self._results]
        return [sent for name in self._links for sent in self._to(name, Copy(self._frame(name)))] + woken

    @property
    def pending(self) -> bool:
        """Whether a match may still come of what is here, by time alone."""
        if self._engine.size()["waiting"]:
            return True
        rules = self._engine.ruleset
        timed = any(rule.ends_by_absence or rule.on_timeout for rule in rules.rules)
        timed = timed or bool(rules.windows or rules.insight)
        return timed and self._engine.low_water_us() is not None

    def silence(self, *, again: bool) -> list[Sent]:
        """Reports that this domain's rules have no source that is not idle, if it was not said or ``again``.

        To those that read results it is said once: nobody else can have woken them.
        """
        results = () if self.silent else self._results
        if self.silent and not again:
            return []
        self._said = "silent"
        sent = [self._without_rows(each, self._frame(each, end=True), silent=True) for each in results]
        for name in self._links:
            sent += self._to(name, Copy(self._frame(name, end=True), silent=True))
        return sent

    def _to(self, junction: str, copy: Copy) -> list[Sent]:
        return [Sent(link, copy) for link in self._links.get(junction, ())]

    def _frame(
        self, junction: str, events: Frame | None = None, *, watermark_us: int | None = None, end: bool = False
    ) -> Frame:
        if events is None:
            columns: Mapping[str, list[object]] = {"timestamp": [], "key": []}
            events = Frame.from_columns(junction, "", columns)
        peers = self._peers[junction]
        return replace(events, origin=self.origin, watermark_us=watermark_us, end=end, peers=peers)


def _senders(link: Link, domains: int) -> list[str]:
    """The origins of all that send to a link, each the group and the partition."""
    return [f"{feeder}/{number}" for feeder in link.feeders for number in range(domains)]


def _source_of(origin: str) -> int:
    """The number by which receivers know a sender."""
    return crc32(origin.encode()) & 0x7FFF_FFFF


def _refuse_equal(link: Link, domains: int) -> None:
    """Raises InvalidSettings for two senders of one number: receivers would take events of one for repeated ones."""
    known: dict[int, str] = {}
    for origin in _senders(link, domains):
        other = known.setdefault(_source_of(origin), origin)
        if other != origin:
            raise InvalidSettings(
                f"junction {link.junction!r}: {other} and {origin} of its senders (group/partition) have the same "
                "number, so that their events could not be distinguished; choose another number of partitions "
                "(ASTROCYTE_PARTITIONS), or name the field by which the rules correlate otherwise"
            )
