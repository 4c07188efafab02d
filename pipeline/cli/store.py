"""Commands over the stores: db, audit, influx."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from astrocyte.pipeline.cli.options import AsJson, sql_address, stored_address
from astrocyte.pipeline.console import pipe_may_close, print_json, say
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings

__all__ = ["register"]

Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="SQLAlchemy URL or SQLite file; default: ASTROCYTE_SQL_URL.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    db = typer.Typer(help="The SQL database: address, schema, retention.", no_args_is_help=True)
    db.command("upgrade")(upgrade_command)
    db.command("url")(url_command)
    db.command("retention")(retention_command)
    app.add_typer(db, name="db")
    audit = typer.Typer(help="The audit log: verification and export.", no_args_is_help=True)
    audit.command("verify")(verify_command)
    audit.command("export")(export_command)
    app.add_typer(audit, name="audit")
    influx = typer.Typer(help="InfluxDB: buckets and tasks.", no_args_is_help=True)
    influx.command("setup")(setup_command)
    app.add_typer(influx, name="influx")


def upgrade_command(*, url: Url = None) -> None:
    """Upgrade the database to the schema of this version; a newer schema is not touched."""
    from astrocyte.agents.sinks.sql.migrate import upgrade

    say(f"the database has schema {upgrade(sql_address(url))}")


def url_command(*, url: Url = None, as_json: AsJson = False) -> None:
    """Print the address of the database, without its password, and its schema version."""
    from astrocyte.agents.sinks.sql.engines import driver_errors
    from astrocyte.agents.sinks.sql.migrate import current
    from astrocyte.agents.sinks.sql.url import shown_address

    address = sql_address(url)
    shown = shown_address(address) if "://" in address else address
    with driver_errors(address):
        schema = current(address)
    if as_json:
        print_json({"url": shown, "schema": schema})
    else:
        sys.stdout.write(f"{shown}\n")
        say(f"schema: {schema or 'none yet; create it with: astrocyte db upgrade'}")


def retention_command(
    *,
    url: Url = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep", metavar="TABLE=DAYS", help="Days to keep rows of a table, instead of the default; repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove rows older than the retention of their table, in small transactions; means of states are kept."""
    from astrocyte.agents.sinks.retention import apply_retention

    removed: dict[str, int] = {}
    for step in apply_retention(stored_address(url), now_us=time.time_ns() // 1000, days=_days(keep or ())):
        removed[step.table] = removed.get(step.table, 0) + step.rows
    if as_json:
        print_json(removed)
    else:
        say(
            "; ".join(f"{table}: {rows:,} rows removed" for table, rows in removed.items() if rows)
            or "no row was older than its retention"
        )


def _days(entries: Sequence[str]) -> dict[str, float | None]:
    days: dict[str, float | None] = {}
    for text in entries:
        table, equals, value = text.partition("=")
        try:
            days[table] = None if value == "forever" else float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise InvalidSettings(
                f"--keep: expected TABLE=DAYS, such as agent_states=30 or alerts=forever, got {text!r}"
            )
    return days


def verify_command(
    *,
    url: Url = None,
    last_hash: Annotated[str | None, typer.Option(metavar="HASH", help="Hash that the last entry must have.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check the hash chain of the audit log; a broken entry is named, with exit status 1."""
    from astrocyte.agents.sinks.audit.sink import verify_audit

    verdict = verify_audit(stored_address(url), expected_last_hash=last_hash)
    if as_json:
        print_json(
            {"entries": verdict.entries, "ok": verdict.ok, "broken": verdict.broken_entry, "reason": verdict.reason}
        )
    else:
        say(
            f"{verdict.entries:,} entries are intact; the last hash is {verdict.last_hash}"
            if verdict.entries
            else "the audit log is empty: nothing was checked. It is written by the role audit, which is not among the "
            "default ones: astrocyte worker --role audit"
        )
    if not verdict.ok:
        raise AstrocyteError(f"audit log: entry {verdict.broken_entry} is broken: {verdict.reason}")


def export_command(
    *,
    url: Url = None,
    output: Annotated[Path | None, typer.Option("-o", metavar="FILE", help="Default: standard output.")] = None,
) -> None:
    """Write the audit log as JSON lines."""
    from astrocyte.agents.sinks.audit.sink import export_audit

    address = stored_address(url)
    if output is None:
        with pipe_may_close():
            export_audit(address, sys.stdout.buffer)
        return
    try:
        file = output.open("xb")
    except OSError as error:
        raise InvalidSettings(f"-o {output}: {error.strerror}; expected a file that does not exist yet") from error
    with file:
        say(f"{export_audit(address, file):,} entries written to {output}")


def setup_command(
    *,
    raw_days: Annotated[
        float, typer.Option(min=0, help="Days for which raw points are kept; 0 keeps them forever.")
    ] = 30,
    as_json: AsJson = False,
) -> None:
    """Create buckets, retention and downsampling tasks in InfluxDB; running it again changes nothing."""
    from astrocyte.agents.sinks.influx.address import influx_tls
    from astrocyte.agents.sinks.influx.setup import setup_influx
    from astrocyte.pipeline.settings import load_settings

    settings = load_settings()
    if settings.influx_url is None or settings.influx_token is None:
        raise InvalidSettings("InfluxDB is not configured; set ASTROCYTE_INFLUX_URL and ASTROCYTE_INFLUX_TOKEN")
    for change in setup_influx(
        settings.influx_url,
        token=settings.influx_token.get_secret_value(),
        org=settings.influx_org,
        bucket=settings.influx_bucket,
        raw_days=raw_days,
        tls=influx_tls(settings.of("influx")),
    ):
        if as_json:
            print_json({"kind": change.kind, "name": change.name, "done": change.done})
        else:
            say(f"{change.kind} {change.name}: {change.done}")
