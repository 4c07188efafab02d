"""The report as one screen of plain text."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from astrocyte.agents.rules.steps import format_duration
from astrocyte.pipeline.analysis.inspect.columns import FieldStats, KeyStats
from astrocyte.pipeline.analysis.inspect.report import REASONS, SHARES, Fit, Inspection, StreamReport
from astrocyte.pipeline.analysis.inspect.spans import span_text
from astrocyte.pipeline.console import short
from astrocyte.schemas.times import iso_from_us

__all__ = ["render", "render_fit"]

_LABEL: Final = 12
_LINE: Final = 1000
"""Most characters of one statement: what names and values make longer says nothing more."""
_FIELDS: Final = 40
"""Most fields that are shown."""
_REASON: Final = 800
"""Longest reason of a refusal: the key of a wrong clock is at its end."""
_PARTITIONS: Final = 8
"""Most partitions that are shown one by one."""
_FORMS: Final = {
    "json": "JSON",
    "mono": "JSON (mono events)",
    "cloudevents": "CloudEvents",
    "debezium": "Debezium",
    "dna": "dna envelope",
    "arrow": "Arrow frames",
    "csv": "CSV",
    "avro": "Avro",
    "tombstone": "tombstones",
    "unreadable": "unreadable",
}
_FILES: Final = {"log": "recorded log", "json": "JSON lines", "csv": "CSV file", "parquet": "Parquet file"}


def render(found: Inspection, *, width: int | None = None) -> str:
    """The reports as text, at most ``width`` columns wide (default: the terminal, between 60 and 120)."""
    width = _width(width)
    parts = ["\n".join(_lines(found, report, width)) for report in found.reports]
    parts += [f"topic {short(topic, 249)}: no messages" for topic in found.empty]
    return "\n\n".join(parts) + "\n"


def render_fit(found: Fit, name: str, *, width: int | None = None) -> str:
    """How rules fit, as text."""
    width = _width(width)
    count = f"{len(found.rules)} {'rule' if len(found.rules) == 1 else 'rules'}"
    what = (
        "fit"
        if not found.problems
        else f"{len(found.problems)} {'problem' if len(found.problems) == 1 else 'problems'}"
    )
    lines = list(_wrapped(f"rules {name}: {count}, {what}", width, "  "))
    for each in found.rules:
        text = f"{short(each.name)}: {each.matches:,} {'match' if each.matches == 1 else 'matches'} on the sample"
        text += f" ({each.keys:,} keys)" if each.keys > 1 else ""
        text += f', such as "{short(each.example, 80)}"' if each.example else ""
        if each.open_events is not None:
            text += f"; keeps about {each.open_events:,.0f} events of its time limit"
        lines += _labelled("", [text], width)
    lines += _labelled("problems", found.problems, width)
    lines += _labelled("notes", found.notes, width)
    return "\n".join(lines) + "\n"


def _width(width: int | None) -> int:
    return max(60, min(shutil.get_terminal_size((100, 24)).columns if width is None else width, 120))


def _lines(found: Inspection, report: StreamReport, width: int) -> Iterator[str]:
    yield from _head(found, report, width)
    yield from _labelled("form", _form(report), width)
    yield from _labelled("time", _time(report), width)
    if report.reading.events:
        yield from _labelled("lateness", _lateness(report), width)
        yield from _labelled("key", _key(report), width)
        yield from _labelled("rate", [_rate(report)], width)
    yield from _labelled("duplicates", [_duplicates(report)], width)
    yield from _labelled("refused", list(_refused(report)), width)
    yield from _labelled("problems", report.problems, width)
    if report.reading.events:
        if len(report.types) > 1:
            yield from _labelled("types", [_counted(report.types)], width)
        yield from _fields(report, width)
    if report.proposal is not None:
        yield from _labelled("declare", [*report.proposal.needs], width)
    yield from _labelled("notes", report.notes, width)


def _head(found: Inspection, report: StreamReport, width: int) -> Iterator[str]:
    kind = "topic" if report.form == "topic" else _FILES[report.form]
    name = report.topic if report.form == "topic" else found.name
    subject = f"{kind} {name}"
    if report.form != "topic":
        subject += f", topic {report.topic}" if report.form == "log" else f", stream {report.contract.stream}"
    what = "messages" if report.form in ("topic", "log") else "rows"
    which = "part of the newest," if found.cut else "the newest" if report.form == "topic" else "the first"
    if report.held is not None and report.held > report.messages:
        share = f"{which} {report.messages:,} of {report.held:,} {what}"
    elif not found.complete and report.form != "topic":
        share = f"{which} {report.messages:,} {what}; there are more"
    else:
        share = f"all {report.messages:,} {what}"
    events = "" if report.reading.events == report.messages else f", {report.reading.events:,} events"
    yield from _wrapped(f"{subject}: {share}{events}", width, "  ")


def _form(report: StreamReport) -> list[str]:
    if report.form == "csv":
        declaration = report.contract.declaration
        options = {} if declaration is None or declaration.decoder is None else declaration.decoder.options
        delimiter = options.get("delimiter", ",")
        return [f"CSV with a header line, delimiter {delimiter!r}"]
    total = sum(report.counts.values())
    names = [
        _FORMS.get(name, name) + ("" if count == total else f" {count / total:.1%}")
        for name, count in report.counts.items()
    ]
    line = ", ".join(names)
    decoder = report.contract.decoder
    if decoder is not None and not report.is_proposed:
        line += f", declared: decoder {decoder}"
    if report.form in ("topic", "log"):
        line += f"; {_partitions(report)}"
    return [line]


def _partitions(report: StreamReport) -> str:
    count = report.partition_count
    if count == 1:
        return "1 partition"
    counts = [f"{number}: {messages:,}" for number, messages in report.partitions.items()]
    if len(counts) > _PARTITIONS:
        values = sorted(report.partitions.values())
        return f"{count} partitions with {values[0]:,} to {values[-1]:,} messages"
    empty = [str(number) for number in range(count) if not report.partitions.get(number)]
    more = f"; none in {', '.join(empty[:_PARTITIONS])}" if empty else ""
    filled = [text for text, messages in zip(counts, report.partitions.values(), strict=True) if messages]
    return f"{count} partitions ({', '.join(filled)}{more})"


def _time(report: StreamReport) -> list[str]:
    lines = []
    if report.proposal is not None and report.proposal.time:
        lines.append(report.proposal.time)
    elif report.contract.declaration is not None and report.contract.declaration.time is not None:
        declared = report.contract.declaration.time
        lines.append(f"{short(declared.field)}{f', {declared.unit}' if declared.unit else ''}, declared")
    times = report.reading.times_us()
    if len(times):
        first, last = int(times.min()), int(times.max())
        lines.append(f"{iso_from_us(first)} to {iso_from_us(last)} ({span_text(last - first)})")
    if report.proposal is not None and report.proposal.problem is not None:
        lines.append(report.proposal.problem)
    return lines or ["no event has a time that can be read"]


def _lateness(report: StreamReport) -> list[str]:
    lags, wrong = report.usual_lags_us, report.reading.clocks.leave_out
    late = int((lags > 0).sum())
    recommended = format_duration(report.recommended_us)
    aside = ["the events of a wrong clock, which are named under problems, are left out"] if wrong else []
    if not late:
        in_order = f"every partition is in order; --lateness {recommended} (ASTROCYTE_LATENESS={recommended}) is enough"
        return [in_order, *aside]
    by_name = report.lateness
    names = [name for name in by_name if name != "all"]
    most = span_text(by_name["all"][0.0])
    share, be = late / len(lags), "is" if late == 1 else "are"
    lines = [f"{late:,} of {len(lags):,} events ({share:.1%}) {be} out of order, by {most} at most"]
    rows = [["lateness needed for", *(f"{share:.1%} late".replace(".0%", "%") for share in SHARES)]]
    if 1 < len(names) <= _PARTITIONS:
        rows += [[f"  partition {name}", *map(span_text, by_name[name].values())] for name in names]
    rows.append(["  all" if len(rows) > 1 else "", *map(span_text, by_name["all"].values())])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines += ["  ".join(text.ljust(size) for text, size in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(f"recommended: --lateness {recommended}, ASTROCYTE_LATENESS={recommended} for a worker")
    lines += aside
    rare = by_name["all"][SHARES[1]]
    if by_name["all"][0.0] > 10 * max(rare, 1_000_000):
        lines.append(
            f"a few events are very late: with {span_text(rare)} at most {SHARES[1]:.1%} are late, and results come "
            "sooner"
        )
    return lines


def _key(report: StreamReport) -> list[str]:
    keys = report.keys
    name = report.key_field
    declaration = report.contract.declaration
    path = declaration.key.path if declaration is not None else None
    own = report.contract.key_field
    subject = short(name) if path is None else f"{short(path)} as {short(name)}"
    subject = subject if path is not None or name == own else f"{subject} (the {short(own)})"
    if not keys.counts:
        return [f"{subject}: no event has a key; rules need by: null or another field"]
    lines = [f"{subject}: {len(keys.counts):,} {'key' if len(keys.counts) == 1 else 'different keys'}{_skew(keys)}"]
    if report.without_key is not None:
        lines.append(report.without_key)
    if keys.spread:
        what = "1 key has" if keys.spread == 1 else f"{keys.spread:,} keys have"
        what += " events in several partitions"
        if report.keys_never_meet:
            what += f", which never meet: the topic is partitioned by something else than {short(name)} (declare "
            lines.append(what + f"'key: {{field: {short(name)}, partitioned: false}}')")
        else:
            lines.append(what + f": rules by {short(name)} read the stream repartitioned")
    return lines


def _skew(keys: KeyStats) -> str:
    heaviest = keys.heaviest
    if heaviest is None or len(keys.counts) == 1:
        return ""
    name, share = heaviest
    text = f"; the heaviest, {short(name)}, has {_percent(share)} of the events"
    return text + (f", the heaviest 10 {_percent(keys.share_of(10))}" if len(keys.counts) > 20 else "")


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def _rate(report: StreamReport) -> str:
    parts = []
    if report.rate is not None:
        parts.append(f"{_figure(report.rate)} events/s of event time")
        if report.peak is not None and report.peak > report.rate:
            parts.append(f"at most {report.peak:,} in one second")
    else:
        parts.append("all events have the same time")
    if report.kafka_rate is not None and report.form in ("topic", "log"):
        parts.append(f"{_figure(report.kafka_rate)} messages/s of Kafka's time")
    return ", ".join(parts)


def _duplicates(report: StreamReport) -> str:
    parts = []
    if report.duplicates:
        parts.append(f"{report.duplicates:,} events have the id of an earlier one")
    if report.equal:
        parts.append(f"{report.equal:,} messages are equal to an earlier one")
    return ", ".join(parts) or "none"


def _refused(report: StreamReport) -> Iterator[str]:
    total = sum(each.count for each in report.refused)
    skipped = report.reading.skipped
    if skipped:
        yield f"{skipped:,} tombstones are skipped"
    elif not total:
        yield "none"
    for each in report.refused[:REASONS]:
        yield f"{each.count:,} ({each.stage}), such as {short(' '.join(each.example.split()), _REASON)}"
    if len(report.refused) > REASONS:
        yield f"{total - sum(each.count for each in report.refused[:REASONS]):,} for other reasons"


def _fields(report: StreamReport, width: int) -> Iterator[str]:
    shown = report.fields[:_FIELDS]
    if not shown:
        yield from _labelled("fields", ["none"], width)
        return
    rows = [[each.name, _type(each), f"{each.nulls:,}" if each.nulls else "-", _values(each)] for each in shown]
    rows.insert(0, ["name", "type", "nulls", "values"])
    most = min(28, (width - _LABEL) // 3)
    sizes = [min(most, max(len(row[column]) for row in rows)) for column in range(3)]
    left = width - _LABEL - sum(sizes) - 6
    lines = [
        "  ".join(short(text, size).ljust(size) for text, size in zip(row[:3], sizes, strict=True))
        + "  "
        + short(row[3], left)
        for row in rows
    ]
    if len(report.fields) > _FIELDS:
        lines.append(f"and {len(report.fields) - _FIELDS} more fields")
    for number, line in enumerate(lines):
        yield ("fields" if number == 0 else "").ljust(_LABEL) + line.rstrip()


def _type(each: FieldStats) -> str:
    if each.is_mixed:
        return "mixed"
    return each.type or "/".join(each.kinds) or "null"


def _values(each: FieldStats) -> str:
    if not each.count:
        return "always null"
    parts = []
    if each.is_mixed:
        parts.append(_counted(each.kinds))
    elif each.numerals and each.numerals == each.kinds["text"]:
        parts.append("numbers written as text")
    has_range = each.least is not None and each.most is not None and each.least != each.most
    # Of a mixed field the range stands for the numbers: its examples are those of the other kinds.
    examples = [value for value in each.examples() if not (has_range and _is_number(value))]
    if examples and (each.is_mixed or not has_range):
        parts.append(", ".join(_shown(value) for value in examples))
    if each.least is not None and each.most is not None and has_range:
        parts.append(f"{_figure(each.least)} to {_figure(each.most)}")
    if not each.overflown and len(each.values) > 3:
        parts.append(f"{len(each.values):,} different")
    return "; ".join(parts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return (
        f'"{short(value, 40)}"'
        if isinstance(value, str)
        else str(value).lower()
        if value in (True, False)
        else str(value)
    )


def _counted(counts: Mapping[str, int]) -> str:
    items = [f"{short(name, 40)} {count:,}" for name, count in counts.items()]
    return ", ".join(items[:8]) + (f" and {len(items) - 8} more" if len(items) > 8 else "")


def _figure(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def _labelled(label: str, lines: Sequence[str], width: int) -> Iterator[str]:
    """Lines beside their label; long ones are wrapped. None without lines."""
    for number, line in enumerate(short(line, _LINE) for line in lines):
        start = (label if number == 0 else "").ljust(_LABEL)
        if len(line) + _LABEL <= width:
            yield (start + line).rstrip()
        else:
            yield from _wrapped(start + line, width, " " * (_LABEL + 2))


def _wrapped(line: str, width: int, indent: str) -> Iterable[str]:
    return textwrap.wrap(
        short(line, _LINE),
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
