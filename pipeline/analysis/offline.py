"""Rules over recorded logs without a broker: the same domains as in a worker, so the same matches and ids."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Final

from astrocyte.agents.accounting import summed
from astrocyte.agents.domain import Counters, Domain, DomainGroup, DomainOutput
from astrocyte.agents.engine.arrival.early import in_order_alone
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.event_time.clock_guard import CLOCK_TOLERANCE_US
from astrocyte.agents.ingest.decoders import RECOGNISE_FAILED
from astrocyte.agents.ingest.unused.counts import FieldsSeen, Unused
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.lane import unraised
from astrocyte.agents.promises import Sent
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.named_fields import named_fields
from astrocyte.pipeline.analysis.decisions import RepeatedDecisions
from astrocyte.pipeline.analysis.inputs import Inputs, RunInputs, Survey, Trusted
from astrocyte.pipeline.analysis.key_places import KeyPlaces
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import raw_record
from astrocyte.pipeline.roles.output_records import copy_records, frame_records, led_of, sent_records
from astrocyte.pipeline.topology.plan import KeyGroup
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.pipeline.topology.topics import KnownTopics, results_of
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.partitioning import SpreadKeys, spread_keys
from astrocyte.schemas.topics import TopicPartition, is_derived, metrics_topic

__all__ = ["OfflineRun", "run_rules"]

_BATCH: Final = 256
_BATCH_BYTES: Final = 4 << 20


class OfflineRun:
    """All domains of a rule set over messages in the order of a log.

    Groups that read the results of other groups run after them, each with its own watermark, so that the results of
    the last windows are not late for the rules over them.
    """

    def __init__(
        self,
        ruleset: RuleSet,
        inputs: RunInputs,
        *,
        lateness_us: int,
        clock_tolerance_us: int = CLOCK_TOLERANCE_US,
        list_unused: bool = False,
        make_engine: Callable[[KeyGroup], Engine] | None = None,
    ) -> None:
        """``make_engine`` makes the engine of one domain of a group, in place of a usual one."""
        found = inputs.found
        self.ruleset = ruleset = in_order_alone(ruleset)
        self.found = found
        self.contracts = inputs.decoders.contracts
        self._recognise_failed = RECOGNISE_FAILED.copy()  # by earlier runs of the process
        self.partitions = found.count
        self.plan = plan = KnownTopics(found.partitions, self.partitions).plan(ruleset)
        self._offsets: dict[tuple[str, int], int] = {}
        self._numbers: dict[str, list[int]] = {}
        present: dict[int, set[str]] = {}
        for topic, number in sorted(found.places):
            self._numbers.setdefault(topic, []).append(number)
            present.setdefault(number, set()).add(topic)
        self._repartitions: dict[str, list[Repartitioner]] = {}
        self._repartitioning = Unused()
        self._trusted = {place: deque(entries) for place, entries in found.trusted.items()}
        for repartition in plan.repartitions:
            repartitioner = Repartitioner(
                repartition,
                self.partitions,
                lateness_us=lateness_us,
                clock_tolerance_us=clock_tolerance_us,
                decoders=inputs.decoders,
            )
            self._repartitions.setdefault(repartition.source, []).append(repartitioner)
        self._groups = _in_order(plan.groups)
        self._timed = plan.timed.keys()
        self.key_places = KeyPlaces(plan.groups, found.partitions, plan.copies)
        self._domains: list[list[RepeatedDecisions]] = []
        self._silent: list[Sent] = []
        """Reports of domains for which the log has nothing, to those behind junctions."""
        made = {metrics_topic(name) for group in plan.groups for name in _made_by(group)}
        linked = {link.topic for link in plan.links} | plan.timed.keys()
        made |= linked
        self.partitioned_by: dict[str, str] = {
            topic: key for topic, key in plan.partitioned_by.items() if len(self._numbers.get(topic, ())) > 1
        }
        """Topics with messages in several partitions that are taken to be partitioned by a key, with it."""
        self.placed_by: dict[str, str] = {
            topic: key for topic, key in plan.placed_by.items() if len(self._numbers.get(topic, ())) > 1
        }
        """The same, with those whose declaration states it."""
        sources = plan.copies
        counted: set[str] = set()
        read = {topic for group in self._groups for topic in group.topics.values()}
        self.inputs: dict[str, str] = {
            sources.get(topic, topic): stream
            for group in self._groups
            for stream, topic in group.topics.items()
            if topic not in made and sources.get(topic) not in made
        }
        """Stream of each topic that the rules read, directly or repartitioned."""
        self._copied = self.inputs.keys() - read
        """Topics of which rules read the repartitioned copy alone; `_counting` counts their events."""
        make_domain = partial(
            Domain,
            lateness_us=lateness_us,
            clock_tolerance_us=clock_tolerance_us,
            copied_by=plan.copied_by,
            copies=plan.copies,
            linked=linked,
            list_unused=list_unused,
            decoders=inputs.decoders,
        )
        self._counting: list[RepeatedDecisions] = []
        # A topic may have more partitions than there are domains: what has no domain of its own is counted as well.
        most = max((found.partitions.get(topic, self.partitions) for topic in self._copied), default=0)
        for number in range(most):
            domain = make_domain(number, (), topics=self._copied, validators=Validators(ruleset.validators))
            domain.mark_idle(
                TopicPartition(topic, number) for topic in sorted(self._copied) if (topic, number) not in found.places
            )
            self._counting.append(
                RepeatedDecisions(domain, self._copied, found.idle.get(number, ()), present=present.get(number, ()))
            )
        for group in self._groups:
            topics = set(group.topics.values())
            internal = counted | topics & (sources.keys() | made)
            counted |= topics
            domains = []
            for number in range(self.partitions):
                engine = (
                    Engine(
                        group.ruleset,
                        exports=group.exports,
                        carriers=group.carriers,
                        newest=group.newest,
                        validated=True,
                    )
                    if make_engine is None
                    else make_engine(group)
                )
                domain = make_domain(
                    number,
                    [DomainGroup(group.name, engine, group.topics, group.links, self.partitions, group.results)],
                    topics=topics,
                    internal=internal,
                    validators=Validators(ruleset.validators),
                    partitioned_by=self.partitioned_by,
                    placed_by=self.placed_by,
                )
                absent = tuple(
                    TopicPartition(topic, number)
                    for topic in sorted(topics)
                    if not _is_present(sources.get(topic, topic), number, found, made, repartitioned=topic in sources)
                )
                # Topics that the log does not hold for this partition delay event time nowhere.
                domain.mark_idle(absent)
                self._silent += domain.report_silence(absent).led
                # Positions in copies and in results of windows are not those of the worker, whose frames were cut
                # in other places: what it recorded is repeated for the groups that read events alone. It is not
                # where topics have another number of partitions than there are domains: then all are copied.
                even = all(each.partitions is None for each in plan.repartitions)
                own = even and (len(self._groups) == 1 or not topics & (sources.keys() | made))
                domains.append(
                    RepeatedDecisions(
                        domain,
                        topics,
                        found.idle.get(number, ()) if own else (),
                        present=present.get(number, ()),
                        waits=not topics & (sources.keys() | made),
                    )
                )
            self._domains.append(domains)
        for domain in chain.from_iterable((part.domain for part in parts) for parts in self._domains):
            for place in (each for each in found.left_out if each.partition == domain.partition):
                domain.leaving_out.follow(place.topic, found.left_out[place])
        for domain in self._all_domains():  # each topic's fields are judged where it is counted, whoever reads them
            domain.report_for(ruleset)

    @property
    def counters(self) -> Counters:
        """Events by outcome, summed over all domains; an event repeated in the copy alone is a duplicate as well."""
        total = Counters()
        for domain in self._all_domains():
            for name, value in domain.counters.as_dict().items():
                setattr(total, name, getattr(total, name) + value)
        repeated = {subject: found.count for cause, subject, _, found in self.unused if cause == "duplicate"}
        for topic in self._copied:
            count = max(repeated.get(copy, 0) for source, copy in self.copies if source == topic)
            total.duplicate += count
            total.processed -= count
        return total

    @property
    def made(self) -> frozenset[str]:
        """Streams that the rules and windows make themselves."""
        return self.ruleset.made

    @property
    def copies(self) -> list[tuple[str, str]]:
        """Topics that are repartitioned, each with the topic of its copy."""
        return [(each.source, each.topic) for each in self.plan.repartitions]

    def readers_of(self, stream: str) -> str:
        """The first rule, window or statistic that reads a stream."""
        rule = next((f"rule {rule.name!r}" for rule in self.ruleset.rules if stream in rule.streams), None)
        windows = (f"window {each.name!r}" for each in self.ruleset.windows if each.source == stream)
        statistics = (f"statistic {each.name!r}" for each in self.ruleset.insight if stream in each.streams)
        forming = (
            f"junction {each.name!r}" for each in self.ruleset.junctions if each.forms and stream in each.forms.streams
        )
        return rule or next(chain(windows, statistics, forming))

    @property
    def unused(self) -> Unused:
        """What was not used, and why, of all domains."""
        total = Unused()
        total.merge(self._repartitioning)
        for domain in self._all_domains():
            total.merge(domain.unused)
        return total

    @property
    def spread_keys(self) -> dict[str, SpreadKeys]:
        """By topic that is read as it is: the keys that have events in several of its partitions, which never meet."""
        found = {}
        for topic in self.placed_by:
            samples = [(each.partition, each.keys[topic]) for each in self._all_domains() if topic in each.keys]
            if (spread := spread_keys(samples)) is not None:
                found[topic] = spread
        return found

    @property
    def recognise_failed(self) -> Counter[str]:
        """By decoder: messages on which its ``recognise`` failed in this run."""
        return RECOGNISE_FAILED - self._recognise_failed

    @property
    def unraised(self) -> dict[str, Counter[str]]:
        """By rule: alerts that ``cool_down`` suppressed, and that ``group`` joined to an earlier one."""
        return summed(unraised(domain.groups) for domain in self._all_domains())

    @property
    def led(self) -> dict[str, Counter[str]]:
        """By junction: matches that were led on, and those that were not, by cause."""
        return summed(map(led_of, self._all_domains()))

    @property
    def left_out(self) -> dict[str, Counter[str]]:
        """By stream and policy: events that a worker left out while it was behind, and so this run."""
        return summed(domain.leaving_out.counts for domain in self._all_domains())

    @property
    def fields(self) -> FieldsSeen:
        """Which fields of the rules came, in any domain."""
        total = FieldsSeen(named_fields(self.ruleset))
        for domain in self._all_domains():
            total.merge(domain.fields)
        return total

    def _all_domains(self) -> Iterator[Domain]:
        yield from (part.domain for part in self._counting)
        yield from (part.domain for parts in self._domains for part in parts)

    def run(self, records: Iterable[ConsumedRecord]) -> Iterator[DomainOutput]:
        """Outputs of the messages, then of the end of all input."""
        yield from self.feed(records)
        yield from self.finish()

    def feed(self, records: Iterable[ConsumedRecord]) -> Iterator[DomainOutput]:
        """Outputs of messages, after which more may follow."""
        silent, self._silent = self._silent, []
        yield from self._lead(silent)
        for batch in _batches(records):
            yield from self._feed(batch)

    def settle(self, before: int | None = None) -> Iterator[DomainOutput]:
        """Outputs of what a worker recorded as decided by its clock after the messages up to here.

        ``before``: only of records of the topic of these decisions up to this offset, excluded.
        """
        for number, domains in enumerate(self._domains):
            for part in domains:
                for output in part.settle(before):
                    yield from self._follow(number, output)

    def finish(self) -> Iterator[DomainOutput]:
        """Outputs of the end of all input."""
        for part in self._counting:
            yield from part.finish()
            yield part.domain.trust()
        made = {metrics_topic(name) for group in self._groups for name in _made_by(group)}
        yield from self._trust_rest(sorted(self._repartitions.keys() - made))
        for number, domains in enumerate(self._domains):
            for part in domains:
                for output in part.finish():
                    yield from self._follow(number, output)
            for part in domains:
                # The input has ended: no source delays the watermark any more, then all windows close.
                yield from self._follow(number, part.domain.mark_all_idle())
            for part in domains:
                yield from self._follow(number, part.domain.flush())
            # The last results have come only now, and their copies may wait.
            yield from self._trust_rest(sorted(metrics_topic(name) for name in _made_by(self._groups[number])))

    def _trust_rest(self, topics: Collection[str]) -> Iterator[DomainOutput]:
        """Copies of all events of some topics that wait still."""
        for repartitioner in (each for topic in topics for each in self._repartitions.get(topic, ())):
            for (topic, partition), trusted in self._trusted.items():
                for each in trusted if topic == repartitioner.repartition.topic else ():
                    yield from self._trust(repartitioner, partition, each)
            yield from self._trust(repartitioner, None, None)

    def _feed(self, batch: Mapping[tuple[str, int], list[RawRecord]]) -> Iterator[DomainOutput]:
        for (topic, partition), raws in batch.items():
            self.key_places.look(topic, partition, raws)
            if topic in self._copied and partition < len(self._counting):
                yield from self._counting[partition].feed(topic, raws)
            for number, group in enumerate(self._groups):
                if topic in group.topics.values() and partition < self.partitions:
                    for output in self._domains[number][partition].feed(topic, raws):
                        yield from self._follow(number, output)
            for repartitioner in self._repartitions.get(topic, ()):
                yield from self._copy(repartitioner, partition, raws)

    def _copy(self, repartitioner: Repartitioner, partition: int, raws: Sequence[RawRecord]) -> Iterator[DomainOutput]:
        """What the copies of some messages bring about, with the decisions that a worker recorded between them."""
        repartition = repartitioner.repartition
        trusted = self._trusted.get((repartition.topic, partition), deque[Trusted]())
        first = 0
        while first < len(raws):
            while trusted and trusted[0].offset <= raws[first].offset:
                yield from self._trust(repartitioner, partition, trusted.popleft())
            last = bisect_left(raws, trusted[0].offset, first, key=attrgetter("offset")) if trusted else len(raws)
            copies, letters = repartitioner.step(partition, raws[first:last])
            first = last
            for letter in letters:
                self._repartitioning.add_letter(letter)
            if letters:
                yield DomainOutput(dead_letters=letters)
            for copy in copies:
                frame = self._with_peers(copy.frame, repartition.source, partition)
                copy = replace(copy, frame=frame)
                yield from self._send(copy_records(repartition, copy, self.partitions))

    def _trust(
        self, repartitioner: Repartitioner, partition: int | None, trusted: Trusted | None
    ) -> Iterator[DomainOutput]:
        """Copies of the events that waited, as a worker's clock decided, or at the end of the input."""
        until_us, idle = (None, False) if trusted is None else (trusted.until_us, trusted.idle)
        for copy in repartitioner.trust(until_us, partition=partition, idle=idle):
            yield from self._send(copy_records(repartitioner.repartition, copy, self.partitions))

    def _with_peers(self, frame: Frame, topic: str, partition: int) -> Frame:
        """Let the reader wait for the topic's other partitions, which are read one after another here."""
        others = self._numbers.get(topic)
        if frame.peers or not others:
            return frame
        origin = frame.origin.removesuffix(f"/{partition}")
        return replace(frame, peers=tuple(f"{frame.stream}@{origin}/{number}" for number in others))

    def _follow(self, number: int, output: DomainOutput) -> Iterator[DomainOutput]:
        """The output, and the outputs of the groups that read its frames."""
        if output:
            yield output
        yield from self._lead(output.led)
        for frame in output.frames:
            topic = metrics_topic(frame.stream)
            if topic in self._timed:
                continue  # it was sent with what is said of event time
            if (
                any(topic in group.topics.values() for group in self._groups[number + 1 :])
                or topic in self._repartitions
            ):
                yield from self._send(frame_records(topic, frame, self.partitions))

    def _lead(self, led: Iterable[Sent]) -> Iterator[DomainOutput]:
        """Outputs of the groups that wait for the domain from which this is."""
        for sent in led:
            yield from self._send(sent_records(sent, self.partitions))

    def _send(self, records: Iterable[ProducerRecord]) -> Iterator[DomainOutput]:
        for record in records:
            place = (record.topic, record.partition or 0)
            offset = self._offsets.get(place, 0)
            self._offsets[place] = offset + 1
            yield from self._feed({place: [RawRecord(offset, 0, record.key, record.value, tuple(record.headers))]})


