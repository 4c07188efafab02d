"""Database addresses, and the URL and store for one."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.sql.store import Store
from astrocyte.schemas.errors import redacted

__all__ = ["database_url", "open_store", "report_unverified", "shown_address", "sqlite_path"]

logger = logging.getLogger(__name__)

_TLS_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""Values of ``sslmode``. The first verifies nothing and encrypts nothing; only the last two verify by themselves."""
_TLS_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir")
_EXPECTED = "sqlite:///FILE, a path, or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"


def database_url(address: str | Path) -> URL:
    """SQLAlchemy URL of an address, with the driver that Astrocyte uses. Raises SinkError.

    A path means an SQLite file; ``postgres://`` and ``postgresql://`` mean psycopg 3. An address that names files of
    TLS verifies the server: ``sslmode`` becomes verify-full, and one with which they would have no effect is refused.
    """
    text = str(address)
    if "://" not in text:
        if not text.strip():
            raise SinkError(f"expected {_EXPECTED}, got an empty database address")
        return URL.create("sqlite", database=None if text == ":memory:" else text)
    try:
        url = make_url(text.replace("postgres://", "postgresql://", 1) if text.startswith("postgres://") else text)
    except (ArgumentError, ValueError) as error:
        raise SinkError(f"invalid database address ({error}); expected {_EXPECTED}") from error
    backend = url.get_backend_name()
    if backend == "sqlite":
        return url.set(drivername="sqlite")
    if backend == "postgresql":
        if not url.host and "host" not in url.query and not url.database:
            raise SinkError(f"the address {url.render_as_string()} has no host and no database; expected {_EXPECTED}")
        return _with_tls(url.set(drivername="postgresql+psycopg"))
    raise SinkError(f"database {backend!r} is not supported; expected {_EXPECTED}")


def _with_tls(url: URL) -> URL:
    mode = url.query.get("sslmode", os.environ.get("PGSSLMODE"))
    if mode is not None and mode not in _TLS_MODES:
        raise SinkError(f"sslmode={mode} in the database address; expected one of {', '.join(_TLS_MODES)}")
    given = next((name for name in _TLS_FILES if url.query.get(name)), None)
    if given is None:
        return url
    if mode is None:
        # PostgreSQL's own default connects without TLS where the certificate is not trusted.
        return url.update_query_dict({"sslmode": "verify-full"})
    if mode in ("disable", "allow", "prefer"):
        raise SinkError(
            f"the database address names {given}, and with sslmode={mode} the connection may be made without it; "
            "expected sslmode=verify-full, or no sslmode, which then means the same"
        )
    return url


@cache
def report_unverified(address: str | Path) -> None:
    """Log once that the server of an address is not verified, unless it is on this machine, or sslmode=disable says so.

    Whoever stands between could read what is sent, and the password. Raises SinkError.
    """
    url = database_url(address)
    if url.get_backend_name() != "postgresql":
        return
    mode = url.query.get("sslmode", os.environ.get("PGSSLMODE"))
    if mode in ("disable", "verify-ca", "verify-full") or (mode == "require" and url.query.get("sslrootcert")):
        return
    hosts = url.query.get("host", url.host or "")
    if all(_is_local(host) for each in (hosts if isinstance(hosts, tuple) else (hosts,)) for host in each.split(",")):
        return
    logger.warning(
        "the server of %s is not verified%s; add sslmode=verify-full to the address (and sslrootcert=FILE, or "
        "sslrootcert=system), or sslmode=disable where that is meant",
        shown_address(address),
        "" if mode == "require" else ", and the connection may be without TLS",
    )


def _is_local(host: str) -> bool:
    name = host.partition(":")[0] if host.count(":") == 1 else host
    return not name or name.startswith(("/", "@", "127.")) or name in ("localhost", "::1")


def shown_address(address: str | Path) -> str:
    """The address for messages: without passwords. Raises SinkError."""
    return redacted(database_url(address).render_as_string(hide_password=True))


def sqlite_path(url: URL) -> str:
    """Path of the file, or ``:memory:``."""
    return url.database or ":memory:"


def open_store(address: str | Path, *, busy_s: float | None = None, enforces: bool = True) -> Store:
    """The store for an address, not yet connected. Raises SinkError.

    ``busy_s`` is how many seconds a statement may wait for another writer of an SQLite file, and ``enforces`` whether
    SQLite checks foreign keys (PostgreSQL always does).
    """
    url = database_url(address)
    if url.get_backend_name() == "sqlite":
        from astrocyte.agents.sinks.sql.sqlite import BUSY_S, SqliteStore

        return SqliteStore(sqlite_path(url), busy_s=BUSY_S if busy_s is None else busy_s, enforces=enforces)
    from astrocyte.agents.sinks.sql.postgres import PostgresStore

    return PostgresStore(url)
