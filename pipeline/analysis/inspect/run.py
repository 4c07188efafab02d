"""Inspecting a topic, a recorded log or a file: from the sample to the reports."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from astrocyte.agents.ingest.csv_lines import DELIMITERS
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.inputs import input_streams
from astrocyte.pipeline.analysis.inspect import LIMIT
from astrocyte.pipeline.analysis.inspect.forms import CsvForm, Forms, avro_schemas, csv_form, forms_of
from astrocyte.pipeline.analysis.inspect.proposals.declare import propose
from astrocyte.pipeline.analysis.inspect.proposals.keys import repartitioned
from astrocyte.pipeline.analysis.inspect.proposals.proposal import Proposal, numbers_of_time
from astrocyte.pipeline.analysis.inspect.reading import read_sample
from astrocyte.pipeline.analysis.inspect.report import Inspection, NothingFound, StreamReport, make_report
from astrocyte.pipeline.analysis.inspect.sample import (
    Sample,
    free_name,
    read_file,
    read_log_sample,
    read_topics,
    stream_name,
)
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.event_files import form_of
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.frames import raw_record
from astrocyte.pipeline.recording.reader import read_lines
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.schemas.contract import Contract, Contracts
from astrocyte.schemas.declarations import StreamDeclaration
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.registry import did_you_mean
from astrocyte.schemas.topics import MOST_CHARACTERS, is_derived, is_legal, mono_topic, stream_of

__all__ = ["Request", "inspect", "read_again", "take_sample"]

_READ_S: Final = 2.5
"""Time in which the messages of topics are read."""
_STUDIED: Final = 2000
"""Messages of a topic from which its declaration is proposed."""
_ENDS: Final = (".jsonl", ".json", ".ndjson", ".csv", ".parquet", ".zst", ".gz", ".log")


@dataclass(frozen=True, slots=True)
class Request:
    """What to inspect: a topic or a pattern of topics, the path of a recorded log or of a file of events."""

    target: str
    settings: Settings
    broker: str | None = None
    """Address that the user gave: then the target is a topic, also where a file has its name."""
    ruleset: RuleSet | None = None
    stream: str | None = None
    limit: int = LIMIT
    path: str | None = None
    """File to read in place of the target: what standard input held."""

    @property
    def file(self) -> str:
        """Path of the file that is read."""
        return self.path or self.target

    @property
    def is_path(self) -> bool:
        """Whether the target is a file. Raises InvalidSettings for the path of one that does not exist."""
        if self.path is not None:
            return True
        if self.broker is not None:
            return False
        if Path(self.target).is_file():
            return True
        if "/" in self.target or self.target.endswith(_ENDS):
            folder = Path(self.target).parent
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            raise InvalidSettings(f"no file {self.target!r}{did_you_mean(Path(self.target).name, names)}")
        return False


def take_sample(request: Request) -> Sample:
    """The messages that are inspected. Raises InvalidLog, InvalidSettings, UnknownTopic, BrokerUnavailable."""
    if not request.is_path:
        address = request.broker or request.settings.broker
        return read_topics(address, [request.target], limit=request.limit, limit_s=_READ_S)
    if form_of(request.file) == "log":
        if request.stream is not None:
            raise InvalidSettings("--stream is for files of events; the topics of a recorded log name their streams")
        try:
            return read_log_sample(request.file, limit=request.limit)
        except InvalidLog as error:
            raise InvalidLog(
                f"{error}; expected a recorded log or output of kcat -J, JSON lines, Parquet, or CSV whose name ends "
                "in .csv"
            ) from None
    return read_file(
        request.file,
        _file_contracts(request),
        limit=request.limit,
        stream=request.stream or _only_stream(request.ruleset),
        named=_named(request),
    )


def _named(request: Request) -> str:
    return stream_name(Path(request.file).name.partition(".")[0])


def _only_stream(ruleset: RuleSet | None) -> str | None:
    """The stream that rules read, if it is the only one: then every event of a file belongs to it."""
    if ruleset is None:
        return None
    streams = input_streams(ruleset)
    return streams[0] if len(streams) == 1 else None


def _file_contracts(request: Request) -> Contracts:
    """Contracts by which the rows of a file are taken; CSV with another delimiter than a comma is recognised."""
    if request.ruleset is not None:
        return contracts_of(request.ruleset)
    delimiter = _delimiter(request.file)
    if delimiter is None:
        return Contracts()
    decoder = {"name": "csv", "delimiter": delimiter}
    return Contracts(
        [StreamDeclaration.model_validate({"name": request.stream or _named(request), "decoder": decoder})]
    )


def _delimiter(path: str) -> str | None:
    """The delimiter of a CSV file, from its header; None for a comma."""
    if form_of(path) != "csv":
        return None
    header = next(iter(read_lines(path, known=True)), b"").decode("utf-8", "replace")
    counts = {delimiter: header.count(delimiter) for delimiter in DELIMITERS}
    best = max(counts, key=lambda delimiter: counts[delimiter])
    return best if best != "," and counts[best] else None


def inspect(request: Request, sample: Sample) -> Inspection:
    """The reports on a sample: read as the rules declare it, else as it is proposed. Raises NothingFound."""
    found = Inspection(request.target, sample.form, sample.complete, sample.cut)
    found.empty = [topic for topic in sample.topics if not any(sample.of(topic).values())]
    if len(found.empty) == len(sample.topics):
        raise NothingFound(_nothing(sample))
    if all(map(is_derived, sample.topics)):
        raise NothingFound(_written_by_us(sample))
    base = Contracts() if request.ruleset is None else contracts_of(request.ruleset, existing=sample.known)
    studied = {topic: _study(request, sample, topic, base) for topic in sample.topics if topic not in found.empty}
    contracts = base
    if request.ruleset is None:
        proposals = [proposal for _, _, proposal in studied.values() if proposal is not None]
        declared = [StreamDeclaration.model_validate(_for_reading(each, sample)) for each in proposals]
        contracts = Contracts(declared)
    read = read_again(request, sample, contracts) if request.ruleset is None else sample
    for topic, (forms, name, proposal) in studied.items():
        where = contracts.topic_of(name) if sample.is_file else topic
        records = read.of(where if read is not sample else topic) or read.of(topic)
        report = _report(request, sample, (topic, where), records, contracts)
        is_ours = request.ruleset is None and report.contract.event_type is None
        if proposal is not None and is_ours and report.keys_never_meet:
            proposal = repartitioned(proposal, report.key_field, report.keys.spread)
            others = [each for each in contracts.declared.values() if each.name != name]
            contracts = Contracts([*others, StreamDeclaration.model_validate(_for_reading(proposal, sample))])
            report = _report(request, sample, (topic, where), records, contracts)
        report.counts, report.proposal = dict(forms.counts.most_common()), proposal
        report.doubts = sample.doubts
        report.is_proposed = request.ruleset is None
        report.studied_times = numbers_of_time(forms, report.contract)
        if report.declares_wrongly:
            report.readable_as = _readable_as(request, sample, topic, report.contract)
        report.held, report.partition_count = sample.held_by(topic), sample.partitions.get(topic, 1)
        found.reports.append(report)
    return found


def _report(
    request: Request,
    sample: Sample,
    topics: tuple[str, str],
    records: Mapping[int, Sequence[ConsumedRecord]],
    contracts: Contracts,
) -> StreamReport:
    """What the messages of one topic hold as ``contracts`` have it; ``topics``: its name in the sample and in these."""
    topic, where = topics
    reading = read_sample(
        where,
        records,
        decoders_of(contracts, json_only=sample.is_file),
        Validators(() if request.ruleset is None else request.ruleset.validators),
        lateness_us=request.settings.lateness,
        clock_tolerance_us=request.settings.clock_tolerance,
    )
    return make_report(topic, contracts.of_topic(where), sample.form, records, reading)


def _readable_as(request: Request, sample: Sample, topic: str, declared: Contract) -> str | None:
    """The decoder, other than the declared one, by which most messages of a topic can be read; None without one."""
    free = replace(request, ruleset=None, stream=declared.stream)
    _, name, proposal = _study(free, sample, topic, Contracts())
    if proposal is None:
        return None
    given = _for_reading(proposal, sample)
    decoder = given.get("decoder")
    named = decoder["name"] if isinstance(decoder, Mapping) else decoder
    if (named or "json") == (declared.decoder or "json"):
        return None
    contracts = Contracts([StreamDeclaration.model_validate(given)])
    records = sample.of(topic)
    where = contracts.topic_of(name) if sample.is_file else topic
    reading = _report(free, sample, (topic, where), records, contracts).reading
    if 2 * reading.events < sum(map(len, records.values())):
        return None
    return "without a decoder" if named in (None, "json") else f"with decoder: {named}"


def _nothing(sample: Sample) -> str:
    if sample.form == "topic":
        named = "topic " + ", ".join(sample.topics) if len(sample.topics) == 1 else "topics " + ", ".join(sample.topics)
        return f"{named} on {sample.broker}: no messages; there is nothing to inspect"
    others = [topic for topic in sample.known if topic not in sample.topics]
    more = f" It holds only what Astrocyte wrote itself: {', '.join(others)}." if others else ""
    return f"{sample.name}: no events; there is nothing to inspect.{more}"


def _written_by_us(sample: Sample) -> str:
    named = f"topic {sample.topics[0]}" if len(sample.topics) == 1 else f"topics {', '.join(sample.topics)}"
    return (
        f"{named} on {sample.broker}: written by Astrocyte itself, so that no stream can be declared there; inspect a "
        "topic of events, and read results as the streams of their rules and windows"
    )


def read_again(request: Request, sample: Sample, contracts: Contracts) -> Sample:
    """The sample as declarations have it: the values of CSV depend on the declared types, the topics on their names."""
    if sample.form != "csv" and not (sample.is_file and not all(map(is_legal, sample.topics))):
        return sample
    return read_file(request.file, contracts, limit=request.limit, stream=request.stream, named=_named(request))


def _study(request: Request, sample: Sample, topic: str, base: Contracts) -> tuple[Forms, str, Proposal | None]:
    """Forms of the messages of a topic, the stream that it carries, and a declaration if there is none."""
    contract = base.of_topic(topic)
    decoders = decoders_of(base, json_only=sample.is_file)
    forms = Forms()
    some = _some(sample.of(topic))
    for partition, records in some.items():
        forms_of(topic, partition, list(map(raw_record, records)), decoders, forms)
    if contract.declaration is not None:
        return forms, contract.stream, None
    name = contract.stream if request.ruleset is not None else _stream_names(sample.topics, base)[topic]
    unread = sum(forms.counts.values()) == forms.counts["unreadable"] + forms.counts["tombstone"]
    csv: CsvForm | None = None
    proposed: Proposal | None = None
    if unread and not sample.is_file:
        schemas = avro_schemas(forms.unreadable)
        csv = None if schemas else csv_form(forms.unreadable)
        if schemas and request.settings.of("avro"):
            forms = _with_decoder(topic, name, {"name": "avro"}, some)
        elif schemas:
            forms.counts["avro"] = forms.counts.pop("unreadable")
            proposed = _without_schemas(topic, name, schemas)
        elif csv is not None:
            forms = _with_decoder(
                topic, name, {"name": "csv", "columns": list(csv.columns), "delimiter": csv.delimiter}, some
            )
    contract = Contract(name, None, contract.event_type)
    if proposed is None:
        wanted = _file_topic(topic, sample.topics) if sample.is_file else None if topic == mono_topic(name) else topic
        proposed = propose(
            contract, forms, topic=wanted, is_file=sample.is_file, partitions=len(sample.of(topic)), csv=csv
        )
    if sample.form == "csv" and (delimiter := _delimiter(request.file)) is not None:
        columns = list(forms.opened[0].body) if forms.opened else []
        proposed.declaration["decoder"] = {"name": "csv", "columns": columns, "delimiter": delimiter}
    elif sample.form in ("csv", "parquet"):
        proposed.declaration.pop("decoder", None)
    return forms, name, proposed


def _stream_names(topics: Sequence[str], base: Contracts) -> dict[str, str]:
    """A stream for each topic, no two of one name.

    The name of an undeclared topic's is the last part of the topic's name where that is the only such, else all of it.
    """
    contracts = {topic: base.of_topic(topic) for topic in topics}
    names = {
        topic: contract.stream
        for topic, contract in contracts.items()
        if stream_of(topic) is not None or contract.event_type is not None
    }
    last = {topic: stream_name((stream_of(topic) or topic).rpartition(".")[2]) for topic in topics}
    shared = Counter(last.values())
    for topic in topics:
        if not names.get(topic, "").strip():  # a declaration names no empty stream
            name = last[topic] if shared[last[topic]] == 1 else stream_name(topic)
            names[topic] = free_name(name, set(names.values()))
    return names


def _file_topic(topic: str, topics: Sequence[str]) -> str | None:
    """Name of a topic for the stream of a file whose own name is no name of a topic; None where it is."""
    names = {each: each for each in topics if is_legal(each)}
    for each in topics:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", each)[: MOST_CHARACTERS - 9]
        names.setdefault(each, free_name(plain, names.values()))
    return None if names[topic] == topic else names[topic]


def _some(records: Mapping[int, Sequence[ConsumedRecord]]) -> dict[int, list[ConsumedRecord]]:
    """Messages from all over the sample."""
    total = sum(map(len, records.values()))
    step = max(1, total // _STUDIED)
    return {number: list(each[::step]) or list(each[:1]) for number, each in records.items()}


def _with_decoder(
    topic: str, name: str, decoder: Mapping[str, Any], records: Mapping[int, Sequence[ConsumedRecord]]
) -> Forms:
    declaration = StreamDeclaration.model_validate({"name": name, "topic": topic, "decoder": dict(decoder)})
    decoders: Decoders = decoders_of(Contracts([declaration]))
    forms = Forms()
    for partition, each in records.items():
        forms_of(topic, partition, list(map(raw_record, each)), decoders, forms)
    return forms


def _without_schemas(topic: str, name: str, schemas: Sequence[int]) -> Proposal:
    """Avro needs to know where its schemas are; without that nothing can be read."""
    named = ", ".join(map(str, schemas[:5])) + (" and more" if len(schemas) > 5 else "")
    problem = (
        f"the messages are Avro in Confluent's wire format (schemas {named}); say where the schemas are, with "
        "ASTROCYTE_AVRO_REGISTRY=http://HOST:8081 or ASTROCYTE_AVRO_SCHEMAS=FOLDER, and inspect again"
    )
    return Proposal({"name": name, "topic": topic, "decoder": {"name": "avro"}}, problem=problem)


def _for_reading(proposal: Proposal, sample: Sample) -> dict[str, Any]:
    """A proposed declaration that can be read with: Avro without schemas cannot."""
    declaration = dict(proposal.declaration)
    if proposal.problem is not None and declaration.get("decoder") == {"name": "avro"} and not sample.is_file:
        del declaration["decoder"]
    return declaration
