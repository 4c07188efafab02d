"""The group ``dead-letters``: list, show and retry records that could not be processed."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from astrocyte.pipeline.cli.options import AsJson, Broker, broker_address, replication
from astrocyte.pipeline.console import pipe_may_close, print_json, printable, say
from astrocyte.schemas.errors import InvalidSettings

if TYPE_CHECKING:
    from astrocyte.pipeline.recording.dead_letters import Found, LetterFilter, Letters

__all__ = ["register"]

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Ids of letters, or their first characters.")]
Topics = Annotated[list[str] | None, typer.Option("--topic", "-t", help="Topic of the refused message, or pattern.")]
Stages = Annotated[
    list[str] | None, typer.Option("--stage", help="Stage: decode, validate, clock, correlate, sql, ...")
]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Text in the reason.")]
Key = Annotated[str | None, typer.Option("--key", "-k", help="Key of the refused message.")]
Since = Annotated[str | None, typer.Option("--from", metavar="TIME", help="Letters written at or after: '10m ago'.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Letters written before this time.")]
Log = Annotated[str | None, typer.Option("--log", metavar="FILE", help="Read the letters of a recorded log.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    group = typer.Typer(help="List, show and retry records that could not be processed.", no_args_is_help=True)
    group.command("ls")(ls_command)
    group.command("show")(show_command)
    group.command("retry")(retry_command)
    app.add_typer(group, name="dead-letters")


def ls_command(
    ids: Ids = None,
    *,
    topic: Topics = None,
    stage: Stages = None,
    reason: Reason = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    log: Log = None,
    broker: Broker = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first: when they were written, id, place, stage, key and reason."""
    chosen = _filter(ids=ids, topics=topic, stages=stage, reason=reason, key=key, since=since, until=until)
    letters = _read(log, broker)
    retried = set() if log is not None else _retried(broker)
    found = [each for each in letters.found if chosen(each)]
    with pipe_may_close():
        for each in found:
            if as_json:
                body = each.letter.model_dump(mode="json") | {"retried": each.letter.letter_id in retried}
                sys.stdout.write(json.dumps(body) + "\n")
            else:
                sys.stdout.write(printable(_line(each, retried)) + "\n")
        sys.stdout.flush()
    unreadable = f", {letters.unreadable:,} messages of the topic are no dead letters" if letters.unreadable else ""
    say(f"{len(found):,} of {len(letters.found):,} dead letters{unreadable}")
    if not found and letters.found:
        say(_there(letters.found))


def show_command(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of letters, or their first characters.")],
    *,
    log: Log = None,
    broker: Broker = None,
    as_json: AsJson = False,
) -> None:
    """Show dead letters in full: reason, place, headers, key and payload."""
    from astrocyte.pipeline.recording.dead_letters import message_of, one_of

    letters = _read(log, broker)
    retried = set() if log is not None else _retried(broker)
    for given in ids:
        found = one_of(letters.found, given)
        letter = found.letter
        message = message_of(letter)
        if as_json:
            print_json(letter.model_dump(mode="json") | {"retried": letter.letter_id in retried})
            continue
        lines = [
            f"letter     {letter.letter_id}{' (retried)' if letter.letter_id in retried else ''}",
            f"reason     {letter.reason}",
            f"stage      {letter.stage}",
            f"place      {letter.place}",
            f"written    {_time(found.written_ms)}",
            f"timestamp  {letter.timestamp or 'none'}",
            f"key        {_text(letter.key_b64)}",
            *(f"header     {name}: {_text(value)}" for name, value in letter.headers),
            f"payload    {_text(letter.payload_b64)}",
        ]
        if isinstance(message, str):
            lines.append(f"retry      not possible: {message}")
        sys.stdout.write("\n".join(map(printable, lines)) + "\n")


