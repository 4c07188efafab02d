"""A real InfluxDB 1.13 for tests: built once from the Go module proxy into a cache folder outside the repository.

``python -m tests.support.influxd`` builds it, which takes ten minutes or more; it needs Go and Rust. The server speaks
InfluxDB 2's write API, Flux, and InfluxQL. Where it was not built, tests that need it are skipped with the reason.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.support.http_process import HttpProcess
from tests.support.kafka import free_port

__all__ = ["InfluxServer", "InfluxUnavailable", "influx_server", "influxd"]

VERSION = "1.13.2"
_SERVER = f"github.com/influxdata/influxdb/cmd/influxd@v{VERSION}"
_PKG_CONFIG = "github.com/influxdata/pkg-config@v0.2.7"
"""Builds Flux's library in Rust where cgo asks for it."""


class InfluxUnavailable(RuntimeError):
    """The server was not built, or cannot be."""


def cached() -> Path:
    """Where the built program lies, or will."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astrocyte-tests"
    return folder / "influxdb" / VERSION / "influxd"


def influxd() -> Path:
    """The built program. Raises InfluxUnavailable."""
    if cached().exists():
        return cached()
    raise InfluxUnavailable(_lacking() or "not built; python -m tests.support.influxd builds it (ten minutes or more)")


def build() -> Path:
    """The program, built if it is not there yet. Raises InfluxUnavailable."""
    if cached().exists():
        return cached()
    lacking = _lacking()
    if lacking:
        raise InfluxUnavailable(lacking)
    cached().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached().parent) as folder:
        # The toolchain that is there: that which the sources name would have to be fetched.
        environment = os.environ | {"GOBIN": folder, "RUSTUP_TOOLCHAIN": _toolchain(), "GOTOOLCHAIN": "local"}
        for package, more in ((_PKG_CONFIG, {}), (_SERVER, {"PKG_CONFIG": f"{folder}/pkg-config"})):
            done = subprocess.run(
                ["go", "install", "-ldflags", f"-X main.version={VERSION}", package],
                env=environment | more,
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise InfluxUnavailable(f"go install {package} failed: {done.stderr[-1500:]}")
        # In one step, so that of two that build at once the second replaces the same program.
        Path(folder, "influxd").replace(cached())
    return cached()


def _lacking() -> str:
    missing = [tool for tool in ("go", "cargo", "rustc") if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not found; a real InfluxDB is built by Go and Rust" if missing else ""


def _toolchain() -> str:
    """An installed toolchain of rustup; without rustup nothing asks for it."""
    if shutil.which("rustup") is None:
        return ""
    done = subprocess.run(
        ["rustup", "show", "active-toolchain"], cwd="/", check=False, capture_output=True, text=True
    )  # fmt: skip
    return done.stdout.split(maxsplit=1)[0] if done.stdout.strip() else "stable"


class InfluxServer(HttpProcess):
    """A server on loopback; each test takes a database of its own, which is a bucket as well.

    With ``login`` it asks for users, of whom the test makes the first.
    """

    def __init__(self, folder: Path, *, login: bool = False) -> None:
        address, inner = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        data = {"META_DIR": "meta", "DATA_DIR": "data", "DATA_WAL_DIR": "wal"}
        environment = {
            "INFLUXDB_BIND_ADDRESS": inner,
            "INFLUXDB_HTTP_BIND_ADDRESS": address,
            "INFLUXDB_HTTP_FLUX_ENABLED": "true",
            "INFLUXDB_HTTP_AUTH_ENABLED": str(login).lower(),
            "INFLUXDB_HTTP_LOG_ENABLED": "false",
            "INFLUXDB_REPORTING_DISABLED": "true",
            "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            "INFLUXDB_CONTINUOUS_QUERIES_RUN_INTERVAL": "200ms",
            **{f"INFLUXDB_{name}": str(folder / place) for name, place in data.items()},
        }
        super().__init__([str(influxd())], folder, address=address, ready="/ping", environment=environment)

    def influxql(self, query: str, database: str = "") -> list[dict[str, Any]]:
        """Series of the answer to one statement; a refused one fails the test with what the server says."""
        parameters = {"q": query, "epoch": "ns"} | ({"db": database} if database else {})
        request = urllib.request.Request(
            f"{self.url}/query", data=urllib.parse.urlencode(parameters).encode(), method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                (result,) = json.load(answer)["results"]
        except HTTPError as error:
            pytest.fail(f"{query}: {error.read().decode()}")
        if "error" in result:
            pytest.fail(f"{query}: {result['error']}")
        return list(result.get("series", ()))

    def flux(self, query: str) -> list[dict[str, str]]:
        """Rows of the answer; a refused query fails the test with what the server says."""
        request = urllib.request.Request(
            f"{self.url}/api/v2/query",
            data=query.encode(),
            headers={"content-type": "application/vnd.flux", "accept": "application/csv"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read().decode()
        except HTTPError as error:
            pytest.fail(f"{query}: {error.read().decode()}")
        rows = list(_tables(text))
        if rows and "error" in rows[0]:
            pytest.fail(f"{query}: {rows[0]['error']}")
        return rows

    def write(self, database: str, lines: str) -> None:
        """Write points in line protocol."""
        address = f"{self.url}/write?{urllib.parse.urlencode({'db': database})}"
        urllib.request.urlopen(urllib.request.Request(address, data=lines.encode(), method="POST"), timeout=60).close()

    def database(self, name: str) -> str:
        """Make a database, and return its name."""
        self.influxql(f'CREATE DATABASE "{name}"')
        return name


def _tables(text: str) -> Iterator[Mapping[str, str]]:
    """Rows of Flux's CSV: tables have a line of names each, and an empty line between them."""
    names: Sequence[str] = ()
    for row in csv.reader(io.StringIO(text)):
        if not row:
            names = ()
        elif row[0].startswith("#"):
            continue
        elif not names:
            names = row
        else:
            yield dict(zip(names, row, strict=True))


@pytest.fixture(scope="session")
def influx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """A server for the session; skips the test where none was built, with the reason."""
    try:
        server = InfluxServer(tmp_path_factory.mktemp("influxdb"))
    except InfluxUnavailable as error:
        pytest.skip(f"no real InfluxDB: {error}")
    yield server
    server.stop()


if __name__ == "__main__":
    try:
        print(build())
    except InfluxUnavailable as error:
        sys.exit(f"no InfluxDB for the tests: {error}")
