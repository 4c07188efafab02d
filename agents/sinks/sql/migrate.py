"""Upgrades of a database to the schema of this program, by the Alembic migrations that ship with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.sql.engines import driver_errors, engine_of
from astrocyte.agents.sinks.sql.url import database_url, shown_address, sqlite_path
from astrocyte.schemas.tables import Base

__all__ = ["NewerDatabase", "OlderDatabase", "check", "current", "head", "prepare", "upgrade", "upgrade_engine"]

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x61737472  # "astr": key of an advisory lock, so that only one upgrade runs at a time on a server


class NewerDatabase(SinkError):
    """The database was written by a newer version of this program."""


class OlderDatabase(SinkError):
    """The database was written by an older version of this program, and ``migrate`` is off."""


def head() -> str:
    """Newest revision that this program knows."""
    newest = _scripts().get_current_head()
    assert newest is not None
    return newest


def current(address: str | Path) -> str | None:
    """Revision of a database, or None if it has no Astrocyte tables. Raises the driver's error."""
    _check_folder(address)
    engine = engine_of(address)
    try:
        with engine.connect() as connection:
            return _revision(connection)
    except DBAPIError as error:
        raise error.orig or error from error
    finally:
        engine.dispose()


def check(address: str | Path) -> None:
    """Check that the database is of this version. Raises NewerDatabase, OlderDatabase or the driver's error."""
    found = current(address)
    shown = shown_address(address)
    _refuse_newer(found, shown)
    if found != head():
        raise OlderDatabase(
            f"the database {shown} is at revision {found or 'none'}, this program needs {head()}; "
            "run `astrocyte db upgrade`"
        )


def prepare(address: str | Path, *, migrate: bool) -> None:
    """`upgrade` or `check`, raising the driver's own errors, for callers that retry transient ones."""
    _check_folder(address)
    if not migrate:
        check(address)
        return
    engine = engine_of(address)
    try:
        upgrade_engine(engine)
    except DBAPIError as error:
        raise error.orig or error from error
    finally:
        engine.dispose()


def upgrade(address: str | Path, revision: str = "head") -> str:
    """Upgrade a database (new, or of any older version) to ``revision``; returns its revision afterwards.

    Runs in one transaction. Raises SinkError (NewerDatabase if the database is of a newer version).
    """
    _check_folder(address)
    engine = engine_of(address)
    try:
        with driver_errors(address, "could not be upgraded"):
            return upgrade_engine(engine, revision)
    finally:
        engine.dispose()


def _check_folder(address: str | Path) -> None:
    """Raise SinkError for a missing folder, which a retry cannot fix."""
    url = database_url(address)
    if url.get_backend_name() == "sqlite" and sqlite_path(url) != ":memory:":
        path = Path(sqlite_path(url))
        if not path.parent.is_dir():
            raise SinkError(f"the folder {path.parent} of the database {path.name} does not exist; make it first")
        if path.is_dir():
            raise SinkError(f"the database {path} is a folder; expected the path of a file")


def upgrade_engine(engine: Engine, revision: str = "head") -> str:
    """`upgrade` of the database behind an engine."""
    with engine.connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            # SQLite alters a table by replacing it: foreign keys are off meanwhile, and checked before the commit.
            _without_transaction(connection, "PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                if sqlite:
                    connection.exec_driver_sql("ROLLBACK")
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                else:
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
                found = _revision(connection)
                _refuse_newer(found, str(engine.url))
                _refuse_strangers(connection, found)
                if not sqlite:
                    _ensure_pgvector(connection)
                config = _config()
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
                reached = _revision(connection)
                if sqlite:
                    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
                    if broken:
                        raise SinkError(
                            f"{engine.url}: {len(broken)} rows refer to rows that are missing: {broken[:3]}"
                        )
        finally:
            if sqlite:
                _without_transaction(connection, "PRAGMA foreign_keys=ON")
    assert reached is not None
    return reached


def _without_transaction(connection: Connection, statement: str) -> None:
    raw: Any = connection.connection.dbapi_connection
    raw.execute(statement)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(found: str | None, address: str) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if found is not None and found not in known:
        raise NewerDatabase(
            f"the database {address} is at revision {found}, which this program does not know (its newest is "
            f"{head()}): a newer version created it; upgrade astrocyte, or use another database"
        )


def _refuse_strangers(connection: Connection, found: str | None) -> None:
    if found is not None:
        return
    taken = sorted(set(inspect(connection).get_table_names()) & set(Base.metadata.tables))
    if taken:
        raise SinkError(
            f"the database has tables {', '.join(taken)} that astrocyte did not create (no alembic_version); "
            "use another database, or another schema"
        )


def _ensure_pgvector(connection: Connection) -> None:
    present = "SELECT 1 FROM pg_extension WHERE extname = 'vector'"
    if connection.execute(text(present)).first():
        return
    offered = connection.execute(text("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")).first()
    if not offered:
        raise SinkError("PostgreSQL lacks the extension pgvector, which kernel basins need; install it on the server")
    try:
        with connection.begin_nested():
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    except DBAPIError as error:
        raise SinkError(
            f"the extension pgvector could not be created ({error.orig}); have a superuser run: CREATE EXTENSION vector"
        ) from error
