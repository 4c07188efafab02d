"""Commands over rules: match, backtest, why-not, explain, and the group ``rules``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from astrocyte.pipeline.cli.correlation.disorder import DEFAULT_AMOUNTS, measure_disorder
from astrocyte.pipeline.cli.correlation.publish import publish_command
from astrocyte.pipeline.cli.correlation.score import score_command
from astrocyte.pipeline.cli.options import (
    AsJson,
    Lateness,
    Rules,
    Show,
    broker_address,
    broker_option,
    event_time,
    read,
    refuse_swapped,
    rule_names,
)
from astrocyte.pipeline.console import counted, pipe_may_close, print_json, printable, say
from astrocyte.schemas.errors import InvalidSettings

if TYPE_CHECKING:
    from astrocyte.agents.accounting import Counters
    from astrocyte.agents.rules.model import RuleSet
    from astrocyte.pipeline.analysis.offline import OfflineRun
    from astrocyte.pipeline.analysis.origins import BrokerOrigin, LogOrigin, SqlOrigin
    from astrocyte.pipeline.analysis.unused_report import RejectsFile

__all__ = ["register"]

Rejects = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write what was not used to this file: JSON lines with event and reason."),
]
Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...", help="Recorded logs, output of kcat -J, or events as JSON lines, CSV or Parquet."
    ),
]
RuleFiles = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help="Rule files, or names of shipped ones.", autocompletion=rule_names),
]
OfStream = Annotated[
    str | None,
    typer.Option("--stream", metavar="NAME", help="Stream of the events of files that are no recorded logs."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("match")(match_command)
    app.command("backtest")(backtest_command)
    app.command("score")(score_command)
    app.command("why-not")(why_not_command)
    app.command("explain")(explain_command)
    rules = typer.Typer(help="Check, show and publish rule files.", no_args_is_help=True)
    rules.command("check")(check_command)
    rules.command("explain")(rules_explain_command)
    rules.command("publish")(publish_command)
    app.add_typer(rules, name="rules")


def match_command(
    *,
    rules: Rules,
    paths: Inputs,
    alerts: Annotated[bool, typer.Option("--alerts", help="Print the alerts instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each as JSON (default into a pipe).")] = False,
    columns: Annotated[bool, typer.Option("--columns", help="Print aligned columns (default on a terminal).")] = False,
    lateness: Lateness = None,
    stream: OfStream = None,
    rejects: Rejects = None,
    disorder: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNTS",
            help="Instead of matches: precision, recall and delay of matches made on arrival (eventual) and in order, "
            f"if events arrive up to so much later than their time, such as {DEFAULT_AMOUNTS}.",
        ),
    ] = None,
    plot: Annotated[
        str | None, typer.Option("--plot", metavar="FILE.png", help="With --disorder: draw these as well.")
    ] = None,
) -> None:
    """Run rules over recorded logs or files of events, without a broker.

    Multi events are printed as JSON lines, as the pipeline emits them, or on a terminal as aligned columns.
    """
    from astrocyte.pipeline.analysis.offline import run_rules
    from astrocyte.pipeline.analysis.unused_report import RejectsFile, check_read, report_lines
    from astrocyte.pipeline.recording.tap import result_line

    if as_json and columns:
        raise InvalidSettings("--json and --columns each select an output format; give one of them")
    columns = columns or (sys.stdout.isatty() and not as_json)
    refuse_swapped(rules, paths)
    if disorder is not None:
        measure_disorder(
            read(rules), paths, disorder, stream=stream, event_time=event_time(lateness), as_json=as_json, plot=plot
        )
        return
    if plot is not None:
        raise InvalidSettings("--plot draws what --disorder measures; give both")
    run, outputs = run_rules(read(rules), paths, stream=stream, list_unused=rejects is not None, **event_time(lateness))
    count = 0
    with pipe_may_close(), RejectsFile(rejects) if rejects else nullcontext() as listed:
        for output in outputs:
            if listed is not None:
                listed.write(output, run.contracts)
            for record in output.alerts if alerts else output.multi_events:
                line = result_line(record.key, record.value) if columns else record.value + b"\n"
                sys.stdout.buffer.write(line)
                count += 1
        sys.stdout.buffer.flush()
    check_read(run, paths)
    totals = run.counters
    what = counted(count, "alert" if alerts else "multi event")
    say(f"{what} of {counted(totals.received, 'event')} ({_not_processed(totals)})")
    _say_unused(report_lines(run), listed)
    _end_if_all_refused(run)


def _not_processed(totals: Counters) -> str:
    """Counts of the events that rules did not see; those that are rare only where there are some."""
    parts = [f"{totals.late:,} late", f"{totals.dead:,} refused"]
    parts += [counted(totals.duplicate, "duplicate")] if totals.duplicate else []
    parts += [f"{totals.sampled:,} sampled away"] if totals.sampled else []
    parts += [counted(totals.skipped, "tombstone")] if totals.skipped else []
    return ", ".join(parts)


def backtest_command(
    *,
    rules: Rules,
    paths: Inputs,
    against: Annotated[
        str | None, typer.Option(metavar="RULES", help="Compare with these rules.", autocompletion=rule_names)
    ] = None,
    lateness: Lateness = None,
    stream: OfStream = None,
    show: Show = 3,
    rejects: Rejects = None,
    as_json: AsJson = False,
) -> None:
    """Show what rules would have found in a recorded log, and how that differs from other rules."""
    from astrocyte.pipeline.analysis.backtest import backtest, compare
    from astrocyte.pipeline.analysis.unused_report import RejectsFile, check_read, report_lines

    refuse_swapped(rules, paths)
    times = event_time(lateness)
    with RejectsFile(rejects) if rejects else nullcontext() as listed:
        first = backtest(read(rules), paths, stream=stream, rejects=listed, **times)
    check_read(first.run, paths)
    notes = report_lines(first.run)
    second = None if against is None else backtest(read(against), paths, stream=stream, **times)
    if as_json:
        body: dict[str, Any] = {"a": first.as_json() | {"notes": notes}}
        if second is not None:
            differences = compare(first.made, second.made)
            body |= {"b": second.as_json(), "difference": {each.rule: each.as_json(show) for each in differences}}
        print_json(body)
        _end_if_all_refused(first.run)
        return
    out = sys.stdout
    out.write(f"{counted(first.counters.received, 'event')}, {_not_processed(first.counters)}\n")
    _say_unused(notes, listed)
    for name, count in first.rules.items():
        held = (
            f" ({count.suppressed:,} suppressed, {count.grouped:,} grouped)" if count.suppressed + count.grouped else ""
        )
        matches, alerts = counted(count.matches, "match", "matches"), counted(count.alerts, "alert")
        out.write(f"{name}: {matches}, {alerts}{held}, {counted(len(count.keys), 'key')}\n")
    if second is None:
        _end_if_all_refused(first.run)
        return
    out.write(f"\nagainst {against} (A: {rules}, B: {against})\n")
    for each in compare(first.made, second.made):
        out.write(f"{each.rule}: both {each.both:,}, only A {len(each.only_a):,}, only B {len(each.only_b):,}\n")
        for side, made in (("A", each.only_a), ("B", each.only_b)):
            for example in made[:show]:
                out.write(f"  only {side}: {_made_line(example)}\n")
    _end_if_all_refused(first.run)


def _say_unused(lines: Sequence[str], listed: RejectsFile | None) -> None:
    """What was not used, on stderr; nothing where all was used."""
    for line in lines:
        say(line)
    if listed is not None:
        say(f"{counted(listed.count, 'reject')} written to {listed.path}")


def _end_if_all_refused(run: OfflineRun) -> None:
    """End with status 1 where every event was refused: the figures look like those of rules that found nothing."""
    from astrocyte.pipeline.analysis.unused_report import all_refused

    line = all_refused(run)
    if line is not None:
        say(line)
        raise typer.Exit(1)


def explain_command(
    *,
    event_id: Annotated[str, typer.Argument(help="Id of a multi event or of an alert.")],
    db: Annotated[str | None, typer.Option(metavar="URL", help="Look in this database.")] = None,
    log: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Look in this recorded log; repeatable.")
    ] = None,
    broker: Annotated[str | None, broker_option("Look on this broker.")] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rules",
            help="Rule files of windows and statistics; default: ASTROCYTE_RULES and the shipped.",
            autocompletion=rule_names,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the lineage of a multi event, down to topic, partition and offset."""
    from astrocyte.pipeline.analysis.ancestry import Ancestry
    from astrocyte.pipeline.analysis.explain import explain, render

    origins = _origins(db, log or [], broker)
    tree = explain(event_id, origins, Ancestry(_rules_with_shipped(rules), origins))
    if as_json:
        print_json(tree.as_json())
        return
    sys.stdout.write(printable(render(tree), lines=True))


