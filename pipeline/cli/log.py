"""Commands over topics and recorded logs: tap, record, replay; `pipeline.recording` implements them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from astrocyte.pipeline.cli.options import AsJson, Broker, broker_address, replication
from astrocyte.pipeline.console import (
    counted,
    disk_may_fill,
    interruptible,
    pipe_may_close,
    print_json,
    progress_bar,
    say,
    size_text,
)
from astrocyte.schemas.errors import InvalidSettings

if TYPE_CHECKING:
    from astrocyte.pipeline.recording.replays.pacing import Tempo
    from astrocyte.pipeline.recording.replays.replay import Plan, Replayed
    from astrocyte.pipeline.recording.replays.shift import Shift
    from astrocyte.pipeline.recording.tap import Event, Formatter

__all__ = ["register"]

Start = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="START", help="earliest (default), latest, an offset, -N (last N), or a Kafka timestamp."
    ),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Stop before this Kafka timestamp: 2025-09-28T10:30:00Z, '10m ago', @SECONDS."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("tap")(tap_command)
    app.command("record")(record_command)
    app.command("replay")(replay_command)


def tap_command(
    *,
    topics: Annotated[list[str] | None, typer.Argument(help="Topics, or patterns such as 'mono.*'.")] = None,
    broker: Broker = None,
    more_topics: Annotated[
        list[str] | None, typer.Option("--topic", "-t", help="Topic or pattern, as an option.")
    ] = None,
    start: Start = None,
    until: Until = None,
    offsets: Annotated[
        list[str] | None,
        typer.Option("-o", metavar="OFFSET", help="As kcat: beginning, end, N, -N, s@MS to start, e@MS to stop."),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", "-w", metavar="EXPR", help='Only events for which this holds: "value > 3".')
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-c", "--max-messages", min=0, help="Stop after N events.")
    ] = None,
    partitions: Annotated[list[int] | None, typer.Option("--partition", "-p", help="Only this partition.")] = None,
    envelope: Annotated[bool, typer.Option("-J", help="Print kcat's JSON envelope.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as JSON (default into a pipe).")] = False,
    columns: Annotated[bool, typer.Option("--columns", help="Print aligned columns (default on a terminal).")] = False,
    form: Annotated[
        str | None, typer.Option("--format", "-f", metavar="FORMAT", help="As kcat: '%T %t[%p]@%o %k %s\\n'.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Do not unpack frames.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-F", help="Continue with new events until Ctrl-C.")] = False,
    end: Annotated[bool, typer.Option("-e", help="As kcat: stop at the end (the default here).")] = False,
    unbuffered: Annotated[bool, typer.Option("-u", help="Flush after each event.")] = False,
    log: Annotated[
        str | None, typer.Option("--log", metavar="FILE", help="Read a recorded log; needs no broker.")
    ] = None,
) -> None:
    """Show the events of topics, one on each line; frames are unpacked."""
    from astrocyte.pipeline.kafka.offsets import EARLIEST
    from astrocyte.pipeline.recording.tap import Selector, tap

    names = [*(topics or ()), *(more_topics or ())]
    if end and follow:
        raise InvalidSettings("-e stops at the end and --follow continues; leave one of them out")
    if not names and log is None:
        raise InvalidSettings("no topic given; name one, such as: astrocyte tap mono.axon_1 (or 'mono.*')")
    formatter = _formatter(form, envelope=envelope, as_json=as_json, columns=columns)
    selector = Selector(where, raw=raw)
    begin, until_ms = _bounds(start, until, offsets or [])
    output = sys.stdout.buffer

    def write(event: Event) -> None:
        output.write(formatter(event))
        if unbuffered:
            output.flush()

    with pipe_may_close():
        if log is not None:
            seen = _tap_log(
                log,
                names,
                write=write,
                selector=selector,
                begin=begin,
                until_ms=until_ms,
                count=count,
                partitions=partitions,
            )
        else:
            address = broker_address(broker)
            work = tap(
                address,
                names,
                write,
                selector=selector,
                start=begin or EARLIEST,
                until_ms=until_ms,
                count=count,
                follow=follow,
                partitions=partitions,
                flush=output.flush if follow or output.isatty() else None,
            )
            seen = asyncio.run(work)
        output.flush()
    for line in selector.absent():
        say(line)
    if selector.unreadable:
        say(f"{selector.unreadable} messages contain no event (shown: {seen} events)")


def _tap_log(
    log: str,
    names: list[str],
    *,
    write: Callable[[Event], None],
    selector: Any,
    begin: Any,
    until_ms: int | None,
    count: int | None,
    partitions: list[int] | None,
) -> int:
    from astrocyte.pipeline.recording.reader import read_log
    from astrocyte.pipeline.recording.tap import tap_records

    start_ms = None
    if begin is not None and begin.kind == "time":
        start_ms = begin.value
    elif begin is not None and begin.kind != "earliest":
        raise InvalidSettings(
            f"--from: expected earliest or a time, got {begin.kind}; a log has no other positions to start from"
        )
    records = read_log(log, start_ms=start_ms)
    return tap_records(records, names, write, selector, until_ms=until_ms, count=count, partitions=partitions)


def _formatter(form: str | None, *, envelope: bool, as_json: bool, columns: bool) -> Formatter:
    from astrocyte.pipeline.recording.tap import columns_line, compile_format, envelope_line, json_line

    if sum((form is not None, envelope, as_json, columns)) > 1:
        raise InvalidSettings("-J, --json, --columns and -f each select an output format; give one of them")
    if form is not None:
        return compile_format(form)
    if envelope:
        return envelope_line
    return columns_line if columns or (sys.stdout.isatty() and not as_json) else json_line


def record_command(
    *,
    topics: Annotated[list[str], typer.Argument(help="Topics, or patterns such as 'mono.*'.")],
    path: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="FILE.jsonl.zst, .jsonl.gz or .jsonl; - is stdout.")
    ],
    broker: Broker = None,
    start: Start = None,
    until: Until = None,
    count: Annotated[int | None, typer.Option("--count", "-c", min=0, help="Stop after N messages.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-F", help="Continue with new messages until Ctrl-C.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Record topics verbatim into a log, up to their current end."""
    from astrocyte.pipeline.kafka.offsets import EARLIEST
    from astrocyte.pipeline.recording.record import record

    begin, until_ms = _bounds(start, until, [])

    async def work() -> Any:
        with progress_bar("recording") as progress, interruptible() as stop:
            return await record(
                broker_address(broker),
                topics,
                path,
                start=begin or EARLIEST,
                until_ms=until_ms,
                count=count,
                follow=follow,
                stop=stop,
                overwrite=force,
                progress=progress,
            )

    with pipe_may_close(), disk_may_fill(path):
        done = asyncio.run(work())
    if as_json and path != "-":
        print_json({"file": done.path, "messages": done.records, "bytes": done.bytes, "topics": done.topics})
        return
    say(f"{done.records:,} messages ({size_text(done.bytes)}) of {counted(len(done.topics), 'topic')} in {done.path}")
    for topic, counts in sorted(done.topics.items()):
        say(f"  {topic:<32} {sum(counts.values()):>12,} in {len(counts)} partitions")


