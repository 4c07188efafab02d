"""Certificates for tests of TLS, made by ``openssl``, and a front that takes TLS for a server that cannot."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

__all__ = ["Authority", "tls_front"]

_SSL_REQUEST = (80877103).to_bytes(4, "big")


def _openssl(folder: Path, *arguments: str) -> None:
    program = shutil.which("openssl")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("openssl is not installed")
        pytest.skip("openssl is not installed")
    subprocess.run([program, *arguments], cwd=folder, check=True, capture_output=True)


class Authority:
    """Signs certificates; ``ca_file`` is its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca_file = folder / "ca.pem"
        _openssl(
            folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-days", "2", "-subj", f"/CN=authority of {folder.name}",
        )  # fmt: skip

    def issue(self, name: str, *, alternative: str = "DNS:localhost", password: str = "") -> tuple[Path, Path]:
        """Files of a certificate for the subject ``name``, and of its key, which a password encrypts."""
        stem = name.replace(".", "_")
        cipher = ["-passout", f"pass:{password}"] if password else ["-nodes"]
        _openssl(
            self.folder, "req", "-newkey", "rsa:2048", *cipher, "-keyout", f"{stem}.key", "-out", f"{stem}.csr",
            "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}",
        )  # fmt: skip
        _openssl(
            self.folder, "x509", "-req", "-in", f"{stem}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-copy_extensions", "copy", "-days", "2", "-out", f"{stem}.pem",
        )  # fmt: skip
        return self.folder / f"{stem}.pem", self.folder / f"{stem}.key"


@contextmanager
def tls_front(
    port: int, certificate: tuple[Path, Path], *, clients_by: Path | None = None, postgres: bool = False
) -> Iterator[int]:
    """Port of 127.0.0.1 that takes TLS and passes on what comes to ``port``, in the clear.

    ``clients_by`` are the authorities of the certificates that clients must have. With ``postgres`` a connection
    begins as PostgreSQL's does; the server that comes as a wheel is built without TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if clients_by is not None:
        context.load_verify_locations(clients_by)
        context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(plain: socket.socket) -> None:
        with suppress(OSError), plain:
            if postgres:
                request = plain.recv(8, socket.MSG_WAITALL)
                if request[4:] != _SSL_REQUEST:
                    return
                plain.sendall(b"S")
            with context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as client:
                if not _agreed(client):
                    return
                server = socket.create_connection(("127.0.0.1", port))
                with server:
                    back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
                    back.start()
                    _pass_on(client, server)
                    back.join(30)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        # Closing alone does not end a call of accept() in another thread.
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _agreed(client: ssl.SSLSocket) -> bool:
    """Whether a connection of TLS was made; if not, the client is let read why."""
    try:
        client.do_handshake()
    except ssl.SSLError:
        # Closed with bytes that nobody has read, the system would send a reset, which overtakes the reason.
        client.settimeout(10)
        socket.socket.shutdown(client, socket.SHUT_WR)
        while socket.socket.recv(client, 1 << 16):
            pass
        return False
    return True


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError, ValueError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
