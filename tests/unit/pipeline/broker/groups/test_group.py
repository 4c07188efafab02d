"""The group protocol on a simulated clock."""

from __future__ import annotations

import random

import pytest

from astrocyte.pipeline.broker.groups.group import ConsumerGroup, GroupState
from astrocyte.pipeline.broker.groups.member import JoinRequest
from astrocyte.pipeline.broker.protocol.errors import ErrorCode
from tests.support.simulated_time import SimulatedTimers

SESSION_S, REBALANCE_S = 10.0, 60.0


class Client:
    """A member: joins, syncs, and keeps the answers."""

    def __init__(self, group, name="client", *, instance_id=None, protocols=(("range", b"meta"),), kip_394=True):
        self.group, self.name, self.instance_id, self.protocols, self.kip_394 = (
            group,
            name,
            instance_id,
            protocols,
            kip_394,
        )
        self.member_id, self.joined, self.synced, self._asked = "", None, None, 0

    def join(self, **changes):
        request = JoinRequest(
            self.member_id,
            self.instance_id,
            self.name,
            "/127.0.0.1",
            changes.get("protocol_type", "consumer"),
            list(self.protocols),
            changes.get("session_s", SESSION_S),
            REBALANCE_S,
            self.kip_394,
        )
        self.joined = self.synced = None
        self.group.join(request, self._answer_to_latest(self._on_joined))
        return self

    def sync(self, assignments=None):
        assert self.joined is not None
        if assignments is None and self.leads:
            assignments = {member_id: b"for " + member_id.encode() for member_id, _, _ in self.joined.members}
        self.synced = None
        reply = self._answer_to_latest(self._on_synced)
        self.group.sync(self.joined.generation, self.member_id, self.instance_id, assignments or {}, reply)
        return self

    def _answer_to_latest(self, take):
        """A reply that may be called once; an answer to a request that the client has repeated since is dropped."""
        self._asked += 1
        asked, answered = self._asked, []

        def reply(answer):
            assert not answered, "answered twice"
            answered.append(answer)
            if asked == self._asked:
                take(answer)

        return reply

    def _on_joined(self, joined):
        self.joined = joined
        if joined.error is ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = joined.member_id
            self.join()
        elif joined.error is ErrorCode.NONE:
            self.member_id = joined.member_id

    def _on_synced(self, synced):
        self.synced = synced

    @property
    def leads(self):
        return self.joined.leader == self.member_id

    def heartbeat(self):
        return self.group.heartbeat(self.joined.generation, self.member_id, self.instance_id)


@pytest.fixture
def timers():
    return SimulatedTimers()


@pytest.fixture
def group(timers):
    return ConsumerGroup("g", timers)


def stable(group, *names, **kwargs):
    """Members in a stable group; the first leads."""
    clients = [Client(group, name, **kwargs) for name in names]
    for client in clients:
        client.join()
    rejoin(*clients)
    return clients


def rejoin(*clients):
    """All join until they share a generation, then all sync."""
    for client in clients:
        if client.joined is not None and client.group.state is not GroupState.EMPTY:
            client.join()
    for client in sorted(clients, key=lambda c: c.leads):  # the leader last, so that the others wait for it
        client.sync()
    assert {client.synced.error for client in clients} == {ErrorCode.NONE}


def test_a_new_member_gets_its_id_first_and_joins_with_it(group):
    client = Client(group)
    first = []
    group.join(JoinRequest("", None, "c", "/h", "consumer", [("range", b"")], 10, 60, True), first.append)
    assert first[0].error is ErrorCode.MEMBER_ID_REQUIRED
    assert first[0].member_id.startswith("c-")
    assert group.state is GroupState.EMPTY
    client.member_id = first[0].member_id
    client.join()
    group.timers.advance(0)
    assert client.joined.error is ErrorCode.NONE
    assert client.joined.generation == 1


def test_an_id_that_is_never_used_expires_and_does_not_delay_the_group(group, timers):
    asked = []
    group.join(JoinRequest("", None, "c", "/h", "consumer", [("range", b"")], 10, 60, True), asked.append)
    client = Client(group, kip_394=False).join()
    assert client.joined is None, "the generation waits for the member that was given an id"
    timers.advance(10)
    assert client.joined.generation == 1
    assert group.pending == {}
    late = []
    group.join(
        JoinRequest(asked[0].member_id, None, "c", "/h", "consumer", [("range", b"")], 10, 60, True), late.append
    )
    assert late[0].error is ErrorCode.UNKNOWN_MEMBER_ID


