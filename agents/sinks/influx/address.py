"""The address of InfluxDB, and TLS to it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.http.answers import server_parts
from astrocyte.agents.tls import tls_context, tls_fault

__all__ = ["check_address", "influx_tls", "unreachable"]


def check_address(url: str) -> None:
    """Raises SinkError for what is no address, and for one with a user or password, which the client cannot send."""
    parts = server_parts(url)
    if parts is None:
        raise SinkError(f"InfluxDB address {url!r}; expected one such as http://host:8086")
    if "@" in parts.netloc:
        raise SinkError(
            f"InfluxDB address {url!r} holds a user or password; expected one such as http://host:8086, with the token "
            "in ASTROCYTE_INFLUX_TOKEN (of InfluxDB 1.8: user:password)"
        )


def client_arguments(url: str, *, token: str, org: str, timeout_s: float, tls: ssl.SSLContext | None) -> dict[str, Any]:
    """Arguments of the client, with and without asyncio. Raises SinkError as `check_address` does."""
    check_address(url)
    return {"url": url, "token": token, "org": org, "timeout": int(timeout_s * 1000), "ssl_context": tls}


def influx_tls(settings: Mapping[str, Any]) -> ssl.SSLContext | None:
    """TLS by the settings ``influx_*`` (without the prefix), or None for an address without it.

    Raises InvalidSettings.
    """
    return tls_context(settings, "influx") if str(settings["url"]).lower().startswith("https:") else None


def unreachable(url: str, error: Exception) -> SinkError | None:
    """The error for a server to which no TLS connection can be made, whatever is retried; None for other errors."""
    fault = tls_fault(error)
    if fault is None:
        return None
    return SinkError(
        f"no TLS connection to InfluxDB at {url}: {fault}. See ASTROCYTE_INFLUX_URL, ASTROCYTE_INFLUX_CA_FILE and "
        "ASTROCYTE_INFLUX_CERT_FILE"
    )