def _rules_with_shipped(rules: list[str] | None) -> RuleSet:
    """The given rules, or those of the settings with the shipped ones whose names they do not use."""
    from astrocyte.agents.rules.model import RuleSet
    from astrocyte.pipeline.topology.rule_files import shipped_rules

    if rules:
        return read(*rules)
    found = read(*_default_rules())
    for name in shipped_rules():
        other = read(name)
        known = found.made
        windows = tuple(window for window in other.windows if window.name not in known)
        statistics = tuple(spec for spec in other.insight if spec.name not in known)
        judged = {stream for spec in found.validators for stream in spec.stream}
        validators = tuple(spec for spec in other.validators if not judged & {*spec.stream})
        found = RuleSet(
            rules=found.rules,
            windows=(*found.windows, *windows),
            insight=(*found.insight, *statistics),
            junctions=found.junctions,
            validators=(*found.validators, *validators),
            streams=found.streams,
        )
    return found


def _origins(db: str | None, logs: Sequence[str], broker: str | None) -> list[SqlOrigin | LogOrigin | BrokerOrigin]:
    """Origins to search: those given, else the database of the settings if it exists, else their broker."""
    from astrocyte.pipeline.analysis.explain import NoSuchEvent
    from astrocyte.pipeline.analysis.origins import BrokerOrigin, LogOrigin, SqlOrigin

    origins: list[SqlOrigin | LogOrigin | BrokerOrigin] = []
    if db is not None:
        origins.append(SqlOrigin(db))
    if logs:
        origins.append(LogOrigin(logs))
    if broker is not None:
        origins.append(BrokerOrigin(broker))
    if origins:
        return origins
    from astrocyte.pipeline.settings import load_settings

    try:
        return [SqlOrigin(load_settings().sql_url.get_secret_value())]
    except NoSuchEvent:
        return [BrokerOrigin(broker_address(None))]