def test_only_the_leader_gets_the_members_and_each_member_its_assignment(group):
    a, b = stable(group, "a", "b")
    assert group.state is GroupState.STABLE
    assert a.leads
    assert [m[0] for m in a.joined.members] == [a.member_id, b.member_id]
    assert b.joined.members == ()
    assert a.synced.assignment == b"for " + a.member_id.encode()
    assert b.synced.assignment == b"for " + b.member_id.encode()


def test_a_joining_member_makes_the_others_rejoin(group):
    a, b = stable(group, "a", "b")
    c = Client(group, "c").join()
    assert c.joined is None
    assert a.heartbeat() is b.heartbeat() is ErrorCode.REBALANCE_IN_PROGRESS
    a.join()
    assert c.joined is None
    b.join()
    assert {x.joined.generation for x in (a, b, c)} == {3}
    assert a.leads, "the leader stays while it is there"


def test_a_member_that_does_not_rejoin_in_time_is_removed(group, timers):
    a, b = stable(group, "a", "b")
    c = Client(group, "c").join()
    a.join()
    for _ in range(int(REBALANCE_S / 5)):
        timers.advance(5)
        if b.member_id in group.members:
            assert b.heartbeat() in (ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.ILLEGAL_GENERATION)
    assert c.joined.generation == 3
    assert set(group.members) == {a.member_id, c.member_id}
    assert b.heartbeat() is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_member_that_leaves_starts_a_rebalance(group):
    a, b = stable(group, "a", "b")
    assert group.leave(b.member_id) is ErrorCode.NONE
    assert a.heartbeat() is ErrorCode.REBALANCE_IN_PROGRESS
    a.join().sync()
    assert a.joined.generation == 3
    assert [m[0] for m in a.joined.members] == [a.member_id]
    assert group.leave(b.member_id) is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_member_without_heartbeats_is_removed_after_its_session(group, timers):
    a, b = stable(group, "a", "b")
    for _ in range(4):
        timers.advance(SESSION_S / 3)
        a.heartbeat()
    assert set(group.members) == {a.member_id}
    assert group.state is GroupState.PREPARING
    a.join()
    assert b.heartbeat() is ErrorCode.UNKNOWN_MEMBER_ID


def test_heartbeats_keep_a_session_alive(group, timers):
    (a,) = stable(group, "a")
    for _ in range(100):
        timers.advance(SESSION_S * 0.9)
        assert a.heartbeat() is ErrorCode.NONE
    assert timers.pending <= 2


def test_the_last_member_leaves_an_empty_group_without_timers(group, timers):
    (a,) = stable(group, "a")
    group.leave(a.member_id)
    assert group.state is GroupState.EMPTY
    assert group.generation == 2
    timers.advance(1000)
    assert timers.pending == 0


def test_a_leader_that_dies_before_it_assigns_is_replaced(group, timers):
    a, b = stable(group, "a", "b")
    b.protocols = (("range", b"changed"),)
    b.join()
    a.join()
    b.sync()
    assert b.synced is None
    timers.advance(SESSION_S)
    assert b.synced.error is ErrorCode.REBALANCE_IN_PROGRESS
    b.join()
    assert b.leads
    assert b.sync().synced.error is ErrorCode.NONE


def test_members_that_never_sync_are_removed_after_the_rebalance_timeout(group, timers):
    a, b = stable(group, "a", "b")
    a.join()
    b.join()
    a.sync({a.member_id: b"all"})
    assert group.state is GroupState.STABLE
    c = Client(group, "c").join()
    a.join()
    b.join()
    for _ in range(int(REBALANCE_S / 5) + 1):
        timers.advance(5)
        for x in (a, b):
            x.heartbeat()
    assert c.member_id not in group.members


def test_an_old_generation_gets_illegal_generation(group):
    a, _ = stable(group, "a", "b")
    old = a.joined
    assert group.heartbeat(old.generation - 1, a.member_id) is ErrorCode.ILLEGAL_GENERATION
    assert group.may_commit(old.generation - 1, a.member_id) is ErrorCode.ILLEGAL_GENERATION
    said = []
    group.sync(old.generation - 1, a.member_id, None, {}, said.append)
    assert said[0].error is ErrorCode.ILLEGAL_GENERATION


