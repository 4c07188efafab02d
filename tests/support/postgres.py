"""A real PostgreSQL with pgvector for tests: our own, or the one whose address ``ASTROCYTE_TEST_POSTGRES`` gives.

A test module takes the fixtures by importing them: pytest finds fixtures where they are imported.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from astrocyte.pipeline.bench.servers.postgres import PostgresServer, PostgresUnavailable, postgres_server
from tests.support.waiting import wait_until


class Standby(PostgresServer):
    """A synchronous standby of a running server: what the server has confirmed, it has."""

    def __init__(self, primary: PostgresServer) -> None:
        self._primary = primary
        super().__init__(primary.folder.with_name("standby"))
        self.start()
        with psycopg.connect(primary.url, autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            admin.execute("SELECT pg_reload_conf()")
            wait_until(
                lambda: admin.execute("SELECT sync_state FROM pg_stat_replication").fetchall() == [("sync",)],
                what="the synchronous standby",
            )

    def _make(self, data: str) -> None:
        address = ("-h", "127.0.0.1", "-p", str(self._primary.port), "-U", "app")
        self._run("pg_basebackup", "-D", data, *address, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")

    def take_over(self) -> None:
        """Answer at the address of the server, which is gone; nothing can be written before `promote`."""
        self.stop()
        self.port = self._primary.port
        self.start()

    def promote(self) -> None:
        """Become a server that is written to."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "promote")


class Secured(PostgresServer):
    """A server of the system, which has TLS; the wheel's has not. It asks for a client's certificate, but not for
    the database template1."""

    def __init__(self, folder: Path, certificate: tuple[Path, Path], ca_file: Path) -> None:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not programs:
            raise PostgresUnavailable("the system's is not installed; on Debian: apt-get install postgresql")
        self._files = {"ssl_cert_file": certificate[0], "ssl_key_file": certificate[1], "ssl_ca_file": ca_file}
        named = " ".join(f"-c {name}={folder / path.name}" for name, path in self._files.items())
        super().__init__(folder, binaries=programs[-1], options=f"-c ssl=on {named}")

    def _make(self, data: str) -> None:
        super()._make(data)
        owner = self.folder.stat()
        for path in self._files.values():
            copy = Path(shutil.copy(path, self.folder))
            copy.chmod(0o600)
            os.chown(copy, owner.st_uid, owner.st_gid)
        (self.folder / "data" / "pg_hba.conf").write_text(
            "hostssl postgres app 127.0.0.1/32 cert\nhostssl template1 app 127.0.0.1/32 trust\n"
        )


@contextmanager
def server_or_skip(
    make: Callable[[Path], PostgresServer] = PostgresServer, *, needed: bool = False
) -> Iterator[PostgresServer]:
    """A server for the tests; they are skipped with the reason where none can be started, or fail if it is needed."""
    try:
        context = postgres_server(make)
        server = context.__enter__()
    except PostgresUnavailable as error:
        (pytest.fail if needed else pytest.skip)(f"no PostgreSQL: {error}")
    try:
        yield server
    finally:
        context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def postgres_address() -> Iterator[str]:
    """Address of a server for the whole session."""
    given = os.environ.get("ASTROCYTE_TEST_POSTGRES")
    if given:
        yield given
        return
    with server_or_skip() as server:
        yield server.url


@pytest.fixture
def postgres(postgres_address: str) -> Iterator[str]:
    """Address of an empty database for one test."""
    name = f"t{uuid4().hex}"
    with psycopg.connect(postgres_address, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield postgres_address.rpartition("/")[0] + "/" + name
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A running server that the test may stop and start."""
    with server_or_skip() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data.db"
    address: str = request.getfixturevalue("postgres")
    return address