def retry_command(
    ids: Ids = None,
    *,
    topic: Topics = None,
    stage: Stages = None,
    reason: Reason = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="All letters that were not retried before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    log: Log = None,
    broker: Broker = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters to their topics again, after a rule, declaration or decoder was mended; each at most once."""
    from astrocyte.pipeline.recording.dead_letters import matching, retry

    chosen = _filter(ids=ids, topics=topic, stages=stage, reason=reason, key=key, since=since, until=until)
    if chosen.selects_all and not everything:
        raise InvalidSettings("no letters selected; give ids, a filter such as --topic mono.orders, or --all")
    there = _read(log, broker).found
    for given in ids or ():
        matching(there, given)  # an id that there is not is an error
    letters = [each.letter for each in there if chosen(each)]
    if not letters and there:
        say(_there(there))
    result = asyncio.run(retry(broker_address(broker), letters, replication=replication(), dry_run=dry_run))
    if as_json:
        print_json(result.as_json())
        return
    resumed = f", {result.resumed:,} of them by a retry that was interrupted" if result.resumed else ""
    say(
        f"{len(result.sent):,} letters {'would be sent' if dry_run else 'sent'}; {result.before:,} were sent before"
        f"{resumed}; {len(result.refused):,} cannot be sent"
    )
    if result.sent:
        say("their events are old: those before the watermark of their partition become late (astrocyte tap late)")
    for letter, why in result.refused[:10]:
        say(f"  {letter.letter_id}: {why}")
    if len(result.refused) > 10:
        say(f"  and {len(result.refused) - 10:,} more")


def _filter(
    *,
    ids: list[str] | None,
    topics: list[str] | None,
    stages: list[str] | None,
    reason: str | None,
    key: str | None,
    since: str | None,
    until: str | None,
) -> LetterFilter:
    from astrocyte.pipeline.kafka.offsets import parse_time_us
    from astrocyte.pipeline.recording.dead_letters import LetterFilter

    now_us = time.time_ns() // 1000
    return LetterFilter(
        tuple(ids or ()),
        tuple(topics or ()),
        tuple(stages or ()),
        reason,
        key,
        None if since is None else parse_time_us(since, now_us=now_us) // 1000,
        None if until is None else parse_time_us(until, now_us=now_us) // 1000,
    )


def _there(found: Sequence[Found]) -> str:
    """The stages and topics of all letters, for a filter that selects none."""
    parts = []
    for what, names in (
        ("stages", Counter(each.letter.stage for each in found)),
        ("topics", Counter(each.letter.topic for each in found)),
    ):
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        parts.append(f"{what}: {', '.join(f'{name} ({count:,})' for name, count in names.most_common(10))}{more}")
    return "no letter was selected; there are letters of the " + ", and of the ".join(parts)


def _read(log: str | None, broker: str | None) -> Letters:
    from astrocyte.pipeline.recording.dead_letters import letters_of, letters_of_broker

    if log is not None:
        from astrocyte.pipeline.recording.reader import read_log

        return letters_of(read_log(log))
    return asyncio.run(letters_of_broker(broker_address(broker)))


def _retried(broker: str | None) -> set[str]:
    from astrocyte.pipeline.recording.dead_letters import retried_ids

    return asyncio.run(retried_ids(broker_address(broker)))[0]


def _line(found: Found, retried: set[str]) -> str:
    letter = found.letter
    mark = "  retried" if letter.letter_id in retried else ""
    key = _text(letter.key_b64)
    return (
        f"{_time(found.written_ms):<24}  {letter.letter_id[:8]}  {letter.place:<28}  {letter.stage:<10}  {key:<16}  "
        f"{letter.reason}{mark}"
    )


def _time(time_ms: int) -> str:
    from astrocyte.schemas.times import is_in_calendar, iso_from_us

    return iso_from_us(time_ms * 1000) if time_ms >= 0 and is_in_calendar(time_ms * 1000) else f"{time_ms} ms"


def _text(data: Any) -> str:
    """Base64 as text, where it is text, else as hexadecimal digits."""
    if data is None:
        return "none"
    raw = b64decode(data)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"{len(raw):,} bytes: {raw[:64].hex(' ')}{' ...' if len(raw) > 64 else ''}"
    return text if text.isprintable() else repr(text)
