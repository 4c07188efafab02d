"""Bringing a database to the version of this program, by the Alembic migrations shipped with it."""

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

from agents.sinks.base import SinkError
from agents.sinks.engines import engine_of
from schemas.tables import Base

__all__ = ["NewerDatabase", "OlderDatabase", "check", "current", "head", "upgrade", "upgrade_engine"]

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x61737472  # "astr": one upgrade at a time on a server


class NewerDatabase(SinkError):
    """The database was written by a newer version of this program."""


class OlderDatabase(SinkError):
    """The database was written by an older version, and nobody allowed its upgrade."""


def head() -> str:
    """Newest revision that this program knows."""
    newest = _scripts().get_current_head()
    assert newest is not None
    return newest


def current(address: str | Path) -> str | None:
    """Revision of a database, or None where it holds none of our tables."""
    engine = engine_of(address)
    try:
        with engine.connect() as connection:
            return _revision(connection)
    except DBAPIError as error:
        raise error.orig or error from error
    finally:
        engine.dispose()


def check(address: str | Path) -> None:
    """Nothing where the database is of this version. Raises NewerDatabase or OlderDatabase."""
    found = current(address)
    _refuse_newer(found, str(engine_of(address).url))
    if found != head():
        raise OlderDatabase(
            f"the database {engine_of(address).url} is at revision {found or 'none'}, this program needs {head()}; "
            "run `astrocyte db upgrade`"
        )


def upgrade(address: str | Path, revision: str = "head") -> str:
    """Bring a database (new, or of any older version) to ``revision``; returns the revision it has then.

    All of it happens in one transaction. Raises NewerDatabase, SinkError or the driver's error.
    """
    engine = engine_of(address)
    try:
        return upgrade_engine(engine, revision)
    except DBAPIError as error:
        raise error.orig or error from error
    finally:
        engine.dispose()


def upgrade_engine(engine: Engine, revision: str = "head") -> str:
    """`upgrade` of the database behind an engine."""
    with engine.connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            # Altering a table of SQLite replaces it, which its children must not notice; checked before the commit.
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
            f"{head()}): a newer version wrote it; upgrade astrocyte, or use another database"
        )


def _refuse_strangers(connection: Connection, found: str | None) -> None:
    if found is not None:
        return
    taken = sorted(set(inspect(connection).get_table_names()) & set(Base.metadata.tables))
    if taken:
        raise SinkError(
            f"the database holds tables {', '.join(taken)} that astrocyte did not make (no alembic_version); "
            "use another database, or another schema"
        )


def _ensure_pgvector(connection: Connection) -> None:
    present = "SELECT 1 FROM pg_extension WHERE extname = 'vector'"
    if connection.execute(text(present)).first():
        return
    offered = connection.execute(text("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")).first()
    if not offered:
        raise SinkError("this PostgreSQL lacks the extension pgvector, which basins need; install it on the server")
    try:
        with connection.begin_nested():
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    except DBAPIError as error:
        raise SinkError(
            f"the extension pgvector could not be created ({error.orig}); have a superuser run: CREATE EXTENSION vector"
        ) from error
