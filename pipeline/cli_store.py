"""Commands over the stores: db, audit, influx."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pipeline.cli_support import print_json, say

__all__ = ["register"]

Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="SQLAlchemy URL or SQLite file; default ASTROCYTE_SQL_URL.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    db = typer.Typer(help="The SQL database: its address, its schema, what is kept.", no_args_is_help=True)
    db.command("upgrade")(upgrade_command)
    db.command("url")(url_command)
    app.add_typer(db, name="db")


def _address(url: str | None) -> str:
    if url is not None:
        return url
    from pipeline.settings import load_settings

    return load_settings().sql_url.get_secret_value()


def upgrade_command(*, url: Url = None) -> None:
    """Bring the database to this version's schema; an empty one gets it, a newer one is left alone."""
    from agents.sinks.migrate import upgrade

    say(f"the database has schema {upgrade(_address(url))}")


def url_command(*, url: Url = None, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Print the database's address, without its password, and the schema that it has."""
    from sqlalchemy.engine import make_url

    from agents.sinks.migrate import current

    address = _address(url)
    shown = make_url(address).render_as_string(hide_password=True) if "://" in address else address
    schema = current(address)
    if as_json:
        print_json({"url": shown, "schema": schema})
    else:
        sys.stdout.write(f"{shown}\n")
        say(f"schema: {schema or 'none yet; make it with: astrocyte db upgrade'}")