def test_commits_are_taken_from_members_before_and_in_the_join_phase_but_not_after(group):
    a, b = stable(group, "a", "b")
    assert group.may_commit(a.joined.generation, a.member_id) is ErrorCode.NONE
    Client(group, "c").join()
    assert group.may_commit(a.joined.generation, a.member_id) is ErrorCode.NONE, "the last commit before the revocation"
    a.join()
    b.join()
    assert group.may_commit(a.joined.generation, a.member_id) is ErrorCode.REBALANCE_IN_PROGRESS


def test_any_client_may_commit_without_members_and_only_members_otherwise(group):
    assert group.may_commit(-1, "") is ErrorCode.NONE
    stable(group, "a")
    assert group.may_commit(-1, "") is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_repeated_join_of_a_stable_member_changes_nothing_but_the_leaders_does(group):
    a, b = stable(group, "a", "b")
    generation = b.joined.generation
    b.join()
    assert b.joined.generation == generation
    assert group.state is GroupState.STABLE
    a.join()
    assert group.state is GroupState.PREPARING


def test_changed_metadata_starts_a_rebalance(group):
    a, b = stable(group, "a", "b")
    b.protocols = (("range", b"other topics"),)
    b.join()
    assert a.heartbeat() is ErrorCode.REBALANCE_IN_PROGRESS


def test_the_protocol_is_one_that_all_support_and_most_prefer(group):
    a = Client(group, "a", protocols=(("sticky", b"1"), ("range", b"2"), ("roundrobin", b"3"))).join()
    b = Client(group, "b", protocols=(("range", b"4"), ("sticky", b"5"))).join()
    a.join()
    assert a.joined.protocol in ("sticky", "range")
    c = Client(group, "c", protocols=(("range", b"6"),)).join()
    a.join()
    b.join()
    assert {x.joined.protocol for x in (a, b, c)} == {"range"}
    assert {m[2] for m in a.joined.members} == {b"2", b"4", b"6"}


def test_a_member_without_a_common_protocol_is_refused(group):
    stable(group, "a")
    stranger = Client(group, "x", protocols=(("odd", b""),)).join()
    assert stranger.joined.error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    other = Client(group, "y").join(protocol_type="connect")
    assert other.joined.error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    empty = Client(group, "z", protocols=()).join()
    assert empty.joined.error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_a_client_that_sends_its_join_again_gets_an_answer_for_each(group):
    stable(group, "a")
    b, answers = Client(group, "b").join(), []
    request = JoinRequest(b.member_id, None, "b", "/h", "consumer", [("range", b"meta")], 10, 60, True)
    group.join(request, answers.append)
    group.join(request, answers.append)
    assert [answer.error for answer in answers] == [ErrorCode.REBALANCE_IN_PROGRESS]
    group.leave(b.member_id)
    assert [answer.error for answer in answers] == [ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.UNKNOWN_MEMBER_ID]


def test_the_first_rebalance_waits_while_more_members_join(timers):
    group = ConsumerGroup("g", timers, initial_delay_s=3.0)
    a = Client(group, "a").join()
    timers.advance(2)
    b = Client(group, "b").join()
    timers.advance(2)
    assert a.joined is None
    c = Client(group, "c").join()
    timers.advance(5)
    assert a.joined is None or a.joined.generation == 1
    timers.advance(3)
    assert {x.joined.generation for x in (a, b, c)} == {1}


def test_the_first_rebalance_never_waits_beyond_the_rebalance_timeout(timers):
    group = ConsumerGroup("g", timers, initial_delay_s=3.0)
    a = Client(group, "a").join()
    for i in range(40):
        timers.advance(2)
        Client(group, f"x{i}").join()
    assert a.joined is not None


# static membership


def test_a_static_member_that_restarts_keeps_its_assignment_without_a_rebalance(group):
    a, b = stable_static(group)
    again = Client(group, "b", instance_id="two").join()
    assert again.joined.error is ErrorCode.NONE
    assert again.joined.generation == b.joined.generation
    assert again.member_id != b.member_id
    assert again.sync().synced.assignment == b"for " + b.member_id.encode()
    assert a.heartbeat() is ErrorCode.NONE


def test_a_static_leader_that_restarts_is_not_named_as_leader(group):
    a, _ = stable_static(group)
    assert a.leads
    again = Client(group, "a", instance_id="one").join()
    assert again.joined.error is ErrorCode.NONE
    assert not again.leads
    assert again.joined.members == ()
    assert again.sync().synced.assignment == b"for " + a.member_id.encode()
    again.join()
    assert group.state is GroupState.PREPARING, "its next join is a leader's"


