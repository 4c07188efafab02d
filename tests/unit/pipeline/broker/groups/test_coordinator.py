from __future__ import annotations

import sqlite3

import pytest

from astrocyte.pipeline.broker.groups.coordinator import Coordinator
from astrocyte.pipeline.broker.groups.group import GroupState
from astrocyte.pipeline.broker.groups.member import JoinRequest
from astrocyte.pipeline.broker.protocol.errors import BrokerError, ErrorCode
from astrocyte.pipeline.broker.storage.catalogue import Catalogue, CommittedOffset, StoredTopic
from tests.support.simulated_time import SimulatedTimers


@pytest.fixture
def timers():
    return SimulatedTimers()


@pytest.fixture
def restart(tmp_path, timers):
    """A coordinator on the catalogue of the previous one."""
    opened = []

    def start():
        if opened:
            opened[-1][0].close()
            opened[-1][1].close()
        catalogue = Catalogue(tmp_path / "catalogue.db")
        opened.append((Coordinator(catalogue, timers, initial_delay_s=0), catalogue))
        return opened[-1][0]

    yield start
    opened[-1][0].close()
    opened[-1][1].close()


def join(group, name, member_id="", instance_id=None):
    answers = []
    request = JoinRequest(member_id, instance_id, name, "/h", "consumer", [("range", name.encode())], 10, 60, False)
    group.join(request, answers.append)
    return answers


def two_stable(coordinator, group_id="g"):
    group = coordinator.joining(group_id)
    first = join(group, "a")
    second = join(group, "b", instance_id="static")
    again = join(group, "a", first[0].member_id)
    a, b = again[0], second[0]
    said = []
    group.sync(b.generation, b.member_id, "static", {}, said.append)
    group.sync(a.generation, a.member_id, None, {a.member_id: b"A\0\xff", b.member_id: b"B"}, said.append)
    assert [s.error for s in said] == [ErrorCode.NONE] * 2
    return a, b


def test_members_continue_after_a_restart_without_a_rebalance(restart):
    a, b = two_stable(restart())
    coordinator = restart()
    group = coordinator.group("g")
    assert group.state is GroupState.STABLE
    assert group.heartbeat(a.generation, a.member_id) is ErrorCode.NONE
    assert group.heartbeat(b.generation, b.member_id, "static") is ErrorCode.NONE
    said = []
    group.sync(a.generation, a.member_id, None, {}, said.append)
    assert said[0].assignment == b"A\0\xff"
    outcome = coordinator.commit("g", a.generation, a.member_id, None, {("t", 0): CommittedOffset(5, "")})
    assert outcome == {("t", 0): ErrorCode.NONE}
    assert coordinator.commit("g", a.generation - 1, a.member_id, None, {("t", 0): CommittedOffset(9, "")}) == {
        ("t", 0): ErrorCode.ILLEGAL_GENERATION
    }


def test_members_that_do_not_return_after_a_restart_are_removed_after_their_session(restart, timers):
    a, _b = two_stable(restart())
    group = restart().group("g")
    timers.advance(9)
    assert group.heartbeat(a.generation, a.member_id) is ErrorCode.NONE
    timers.advance(2)
    assert set(group.members) == {a.member_id}
    assert group.heartbeat(a.generation, a.member_id) is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_restart_in_the_middle_of_a_rebalance_lets_the_members_join_again(restart):
    coordinator = restart()
    group = coordinator.joining("g")
    first = join(group, "a")
    join(group, "b")
    a = join(group, "a", first[0].member_id)[0]
    assert group.state is GroupState.COMPLETING
    group = restart().group("g")
    assert group.state is GroupState.PREPARING
    assert group.heartbeat(a.generation, a.member_id) is ErrorCode.REBALANCE_IN_PROGRESS
    assert set(group.members) >= {a.member_id}
    for member in list(group.members):
        answers = join(group, member[0], member)
    assert answers[0].generation > a.generation


def test_generations_never_go_back(restart, timers):
    a, _ = two_stable(restart())
    coordinator = restart()
    coordinator.commit("g", a.generation, a.member_id, None, {("t", 0): CommittedOffset(1, "")})
    timers.advance(100)
    assert coordinator.group("g").state is GroupState.EMPTY
    coordinator = restart()
    assert join(coordinator.joining("g"), "c")[0].generation > a.generation