def replay_command(
    *,
    paths: Annotated[list[str], typer.Argument(metavar="FILE...", help="Recorded logs, or output of kcat -J.")],
    broker: Broker = None,
    rate: Annotated[str, typer.Option("--rate", "-r", metavar="X", help="Factor of the recorded speed, or max.")] = "1",
    start: Annotated[str | None, typer.Option(metavar="T", help="Begin at 10s into the log, or at a time.")] = None,
    duration: Annotated[
        str | None, typer.Option(metavar="T", help="Length of the part to replay, such as 30s.")
    ] = None,
    remap: Annotated[list[str] | None, typer.Option("--remap", metavar="A:=B", help="Send topic A to topic B.")] = None,
    topics: Annotated[list[str] | None, typer.Option("--topics", "-t", help="Only these topics; patterns.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", "-x", help="Exclude these topics; patterns.")
    ] = None,
    shift: Annotated[bool, typer.Option("--shift", help="Move event times so that the log begins now.")] = False,
    shift_by: Annotated[
        str | None, typer.Option(metavar="T", help="Move event times by this duration: 1h, -2d.")
    ] = None,
    rules: Annotated[
        list[str] | None, typer.Option("--rules", help="Rule file that declares the times of streams; repeatable.")
    ] = None,
    loop: Annotated[
        bool, typer.Option("--loop", "-l", help="Repeat the log until Ctrl-C, each lap as new events after the last.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Show what would be sent; needs no broker.")] = False,
    start_paused: Annotated[bool, typer.Option("--start-paused", "-p", help="Wait for SPACE at the start.")] = False,
    keys: Annotated[
        bool, typer.Option(help="Keys: SPACE pauses, right sends one message, up and down change the rate.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Send a recorded log into Kafka with its original spacing."""
    from astrocyte.pipeline.recording.reader import first_ms_of
    from astrocyte.pipeline.recording.replays.pacing import Tempo, parse_rate
    from astrocyte.pipeline.recording.replays.replay import (
        Selection,
        make_plan,
        parse_remap,
        parse_within_log,
        shift_to_now,
    )
    from astrocyte.pipeline.recording.replays.replay import shift_by as shift_exactly

    if shift and shift_by is not None:
        raise InvalidSettings("--shift moves the log to now and --shift-by by a duration; give one of them")
    now_us = time.time_ns() // 1000
    start_ms = until_ms = None
    if start is not None:
        start_ms = parse_within_log(start, first_ms_of(paths), now_us=now_us)
    if duration is not None:
        from astrocyte.pipeline.kafka.offsets import parse_span_us

        until_ms = (start_ms if start_ms is not None else first_ms_of(paths)) + parse_span_us(duration) // 1000
    tempo_rate = parse_rate(rate)
    remaps = parse_remap(remap or [])
    contracts = None
    if rules:
        from astrocyte.pipeline.topology.plan import contracts_of
        from astrocyte.pipeline.topology.rule_files import read_rule_files

        contracts = contracts_of(read_rule_files(rules))
    selection = Selection(start_ms, until_ms, tuple(topics or ()), tuple(exclude or ()), remaps)
    plan = make_plan(paths, selection, contracts)
    moved: Shift | None = None
    if shift:
        moved = shift_to_now(plan, now_us=now_us)
    elif shift_by is not None:
        moved = shift_exactly(plan, _signed_span(shift_by))
    if dry_run:
        _print_plan(plan, tempo_rate, as_json=as_json)
        return
    if start_paused and not sys.stdin.isatty():
        raise InvalidSettings("--start-paused waits for SPACE, but standard input is not a terminal; leave it out")
    _note_outputs(plan)

    async def work() -> Replayed:
        from astrocyte.pipeline.recording.replays.replay import replay

        await _note_newer_events(plan, broker_address(broker), moved)
        tempo = Tempo(tempo_rate, paused=start_paused)
        with interruptible() as stop:
            async with _key_control(tempo, enabled=keys) as shown:
                with progress_bar("replaying", shown) as progress:
                    return await replay(
                        plan,
                        broker_address(broker),
                        tempo=tempo,
                        shift=moved,
                        loop=loop,
                        replication=replication(),
                        stop=stop,
                        progress=lambda sent, _: progress(sent, None if loop else plan.total),
                    )

    done = asyncio.run(work())
    speed = done.messages / done.seconds if done.seconds else 0.0
    if as_json:
        print_json(
            {"messages": done.messages, "bytes": done.bytes, "laps": done.laps, "topics": done.topics,
             "seconds": round(done.seconds, 3)}
        )  # fmt: skip
        return
    say(
        f"{done.messages:,} messages ({size_text(done.bytes)}) delivered to {counted(len(done.topics), 'topic')} "
        f"in {done.seconds:.1f} s ({speed:,.0f}/s)"
    )


def _print_plan(plan: Plan, rate: float, *, as_json: bool) -> None:
    from astrocyte.schemas.times import iso_from_us

    rows = [
        {
            "topic": topic,
            "target": plan.target(topic),
            "partitions": plan.partitions[topic],
            "messages": totals.count,
            "frames": totals.frames,
            "bytes": totals.bytes,
        }
        for topic, totals in sorted(plan.topics.items())
    ]
    first = None if plan.first_ms is None else iso_from_us(plan.first_ms * 1000)
    last = None if plan.last_ms is None else iso_from_us(plan.last_ms * 1000)
    seconds = plan.span_s / rate
    if as_json:
        print_json({"topics": rows, "first": first, "last": last, "seconds": seconds, "messages": plan.total})
        return
    for topic, totals in sorted(plan.topics.items()):
        arrow = "" if plan.target(topic) == topic else f" -> {plan.target(topic)}"
        what = f"{totals.count:,} messages ({totals.frames:,} frames, {size_text(totals.bytes)})"
        sys.stdout.write(f"{topic}{arrow}: {what} of {plan.partitions[topic]} partitions\n")
    when = "without a Kafka time" if first is None else f"from {first} to {last}, in {seconds:.1f} s"
    sys.stdout.write(f"{plan.total:,} messages {when}; nothing was sent\n")


def _note_outputs(plan: Plan) -> None:
    from astrocyte.schemas.topics import is_derived

    outputs = sorted(topic for topic in plan.topics if is_derived(topic))
    if outputs:
        say(
            f"the log contains outputs of a worker ({', '.join(outputs)}), which are replayed too; exclude them with "
            "--topics 'mono.*' to let a worker produce them again"
        )


async def _note_newer_events(plan: Plan, broker: str, shift: Shift | None) -> None:
    from astrocyte.pipeline.recording.replays.replay import newer_events
    from astrocyte.schemas.times import iso_from_us

    found = await newer_events(plan, broker, shift)
    if found is not None:
        first, newest = map(iso_from_us, found)
        say(
            f"the topics already hold events up to {newest}, and this replay begins at {first}: workers that have read "
            "the newer events count older ones as late, so that they match nothing. --shift moves the events to now, "
            "--remap sends them to topics of their own"
        )


@contextlib.asynccontextmanager
async def _key_control(tempo: Tempo, *, enabled: bool) -> AsyncIterator[Callable[[], str]]:
    """Let keys change the tempo within the context; yields a function that returns the current rate as text."""
    from astrocyte.pipeline.console import keys

    actions = {"space": tempo.toggle, "right": tempo.step, "up": tempo.faster, "down": tempo.slower}

    def shown() -> str:
        return "paused" if tempo.paused else "max" if tempo.rate == float("inf") else f"x{tempo.rate:g}"

    if not enabled:
        yield shown
        return
    async with keys(actions) as is_terminal:
        if is_terminal:
            say("SPACE pauses, RIGHT sends the next message while paused, UP and DOWN change the rate, Ctrl-C ends")
        yield shown


def _bounds(start: str | None, until: str | None, offsets: list[str]) -> tuple[Any, int | None]:
    from astrocyte.pipeline.kafka.offsets import parse_offsets, parse_start, parse_time_us

    now_us = time.time_ns() // 1000
    begin, until_ms = parse_offsets(offsets, now_us=now_us)
    if start is not None:
        if begin is not None:
            raise InvalidSettings("--from and -o both set the start; give one of them")
        begin = parse_start(start, now_us=now_us)
    if until is not None:
        if until_ms is not None:
            raise InvalidSettings("--until and -o e@ both set the end; give one of them")
        until_ms = parse_time_us(until, now_us=now_us) // 1000
    return begin, until_ms


def _signed_span(text: str) -> int:
    from astrocyte.pipeline.kafka.offsets import parse_span_us

    plain = text.strip()
    return -parse_span_us(plain[1:]) if plain.startswith("-") else parse_span_us(plain.removeprefix("+"))
