"""Whether rules fit what was found: streams, fields, kinds of values, keys, lateness, memory, and what they match."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Final

from astrocyte.agents.expressions.nodes import Compare, Constant, Field, Member, Node, Text, walk
from astrocyte.agents.ingest.unused.counts import line_of
from astrocyte.agents.rules.insight import StatisticSpec
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.rules.steps import format_duration
from astrocyte.agents.rules.windows import Window
from astrocyte.pipeline.analysis.inspect.columns import FieldStats
from astrocyte.pipeline.analysis.inspect.report import REASONS, Fit, Inspection, RuleResult, StreamReport
from astrocyte.pipeline.analysis.inspect.sample import Sample
from astrocyte.pipeline.analysis.inspect.spans import span_text
from astrocyte.pipeline.analysis.inspect.starting.trial import Trial, try_rules
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.registry import did_you_mean
from astrocyte.schemas.times import unit_of

__all__ = ["fit"]

_SKEW: Final = 0.3
"""Share of the events from which on one key is worth a line: one partition, and so one process, has them all."""


def fit(ruleset: RuleSet, sample: Sample, found: Inspection, settings: Settings) -> Fit:
    """Run the rules over the sample and compare what they name with what it holds."""
    trial = try_rules(
        ruleset,
        sample,
        lateness_us=settings.lateness,
        clock_tolerance_us=settings.clock_tolerance,
    )
    by_stream = {report.contract.stream: report for report in found.reports}
    result = Fit(late=trial.run.counters.late, lateness_us=settings.lateness)
    result.problems += _topics(trial, sample)
    result.problems += _refused(found.reports, set(trial.run.inputs.values()))
    # Said with more above (by reason) and below (the unit that fits, the lateness that they need). The table of fields
    # shows mixed kinds, and a note says which comparisons they leave out.
    said = ("late", "dead", "unit", "kind")
    compared = set(_compared_fields(ruleset))
    result.problems += [
        line_of(cause, subject, detail, count)
        for cause, subject, detail, count in trial.run.unused
        if cause not in said and (cause, subject, detail) not in compared
    ]
    result.problems += trial.run.fields.absent(trial.run.made)
    never, partly = _comparisons(ruleset, by_stream)
    result.problems += never
    result.notes += partly
    result.problems += _units(found.reports)
    result.problems += _keys(ruleset, by_stream)
    result.problems += _spread(trial, found.reports)
    if found.recommended_us > settings.lateness and result.late:
        strays = any(report.strays for report in found.reports)
        wrong = any(report.reading.clocks.leave_out for report in found.reports)
        wanted, one = format_duration(found.recommended_us), result.late == 1
        aside = ", apart from events far from the others and those after them" if strays else ""
        aside += ", apart from events of wrong clocks" if wrong else ""
        events = "1 event is" if one else f"{result.late:,} events are"
        result.problems.append(
            f"{events} late with the lateness of {span_text(settings.lateness)}; {'none is' if one else 'none are'} "
            f"with {wanted} (ASTROCYTE_LATENESS={wanted}){aside}"
        )
    for report in found.reports:
        if report.contract.declaration is None and report.proposal is not None:
            result.notes += [f"declare {need}" for need in report.proposal.needs]
    for rule in ruleset.rules:
        result.rules.append(
            RuleResult(
                rule.name,
                trial.matches[rule.name],
                len(trial.keys.get(rule.name, ())),
                trial.example.get(rule.name),
                _open_events(rule, by_stream),
            )
        )
    result.notes += _spans(ruleset, by_stream, complete=found.complete)
    return result


def _topics(trial: Trial, sample: Sample) -> Iterator[str]:
    """Topics that the rules read and that are not there."""
    inputs = trial.run.inputs
    for topic in sorted(inputs):
        reader = trial.run.readers_of(inputs[topic])
        if topic in trial.run.found.topics:
            continue
        own = topic if topic in sample.known else inputs[topic]  # a topic may have the stream's own name
        if own in sample.known and own not in sample.topics and sample.form == "topic":
            yield f"topic {own}, which {reader} reads as well, is not part of this sample"
            continue
        if topic in sample.known:
            yield f"topic {topic}, which {reader} reads, holds no messages"
            continue
        where = "on the broker" if sample.form == "topic" else "in the file"
        yield f"topic {topic}, which {reader} reads, is not {where}{did_you_mean(topic, sample.known)}"


def _refused(reports: Sequence[StreamReport], read: Container[str]) -> Iterator[str]:
    """Messages that become dead letters, by reason."""
    for report in reports:
        if report.contract.stream not in read or not report.refused:
            continue
        if report.declares_wrongly:
            as_what = "" if report.readable_as is None else f"; they can be read {report.readable_as}"
            yield f"nearly all messages of {report.topic} are refused as the rules declare the stream{as_what}"
        elif not report.reading.events:
            yield f"no message of {report.topic} can be read"
        for each in report.refused[:REASONS]:
            what = "1 event is" if each.count == 1 else f"{each.count:,} events are"
            yield f"{what} refused ({each.stage}), such as {each.example}"
        if rest := sum(each.count for each in report.refused[REASONS:]):
            yield f"{rest:,} are refused for other reasons"


def _conditions(ruleset: RuleSet) -> Iterator[tuple[str, Node, Mapping[str | None, Sequence[str]]]]:
    """Conditions, with the streams of their fields by step; None is the event itself."""
    for rule in ruleset.rules:
        streams: dict[str | None, Sequence[str]] = {str(step.name): step.stream for step in rule.steps}
        for step in rule.steps:
            condition = rule.condition(step)
            if condition is not None:
                yield f"rule {rule.name!r}", condition, {**streams, None: step.stream}
    for window in ruleset.windows:
        if window.where_node is not None:
            yield f"window {window.name!r}", window.where_node, {None: (window.source,)}


def _comparisons(ruleset: RuleSet, reports: Mapping[str, StreamReport]) -> tuple[list[str], list[str]]:
    """Comparisons of a field with a constant of a kind that none, and that not all, of its values have."""
    never: dict[str, None] = {}
    partly: dict[str, None] = {}
    for reader, condition, streams in _conditions(ruleset):
        for node in walk(condition):
            for name, value in _compared(node):
                for stream in streams.get(name.step, ()):
                    line, some = _mismatch(reader, name, value, reports.get(stream))
                    if line is not None:
                        (partly if some else never)[line] = None
    return list(never), list(partly)


def _compared_fields(ruleset: RuleSet) -> Iterator[tuple[str, str, str]]:
    """The fields that `_comparisons` looks at, as the counts of values that are no numbers name them."""
    for _, condition, streams in _conditions(ruleset):
        for node in walk(condition):
            for name, _ in _compared(node):
                yield from (("no_number", stream, name.name) for stream in streams.get(name.step, ()))


def _compared(node: Node) -> Iterator[tuple[Field, Any]]:
    match node:
        case Compare(_, Field() as name, Constant(value)) | Compare(_, Constant(value), Field() as name):
            if value is not None:
                yield name, value
        case Member(Field() as name, values):
            yield from ((name, value) for value in values[:1])
        case Text(_, Field() as name, part):
            yield name, part


def _mismatch(reader: str, name: Field, value: Any, report: StreamReport | None) -> tuple[str | None, bool]:
    """A sentence if the values of a field are not of the constant's kind, and whether some of them are."""
    stats = None if report is None else next((each for each in report.fields if each.name == name.name), None)
    if report is None or stats is None or not stats.count:
        return None, False
    wanted = _kind(value)
    same = _of_kind(stats, wanted)
    if same == stats.count:
        return None, True
    others = [each for each in stats.examples() if _kind(each) != wanted]
    example = f", such as {others[0]!r}" if others else ""
    what = f"{reader} compares {name.name!r} of {report.contract.stream} with the {wanted} {value!r}"
    if same:
        rest = f"{stats.count - same:,} of {stats.count:,} values are no {wanted}{example}, and never compare"
        return f"{what}; {rest}", True
    article = "" if wanted == "text" else "a "
    return f"{what}, but none of its {stats.count:,} values is {article}{wanted}{example}; this is never true", False


