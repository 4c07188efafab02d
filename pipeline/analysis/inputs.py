"""What rules run over: recorded logs, or files of events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.overload import RecordedDecisions, Schedule
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.event_files import EventFiles, form_of
from astrocyte.pipeline.recording.format import LogHeader, TornLog
from astrocyte.pipeline.recording.index import read_index
from astrocyte.pipeline.recording.reader import open_log, read_header, read_log
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.registry import did_you_mean
from astrocyte.schemas.topics import CLOCK, SAMPLING, TopicPartition, is_derived

__all__ = ["Inputs", "RunInputs", "Survey", "Trusted", "input_streams", "survey"]


class Trusted(NamedTuple):
    """Events that waited before the message at an offset were accepted."""

    offset: int
    until_us: int
    """What the worker's clock showed."""
    idle: bool
    """Whether the input partition was silent."""


@dataclass(slots=True)
class Survey:
    """Content of logs: partition counts, partitions with messages, and the idleness that a worker recorded."""

    partitions: dict[str, int] = field(default_factory=dict)
    places: set[tuple[str, int]] = field(default_factory=set)
    records: int = 0
    topics: dict[str, int] = field(default_factory=dict)
    """Number of messages of each topic."""
    idle: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """By partition, in order: topics found idle and the positions at which they were; ``at`` is the record's offset."""
    lives: dict[int, str] = field(default_factory=dict)
    """By partition: the life of the domain that wrote the last of these records."""
    files: bool = False
    """Whether these are files of events, each of which names its stream or belongs to the only one."""
    doubts: list[str] = field(default_factory=list)
    """What is strange about the names of columns of files, a sentence each."""
    trusted: dict[tuple[str, int], list[Trusted]] = field(default_factory=dict)
    """By topic of copies and input partition, in order: when the repartition role accepted events that waited."""
    left_out: dict[TopicPartition, Schedule] = field(default_factory=dict)
    """What the domains of the role correlate left out while they were behind, by place."""
    deciding: RecordedDecisions = field(default_factory=RecordedDecisions)
    """Reads the records that say so."""
    domains: int | None = None
    """Number of domains that a log's header names, or that was asked for; None: as many as the topics' partitions."""

    @property
    def count(self) -> int:
        """Number of domains: that of the workers where it is known, else the partition count of the input topics."""
        return self.domains or max(
            [self.partitions[topic] for topic in self.partitions if not is_derived(topic)], default=1
        )


class RunInputs(Protocol):
    """What a run of rules needs to know of its input before it reads it."""

    @property
    def found(self) -> Survey:
        """Content of the input."""

    @property
    def decoders(self) -> Decoders:
        """How its messages are decoded."""


class Inputs:
    """Logs or files of events, surveyed, and how their messages are decoded for a rule set.

    ``stream`` is that of every event of files, for which see `pipeline.recording.event_files`. ``domains`` is their
    number for logs whose headers do not name it. Raises InvalidLog, and InvalidSettings for logs and files of events
    together.
    """

    def __init__(
        self, ruleset: RuleSet, paths: Sequence[str | Path], *, stream: str | None = None, domains: int | None = None
    ) -> None:
        self.paths = paths
        forms = {path: form_of(path) for path in paths}
        files = [path for path, form in forms.items() if form != "log"]
        if files and len(files) < len(forms):
            log = next(path for path, form in forms.items() if form == "log")
            raise InvalidSettings(
                f"{log} is a recorded log and {files[0]} a file of events ({forms[files[0]]}); give files of one kind"
            )
        if stream is not None and not files:
            raise InvalidSettings("--stream is for files of events; the topics of a recorded log name their streams")
        self._files: EventFiles | None = None
        if files:
            contracts = contracts_of(ruleset)
            streams = input_streams(ruleset)
            if stream is not None and stream not in streams:
                raise InvalidSettings(
                    f"--stream {stream}: no rule or window reads this stream; they read "
                    f"{', '.join(streams) or 'none'}{did_you_mean(stream, streams)}"
                )
            self._files = EventFiles(paths, contracts, streams, stream)
        self.found = self._survey()
        if not files and self.found.domains is None:
            self.found.domains = domains
        self.decoders: Decoders = decoders_of(
            contracts_of(ruleset, existing=self.found.partitions), json_only=bool(files)
        )

    def records(self) -> Iterator[ConsumedRecord]:
        """All messages, in order."""
        if self._files is not None:
            yield from self._files.records()
            return
        for path in self.paths:
            yield from read_log(path)

    def _survey(self) -> Survey:
        if self._files is None:
            return survey(self.paths)
        found = Survey(files=True, doubts=self._files.doubts())
        for record in self._files.records():
            found.partitions[record.topic] = 1
            found.places.add((record.topic, 0))
            found.topics[record.topic] = found.topics.get(record.topic, 0) + 1
            found.records += 1
        return found