def test_a_replaced_static_member_is_fenced(group):
    _, b = stable_static(group)
    Client(group, "b", instance_id="two").join()
    assert b.heartbeat() is ErrorCode.FENCED_INSTANCE_ID
    assert group.may_commit(b.joined.generation, b.member_id, "two") is ErrorCode.FENCED_INSTANCE_ID
    b.join()
    assert b.joined.error is ErrorCode.FENCED_INSTANCE_ID
    assert group.leave(b.member_id, "two") is ErrorCode.FENCED_INSTANCE_ID
    assert group.leave("", "two") is ErrorCode.NONE
    assert group.leave("", "two") is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_static_member_stays_through_a_rebalance_that_it_misses_within_its_session(group, timers):
    a, b = stable_static(group)
    c = Client(group, "c").join(session_s=300)
    a.join(session_s=300)
    b.group.members[b.member_id].session_timeout_s = 300
    b.heartbeat()
    timers.advance(SESSION_S - 1)
    b.heartbeat()
    timers.advance(REBALANCE_S)
    assert c.joined is not None
    assert b.member_id in group.members


def stable_static(group):
    clients = [Client(group, name, instance_id=instance) for name, instance in (("a", "one"), ("b", "two"))]
    for client in clients:
        client.join()
    rejoin(*clients)
    return clients


@pytest.mark.search
@pytest.mark.parametrize("seed", range(30))
def test_under_churn_there_is_one_leader_one_generation_and_no_double_answer(seed, search_seed):
    churn(random.Random(search_seed + seed), steps=250)


@pytest.mark.soak
def test_under_long_churn_there_is_one_leader_one_generation_and_no_double_answer():
    for seed in range(30, 2000):
        churn(random.Random(seed), steps=1000)


def churn(rng, steps):
    """Clients join, leave, stop and answer slowly; after each step the group's invariants hold."""
    timers = SimulatedTimers()
    group = ConsumerGroup("g", timers, initial_delay_s=rng.choice([0.0, 1.0]))
    clients: list[Client] = []
    assignments: dict[int, dict[str, bytes]] = {}
    generation = 0
    for step in range(steps):
        action = rng.choice(["come", "leave", "vanish", "live", "live", "live", "restart"])
        if action == "come" and len(clients) < 5:
            instance = rng.choice([None, None, f"static-{step}"])
            clients.append(Client(group, f"c{step}", instance_id=instance, kip_394=rng.random() < 0.7).join())
        elif clients and action == "leave":
            gone = clients.pop(rng.randrange(len(clients)))
            group.leave(gone.member_id, gone.instance_id)
        elif clients and action == "vanish":
            clients.pop(rng.randrange(len(clients)))
        elif clients and action == "restart":
            client = rng.choice(clients)
            if client.instance_id:
                clients.remove(client)
                clients.append(Client(group, client.name, instance_id=client.instance_id).join())
        for client in rng.sample(clients, rng.randrange(len(clients) + 1)):
            live(client, assignments)
        timers.advance(rng.choice([0.1, 1.0, 3.0]))
        assert group.generation >= generation
        generation = group.generation
        assert len(group.static) == sum(m.instance_id is not None for m in group.members.values())
        if group.state in (GroupState.STABLE, GroupState.COMPLETING):
            assert group.leader in group.members
    for _ in range(200):
        for client in clients:
            live(client, assignments)
        timers.advance(1.0)
    settled = [c for c in clients if c.member_id in group.members]
    assert len(settled) == len(clients) == len(group.members)
    if settled:
        assert group.state is GroupState.STABLE
        assert {c.heartbeat() for c in settled} == {ErrorCode.NONE}
        assert sum(c.member_id == group.leader for c in settled) == 1


def live(client, assignments):
    """What a client's library does next."""
    if client.joined is None:
        return
    if client.joined.error is not ErrorCode.NONE:
        if client.joined.error is ErrorCode.UNKNOWN_MEMBER_ID:
            client.member_id = ""
        client.join()
        return
    if client.synced is None:
        client.sync()
        return
    error = client.synced.error or client.heartbeat()
    if error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
        client.member_id = ""
        client.join()
    elif error:
        client.join()
    else:
        seen = assignments.setdefault(client.joined.generation, {})
        assert seen.setdefault(client.member_id, client.synced.assignment) == client.synced.assignment