def _of_kind(stats: FieldStats, kind: str) -> int:
    return stats.kinds["integer"] + stats.kinds["number"] if kind == "number" else stats.kinds[kind]


def _kind(value: Any) -> str:
    return "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _units(reports: Sequence[StreamReport]) -> Iterator[str]:
    """Declared units that the magnitude of the numbers contradicts."""
    for report in reports:
        time = None if report.contract.declaration is None else report.contract.declaration.time
        if time is None or time.unit is None or not report.studied_times:
            continue
        units = {unit_of(number) for number in report.studied_times}
        if len(units) == 1 and (unit := units.pop()) is not None and unit != time.unit:
            yield (
                f"the time {time.field!r} of {report.contract.stream} is declared in {time.unit}, but numbers such as "
                f"{report.studied_times[0]} look like {unit}"
            )


def _keys(ruleset: RuleSet, reports: Mapping[str, StreamReport]) -> Iterator[str]:
    """Keys of which one has a large part of the events."""
    named: set[tuple[str, str]] = set()
    readers: list[tuple[str | None, Sequence[str]]] = [(rule.by, rule.streams) for rule in ruleset.rules]
    readers += [(window.by, (window.source,)) for window in ruleset.windows]
    for by, streams in readers:
        for stream in streams:
            report = reports.get(stream)
            if by is None or report is None or (stream, by) in named:
                continue
            named.add((stream, by))
            keys = report.keys_by(by)
            heaviest = keys.heaviest
            if heaviest is not None and len(keys.counts) > 2 and heaviest[1] > _SKEW:
                yield (
                    f"{heaviest[1]:.0%} of the events of {stream} have the {by} {heaviest[0]!r}; those of one {by} are "
                    "handled by a single process, so more partitions or processes do not share this load"
                )