def input_streams(ruleset: RuleSet) -> list[str]:
    """The streams that rules, windows and statistics read and that none of them makes, sorted."""
    return sorted(ruleset.read - ruleset.made)


def survey(paths: Sequence[str | Path]) -> Survey:
    """Survey logs, by their indexes where they have one. Raises InvalidLog."""
    found = Survey()
    for path in paths:
        if str(path) == "-":
            raise InvalidSettings(
                "expected a file, got standard input; rules read a log twice, so record it to a file first"
            )
        index = read_index(path)
        if index is None:
            _survey_records(path, found)
            continue
        _note_header(read_header(path), found)
        for topic, totals in index.topics.items():
            found.partitions[topic] = max(found.partitions.get(topic, 0), max(totals.messages) + 1)
            found.places.update((topic, number) for number in totals.messages)
            found.topics[topic] = found.topics.get(topic, 0) + sum(totals.messages.values())
        found.records += index.records
        if CLOCK in index.topics or SAMPLING in index.topics:
            for record in read_log(path):
                _note_decision(record, found)
    return found


def _survey_records(path: str | Path, found: Survey) -> None:
    try:
        for item in open_log(path):
            if isinstance(item, LogHeader):
                _note_header(item, found)
                continue
            found.partitions[item.topic] = max(found.partitions.get(item.topic, 0), item.partition + 1)
            found.places.add((item.topic, item.partition))
            found.topics[item.topic] = found.topics.get(item.topic, 0) + 1
            found.records += 1
            _note_decision(item, found)
    except TornLog:
        pass  # reported when the log is read for its events


def _note_header(header: LogHeader | None, found: Survey) -> None:
    if header is None:
        return
    for topic, count in header.partitions.items():
        found.partitions[topic] = max(count, found.partitions.get(topic, 0))
    if header.domains is not None:
        found.domains = max(header.domains, found.domains or 0)


def _note_decision(record: ConsumedRecord, found: Survey) -> None:
    if record.topic == SAMPLING:
        decision = found.deciding.read(record.value)
        if decision is not None and decision[0] == "correlate":
            found.left_out.setdefault(decision[1], Schedule()).add(decision[2])
    elif record.topic == CLOCK and record.value is not None:
        _note_idle(record.value, record.offset, found)


def _note_idle(value: bytes, at: int, found: Survey) -> None:
    try:
        body = orjson.loads(value)
        if "repartition" in body:
            ((_, offset),) = body["positions"].items()
            place = (body["repartition"], int(body["partition"]))
            found.trusted.setdefault(place, []).append(
                Trusted(int(offset), int(body["trusted_us"]), bool(body["idle"]))
            )
            return
        if body.get("role", "correlate") != "correlate":
            return  # the other domains read copies, whose positions are not those of the worker
        partition, life = int(body["partition"]), str(body["life"])
        entry = body | {"at": at, "number": int(body["number"]), "positions": dict(body["positions"])}
        entries = found.idle.setdefault(partition, [])
        if body.get("restored"):
            # After a crash a worker goes on from a snapshot: it knows nothing of what was decided after that.
            entries[:] = [each for each in entries if each["number"] < entry["number"]]
            found.lives[partition] = life
        # A worker that has lost the partition and does not know it yet decides for itself alone.
        if found.lives.setdefault(partition, life) == life:
            entries.append(entry)
    except (orjson.JSONDecodeError, AttributeError, KeyError, OverflowError, TypeError, ValueError):
        pass  # record of a later version; without it the log is correlated by its own watermarks
