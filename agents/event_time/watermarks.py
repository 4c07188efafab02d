"""Event time of one domain: a watermark for each source, and the domain's watermark as their minimum.

A *source* is (topic, partition, origin): one producer's rows on one partition. Its watermark W asserts that no event
with ``timestamp < W`` is expected from it any more. W is its newest timestamp minus the allowed lateness, or the
watermark that the producer asserted (punctuation), whichever is greater. No clock is read: the caller reports idle
sources.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.event_time.sources import Holder, Observed, Source, SourceState, Supposed
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.times import CEILING_US, NEVER_US
from astrocyte.schemas.topics import TopicPartition

__all__ = ["ENDED_KEPT", "MAX_JUMP_US", "Watermarks"]

MAX_JUMP_US: Final = 366 * 86_400 * 1_000_000
"""A year: how far ahead of its source's newest timestamp, beyond the lateness, an asserted watermark may be."""
ENDED_KEPT: Final = 16_384
"""Number of ended sources that are kept: the ones that ended, or were announced by a peer, last."""


class Watermarks:
    """Watermarks of the sources of one domain.

    ``expected`` places delay the domain's watermark until each has sent a frame or is declared idle, so that a slow
    start of one partition does not make events late. An asserted watermark more than ``max_jump_us`` ahead of its
    source's newest timestamp, or after ``ceiling_us``, is ignored. Events with wrong clocks are kept away by the caller
    (`ClockGuard`). ``doubting``: a source that said of itself that it is silent delays event time until that is proven
    of all that has come so far (`suppose`, `prove`): it may be behind with what it reads.
    """

    def __init__(
        self,
        *,
        lateness_us: int = 0,
        expected: Iterable[TopicPartition | tuple[str, int]] = (),
        max_jump_us: int | None = None,
        ceiling_us: int = CEILING_US,
        doubting: bool = False,
    ) -> None:
        if lateness_us < 0:
            raise InvalidSettings(f"lateness of {lateness_us} us; expected zero or more")
        max_jump_us = MAX_JUMP_US + lateness_us if max_jump_us is None else max_jump_us
        if max_jump_us <= lateness_us:
            raise InvalidSettings(
                f"largest jump of {max_jump_us} us; expected more than the lateness of {lateness_us} us"
            )
        self.lateness_us = lateness_us
        self.max_jump_us = max_jump_us
        self.ceiling_us = ceiling_us
        self.late = 0
        """Late rows so far."""
        self.refused_punctuation = 0
        """Watermarks asserted by producers that were ignored because they were too far in the future."""
        self.entered = 0
        """Frames by which the domain's watermark judged a source, as it was new or idle, since this object was made:
        what is late of them depends on how far the other sources have come."""
        self._expected = {TopicPartition(*place) for place in expected}
        self._idle_places: set[TopicPartition] = set()
        self._closed_places: set[TopicPartition] = set()
        self._awaited: set[TopicPartition] = set()
        """Places that are waited for whatever is known of their sources; see `activate`."""
        self._sources: dict[Source, SourceState] = {}
        self._ended: dict[Source, bool] = {}
        """Ended sources, least recently active first; announcements do not reopen them. True: the producer ended the
        source as one of several peers, which restart together. False: it was ended on its own."""
        self._domain_us = self._supposed_us = NEVER_US
        self._closed = self._changes = 0
        self._doubting, self._proven = doubting, -1
        self._reported: dict[Source, int] = {}
        """Sources that said of themselves that they are silent, and the number of changes before."""

    @property
    def watermark_us(self) -> int:
        """No older row is expected: rows with a smaller timestamp may be processed. Never decreases.

        `NEVER_US` until each expected place has sent a frame or is idle.
        """
        return self._domain_us

    @property
    def finished(self) -> bool:
        """Every known source has ended, and no expected place is missing.

        The domain then flushes and calls `reset`; a later run may have older timestamps.
        """
        return self._over and (self._proven == self._changes or not self._unproven())

    @property
    def _over(self) -> bool:
        return self._closed > 0 and not self._sources and not self._missing()

    def asserting_beside(self, topics: Collection[str]) -> bool:
        """Whether a source of other topics whose producer asserts watermarks is active and so bounds the watermark."""
        return any(
            state.asserts and not state.passive for source, state in self._sources.items() if source.topic not in topics
        )

    @property
    def passive(self) -> bool:
        """Whether nothing delays the domain's watermark: every source, and every expected place, is idle or ended."""
        return not self._missing() and all(state.passive for state in self._sources.values())

    @property
    def sources(self) -> dict[Source, int]:
        """Watermark of every open source, to display its lag."""
        return {source: state.watermark_us for source, state in self._sources.items()}

    def holders(self) -> list[Holder]:
        """Sources that must send something before the domain's watermark advances; none where all are idle."""
        missing = self._missing()
        if missing:
            return [Holder(Source(*place), NEVER_US, asserts=False) for place in sorted(missing)]
        active = [(source, state) for source, state in self._sources.items() if not state.passive]
        least_us = min((state.watermark_us for _, state in active), default=NEVER_US)
        return [
            Holder(source, least_us, state.asserts) for source, state in sorted(active, key=lambda item: item[0])
            if state.watermark_us == least_us
        ]  # fmt: skip

    def is_idle(self, source: Source) -> bool:
        """Whether the source was declared idle and has sent no frame since."""
        state = self._sources.get(source)
        return source.place in self._idle_places if state is None else state.passive

    def expect(self, places: Iterable[TopicPartition | tuple[str, int]], *, anew: bool = False) -> set[TopicPartition]:
        """Replace the expected places and return those before; the sources of places that are left out are forgotten.

        ``anew``: nothing has come out by the domain's watermark, so events of further places are not late by it.
        """
        before, self._expected = self._expected, {TopicPartition(*place) for place in places}
        for place in before - self._expected:
            self.forget(place)
        if anew and self._expected - before:
            self._domain_us = NEVER_US
        self._advance()
        return before

    def is_asserted(self, source: Source) -> bool:
        """Whether the source's producer asserts its watermarks, or was announced by one that does."""
        state = self._sources.get(source)
        return state is not None and state.asserts

    def announce(self, source: Source) -> None:
        """Expect frames of a source that a peer has named: it delays the domain's watermark until its first frame.

        An ended source stays ended when it is announced; only a frame of its own reopens it.
        """
        if source in self._ended:
            # Moved to the end: peers still name it, so it is not the next to be dropped.
            self._ended[source] = self._ended.pop(source)
            return
        self._sources.setdefault(source, SourceState(asserts=True))
        self._idle_places.discard(source.place)
        self._closed_places.discard(source.place)

    def has_announced(self, source: Source) -> bool:
        """Whether an open source has named its peers, so that naming them again has no effect."""
        state = self._sources.get(source)
        return state is not None and state.announced

    def await_named(self, places: Iterable[TopicPartition]) -> None:
        """Wait for a source of each place that has a name; one without, which nobody reports as silent, is dropped."""
        for place in places:
            self._sources.pop(Source(*place), None)
            if not any(source.place == place for source in (*self._sources, *self._ended)):
                self._idle_places.discard(place)

    def forget(self, place: TopicPartition | tuple[str, int]) -> None:
        """Drop the sources of a place that was revoked."""
        place = TopicPartition(*place)
        for source in [source for source in self._sources if source.place == place]:
            del self._sources[source]
        self._expected.discard(place)
        self._idle_places.discard(place)
        self._closed_places.discard(place)
        self._ended = {source: together for source, together in self._ended.items() if source.place != place}
        self._advance()

    def observe(
        self,
        source: Source,
        timestamps: NDArray[np.int64],
        *,
        watermark_us: int | None = None,
        end: bool = False,
        one_by_one: bool = False,
        peers: Sequence[Source] = (),
        trusted: bool = False,
    ) -> Observed:
        """Classify the rows of one frame, then advance the watermarks.

        A row is late if it is older than its own source's watermark before the frame or, where the source is new
        or was idle, older than the domain's. With ``one_by_one`` (each row was a message of its own) each row is
        compared with the watermark after the rows before it, so that the result does not depend on how fetches
        divided the messages. ``watermark_us`` and ``end`` are the frame's, and so are ``peers``: the sources of
        the same origin, which are announced. An end without peers ends only this source, for example when the
        caller gives up an inactive producer. ``trusted``: its asserted watermarks alone count, and may be any time
        ahead.
        """
        if peers:
            self._announce_peers(source, peers, begins=len(timestamps) > 0 or not end)
        state = self._sources.get(source)
        if self._domain_us > NEVER_US and (state is None or state.passive):
            self.entered += 1
        was_idle = self.is_idle(source)
        if state is None:
            state = self._sources[source] = SourceState()
        if was_idle:
            state.resumed_us = self._domain_us
        state.announced = state.announced or bool(peers)
        state.idle = state.silent = False
        self._idle_places.discard(source.place)
        self._closed_places.discard(source.place)
        self._awaited.discard(source.place)
        self._ended.pop(source, None)
        self._reported.pop(source, None)
        times = np.asarray(timestamps, np.int64)
        floor = max(state.watermark_us, self._domain_us)
        limits = np.full(len(times), floor, np.int64)
        if one_by_one and len(times):
            seen = np.maximum.accumulate(times)
            limits = np.maximum(np.concatenate([[floor], seen[:-1] - self.lateness_us]), floor)
        late = times < limits
        idle = late & (times < state.resumed_us) & (times >= state.watermark_us)
        if len(times):
            state.newest_us = max(state.newest_us, int(times.max()))
            if not trusted:
                state.watermark_us = max(state.watermark_us, state.newest_us - self.lateness_us)
        if watermark_us is not None:
            self._punctuate(state, watermark_us, trusted=trusted)
        if end:
            del self._sources[source]
            self._closed += 1
            self._closed_places.add(source.place)
            self._keep_ended(source, together=bool(peers))
        self._advance()
        self.late += int(late.sum())
        return Observed(~late, late, limits, idle)

    def judged(self, timestamps: NDArray[np.int64]) -> Observed:
        """Classify rows that say nothing of event time: those older than the domain's watermark are late."""
        times = np.asarray(timestamps, np.int64)
        limits = np.full(len(times), self._domain_us, np.int64)
        late = times < limits
        self.late += int(late.sum())
        return Observed(~late, late, limits, np.zeros(len(times), np.bool_))

    def mark_idle(self, source: Source | TopicPartition, *, asserting: bool = False) -> None:
        """A source, or all of a place, no longer delays the domain's watermark until it sends a frame again.

        Sources whose producers assert watermarks are not marked (a slow simulation is not idle), unless
        ``asserting``: then their producers are given up.
        """
        place = source.place if isinstance(source, Source) else source
        for known, state in self._sources.items():
            if source in (known, known.place) and (asserting or not state.asserts):
                state.idle = True
        self._awaited.discard(place)
        self._note_idle(place)
        self._advance()

    def silence(self, source: Source, peers: Sequence[Source] = (), *, whole: bool = True) -> None:
        """A report that the source is silent, by itself or by one that reads it: it is idle until it sends a frame.

        Its events stay open, because nobody said that its producer has ended. `activate` does not undo it. ``peers``
        are announced. ``whole``: its place is idle, too, if no other source is active there. Without it that is found
        by who reads the place (`mark_idle`), as others may have something there of which nothing is known yet.
        """
        for peer in peers:
            if peer != source:
                self.announce(peer)
        self._unproven()  # before it counts as silent again
        state = self._sources.get(source)
        if state is not None and state.watermark_us > NEVER_US:
            state.silent = True
        else:  # it has only been announced
            self._sources.pop(source, None)
            self._keep_ended(source, together=False)
        if whole:
            self._note_idle(source.place)
            if self._doubting:
                self._reported.setdefault(source, self._changes)
        self._advance()

    def suppose(self) -> Supposed | None:
        """How far event time is once it is proven that silent sources send nothing; None where that changes nothing.

        What is to be proven: they had read, at some time after this call, all that was there for them to read.
        """
        if not (silent := self._unproven()):
            return None
        over = self._over and self._proven != self._changes
        if self._supposed_us <= self._domain_us and not over:
            return None
        return Supposed(self._supposed_us, over, dict(silent), self._changes)

    def prove(self, supposed: Supposed) -> bool:
        """What was supposed is so; False if one of the silent sources was heard of since: then it says nothing."""
        silent = self._unproven()
        if any(silent.get(source) != number for source, number in supposed.silent.items()):
            return False
        self._domain_us = max(self._domain_us, supposed.until_us)
        if supposed.over:
            self._proven = supposed.changes
        return True

    @property
    def reported(self) -> list[Source]:
        """Sources that are silent by their own report, which is still to be proven."""
        return list(self._unproven())

    def _unproven(self) -> dict[Source, int]:
        for source in list(self._reported):
            state = self._sources.get(source)
            if not (source in self._ended if state is None else state.silent):
                del self._reported[source]
        return self._reported

    def wake(self, source: Source, peers: Sequence[Source]) -> None:
        """A source that was silent, or had ended, is about to send: wait for its peers again if nothing else was heard.

        As `activate` does where all topics were idle: the first that sends must not make the others late. Each peer
        sends in turn, or reports again that it is silent.
        """
        state = self._sources.get(source)
        was_silent = source in self._ended if state is None else state.silent
        if not was_silent or any(
            known.place == source.place and not each.passive for known, each in self._sources.items()
        ):
            return
        for peer in peers:
            if peer in self._sources:
                self._sources[peer].silent = self._sources[peer].idle = False
            elif peer in self._ended:
                del self._ended[peer]
                self.announce(peer)

    def wait_for_all(self, topics: Collection[str]) -> None:
        """Wait again for all sources of these topics, whether they were reported as silent or have ended."""
        for source, state in self._sources.items():
            if source.topic in topics:
                state.silent = state.idle = False
        for source in [source for source in self._ended if source.topic in topics]:
            del self._ended[source]
            self.announce(source)

    def mark_all_idle(self, until_us: int | None = None, *, beside: Collection[str] = ()) -> None:
        """No source sends events: the domain advances to its furthest source's watermark, or to ``until_us``.

        ``until_us`` is an event time that the caller knows to have passed; with it, absences and windows complete
        although no event follows. A source whose producer asserts watermarks still delays the domain's watermark, and
        so do the places of the topics ``beside`` from which nothing has come.
        """
        for place in self._expected | {source.place for source in self._sources}:
            if place.topic not in beside:
                self.mark_idle(place)
        held = any(not state.passive for state in self._sources.values()) or bool(self._missing())
        if until_us is not None and not held and (self._sources or self._domain_us > NEVER_US):
            self._reach(until_us)

    def activate(
        self,
        places: Iterable[TopicPartition | tuple[str, int]],
        *,
        asserting: bool = False,
        copies: Collection[str] = (),
    ) -> None:
        """Undo `mark_idle`: these places delay the domain again until they are heard of.

        Sources whose producers assert watermarks and were given up stay idle, unless ``asserting``. Those of the topics
        ``copies`` may have been reported as silent before what is still to be copied: their places are waited for.
        """
        active = {TopicPartition(*place) for place in places}
        self._awaited |= {place for place in active if place.topic in copies}
        self._idle_places -= active
        for source, state in self._sources.items():
            if source.place in active and (asserting or not state.asserts):
                state.idle = False

    def reset(self) -> None:
        """Restart after `finished`: no sources, no watermark; expected places and counters are kept.

        Ended sources stay ended, and idle places stay idle until they send a frame.
        """
        self._sources.clear()
        self._closed_places.clear()
        self._domain_us = self._supposed_us = NEVER_US
        self._closed = 0

    def snapshot(self) -> dict[str, Any]:
        """State as arrays and bytes; see `restore`."""
        names = {
            "sources": [list(source) for source in self._sources],
            "expected": sorted(self._expected),
            "idle": sorted(self._idle_places),
            "closed": sorted(self._closed_places),
            "ended": list(self._ended),
            "silent": [list(source) for source, state in self._sources.items() if state.silent],
            "reported": [list(source) for source in self._unproven()],
        }
        states = list(self._sources.values())
        return {
            "names": json.dumps(names).encode(),
            "newest_us": np.array([state.newest_us for state in states], np.int64),
            "watermarks_us": np.array([state.watermark_us for state in states], np.int64),
            "idle": np.array([state.idle for state in states], np.bool_),
            "asserts": np.array([state.asserts for state in states], np.bool_),
            "announced": np.array([state.announced for state in states], np.bool_),
            "ended_together": np.array(list(self._ended.values()), np.bool_),
            "totals": np.array([self._domain_us, self._closed, self.late, self.refused_punctuation], np.int64),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore the state of `snapshot`; the settings of this object are kept."""
        names = json.loads(bytes(snapshot["names"]))
        columns = [snapshot[name] for name in ("newest_us", "watermarks_us", "idle", "asserts", "announced")]
        states = [
            SourceState(int(newest), int(watermark), bool(idle), bool(asserts), bool(announced))
            for newest, watermark, idle, asserts, announced in zip(*columns, strict=True)
        ]
        self._sources = {Source(*name): state for name, state in zip(names["sources"], states, strict=True)}
        for name in names.get("silent", ()):
            self._sources[Source(*name)].silent = True
        self._reported = dict.fromkeys((Source(*name) for name in names.get("reported", ())), 0)
        self._expected = {TopicPartition(*place) for place in names["expected"]}
        self._idle_places = {TopicPartition(*place) for place in names["idle"]}
        self._closed_places = {TopicPartition(*place) for place in names["closed"]}
        together = snapshot["ended_together"].tolist()
        self._ended = {Source(*source): flag for source, flag in zip(names["ended"], together, strict=True)}
        totals = [int(total) for total in snapshot["totals"]]
        self._domain_us, self._closed, self.late, self.refused_punctuation = totals

    def _announce_peers(self, source: Source, peers: Sequence[Source], *, begins: bool) -> None:
        if self.has_announced(source):
            return
        if begins and self._ended.get(source) and not any(peer in self._sources for peer in peers):
            # All peers had ended and one sends a frame: the run is repeated or continues, and the others will follow.
            # One that was only silent goes on alone: the others have nothing more to send.
            for peer in peers:
                if self._ended.get(peer):
                    del self._ended[peer]
        for peer in peers:
            self.announce(peer)

    def _punctuate(self, state: SourceState, watermark_us: int, *, trusted: bool) -> None:
        limit = self.ceiling_us if trusted or state.newest_us == NEVER_US else state.newest_us + self.max_jump_us
        if watermark_us > min(limit, self.ceiling_us):
            self.refused_punctuation += 1
        else:
            state.asserts = True
            state.watermark_us = max(state.watermark_us, watermark_us)

    def _keep_ended(self, source: Source, *, together: bool) -> None:
        self._ended.pop(source, None)
        self._ended[source] = together
        if len(self._ended) > ENDED_KEPT:
            del self._ended[next(iter(self._ended))]

    def _note_idle(self, place: TopicPartition) -> None:
        if not any(known.place == place and not state.passive for known, state in self._sources.items()):
            self._idle_places.add(place)

    def _missing(self) -> set[TopicPartition]:
        heard = {source.place for source in self._sources}
        return (self._expected - heard - self._idle_places - self._closed_places) | (self._awaited & self._expected)

    def _advance(self) -> None:
        self._changes += 1
        self._supposed_us = self._domain_us
        if not self._sources or self._missing():
            return
        active = [state.watermark_us for state in self._sources.values() if not state.passive]
        # All sources are idle, so the greatest watermark counts (as in Flink's StatusWatermarkValve).
        reached = min(active) if active else max(state.watermark_us for state in self._sources.values())
        self._reach(reached)

    def _reach(self, time_us: int) -> None:
        self._supposed_us = max(self._domain_us, time_us)
        if not self._reported or not self._unproven():
            self._domain_us = self._supposed_us
