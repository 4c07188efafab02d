"""Options of the transport: an application's hooks and limits, kept beside the Faust app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from astrocyte.pipeline.kafka.security import security_arguments
from astrocyte.pipeline.transport.assignor import OnNotes
from astrocyte.pipeline.transport.balance import Balance

__all__ = ["OnAssigned", "OnReset", "OnRevoked", "TransportOptions", "client_security", "configure", "options_of"]

OnAssigned = Callable[[Mapping[TP, int | None]], "Mapping[TP, int] | Awaitable[Mapping[TP, int] | None] | None"]
"""Called with the assigned partitions and their committed offsets (None: nothing committed), before any delivery.
Returns offsets to start at instead, for example those of snapshots. State that was built from these partitions before
must be dropped or restored, because records may be delivered again."""

OnReset = Callable[[TP, int, int], None]
"""Called with a partition, the offset at which it was to go on, and the lower one at which it goes on: its topic was
deleted and made anew, or has lost its end. Nothing of it was delivered yet."""

OnRevoked = Callable[[set[TP]], Awaitable[None]]
"""Called when partitions are revoked, at a rebalance or a shutdown, while acknowledgements are still committed: finish
work in progress, store a snapshot, acknowledge. No chunk is delivered meanwhile."""


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Hooks and limits of the transport of one app."""

    on_assigned: OnAssigned | None = None
    on_revoked: OnRevoked | None = None
    on_reset: OnReset | None = None
    note: str = ""
    """What the members of the group learn of this one (`pipeline.transport.assignor`)."""
    on_notes: OnNotes | None = None
    balance: Balance | None = None
    """By which partitions are divided over the members of the group; None: evenly."""
    revoke_timeout_s: float = 20.0
    """Time limit of ``on_revoked``; other members of the group wait for it."""
    fetch_max_bytes: int = 64 << 20
    fetch_max_wait_ms: int = 100
    """Longest time for which a broker holds a fetch. A partition left out of a fetch because its reader was busy waits
    until that fetch ends, so this bounds its latency."""
    max_request_bytes: int = 32 << 20
    """Largest message that is produced; topics must allow it with ``max.message.bytes``."""


_OPTIONS: WeakKeyDictionary[Any, TransportOptions] = WeakKeyDictionary()


def configure(app: Any, options: TransportOptions) -> None:
    """Set the hooks and limits of ``app``; call it before the app starts."""
    _OPTIONS[app] = options


def options_of(app: Any) -> TransportOptions:
    """Options of ``app``; the defaults if `configure` was not called."""
    return _OPTIONS.get(app, TransportOptions())


def client_security(conf: Any) -> dict[str, Any]:
    """Arguments for TLS and SASL: those of a Faust app with credentials of its own, else those of the settings."""
    if conf.broker_credentials or conf.ssl_context:
        found: dict[str, Any] = driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context)
        return found
    return security_arguments()
