"""Members of a consumer group, their requests and responses, and the timer interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from astrocyte.pipeline.broker.protocol.errors import ErrorCode

__all__ = ["JoinRequest", "Joined", "Member", "Synced", "Timer", "Timers"]


class Timer(Protocol):
    """Handle returned by ``call_later``."""

    def cancel(self) -> None:
        """Cancel the call."""


class Timers(Protocol):
    """The part of an asyncio loop that a group needs; times in seconds."""

    def time(self) -> float:
        """Current time of a monotonic clock."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        """Call ``callback`` once after a delay."""


class JoinRequest(NamedTuple):
    """A request to join. With ``member_id_required`` (JoinGroup 4 and up) a new member must repeat it with its id."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    protocol_type: str
    protocols: list[tuple[str, bytes]]
    session_timeout_s: float
    rebalance_timeout_s: float
    member_id_required: bool = False


class Joined(NamedTuple):
    """The response to JoinRequest; only the leader gets the ``members`` (id, instance id, protocol metadata)."""

    error: ErrorCode
    generation: int = -1
    protocol: str = ""
    leader: str = ""
    member_id: str = ""
    members: tuple[tuple[str, str | None, bytes], ...] = ()


class Synced(NamedTuple):
    """The response to a member that requests its assignment."""

    error: ErrorCode
    assignment: bytes = b""


@dataclass(slots=True, eq=False)
class Member:
    """A member, and the responses for which it waits."""

    id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_s: float
    rebalance_timeout_s: float
    protocols: list[tuple[str, bytes]]
    assignment: bytes = b""
    seen: float = 0.0
    join_reply: Callable[[Joined], None] | None = None
    sync_reply: Callable[[Synced], None] | None = None
    session_timer: Timer | None = None

    def metadata(self, protocol: str) -> bytes:
        """Metadata that the member sent for a protocol; empty if it does not support it."""
        return dict(self.protocols).get(protocol, b"")

    def answer_join(self, joined: Joined) -> None:
        """Respond to its JoinGroup request, if one waits."""
        reply, self.join_reply = self.join_reply, None
        if reply is not None:
            reply(joined)

    def answer_sync(self, synced: Synced) -> None:
        """Respond to its SyncGroup request, if one waits."""
        reply, self.sync_reply = self.sync_reply, None
        if reply is not None:
            reply(synced)