def why_not_command(
    *,
    paths: Inputs,
    rule: Annotated[str, typer.Option("--rule", "-r", help="Name of the rule.")],
    key: Annotated[
        str | None, typer.Option("--key", "-k", help="Correlation key; required unless the rule has none.")
    ] = None,
    at: Annotated[str | None, typer.Option("--at", metavar="T", help="Event time, or 10s into the log.")] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option("--rules", help="Rule files; default: ASTROCYTE_RULES.", autocompletion=rule_names),
    ] = None,
    lateness: Lateness = None,
    stream: OfStream = None,
    show: Annotated[int, typer.Option(min=0, help="Number of most recent attempts to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show why a rule did not match: how far its partial matches got, and what ended each."""
    import time

    from astrocyte.pipeline.analysis.why_not import render, why_not

    report = why_not(
        read(*(rules or _default_rules())),
        paths,
        rule=rule,
        key=key,
        at=at,
        **event_time(lateness),
        now_us=time.time_ns() // 1000,
        stream=stream,
    )
    if as_json:
        print_json(report.as_json())
        return
    sys.stdout.write(printable(render(report, show=show), lines=True))


def check_command(
    *,
    files: RuleFiles,
    broker: Annotated[
        str | None, broker_option("Also compare with the topics of this broker and their partitions.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check rule files; show which topics they need and which streams are repartitioned."""
    import asyncio

    from astrocyte.agents.rules.graph.links import junction_sources
    from astrocyte.pipeline.kafka.client import topic_partitions
    from astrocyte.pipeline.settings import load_settings
    from astrocyte.pipeline.topology.rule_files import misspelt_streams
    from astrocyte.pipeline.topology.topics import KnownTopics

    ruleset = read(*files)
    there = {} if broker is None else asyncio.run(topic_partitions(broker))
    plan = KnownTopics(there, load_settings().partitions).checked_plan(ruleset)
    published_before = () if broker is None else asyncio.run(_published_before(broker, files))
    if as_json:
        print_json(
            {
                "rules": [{"name": rule.name, "version": rule.content_version} for rule in ruleset.rules],
                "windows": [window.name for window in ruleset.windows],
                "insight": [{"name": spec.name, "statistic": spec.statistic} for spec in ruleset.insight],
                "junctions": [
                    {
                        "name": junction.name,
                        "from": list(junction_sources(ruleset)[junction.name]),
                        "key": junction.key,
                        "to": [link.topic for link in plan.links if link.junction == junction.name],
                    }
                    for junction in ruleset.junctions
                ],
                "topics": list(plan.topics),
                "repartitions": [
                    {"from": each.source, "by": each.field or None, "to": each.topic, "partitions": each.partitions}
                    for each in plan.repartitions
                ],
            }
        )
        return
    statistics = f" and {counted(len(ruleset.insight), 'statistic')}" if ruleset.insight else ""
    parts = [counted(len(ruleset.rules), "rule"), counted(len(ruleset.windows), "window")]
    sys.stdout.write(f"{(', ' if statistics else ' and ').join(parts)}{statistics}: valid\n")
    if ruleset.junctions:
        sys.stdout.write(f"{counted(len(ruleset.junctions), 'junction')}\n")
    for line in plan.describe():
        sys.stdout.write(line + "\n")
    for line in (*misspelt_streams(ruleset, there), *published_before):
        say(line)


async def _published_before(broker: str, files: Sequence[str]) -> list[str]:
    """Sentences on what publishing the files would change of where the rules in force come from."""
    from astrocyte.pipeline.topology.overrides import origin_changes
    from astrocyte.pipeline.topology.rule_files import path_of
    from astrocyte.pipeline.topology.rule_updates import published_files, published_rules

    published = await published_files(broker)
    given = {path.stem: path.read_bytes() for path in map(path_of, files)}
    stays = {name: text for name, text in published.items() if name not in given}
    before, after = (published_rules(found, lambda _rules: None).origins for found in (published, stays | given))
    return [f"once published: {line}" for line in origin_changes(before, after)]


def rules_explain_command(
    *,
    files: RuleFiles,
    rule: Annotated[str | None, typer.Option("--rule", "-r", help="Only this rule.")] = None,
) -> None:
    """Print the state graph of each rule, and that of the junctions between them, as Mermaid text."""
    from astrocyte.agents.cep.explain.mermaid import junctions_mermaid, mermaid

    ruleset = read(*files)
    chosen = [each for each in ruleset.rules if rule in (None, each.name)]
    if not chosen:
        names = ", ".join(each.name for each in ruleset.rules)
        raise InvalidSettings(f"no rule {rule!r} in {', '.join(files)}; the rules are {names}")
    for each in chosen:
        sys.stdout.write(mermaid(each).rstrip("\n") + "\n")
    if rule is None:
        sys.stdout.write(junctions_mermaid(ruleset))


def _default_rules() -> tuple[str, ...]:
    from astrocyte.pipeline.settings import load_settings

    return tuple(str(path) for path in load_settings().rules) or ("axons",)


def _made_line(made: Any) -> str:
    from astrocyte.schemas.times import iso_from_us

    sources = ", ".join(made.sources)
    return printable(f"{iso_from_us(made.time_us)} {made.rule} key {made.key} {made.event_id} of {sources}")
