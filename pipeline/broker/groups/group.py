"""One consumer group: Kafka's classic group protocol as a state machine without I/O.

Requests are calls, responses are passed to the ``reply`` of each call, time is read from ``Timers`` (an asyncio loop,
or a simulated clock). The contents of protocols and assignments are opaque, so eager and cooperative clients both work.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable
from enum import StrEnum

from astrocyte.pipeline.broker.groups.member import Joined, JoinRequest, Member, Synced, Timer, Timers
from astrocyte.pipeline.broker.protocol.errors import ErrorCode

__all__ = ["ConsumerGroup", "GroupState"]

logger = logging.getLogger(__name__)


class GroupState(StrEnum):
    """The states of a group, with the names that DescribeGroups returns."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"  # waiting for the members to join
    COMPLETING = "CompletingRebalance"  # waiting for the leader's assignment
    STABLE = "Stable"


class ConsumerGroup:
    """Members of one group over its generations. ``changed`` is called when the membership should be stored."""

    def __init__(
        self,
        group_id: str,
        timers: Timers,
        *,
        initial_delay_s: float = 0.0,
        changed: Callable[[ConsumerGroup], None] | None = None,
    ) -> None:
        self.id, self.timers, self.initial_delay_s, self._changed = group_id, timers, initial_delay_s, changed
        self.state = GroupState.EMPTY
        self.generation = 0
        self.protocol_type = self.protocol = self.leader = ""
        self.members: dict[str, Member] = {}
        self.static: dict[str, str] = {}  # instance id -> member id
        self.pending: dict[str, Timer] = {}  # ids issued to members that have not joined with them yet (KIP-394)
        self._phase_timer: Timer | None = None
        self._initial_left_s: float | None = None  # remaining initial delay, in which more members may join
        self._joined_meanwhile = False

    def join(self, request: JoinRequest, reply: Callable[[Joined], None]) -> None:
        """A member joins or rejoins; the response is sent when all have joined, or at once if nothing changes."""
        if not self._fits(request):
            return reply(Joined(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, member_id=request.member_id))
        holder = self.static.get(request.instance_id) if request.instance_id else None
        if not request.member_id:
            if holder is not None:
                return self._take_over(self.members[holder], request, reply)
            return self._join_new(request, reply)
        if request.member_id in self.pending:
            self.pending.pop(request.member_id).cancel()
            return self._add(request.member_id, request, reply)
        if holder is not None and holder != request.member_id:
            return reply(Joined(ErrorCode.FENCED_INSTANCE_ID, member_id=request.member_id))
        member = self.members.get(request.member_id)
        if member is None or (request.instance_id and holder is None):
            return reply(Joined(ErrorCode.UNKNOWN_MEMBER_ID, member_id=request.member_id))
        return self._rejoin(member, request, reply)

    def sync(
        self,
        generation: int,
        member_id: str,
        instance_id: str | None,
        assignments: dict[str, bytes],
        reply: Callable[[Synced], None],
    ) -> None:
        """A member requests its assignment; the leader sends the assignments of all members."""
        error = self._seen(generation, member_id, instance_id)
        if error or self.state is GroupState.PREPARING:
            return reply(Synced(error or ErrorCode.REBALANCE_IN_PROGRESS))
        member = self.members[member_id]
        if self.state is GroupState.STABLE:
            return reply(Synced(ErrorCode.NONE, member.assignment))
        member.answer_sync(Synced(ErrorCode.REBALANCE_IN_PROGRESS))  # the client has repeated its request
        member.sync_reply = reply
        if member_id != self.leader:
            return None
        self.state = GroupState.STABLE
        self._set_phase_timer(None)
        for each in self.members.values():
            each.assignment = assignments.get(each.id, b"")
        self._store()
        for each in self.members.values():
            each.seen = self.timers.time()
            each.answer_sync(Synced(ErrorCode.NONE, each.assignment))
        return None

    def heartbeat(self, generation: int, member_id: str, instance_id: str | None = None) -> ErrorCode:
        """A member is alive; REBALANCE_IN_PROGRESS requests it to rejoin."""
        error = self._seen(generation, member_id, instance_id)
        if not error and self.state is GroupState.PREPARING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return error

    def leave(self, member_id: str, instance_id: str | None = None) -> ErrorCode:
        """A member leaves; a static member may be identified by its instance id alone."""
        if instance_id:
            holder = self.static.get(instance_id)
            if holder is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if member_id and member_id != holder:
                return ErrorCode.FENCED_INSTANCE_ID
            member_id = holder
        if member_id in self.pending:
            self.pending.pop(member_id).cancel()
            self._complete_if_all_joined()
            return ErrorCode.NONE
        member = self.members.get(member_id)
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        self._remove(member)
        return ErrorCode.NONE

    def may_commit(self, generation: int, member_id: str, instance_id: str | None = None) -> ErrorCode:
        """Whether offsets may be committed: by a member of this generation, or by any client while there is none."""
        if generation < 0 and not self.members:
            return ErrorCode.NONE
        error = self._seen(generation, member_id, instance_id)
        if not error and self.state is GroupState.COMPLETING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return error

    def restore(
        self, members: list[Member], generation: int, protocol_type: str, protocol: str, leader: str, *, stable: bool
    ) -> None:
        """Restore the stored state: a stable group continues, one that was in a rebalance starts it again."""
        self.generation, self.protocol_type, self.protocol, self.leader = generation, protocol_type, protocol, leader
        for member in members:
            self.members[member.id] = member
            if member.instance_id:
                self.static[member.instance_id] = member.id
            self._watch(member)
        if members:
            self.state = GroupState.STABLE
            if not stable:
                self._prepare()

    def close(self) -> None:
        """Stop all timers; waiting members get no response."""
        self._set_phase_timer(None)
        for timer in self.pending.values():
            timer.cancel()
        for member in self.members.values():
            member.join_reply = member.sync_reply = None
            if member.session_timer is not None:
                member.session_timer.cancel()

    # joining

    def _fits(self, request: JoinRequest) -> bool:
        if not request.protocols or not request.protocol_type:
            return False
        others = [member for member in self.members.values() if member.id != request.member_id]
        if not others:
            return True
        return request.protocol_type == self.protocol_type and bool(
            self._common_protocols(others) & {name for name, _ in request.protocols}
        )

    def _join_new(self, request: JoinRequest, reply: Callable[[Joined], None]) -> None:
        member_id = f"{request.instance_id or request.client_id}-{uuid.uuid4()}"
        if request.member_id_required and not request.instance_id:
            self.pending[member_id] = self.timers.call_later(
                request.session_timeout_s, self._pending_expired, member_id
            )
            return reply(Joined(ErrorCode.MEMBER_ID_REQUIRED, member_id=member_id))
        return self._add(member_id, request, reply)

    def _add(self, member_id: str, request: JoinRequest, reply: Callable[[Joined], None]) -> None:
        member = Member(
            member_id,
            request.instance_id,
            request.client_id,
            request.client_host,
            request.session_timeout_s,
            request.rebalance_timeout_s,
            request.protocols,
            join_reply=reply,
        )
        self.members[member_id] = member
        if request.instance_id:
            self.static[request.instance_id] = member_id
        self.protocol_type = request.protocol_type
        self._watch(member)
        self._joined_meanwhile = True
        self._join_waits()

    def _take_over(self, member: Member, request: JoinRequest, reply: Callable[[Joined], None]) -> None:
        """A static member has rejoined without its member id: it gets a new one, and the old one is fenced."""
        old_id, new_id = member.id, f"{request.instance_id}-{uuid.uuid4()}"
        member.answer_join(Joined(ErrorCode.FENCED_INSTANCE_ID, member_id=old_id))
        member.answer_sync(Synced(ErrorCode.FENCED_INSTANCE_ID))
        del self.members[old_id]
        member.id = self.static[str(request.instance_id)] = new_id
        self.members[new_id] = member
        reported_leader = self.leader
        if self.leader == old_id:
            self.leader = new_id
        self._update(member, request)
        if self.state is GroupState.STABLE and self._vote() == self.protocol:
            # It keeps its assignment. If it leads, the leader's old id in the response keeps it from reassigning.
            self._store()
            return reply(Joined(ErrorCode.NONE, self.generation, self.protocol, reported_leader, new_id))
        member.join_reply = reply
        return self._join_waits()

    def _rejoin(self, member: Member, request: JoinRequest, reply: Callable[[Joined], None]) -> None:
        unchanged = member.protocols == request.protocols
        self._update(member, request)
        if unchanged and (
            self.state is GroupState.COMPLETING or (self.state is GroupState.STABLE and member.id != self.leader)
        ):
            return reply(self._joined(member))  # its first response was lost
        # A waiting request has been repeated by the client.
        member.answer_join(Joined(ErrorCode.REBALANCE_IN_PROGRESS, member_id=member.id))
        member.join_reply = reply
        return self._join_waits()

    def _update(self, member: Member, request: JoinRequest) -> None:
        member.protocols = request.protocols
        member.client_id, member.client_host = request.client_id, request.client_host
        member.session_timeout_s, member.rebalance_timeout_s = request.session_timeout_s, request.rebalance_timeout_s
        self._watch(member)

    # rebalancing

    def _join_waits(self) -> None:
        if self.state is GroupState.PREPARING:
            self._complete_if_all_joined()
        else:
            self._prepare()

    def _prepare(self) -> None:
        first = self.state is GroupState.EMPTY
        self.state = GroupState.PREPARING
        for member in self.members.values():
            if member.sync_reply is not None:
                member.seen = self.timers.time()  # it could not send heartbeats while it waited for this response
                member.answer_sync(Synced(ErrorCode.REBALANCE_IN_PROGRESS))
        longest_s = self._longest_rebalance_timeout_s()
        if first and self.initial_delay_s > 0:
            self._joined_meanwhile = False
            self._initial_left_s = longest_s
            self._wait_for_more()
        else:
            self._set_phase_timer(longest_s, self._complete)
            self._complete_if_all_joined()

    def _wait_for_more(self) -> None:
        """Wait for members of the first generation, and extend the wait while more join."""
        left = self._initial_left_s or 0.0
        delay = min(self.initial_delay_s, left)
        self._initial_left_s = left - delay
        self._joined_meanwhile = False
        self._set_phase_timer(delay, self._waited_for_more)

    def _waited_for_more(self) -> None:
        if self._joined_meanwhile and self._initial_left_s:
            return self._wait_for_more()
        self._initial_left_s = None
        if self.pending:
            self._set_phase_timer(self._longest_rebalance_timeout_s(), self._complete)
            return None
        return self._complete()

    def _complete_if_all_joined(self) -> None:
        if self.state is not GroupState.PREPARING or self._initial_left_s is not None or self.pending:
            return
        if all(member.join_reply is not None for member in self.members.values()):
            self._complete()

    def _complete(self) -> None:
        """End the join phase: members that have not rejoined are removed, except static ones within their session."""
        self._initial_left_s = None
        for member in [m for m in self.members.values() if m.join_reply is None and not m.instance_id]:
            logger.info("group %s: %s did not rejoin in time", self.id, member.id)
            self._discard(member)
        joined = [member for member in self.members.values() if member.join_reply is not None]
        if self.members and not joined:
            return self._set_phase_timer(self._longest_rebalance_timeout_s(), self._complete)
        self.generation += 1
        if not self.members:
            self.state, self.leader, self.protocol = GroupState.EMPTY, "", ""
            self._set_phase_timer(None)
            return self._store()
        if self.leader not in {member.id for member in joined}:
            self.leader = joined[0].id
        self.protocol = self._vote()
        self.state = GroupState.COMPLETING
        self._set_phase_timer(self._longest_rebalance_timeout_s(), self._assignment_overdue)
        self._store()
        logger.info(
            "group %s: generation %d, %d members, %s", self.id, self.generation, len(self.members), self.protocol
        )
        for member in joined:
            self._watch(member)
            member.answer_join(self._joined(member))
        return None

    def _joined(self, member: Member) -> Joined:
        members = tuple((each.id, each.instance_id, each.metadata(self.protocol)) for each in self.members.values())
        return Joined(
            ErrorCode.NONE,
            self.generation,
            self.protocol,
            self.leader,
            member.id,
            members if member.id == self.leader else (),
        )

    def _assignment_overdue(self) -> None:
        for member in [m for m in self.members.values() if m.sync_reply is None]:
            if self.members.get(member.id) is member and member.join_reply is None:
                logger.info("group %s: %s did not sync in time", self.id, member.id)
                self._remove(member)

    def _common_protocols(self, members: list[Member]) -> set[str]:
        return set.intersection(*({name for name, _ in member.protocols} for member in members))

    def _vote(self) -> str:
        """The protocol preferred by most members among those that all support."""
        common = self._common_protocols(list(self.members.values()))
        votes = Counter(
            next(name for name, _ in m.protocols if name in common) for m in self.members.values() if common
        )
        return votes.most_common(1)[0][0] if votes else ""

    # sessions and leaving

    def _seen(self, generation: int, member_id: str, instance_id: str | None) -> ErrorCode:
        if instance_id and self.static.get(instance_id, member_id) != member_id:
            return ErrorCode.FENCED_INSTANCE_ID
        member = self.members.get(member_id)
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        member.seen = self.timers.time()
        return ErrorCode.NONE

    def _watch(self, member: Member) -> None:
        """Restart a member's session timer."""
        member.seen = self.timers.time()
        if member.session_timer is not None:
            member.session_timer.cancel()
        member.session_timer = self.timers.call_later(member.session_timeout_s, self._session_expired, member)

    def _session_expired(self, member: Member) -> None:
        """Remove a silent member. Heartbeats only update ``seen``, to be cheap; the timer is restarted if too early."""
        if self.members.get(member.id) is not member:
            return
        now = self.timers.time()
        if member.join_reply is not None or member.sync_reply is not None:
            member.seen = now  # it waits for a response
        left = member.seen + member.session_timeout_s - now
        if left > 0:
            member.session_timer = self.timers.call_later(left, self._session_expired, member)
            return
        logger.info("group %s: the session of %s has expired", self.id, member.id)
        self._remove(member)

    def _pending_expired(self, member_id: str) -> None:
        self.pending.pop(member_id, None)
        self._complete_if_all_joined()
        if self.state is GroupState.EMPTY:
            self._store()

    def _discard(self, member: Member) -> None:
        del self.members[member.id]
        if member.instance_id and self.static.get(member.instance_id) == member.id:
            del self.static[member.instance_id]
        if member.session_timer is not None:
            member.session_timer.cancel()
        member.answer_join(Joined(ErrorCode.UNKNOWN_MEMBER_ID, member_id=member.id))
        member.answer_sync(Synced(ErrorCode.UNKNOWN_MEMBER_ID))

    def _remove(self, member: Member) -> None:
        self._discard(member)
        if self.state is GroupState.PREPARING:
            self._complete_if_all_joined()
        else:
            self._prepare()

    def _longest_rebalance_timeout_s(self) -> float:
        return max((member.rebalance_timeout_s for member in self.members.values()), default=0.0)

    def _set_phase_timer(self, delay: float | None, callback: Callable[[], object] | None = None) -> None:
        if self._phase_timer is not None:
            self._phase_timer.cancel()
        self._phase_timer = None
        if delay is not None and callback is not None:
            self._phase_timer = self.timers.call_later(delay, callback)

    def _store(self) -> None:
        if self._changed is not None:
            self._changed(self)