def _spread(trial: Trial, reports: Sequence[StreamReport]) -> Iterator[str]:
    """Topics that rules read as they are although their producer does not partition them by the key."""
    said = {subject for cause, subject, _, _ in trial.run.unused if cause == "unkeyed"}
    for report in reports:
        by = trial.run.placed_by.get(report.topic)
        if by is not None and report.topic not in said and (spread := report.keys_by(by).spread):
            keys = "1 key has" if spread == 1 else f"{spread:,} keys have"
            yield (
                f"{keys} events in several partitions of {report.topic}, which never meet: its producer partitions it "
                f"by something else than {by}; declare 'key: {{field: {by}, partitioned: false}}'"
            )


def _rate(streams: Sequence[str], reports: Mapping[str, StreamReport]) -> float | None:
    rates = [rate for stream in streams if stream in reports and (rate := reports[stream].rate) is not None]
    return sum(rates) if rates else None


def _limit_us(entry: Rule | Window | StatisticSpec) -> int | None:
    if isinstance(entry, Window):
        return entry.size_us
    if isinstance(entry, StatisticSpec):
        return entry.size
    return None if entry.within is None else entry.within.time


def _open_events(rule: Rule, reports: Mapping[str, StreamReport]) -> float | None:
    rate, limit_us = _rate(rule.streams, reports), _limit_us(rule)
    return None if rate is None or limit_us is None else rate * limit_us / 1e6


def _spans(ruleset: RuleSet, reports: Mapping[str, StreamReport], *, complete: bool) -> Iterator[str]:
    """Time limits that are longer than the sample."""
    entries: list[Rule | Window | StatisticSpec] = [*ruleset.rules, *ruleset.windows, *ruleset.insight]
    for entry in entries:
        limit_us = _limit_us(entry)
        streams = (entry.source,) if isinstance(entry, Window) else entry.streams
        spans = [each.usual_span_us for each in map(reports.get, streams) if each is not None and each.reading.events]
        if limit_us is not None and spans and max(spans) < limit_us:
            kind = {Rule: "rule", Window: "window"}.get(type(entry), "statistic")
            more = "" if complete else ": read more with --limit"
            limit, covered = format_duration(limit_us), span_text(max(spans))
            yield f"{kind} {entry.name!r} looks at {limit}, and the sample covers {covered} only{more}"
