"""``astrocyte verify``: whether topics and stores hold what rules and sinks should have made."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Final, cast

import orjson
import typer

from astrocyte.pipeline.cli.options import AsJson, Broker, rule_names
from astrocyte.pipeline.console import print_json, printable, progress_bar, say
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings

if TYPE_CHECKING:
    from astrocyte.pipeline.analysis.verify import Difference, Places, Span, Verification
    from astrocyte.pipeline.settings import Settings

__all__ = ["register"]

_DIFFERENT: Final = 1
_UNCHECKED: Final = 2
_WAIT: Final = "60s"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("verify")(verify_command)


def verify_command(
    *,
    logs: Annotated[
        list[str] | None, typer.Argument(metavar="[LOG...]", help="Recorded logs, in place of a broker.")
    ] = None,
    broker: Broker = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rules",
            help="Rule files of the workers; default: ASTROCYTE_RULES. Repeatable.",
            autocompletion=rule_names,
        ),
    ] = None,
    places: Annotated[
        list[str] | None,
        typer.Option("--place", metavar="PLACE", help="Compare only topics, sql or influx. Repeatable."),
    ] = None,
    db: Annotated[str | None, typer.Option(metavar="URL", help="Database; default: ASTROCYTE_SQL_URL.")] = None,
    influx_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of points; default: ASTROCYTE_INFLUX_DIR.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Compare results from this event time on.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Compare results before this event time.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the workers have processed everything.")] = False,
    wait_most: Annotated[str, typer.Option(metavar="T", help="With --wait: for how long at most.")] = _WAIT,
    show: Annotated[int, typer.Option(min=0, help="Differences of each kind and place to list.")] = 10,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write all differences as JSON lines.")
    ] = None,
    scratch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for temporary files; default: that of the system.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the results, and compare them with what topics and stores hold.

    Nothing is written to broker or stores. Exit status 0: equal, 1: there are differences, 2: it could not be checked.
    """
    try:
        done = _verified(
            _settings(broker, rules, db, influx_dir),
            logs or [],
            places=_places(places),
            span=_span(since, until),
            wait_s=_seconds(wait_most) if wait else 0.0,
            show=sys.maxsize if as_json else show,
            scratch=scratch,
            output=output,
        )
    except (AstrocyteError, OSError) as error:
        say(f"astrocyte: it could not be checked: {error}")
        raise typer.Exit(_UNCHECKED) from None
    if as_json:
        print_json(done.as_json())
    else:
        from astrocyte.pipeline.analysis.verify.text import lines_of

        for line in lines_of(done):
            sys.stdout.write(printable(line) + "\n")
    if not done.holds:
        raise typer.Exit(_DIFFERENT)


def _verified(
    settings: Settings, logs: Sequence[str], *, places: Places | None, span: Span, wait_s: float, show: int,
    scratch: Path | None, output: Path | None,
) -> Verification:  # fmt: skip
    from astrocyte.pipeline.analysis.verify import verify
    from astrocyte.pipeline.topology.rule_files import DEFAULT_RULES, read_rule_files

    ruleset = read_rule_files(settings.rules or DEFAULT_RULES) if logs else None
    with ExitStack() as stack:
        tell = None if output is None else _line_writer(stack.enter_context(output.open("wb")))
        move = stack.enter_context(progress_bar("verifying"))
        return verify(
            settings, logs=logs, ruleset=ruleset, where=places, span=span, wait_s=wait_s, show=show, scratch=scratch,
            now_us=time.time_ns() // 1_000, progress=move, on_difference=tell,
        )  # fmt: skip


def _line_writer(file: IO[bytes]) -> Callable[[Difference], None]:
    def write(difference: Difference) -> None:
        file.write(orjson.dumps(difference.as_json(), default=str) + b"\n")

    return write


def _settings(broker: str | None, rules: Sequence[str] | None, db: str | None, influx_dir: Path | None) -> Settings:
    from astrocyte.pipeline.cli.options import stored_address
    from astrocyte.pipeline.settings import load_settings
    from astrocyte.pipeline.transport.client_log import limit_client_log

    limit_client_log()
    address = None if db is None else stored_address(db, option="--db")
    files = None if not rules else tuple(map(Path, rules))
    return load_settings(broker=broker, rules=files, sql_url=address, influx_dir=influx_dir)


def _places(names: Sequence[str] | None) -> Places | None:
    from astrocyte.pipeline.analysis.verify import EVERYWHERE

    unknown = next((name for name in names or () if name not in EVERYWHERE), None)
    if unknown is not None:
        *others, last = EVERYWHERE
        raise InvalidSettings(f"--place: expected {', '.join(others)} or {last}, got {unknown!r}")
    return cast("Places", tuple(dict.fromkeys(names))) if names else None


def _span(since: str | None, until: str | None) -> Span:
    from astrocyte.pipeline.analysis.verify import Span
    from astrocyte.pipeline.kafka.offsets import parse_time_us

    now_us = time.time_ns() // 1_000
    first, last = (None if text is None else parse_time_us(text, now_us=now_us) for text in (since, until))
    if first is not None and last is not None and first >= last:
        raise InvalidSettings("--from must be before --until")
    return Span(first, last)


def _seconds(text: str) -> float:
    from astrocyte.pipeline.kafka.offsets import parse_span_us

    return parse_span_us(text) / 1e6
