"""What an application asks of the transport: its hooks and limits, kept beside the Faust app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from faust.types import TP

__all__ = ["OnAssigned", "OnRevoked", "TransportOptions", "configure", "options_of"]

OnAssigned = Callable[[Mapping[TP, int | None]], "Mapping[TP, int] | Awaitable[Mapping[TP, int] | None] | None"]
"""Called with the partitions and what the group has committed of them (None for nothing) whenever they begin to be
read, before any delivery. Returns offsets to begin at instead, for example those of snapshots; state that was built
from these partitions before must be dropped or restored, because records may come again."""

OnRevoked = Callable[[set[TP]], Awaitable[None]]
"""Called when partitions go, at a rebalance or a shutdown, while acknowledging them still counts: finish what is
begun, store a snapshot, acknowledge. No new chunk comes in meanwhile."""


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Hooks and limits of the transport of one app."""

    on_assigned: OnAssigned | None = None
    on_revoked: OnRevoked | None = None
    revoke_timeout_s: float = 20.0
    """How long ``on_revoked`` may take; other members of the group wait for it."""
    liveness_timeout_s: float | None = 120.0
    """The process ends if there is lag and nothing is read or acknowledged for so long; None: never."""
    fetch_max_bytes: int = 64 << 20
    fetch_max_wait_ms: int = 100
    """How long a broker keeps a fetch open. A partition that fell out of a fetch because its reader was busy waits
    for the fetch of the others to end, so this is a bound of its latency."""
    max_request_bytes: int = 32 << 20
    """Largest message that is produced; topics must allow it by ``max.message.bytes``."""


_OPTIONS: WeakKeyDictionary[Any, TransportOptions] = WeakKeyDictionary()


def configure(app: Any, options: TransportOptions) -> None:
    """Give ``app`` its hooks and limits; call it before the app starts."""
    _OPTIONS[app] = options


def options_of(app: Any) -> TransportOptions:
    """Options of ``app``, the defaults if it was given none."""
    return _OPTIONS.get(app, TransportOptions())
