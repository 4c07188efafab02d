"""The socket of the page."""

from __future__ import annotations

import socket

from astrocyte.schemas.errors import InvalidSettings

__all__ = ["listening"]


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 chooses a free one. Raises InvalidSettings."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InvalidSettings(
            f"the page cannot be served at port {port} of {host}: {error.strerror or error}; choose another one with "
            "--port, or 0 for a free one"
        ) from None
    return listener
