"""What a consumer group is made of: its members, what they ask and are answered, and the clock that it goes by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from astrocyte.pipeline.broker.protocol.errors import ErrorCode

__all__ = ["JoinRequest", "Joined", "Member", "Synced", "Timer", "Timers"]


class Timer(Protocol):
    """What ``call_later`` gives."""

    def cancel(self) -> None:
        """Do not call."""


class Timers(Protocol):
    """The part of an asyncio loop that a group needs; seconds."""

    def time(self) -> float:
        """Now, on a clock that never goes back."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        """Call back once, after a delay."""


class JoinRequest(NamedTuple):
    """A wish to be a member. ``member_id_required`` (JoinGroup 4 and up) makes a new one come back with its id."""

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
    """The answer to JoinRequest; the leader alone learns of the ``members`` (id, instance id, protocol metadata)."""

    error: ErrorCode
    generation: int = -1
    protocol: str = ""
    leader: str = ""
    member_id: str = ""
    members: tuple[tuple[str, str | None, bytes], ...] = ()


class Synced(NamedTuple):
    """The answer to a member that asks for its assignment."""

    error: ErrorCode
    assignment: bytes = b""


@dataclass(slots=True, eq=False)
class Member:
    """A member, and the answers it waits for."""

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
        """What the member said under a protocol's name."""
        return dict(self.protocols).get(protocol, b"")

    def answer_join(self, joined: Joined) -> None:
        """Answer its JoinGroup, if one waits."""
        reply, self.join_reply = self.join_reply, None
        if reply is not None:
            reply(joined)

    def answer_sync(self, synced: Synced) -> None:
        """Answer its SyncGroup, if one waits."""
        reply, self.sync_reply = self.sync_reply, None
        if reply is not None:
            reply(synced)