def run_rules(
    ruleset: RuleSet,
    paths: Sequence[str | Path],
    *,
    lateness_us: int,
    clock_tolerance_us: int = CLOCK_TOLERANCE_US,
    stream: str | None = None,
    list_unused: bool = False,
    domains: int | None = None,
) -> tuple[OfflineRun, Iterator[DomainOutput]]:
    """The run of a rule set over logs or files of events, and an iterator over its outputs.

    ``stream`` is that of every event of files, ``domains`` the number of domains for logs that do not name it
    (`pipeline.analysis.inputs.Inputs`). ``list_unused``: the outputs list every event that took no part, also those
    that are in no topic. Raises InvalidLog, InvalidRule.
    """
    inputs = Inputs(ruleset, paths, stream=stream, domains=domains)
    run = OfflineRun(
        ruleset,
        inputs,
        lateness_us=lateness_us,
        clock_tolerance_us=clock_tolerance_us,
        list_unused=list_unused,
    )
    return run, run.run(inputs.records())


def _made_by(group: KeyGroup) -> set[str]:
    return {*results_of(group.ruleset), *group.exports}


def _feeds(group: KeyGroup) -> set[str]:
    return _made_by(group) | {link.junction for link in group.links}


def _in_order(groups: Sequence[KeyGroup]) -> tuple[KeyGroup, ...]:
    """Groups so that each comes after those whose results it reads."""
    waiting, ordered = list(groups), []
    while waiting:
        made = {name for group in waiting for name in _feeds(group)}
        ready = [group for group in waiting if not set(group.topics) & (made - _feeds(group))]
        ordered += ready or waiting[:1]
        waiting = [group for group in waiting if group not in ordered]
    return tuple(ordered)


def _is_present(topic: str, number: int, found: Survey, made: set[str], *, repartitioned: bool) -> bool:
    if topic in made:
        return True
    if repartitioned:
        return any(name == topic for name, _ in found.places)
    return (topic, number) in found.places


def _batches(records: Iterable[ConsumedRecord]) -> Iterator[dict[tuple[str, int], list[RawRecord]]]:
    """Messages by topic and partition, up to `_BATCH` at a time; within a partition in the order of the log."""
    batch: dict[tuple[str, int], list[RawRecord]] = {}
    count = size = 0
    for record in records:
        if is_derived(record.topic):
            continue
        batch.setdefault((record.topic, record.partition), []).append(raw_record(record))
        count += 1
        size += len(record.value or b"")
        if count >= _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, count, size = {}, 0, 0
    if batch:
        yield batch
