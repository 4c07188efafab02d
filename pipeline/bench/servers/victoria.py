"""A private VictoriaMetrics server (Debian package ``victoria-metrics``), for benchmarks and tests.

It accepts InfluxDB's v2 write API, stores neither strings nor nanoseconds, and returns 204 for lines that it cannot
parse.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import orjson

from astrocyte.pipeline.roles.parent import killed_with_parent

__all__ = ["VictoriaServer", "VictoriaUnavailable", "victoria_server"]

_START_S: Final = 20.0


class VictoriaUnavailable(RuntimeError):
    """The program is not installed, or does not start on this machine."""


class VictoriaServer:
    """A running server at ``url``, whose certificate is verified by ``tls`` if it has one."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self.url = url
        self._tls = tls

    def series(self, field: str) -> list[dict[str, Any]]:
        """Every series of ``measurement_field``: its tags (``metric``), ``values`` and ``timestamps``."""
        self._get("/internal/force_flush")
        return [orjson.loads(line) for line in self._get(f"/api/v1/export?match[]={quote(field)}").splitlines()]

    def samples(self, field: str) -> list[float]:
        """Every stored value of ``measurement_field``, over all series."""
        return [value for series in self.series(field) for value in series["values"]]

    def unreadable_lines(self) -> int:
        """Number of lines that the server accepted but could not parse."""
        found = [line for line in self._get("/metrics").splitlines() if line.startswith(b"vm_rows_invalid_total")]
        return sum(int(float(line.rpartition(b" ")[2])) for line in found if b"influx" in line)

    def _get(self, path: str) -> bytes:
        with urlopen(self.url + path, timeout=30, context=self._tls) as answer:  # noqa: S310  the address is our own
            body: bytes = answer.read()
        return body

    def healthy(self) -> bool:
        """Whether the server answers."""
        try:
            self._get("/health")
        except (URLError, ConnectionError):
            return False
        return True


@contextmanager
def victoria_server(
    certificate: tuple[Path, Path] | None = None, ca_file: Path | None = None
) -> Iterator[VictoriaServer]:
    """A server on the loopback interface with its data in a temporary folder. Raises VictoriaUnavailable.

    ``certificate``: files of a certificate for localhost and of its key, for TLS; ``ca_file`` verifies it.
    """
    program = shutil.which("victoria-metrics")
    if program is None:
        raise VictoriaUnavailable("victoria-metrics is not installed; on Debian: apt-get install victoria-metrics")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    named = () if certificate is None else zip(("tlsCertFile", "tlsKeyFile"), certificate, strict=True)
    secured = ["-tls", *(f"-{name}={file}" for name, file in named)] if certificate is not None else []
    url = f"http://127.0.0.1:{port}" if certificate is None else f"https://localhost:{port}"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                killed_with_parent(
                    [program, f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder}/data",
                     "-retentionPeriod=100y", "-memory.allowedBytes=256MB", "-search.latencyOffset=0s",
                     "-loggerLevel=WARN", *secured]
                ),
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            server = VictoriaServer(url, ssl.create_default_context(cafile=ca_file) if secured else None)
            _wait(server, process, log)
            yield server
        finally:
            process.terminate()
            process.wait(20)


def _wait(server: VictoriaServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        if server.healthy():
            return
        time.sleep(0.02)
    raise VictoriaUnavailable(f"victoria-metrics did not start: {log.read_text()[-300:]}")
