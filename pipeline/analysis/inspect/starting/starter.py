"""A rule file to begin with: the declarations that were proposed, and rules that match on the sample."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.steps import format_duration
from astrocyte.pipeline.analysis.inspect.columns import FieldStats, unnamed_notes
from astrocyte.pipeline.analysis.inspect.numerals import number_spec
from astrocyte.pipeline.analysis.inspect.report import Inspection, NothingFound, StreamReport
from astrocyte.pipeline.analysis.inspect.run import Request, read_again
from astrocyte.pipeline.analysis.inspect.sample import Sample, stream_name
from astrocyte.pipeline.analysis.inspect.starting.suggest import Suggestion, every_event, set_apart, suggest
from astrocyte.pipeline.analysis.inspect.starting.trial import Trial, try_rules
from astrocyte.pipeline.console import printable, short
from astrocyte.pipeline.topology.plan import contracts_of
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from astrocyte.schemas.topics import TRUTH, mono_topic

__all__ = ["Starter", "make_starter", "refuse_to_replace", "write_starter"]

_STREAMS: Final = 3
"""Most streams for which there are rules; all are declared."""
_WIDTH: Final = 100
_LONGEST_KEY: Final = 1000
"""Length of a key in YAML, which must be less than 1024 characters where its value stands in the same line."""
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*|[1-9][0-9]*(us|ms|s|m|h|d)")
_YAML_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "none", "nan", "inf"})
_FIELD: Final = re.compile(r"field (['\"])(.+?)\1 is ")


@dataclass(slots=True)
class Starter:
    """A rule file and what it gives on the sample."""

    text: str
    ruleset: RuleSet
    matches: dict[str, int]
    """By rule."""
    commands: list[str] = field(default_factory=list)
    """What to run next."""


def make_starter(request: Request, sample: Sample, found: Inspection, *, path: str) -> Starter:
    """The starter for what was inspected; every event of the sample that could be read is read by it.

    Raises NothingFound if nothing can be read.
    """
    reports = [report for report in found.reports if report.reading.events]
    problem = next(
        (report.proposal.problem for report in found.reports if report.proposal and report.proposal.problem), None
    )
    if not reports:
        raise NothingFound(f"no rule file can be written: {problem or 'no message holds an event that can be read'}")
    largest = sorted(
        (report for report in reports if report.contract.stream != TRUTH), key=lambda report: -report.reading.events
    )
    largest = largest[:_STREAMS] or reports[:1]
    suggestions = {
        report.topic: suggest(report, prefix="" if len(largest) == 1 else f"{stream_name(report.contract.stream)}_")
        for report in largest
    }
    streams = {report.contract.stream for report in found.reports}
    set_apart((each for made in suggestions.values() for each in made), streams)
    untyped: dict[str, set[str]] = {}
    refused = sum(each.count for report in reports for each in report.refused)
    while True:
        text = _body(reports, suggestions, untyped)
        trial = _tried(request, sample, text, found.recommended_us)
        strict = {name for reason in trial.refusals for name in _fields_in(reason)}
        new = {
            report.topic: strict & {each.name for each in report.fields} - untyped.get(report.topic, set())
            for report in reports
        }
        if len(trial.refusals) <= refused:
            break
        # A value is not of the type that it seemed to have (a list looks like text): no type is declared.
        every = {report.topic: {each.name for each in report.fields} for report in reports}
        if untyped == every:
            raise AstrocyteError(f"the declaration refuses events that can be read without it: {trial.refusals[0]}")
        untyped = {topic: untyped.get(topic, set()) | new[topic] for topic in every} if any(new.values()) else every
    kept = {topic: [each for each in made if trial.matches[each.rule["name"]]] for topic, made in suggestions.items()}
    if not any(kept.values()):
        report = largest[0]
        kept[report.topic] = [every_event(report, None)]
        set_apart(kept[report.topic], streams)
        trial = _tried(request, sample, _body(reports, kept, untyped), found.recommended_us)
    body = _body(reports, kept, untyped, results=trial)
    commands = _commands(request, found, reports, path, sample.domains)
    return Starter(_header(request, found, commands) + body, load_rules(body), dict(trial.matches), commands)


def _fields_in(reason: str) -> set[str]:
    """The field whose value was refused, also as rules write one with a reserved name."""
    match = _FIELD.search(reason)
    return set() if match is None else {match[2], f"{match[2]}_"}


def _tried(request: Request, sample: Sample, text: str, lateness_us: int) -> Trial:
    ruleset = load_rules(text)
    return try_rules(
        ruleset,
        read_again(request, sample, contracts_of(ruleset)),
        lateness_us=lateness_us,
        clock_tolerance_us=request.settings.clock_tolerance,
    )


def refuse_to_replace(path: str, *, overwrite: bool) -> None:
    """Raises InvalidSettings if there is a file of that name and it is not to be replaced, or the name does not fit."""
    if not path.endswith((".yaml", ".yml")):
        raise InvalidSettings(f"--write {path}: a rule file ends in .yaml or .yml")
    if Path(path).exists() and not overwrite:
        raise InvalidSettings(f"--write {path}: the file exists; --force replaces it")


def write_starter(starter: Starter, path: str, *, overwrite: bool) -> None:
    """Write the file. Raises InvalidSettings if there is one and it is not to be replaced."""
    refuse_to_replace(path, overwrite=overwrite)
    target = Path(path)
    part = target.with_name(target.name + ".partial")
    try:
        part.write_text(starter.text, encoding="utf-8")
        load_rules(starter.text)
        part.replace(target)
    except OSError as error:
        raise AstrocyteError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


# -- text ------------------------------------------------------------------------------------------------------------


def _commands(
    request: Request, found: Inspection, reports: Sequence[StreamReport], path: str, domains: int | None
) -> list[str]:
    lateness = format_duration(found.recommended_us)
    option = "" if found.recommended_us <= request.settings.lateness else f" --lateness {lateness}"
    broker = "" if request.broker is None else f" -b {request.broker}"
    commands = []
    if found.form == "topic":
        log = f"{Path(path).stem}.jsonl.zst"
        topics = " ".join(shlex.quote(report.topic) for report in reports)
        log, path = shlex.quote(log), shlex.quote(path)
        commands += [f"astrocyte record {topics}{broker} -o {log}", f"astrocyte match {path} {log}{option}"]
        count = domains or max(report.partition_count for report in reports)
        settings = f"ASTROCYTE_PARTITIONS={count} " + (f"ASTROCYTE_LATENESS={lateness} " if option else "")
        where = "" if request.broker is None else f" --broker {request.broker}"
        commands.append(f"{settings}astrocyte worker --rules {path} --role correlate{where}")
    else:
        commands.append(f"astrocyte match {shlex.quote(path)} {shlex.quote(found.name)}{option}")
    return commands


def _header(request: Request, found: Inspection, commands: Sequence[str]) -> str:
    events = sum(report.reading.events for report in found.reports)
    lines = [
        f"# Written by `astrocyte inspect {short(request.target, 200)}` from {events:,} events. It runs as it is:",
        *(f"#   {printable(command)}" for command in commands),
        "# Change it as you like: docs/events.md explains declarations, docs/rules.md rules.",
    ]
    return "\n".join(lines) + "\n\n"


def _body(
    reports: Sequence[StreamReport],
    suggestions: Mapping[str, Sequence[Suggestion]],
    untyped: Mapping[str, set[str]],
    results: Trial | None = None,
) -> str:
    declared = [text for report in reports for text in [_declaration(report, untyped.get(report.topic, set()))] if text]
    parts = []
    if declared:
        parts.append("streams:\n" + "\n".join(declared))
    chosen = [each for made in suggestions.values() for each in made]
    windows = [each for each in chosen if each.window is not None]
    if windows:
        parts.append(
            "windows:\n" + "\n".join(_comment(each.window_comment) + _item(each.window or {}) for each in windows)
        )
    rules = []
    explained: set[str] = set()
    for each in chosen:
        comment = "" if each.comment in explained else f"{each.comment} "
        explained.add(each.comment)
        if results is not None:
            count = results.matches[each.rule["name"]]
            example = results.example.get(each.rule["name"])
            comment += f"On the sample: {count:,} {'match' if count == 1 else 'matches'}"
            comment += f", such as {_quoted(short(example, 200))}." if example else "."
        rules.append(_comment(comment) + _item(each.rule))
    parts.append("rules:\n" + "\n".join(rules))
    return "\n".join(parts)


def _comment(text: str) -> str:
    return "".join(f"  # {line}\n" for line in textwrap.wrap(printable(text), _WIDTH, break_long_words=False))


def _item(entry: Mapping[str, Any]) -> str:
    """An entry of a list: members on lines of their own, their values in one line."""
    lines = []
    for number, (name, value) in enumerate(entry.items()):
        start = "  - " if number == 0 else "    "
        if name == "seq":
            lines.append(f"{start}seq:")
            lines += [f"      - {_flow(step)}" for step in value]
        else:
            lines.append(f"{start}{name}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(name)}: {_flow(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not (_PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS):
        return _quoted(value)
    return str(value)


def _quoted(text: str) -> str:
    """A string as YAML and JSON write it, with what YAML has no place for, or takes for a line end, as escapes."""
    plain = json.dumps(text, ensure_ascii=False)
    if plain.isprintable():
        return plain
    return "".join(
        char if char.isprintable() else f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
        for char in plain
    )


def _member(name: str, value: str) -> str:
    """A member of ``fields``; a name that is longer than YAML allows in one line with its value stands on its own."""
    key = _flow(name)
    return f"{key}: {value}" if len(key) < _LONGEST_KEY else f"? {key}\n      : {value}"


def _declaration(report: StreamReport, untyped: set[str]) -> str:
    """The declaration of a stream, with a comment for what was found."""
    proposal = report.proposal
    if proposal is None or report.contract.event_type is not None:
        return ""
    given = dict(proposal.declaration)
    lines = [f"  - name: {_flow(given['name'])}"]
    if "topic" in given:
        lines.append(f"    topic: {_flow(given['topic'])}")
    elif report.form not in ("topic", "log"):
        name = given["name"]
        lines.append(f"    # topic: {name}   # the Kafka topic of these events, if it is not {mono_topic(name)}")
    for name in ("decoder", "time", "key", "id"):
        if name in given:
            value = given[name]
            plain = value["field"] if isinstance(value, Mapping) and value.keys() == {"field"} else value
            guess = "   # guessed by its values: make sure of it" if name == "time" and proposal.is_guessed else ""
            lines.append(f"    {name}: {_flow(plain)}{guess}")
        if name == "key":
            lines += [f"    # {printable(note)}" for note in filter(None, (report.without_key, *report.hints))]
    lines += [f"    # {note}" for note in unnamed_notes(report.fields)]
    entries = list(_field_lines(report, given.get("fields", {}), untyped))
    if entries:
        size = min(40, max(len(entry) for entry, _ in entries))
        lines.append("    fields:   # each with its type; {} keeps the type of each value")
        lines += [f"      {entry.ljust(size)}   # {note}" for entry, note in entries]
        if any(each.is_mixed for each in report.fields):
            lines.append(
                '    # on_type_error: "null"   # a value that is not of the declared type; default: dead_letter'
            )
    return "\n".join(lines) + "\n"


def _field_lines(report: StreamReport, paths: Mapping[str, Any], untyped: set[str]) -> Sequence[tuple[str, str]]:
    parents = {spec["path"].partition(".")[0] for spec in paths.values()}
    lines = []
    for each in report.fields:
        if not each.name.strip():
            continue  # no declaration has such a name
        if each.name in parents and each.name not in paths and all(str(value)[:1] == "{" for value in each.values):
            continue  # an object whose members are fields of their own
        spec: dict[str, Any] = dict(paths.get(each.name, {}))
        if each.type is not None and each.name not in untyped:
            spec["type"] = each.type
        text = spec["type"] if spec.keys() == {"type"} else _flow(spec)
        note = _note_on(each)
        if (reading := number_spec(each, report.identifiers)) is not None:
            note += f"; numbers written as text: {reading} reads them"
        lines.append((_member(each.name, text), note))
    return lines


def _note_on(each: FieldStats) -> str:
    if not each.count:
        return "always null"
    if each.is_mixed:
        counts = ", ".join(f"{kind} {count:,}" for kind, count in each.kinds.items())
        return f"mixed: {counts}, such as {_examples(each)}"
    if each.least is not None and each.most is not None:
        least, most = _short_number(each.least), _short_number(each.most)
        note = f"{least} to {most}" if least != most else f"always {least}"
    else:
        note = _examples(each)
    return note + (f"; {each.nulls:,} null" if each.nulls else "")


def _examples(each: FieldStats) -> str:
    strings = [_quoted(value) if isinstance(value, str) else json.dumps(value) for value in each.examples()]
    return short(", ".join(strings))


def _short_number(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
