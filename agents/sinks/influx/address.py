"""The address of InfluxDB."""

from __future__ import annotations

from urllib.parse import urlsplit

from astrocyte.agents.sinks.base import SinkError

__all__ = ["check_address"]


def check_address(url: str) -> None:
    """Raises SinkError for what is no address, and for one with a user or password, which the client cannot send."""
    try:
        parts = urlsplit(url)
        found = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        found = False
    if not found:
        raise SinkError(f"InfluxDB address {url!r}; expected one such as http://host:8086")
    if "@" in parts.netloc:
        raise SinkError(
            f"InfluxDB address {url!r} holds a user or password; expected one such as http://host:8086, with the token "
            "in ASTROCYTE_INFLUX_TOKEN (of InfluxDB 1.8: user:password)"
        )