def test_offsets_survive_and_are_those_of_their_group(restart):
    coordinator = restart()
    coordinator.commit("g", -1, "", None, {("t", 0): CommittedOffset(5, "mine"), ("t", 1): CommittedOffset(6, "")})
    coordinator.commit("h", -1, "", None, {("t", 0): CommittedOffset(7, "")})
    coordinator = restart()
    assert coordinator.committed("g") == {("t", 0): (5, "mine"), ("t", 1): (6, "")}
    assert coordinator.committed("h") == {("t", 0): (7, "")}
    assert coordinator.committed("nobody") == {}
    assert coordinator.known_ids() == ["g", "h"]


def test_metadata_that_is_too_long_is_refused_and_the_rest_stored(restart):
    coordinator = restart()
    outcome = coordinator.commit(
        "g", -1, "", None, {("t", 0): CommittedOffset(5, "x" * 4097), ("t", 1): CommittedOffset(6, "x" * 4096)}
    )
    assert outcome == {("t", 0): ErrorCode.OFFSET_METADATA_TOO_LARGE, ("t", 1): ErrorCode.NONE}
    assert set(coordinator.committed("g")) == {("t", 1)}


def test_a_member_of_no_group_may_not_commit(restart):
    outcome = restart().commit("new", 3, "stranger", None, {("t", 0): CommittedOffset(5, "")})
    assert outcome == {("t", 0): ErrorCode.UNKNOWN_MEMBER_ID}


def test_a_full_disk_refuses_a_commit_with_a_retriable_error_and_keeps_the_last_one(restart, monkeypatch):
    coordinator = restart()
    coordinator.commit("g", -1, "", None, {("t", 0): CommittedOffset(5, "")})

    def full(*_args):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Catalogue, "commit_offsets", full)
        outcome = coordinator.commit("g", -1, "", None, {("t", 0): CommittedOffset(6, "")})
    assert outcome == {("t", 0): ErrorCode.COORDINATOR_NOT_AVAILABLE}
    assert coordinator.committed("g")["t", 0].offset == 5
    assert restart().committed("g")["t", 0].offset == 5


def test_a_group_without_offsets_is_removed(restart, timers):
    coordinator = restart()
    two_stable(coordinator)
    timers.advance(1000)
    assert coordinator.known_ids() == []
    assert restart().known_ids() == []


def test_a_group_is_deleted_only_without_members(restart, timers):
    coordinator = restart()
    a, _ = two_stable(coordinator)
    coordinator.commit("g", a.generation, a.member_id, None, {("t", 0): CommittedOffset(1, "")})
    assert coordinator.delete("g") is ErrorCode.NON_EMPTY_GROUP
    timers.advance(1000)
    assert coordinator.delete("g") is ErrorCode.NONE
    assert coordinator.delete("g") is ErrorCode.GROUP_ID_NOT_FOUND
    assert restart().known_ids() == []


def test_offsets_of_a_deleted_topic_are_removed(tmp_path, timers):
    catalogue = Catalogue(tmp_path / "c.db")
    catalogue.save_topic(StoredTopic("t", 1, {}))
    coordinator = Coordinator(catalogue, timers, initial_delay_s=0)
    coordinator.commit("g", -1, "", None, {("t", 0): CommittedOffset(1, ""), ("u", 0): CommittedOffset(2, "")})
    catalogue.drop_topic("t")
    coordinator.forget_topic("t")
    catalogue.close()
    assert set(coordinator.committed("g")) == {("u", 0)}
    catalogue = Catalogue(tmp_path / "c.db")
    assert set(catalogue.committed_offsets()["g"]) == {("u", 0)}
    assert catalogue.topics() == []
    catalogue.close()


def test_producer_ids_are_never_assigned_twice(tmp_path):
    given = []
    for _ in range(3):
        catalogue = Catalogue(tmp_path / "c.db")
        given += [catalogue.next_producer_id() for _ in range(3)]
        catalogue.close()
    assert len(set(given)) == 9


def test_a_catalogue_that_is_not_a_database_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "c.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(BrokerError, match=r"c\.db.*move it away"):
        Catalogue(tmp_path / "c.db")
