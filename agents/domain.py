"""The domain: one partition number of all mono topics, with its watermarks, validators and correlation engines.

A pure step object: chunks of Kafka messages go in, records for other topics come out. It knows neither Kafka nor Faust
and reads no clock. Its whole state, with the next offset of every topic, can be taken as a snapshot, so that a restart
gives exactly the outputs of an uninterrupted run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.agents.accounting import Accounting, Counters, DomainOutput, Intake, lacking
from astrocyte.agents.event_time.clock_guard import CLOCK_TOLERANCE_US, Admitted, ClockGuard
from astrocyte.agents.event_time.sources import Observed, Source
from astrocyte.agents.event_time.watermarks import Watermarks
from astrocyte.agents.ingest.copies import CopiesOnce, Originals, fitting, is_silence
from astrocyte.agents.ingest.decode import RETRY_ORIGIN, KafkaTimes, decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.letters import dead_letter
from astrocyte.agents.ingest.overload import LeavingOut
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.ingest.validate_rows import validate_rows
from astrocyte.agents.ingest.waiter import Waiter
from astrocyte.agents.lane import DomainGroup, GroupTime, Lane, push, push_late
from astrocyte.agents.rules.model import RuleSet
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import KafkaRecord
from astrocyte.schemas.times import NEVER_US
from astrocyte.schemas.topics import METRICS_PREFIX, TopicPartition

if TYPE_CHECKING:
    from astrocyte.agents.engine.output import EngineOutput

__all__ = ["Counters", "Domain", "DomainGroup", "DomainOutput"]


class Domain:
    """The domain of one partition number.

    ``groups`` are its engines, one for each correlation field; ``topics`` are all that it reads: event time
    does not begin before each has sent something or is idle. ``internal`` names topics whose rows were counted when
    they were first read (repartitioned streams, results of windows). ``copied_by`` names the fields by which rules
    correlate the copies of a topic: events without one are counted where the topic itself is read. ``copies`` names the
    topic of which each internal one is a copy. ``partitioned_by`` names the key by which producers of a topic with
    several partitions are taken to divide its messages: those without a Kafka key are counted. ``placed_by`` names the
    key of the topics of which `keys` are sampled, so that other domains' samples show whether one is in several
    partitions. ``list_unused``: outputs list the events that took no part and are in no other output. ``doubting``:
    that another domain is silent counts only where it is proven (`agents.silence`). ``clock`` gives the nanoseconds of
    ``busy_ns``, the time spent in `feed` (none: it stays 0).

    Whatever a message, a row or a match makes our or a user's code raise: it alone becomes a dead letter, and `unused`
    counts it. Only an operator that raises while it changes its state ends the domain (`OperatorFailed`).
    """

    def __init__(
        self,
        partition: int,
        groups: Sequence[DomainGroup],
        *,
        lateness_us: int = 0,
        clock_tolerance_us: int = CLOCK_TOLERANCE_US,
        validators: Validators | None = None,
        topics: Iterable[str],
        internal: Iterable[str] = (),
        catalog: Catalog = CATALOG,
        decoders: Decoders | None = None,
        copied_by: Mapping[str, Sequence[str]] | None = None,
        copies: Mapping[str, str] | None = None,
        partitioned_by: Mapping[str, str] | None = None,
        placed_by: Mapping[str, str] | None = None,
        linked: Iterable[str] = (),
        list_unused: bool = False,
        doubting: bool = False,
        clock: Callable[[], int] = int,
    ) -> None:
        self.partition = partition
        self._clock_ns, self.busy_ns, self._doubting = clock, 0, doubting
        self.linked = frozenset(linked)
        """Topics of junctions and of results of other groups: what they say of event time is all there is to know."""
        self.groups = tuple(groups)
        self.lateness_us = lateness_us
        self._accounting = Accounting(partition, internal, catalog, listed=list_unused)
        self.counters = self._accounting.counters
        self.unused = self._accounting.unused
        """What was not used since this object was made."""
        self.fields, self.keys = self._accounting.fields, self._accounting.keys
        """Since this object was made: fields that rules name, and what came of them; and by topic of ``placed_by`` a
        sample of the keys that came."""
        self.positions: dict[str, int] = {}
        """Next offset of every topic; what lies before it is in the state."""
        self.leaving_out = LeavingOut()
        """What was decided to be left out of the input, and what was."""
        self._validators = validators or Validators((), catalog=catalog)
        self._catalog = catalog
        self._decoders = decoders or Decoders(Contracts(catalog=catalog))
        self._clocks: ClockGuard[Waiter] = ClockGuard(tolerance_us=clock_tolerance_us, lateness_us=lateness_us)
        self._taken = CopiesOnce()
        self._stirred = False
        """Whether another domain has sent something through a junction since this one was last reported as silent."""
        self._copied_by = dict(copied_by or {})
        self.copies, self.placed_by = dict(copies or {}), dict(placed_by or {})
        self._partitioned_by = dict(partitioned_by or {})
        self._note_rules()
        grouped = {topic for group in self.groups for topic in group.topics.values()}
        rest = frozenset(topics) - grouped
        self.lanes = [Lane.of(group, partition, self._clock) for group in self.groups]
        if rest:
            self.lanes.append(Lane("", None, rest, self._clock(rest)))  # read only to be counted
        self._lanes_of = {topic: [each for each in self.lanes if topic in each.topics] for topic in grouped | rest}

    def _is_timed(self, topic: str) -> bool:
        """Whether a topic holds results of another group of this domain, which says how far event time is."""
        return topic in self.linked and topic.startswith(METRICS_PREFIX)

    def _clock(self, topics: Iterable[str]) -> Watermarks:
        expected = (TopicPartition(topic, self.partition) for topic in topics)
        return Watermarks(lateness_us=self.lateness_us, expected=expected, doubting=self._doubting)

    @property
    def made(self) -> frozenset[str]:
        """Streams that the rules and windows for which is reported make themselves (`report_for`)."""
        return self._accounting.made

    @property
    def watermark_us(self) -> int:
        """Every group has processed everything older."""
        return min(lane.watermarks.watermark_us for lane in self.lanes)

    @property
    def newest_us(self) -> int | None:
        """Newest event time of an open source; None without an open source."""
        every = (each for lane in self.lanes for each in lane.watermarks.sources.items())
        known = [time_us for source, time_us in every if source.topic not in self.linked]
        return max(known) + self.lateness_us if known else None

    @property
    def entered(self) -> int:
        """Frames that were judged by how far other sources had come (`Watermarks.entered`)."""
        return sum(lane.watermarks.entered for lane in self.lanes)

    @property
    def waiting(self) -> int:
        """Number of events that wait until the log shows whether their clock is right."""
        return self._clocks.waiting

    @property
    def doubted(self) -> Counter[str]:
        """The same by topic."""
        return Counter(item.sourced.topic for item in self._clocks.items())

    def copied_through(self, topic: str, partition: int | None = None) -> int:
        """Offset in the original after the last event of which a copy was read in ``topic``; 0 for none.

        ``partition`` is that of the original; this domain's without it.
        """
        return self._taken.through(topic, self.partition if partition is None else partition)

    @property
    def groups_time(self) -> list[GroupTime]:
        """Event time of every group that correlates."""
        return [lane.time(lane.engine) for lane in self.lanes if lane.engine is not None]

    @property
    def asserting(self) -> bool:
        """Whether a producer that asserts watermarks determines event time."""
        return any(lane.watermarks.asserting_beside(self.linked) for lane in self.lanes)

    def feed(self, topic: str, records: Sequence[KafkaRecord]) -> DomainOutput:
        """Take a chunk of one topic, in offset order; records before the topic's position are skipped.

        So are copies that a repartition role writes again after a crash.
        """
        output, began_ns = DomainOutput(), self._clock_ns()
        position = self.positions.get(topic, 0)
        if records and records[0].offset < position:
            records = [record for record in records if record.offset >= position]
        if records := self.leaving_out.released(topic, records):
            self._read(topic, records, output)
        self.busy_ns += self._clock_ns() - began_ns
        return output

    def _read(self, topic: str, records: Sequence[KafkaRecord], output: DomainOutput) -> None:
        next_offset = records[-1].offset + 1
        counted = self._accounting.is_counted(topic)
        timed = self._is_timed(topic)
        records, copied, odd = (records, {}, []) if counted else self._taken.fresh(topic, records, numbered=timed)
        frames, letters = decode_chunk(topic, self.partition, records, self._catalog, self._decoders)
        frames, misfits = fitting(frames, copied, records)
        odd += misfits
        letters += [dead_letter(each, topic, self.partition, reason=why, stage="decode") for each, why in odd]
        self._accounting.undecoded(topic, letters, output)
        self._accounting.unkeyed(topic, records, frames, self._partitioned_by.get(topic))
        frames, gone = self.leaving_out.kept(topic, frames, counted=counted)
        self._accounting.left_out(gone)
        self._accounting.skipped(topic, records, self._decoders.contracts.of_topic(topic))
        stamps, source = KafkaTimes(records), self.copies.get(topic)
        silences = set() if counted else {record.offset for record in records if is_silence(record)}
        for sourced in frames:
            if sourced.offset in silences:
                for lane in self._lanes_of.get(topic, ()):
                    source_of = Source(topic, self.partition, sourced.frame.origin)
                    lane.silenced(source_of, sourced.frame, linked=topic in self.linked)
                continue
            whence = copied.get(sourced.offset)
            originals = Originals.of(source, whence, sourced) if whence and source else None
            self._take(Intake(sourced, output, counted, originals), stamps)
        # Only now: a decoder that cannot work at the moment raises, and is given the same messages again.
        self.positions[topic] = next_offset
        for lane in self._lanes_of.get(topic, ()):
            self.advance(lane, output)

    def mark_idle(self, places: Iterable[TopicPartition], *, asserting: bool = False) -> DomainOutput:
        """The partitions are idle and no longer delay event time, as the caller has found and recorded.

        Producers that assert watermarks are waited for all the same, unless ``asserting``.
        """
        output = DomainOutput()
        places = list(places)
        for lane in self.lanes:
            own = [place for place in places if place.topic in lane.topics]
            for place in own:
                lane.watermarks.mark_idle(place, asserting=asserting)
            if own:
                self.advance(lane, output)
        return output

    def activate(
        self, places: Iterable[TopicPartition], *, asserting: bool = False, linked: bool = False
    ) -> DomainOutput:
        """The partitions are no longer known to be idle: event time waits for them again.

        Producers that assert watermarks and were given up are waited for only with ``asserting``, the domains from
        which junctions lead here with ``linked``. The output tells these that this one is awake.
        """
        places = list(places)
        topics = {place.topic for place in places}
        for lane in self.lanes:
            own = [place for place in places if place.topic in lane.topics]
            lane.watermarks.activate(own, asserting=asserting, copies=self.copies)
            if linked and self.linked:
                lane.watermarks.wait_for_all({topic for topic in self.linked if not self._is_timed(topic)})
        return DomainOutput(led=[sent for lane in self.lanes for sent in lane.wake(topics)])

    def trust(self, until_us: int | None = None, idle: Iterable[TopicPartition] = ()) -> DomainOutput:
        """Accept events that wait if a clock that shows ``until_us`` explains them, in idle places all of its past.

        Without ``until_us`` the input has ended: all are accepted.
        """
        output = DomainOutput()
        for topic, records in self.leaving_out.rest().items() if until_us is None else ():
            self._read(topic, records, output)
        steps = self._clocks.trust(until_us, idle=frozenset(idle))
        for step in steps:
            self._decide(step, output)
        for lane in self.lanes if steps else ():
            self.advance(lane, output)
        return output

    def mark_all_idle(self, until_us: int | None = None) -> DomainOutput:
        """All topics are idle; event time advances to ``until_us``, and to its end without one."""
        output = DomainOutput() if until_us is not None else self.trust()
        newest_us = self.newest_us
        for lane in self.lanes:
            lane_us, sources = until_us, lane.watermarks.sources
            if until_us is not None and newest_us is not None and sources and not lane.topics.isdisjoint(self.copies):
                # What its original has beyond the newest copy is still to be copied: it must not be late then.
                lane_us = until_us - (newest_us - self.lateness_us - max(sources.values()))
            lane.watermarks.mark_all_idle(lane_us, beside=() if until_us is None else self.linked)
            self.advance(lane, output)
        return output

    def flush(self) -> DomainOutput:
        """End of input: everything closes, and the state is empty."""
        output = self.trust()
        for lane in self.lanes:
            if lane.engine is not None:
                self._step(lane, lane.engine.flush, output, ended=True)
        return output

    def report_silence(
        self, idle: Iterable[TopicPartition], *, stands: bool = False, again: bool = True
    ) -> DomainOutput:
        """Tell those that wait for this domain's groups that they need not, where all sources are idle.

        Not while a match may come by time alone, unless event time ``stands``. ``again``: through junctions also what
        was said before, if another domain has sent something since: its receivers wait for all.
        """
        topics = {place.topic for place in idle} | self.linked
        again = again and self._stirred
        found = [sent for lane in self.lanes for sent in lane.silence(topics, stands=stands, again=again)]
        self._stirred = self._stirred and not found
        return DomainOutput(led=found)

    def _take(self, intake: Intake, stamps: KafkaTimes) -> None:
        frame, topic = intake.sourced.frame, intake.sourced.topic
        passed = validate_rows(self._validators, frame)
        self._accounting.validated(intake, passed)
        kept, rows = passed.frame, passed.rows
        source = Source(topic, self.partition, frame.origin)
        steps = None
        if intake.counted and not self._is_asserted(source, frame):

            def wait(row: int) -> Waiter:
                self.counters.received -= 1  # until it is decided
                return Waiter(intake.sourced, int(rows[row]), kept, row)

            kafka_us = stamps.of(intake.sourced, rows)
            steps = self._clocks.admit(source, kept.timestamps(), kept.column("key"), kafka_us, wait)
        if steps is None:
            self._observe(intake, kept, rows)
            return
        singly = intake.sourced.offsets is not None
        chosen: list[int] = []
        for step in steps:
            if step.waited is None:
                chosen += step.rows
            elif step.reason is None and step.waited.item.kept is kept:
                chosen.append(step.waited.item.kept_row)
                self.counters.received += 1
            else:
                if singly:
                    self._observe_part(intake, kept, rows, chosen)
                    chosen = []
                self._decide(step, intake.output)
        # The rows of one frame came at once, so none of them makes another late.
        self._observe_part(intake, kept, rows, chosen if singly else sorted(chosen))
        if frame.end:
            for step in self._clocks.trust(of=source):
                self._decide(step, intake.output)
            self._observe(intake, kept.take(np.zeros(0, np.int64)), rows[:0])

    def _observe_part(self, intake: Intake, kept: Frame, rows: NDArray[np.int64], chosen: Sequence[int]) -> None:
        if chosen:
            taken = np.array(chosen, np.int64)
            self._observe(intake, replace(kept.take(taken), end=False), rows[taken])

    def _is_asserted(self, source: Source, frame: Frame) -> bool:
        """Whether the producer or the user vouches for the times of a frame, or it has none to judge."""
        if frame.watermark_us is not None or frame.peers or not frame.num_rows or frame.origin == RETRY_ORIGIN:
            return True
        return any(lane.watermarks.is_asserted(source) for lane in self._lanes_of.get(source.topic, ()))

    def _decide(self, step: Admitted[Waiter], output: DomainOutput) -> None:
        """Accept or refuse an event that waited."""
        if step.waited is None:
            return
        waiter = step.waited.item
        intake = Intake(waiter.sourced, output, counted=True)
        self.counters.received += 1
        if step.reason is None:
            row = np.array([waiter.row], np.int64)
            self._observe(intake, replace(waiter.kept.take(np.array([waiter.kept_row])), end=False, peers=()), row)
        else:
            self._accounting.refused(intake, waiter.row, step.reason, "clock")

    def _observe(self, intake: Intake, kept: Frame, rows: NDArray[np.int64]) -> None:
        """Advance the watermarks by accepted rows and give those that are on time to the engines."""
        topic = intake.sourced.topic
        if not kept.num_rows:
            for lane in self._lanes_of.get(topic, ()):
                self._heard(lane, intake, kept)
            return
        late, idle = np.zeros((2, kept.num_rows), np.bool_)
        limits_us = np.full(kept.num_rows, NEVER_US, np.int64)
        repeated = np.empty(0, np.int64)
        self._accounting.taken(intake, kept, rows)
        self._accounting.placed(intake, kept, self.placed_by.get(topic))
        self._accounting.dated(intake, kept, rows, self._decoders.contracts.of_topic(topic))
        without = {by: lacking(kept, by) for by in (self._copied_by.get(topic, ()) if intake.counted else ())}
        for lane in self._lanes_of.get(topic, ()):
            verdict = self._heard(lane, intake, kept)
            late, idle = late | verdict.late, idle | verdict.idle
            limits_us = np.where(verdict.late, np.maximum(limits_us, verdict.limits_us), limits_us)
            if lane.engine is not None:
                by = lane.correlated.get(kept.stream)
                if by is not None and self.copies.get(topic) not in self._copied_by:
                    without[by] = lacking(kept, by)
                if verdict.late.any():
                    push_late(intake, lane.engine, kept, rows, verdict.late)
                twice = push(intake, lane.engine, kept, rows, verdict.on_time)
                repeated = twice if len(twice) > len(repeated) else repeated
        useless = self._accounting.useless(kept)
        self._accounting.keyless(
            intake, kept.stream, {by: rows[lacks & ~late] for by, lacks in without.items()}, rows[useless]
        )
        # An event that takes part in nothing does so whether it is repeated or not: it is counted once.
        repeated = np.setdiff1d(repeated, rows[useless]) if len(repeated) else repeated
        self._accounting.judged(intake, kept, rows, late=late, idle=idle, repeated=repeated, limits_us=limits_us)

    def _heard(self, lane: Lane, intake: Intake, kept: Frame) -> Observed:
        """Advance the watermarks of a lane by a frame of a source."""
        source = Source(intake.sourced.topic, self.partition, kept.origin)
        singly = intake.sourced.offsets is not None
        linked = source.topic in self.linked
        self._stirred = self._stirred or (linked and not kept.origin.endswith(f"/{self.partition}"))
        verdict = lane.heard(source, kept, one_by_one=singly, linked=linked)
        if kept.end:
            self._clocks.forget(source)
        return verdict

    def advance(self, lane: Lane, output: DomainOutput) -> None:
        """Let a group process what the watermarks of its topics allow."""
        if lane.engine is None:
            if lane.watermarks.finished:
                lane.watermarks.reset()
            return
        if lane.watermarks.finished:
            self._step(lane, lane.engine.flush, output, ended=True)
            lane.watermarks.reset()
        else:
            self._step(lane, partial(lane.engine.advance, lane.watermarks.watermark_us), output)

    def _step(self, lane: Lane, step: Callable[[], EngineOutput], output: DomainOutput, *, ended: bool = False) -> None:
        result, led = lane.run(step, self.partition, ended=ended)
        output.led += led
        if ended and lane.engine is not None:
            output.ended += [rule.name for rule in lane.engine.rules]
        if result:
            self._accounting.emitted(result, output)

    def _note_rules(self) -> None:
        self.report_for(*(group.engine.ruleset for group in self.groups))

    def report_for(self, *rulesets: RuleSet) -> None:
        """Say, until `update`, what of the events these rules do not use, whether or not they are of this domain."""
        self._accounting.report_for(rulesets)

    def update(
        self,
        rulesets: Mapping[str, RuleSet],
        validators: Validators | None = None,
        decoders: Decoders | None = None,
    ) -> None:
        """Put changed rules, validators and declarations in force; unchanged rules keep their partial matches."""
        if validators is not None:
            self._validators = validators
        if decoders is not None:
            self._decoders = decoders
        for group in self.groups:
            group.engine.update(rulesets[group.field])
        for lane in self.lanes:
            lane.update()
        self._note_rules()

    def renumber(self, first: int) -> None:
        """Number what junctions lead on from here, where the state that knew the numbers is lost."""
        for lane in self.lanes:
            lane.renumber(first)

    def snapshot(self) -> dict[str, Any]:
        """The whole state, with the next offset of every topic."""
        return {
            "positions": orjson.dumps(self.positions),
            "counters": orjson.dumps(self.counters.as_dict()),
            "lanes": {lane.name: lane.snapshot(lane.engine) for lane in self.lanes if lane.engine is not None},
            # Apart from the lanes of groups, whose names it could have: rules with ``by: null`` have an empty one.
            "counting": [lane.watermarks.snapshot() for lane in self.lanes if lane.engine is None],
            "clocks": self._clocks.snapshot(Waiter.pack),
            "taken": self._taken.snapshot(),
            "kinds": self.fields.snapshot(),
            "leaving_out": orjson.dumps(self.leaving_out.snapshot(self.positions)),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore a snapshot; groups that it lacks begin empty."""
        self.positions = orjson.loads(bytes(snapshot["positions"]))
        for name, count in orjson.loads(bytes(snapshot["counters"])).items():
            setattr(self.counters, name, count)
        self._clocks.restore(snapshot["clocks"], partial(Waiter.unpack, partition=self.partition))
        self._taken.restore(snapshot["taken"])
        if "kinds" in snapshot:  # versions before kinds were kept have none
            self.fields.restore(bytes(snapshot["kinds"]))
        self.leaving_out.restore(orjson.loads(bytes(snapshot.get("leaving_out", b"{}"))))
        for lane in self.lanes:
            if lane.engine is None:
                for clock in snapshot["counting"]:
                    self._restore_clock(lane, clock)
            elif lane.name in snapshot["lanes"]:
                self._restore_clock(lane, snapshot["lanes"][lane.name]["clock"])
                lane.restore(lane.engine, snapshot["lanes"][lane.name])
            else:  # a group of other rules may have had its numbers
                lane.renumber(sum(self.positions.values()) << 20)

    def _restore_clock(self, lane: Lane, clock: Mapping[str, Any]) -> None:
        before = lane.restore_clock(clock, self.partition, self.linked)
        for copy in lane.topics - before:
            source = self.copies.get(copy)
            if source is not None and source in before:  # it was itself read until now: that part of the copy was taken
                waiting = (each.position for each in self._clocks.items() if each.sourced.topic == source)
                self._taken.begin(copy, self.partition, self.positions.get(source, 0), waiting)
