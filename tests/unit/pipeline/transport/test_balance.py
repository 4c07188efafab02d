"""Domains are divided over the members of a group by what they cost, and few of them move."""

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.pipeline.transport.assignor import DomainAssignor, note_of, partitions_of
from astrocyte.pipeline.transport.balance import Balance, Member, Move, divided

SECOND_US = 1_000_000.0
NOTHING = Member(0, {})


class Cluster:
    def __init__(self, partitions: int) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return set(range(self._partitions))


class Group:
    """Workers whose domains cost what ``cost`` says, and an assignment of all of them, over the wire."""

    def __init__(self, partitions: int, cost: dict[int, float]) -> None:
        self.cost, self.cluster = cost, Cluster(partitions)
        self.workers: dict[str, type[DomainAssignor]] = {}
        self.owned: dict[str, tuple[int, ...]] = {}

    def join(self, name: str) -> None:
        own = Balance(lambda: {each: self.cost.get(each, 0.0) for each in self.owned.get(name, ())})
        self.workers[name] = DomainAssignor.with_note("1f", None, own)

    def leave(self, name: str) -> None:
        del self.workers[name]

    def balance(self, name: str) -> Balance:
        own = self.workers[name].balance
        assert own is not None
        return own

    def assign(self) -> dict[str, tuple[int, ...]]:
        said = {name: own.metadata(["a"]).encode() for name, own in self.workers.items()}
        assert {note_of(each) for each in said.values()} == {"1f"}
        members = {name: ConsumerProtocolMemberMetadata.decode(each) for name, each in said.items()}
        found = {name: each.encode() for name, each in DomainAssignor.assign(self.cluster, members).items()}
        self.owned = {name: partitions_of(each) for name, each in found.items()}
        for name, own in self.workers.items():
            own.on_assignment(ConsumerProtocolMemberAssignment.decode(found[name]))
        return self.owned


def test_expensive_domains_are_kept_apart():
    group = Group(4, {0: 0.5 * SECOND_US, 2: 0.5 * SECOND_US})
    group.join("a")
    group.join("b")
    assert group.assign() == {"a": (0, 2), "b": (1, 3)}  # nothing is known yet
    assert group.assign() == {"a": (2,), "b": (0, 1, 3)}
    assert group.balance("b").moves == [Move(0, "a", "b", 0.5 * SECOND_US)]
    assert group.balance("a").moves == []
    assert group.assign() == {"a": (2,), "b": (0, 1, 3)}


def test_a_member_that_comes_is_given_something_and_what_one_leaves_goes_to_the_idlest():
    group = Group(6, {each: (each + 1) * 10_000.0 for each in range(6)})
    for name in ("a", "b"):
        group.join(name)
    for _ in range(3):
        before = group.assign()
    group.join("c")
    after = group.assign()
    assert after["c"]
    assert all(set(after[name]) <= set(before[name]) for name in ("a", "b"))
    group.leave("b")
    last = group.assign()
    assert sorted(last["a"] + last["c"]) == list(range(6))
    assert set(last["a"]) >= set(after["a"])
    gone = [move for name in ("a", "c") for move in group.balance(name).moves if not move.source]
    assert sorted(move.partition for move in gone) == sorted(after["b"])


def test_a_member_beside_one_very_expensive_domain_is_given_others():
    owners, moves = divided(
        {"a": Member(1, {0: SECOND_US}), "b": Member(1, {1: 90_000.0, 2: 90_000.0, 3: 90_000.0}), "c": NOTHING},
        range(4),
    )
    assert owners[0] == "a"
    assert [move.target for move in moves] == ["c"]


def test_small_gains_move_nothing():
    loads = {0: 110_000.0, 1: 100_000.0, 2: 100_000.0, 3: 90_000.0}
    owners, moves = divided(
        {"a": Member(1, {each: loads[each] for each in (0, 1)}), "b": Member(1, {2: loads[2], 3: loads[3]})}, range(4)
    )
    assert (owners, moves) == ({0: "a", 1: "a", 2: "b", 3: "b"}, [])


def test_loads_of_almost_nothing_count_alike():
    owners, moves = divided({"a": Member(1, {0: 900.0, 1: 3.0}), "b": Member(1, {2: 0.0, 3: 0.0})}, range(4))
    assert (sorted(owners.values()), moves) == (["a", "a", "b", "b"], [])


def test_the_member_that_was_cut_off_does_not_take_back_what_others_have_since():
    owners, _ = divided({"a": Member(3, {0: 1.0, 1: 1.0}), "b": Member(7, {0: 1.0})}, range(2))
    assert owners == {0: "b", 1: "a"}


def test_the_busiest_asks_for_an_assignment_when_it_lasts_and_less_readily_after_one_in_vain():
    group = Group(4, {})
    group.join("a")
    group.join("b")
    group.assign()
    a, b = group.balance("a"), group.balance("b")
    assert not any(each.wants() for each in (a, b) for _ in range(10))
    group.cost |= {0: 0.4 * SECOND_US, 2: 0.4 * SECOND_US}
    assert [a.wants() for _ in range(3)] == [False, False, True]
    group.cost.clear()  # what had cost so much has passed when they join
    group.assign()
    group.cost |= {0: 0.4 * SECOND_US, 2: 0.4 * SECOND_US}
    assert [a.wants() for _ in range(6)] == [False] * 5 + [True]
    group.assign()
    assert not any(b.wants() for _ in range(10))
    assert not any(a.wants() for _ in range(10))


@pytest.mark.parametrize("given", [{"a": NOTHING}, {"a": NOTHING, "b": NOTHING, "c": NOTHING}])
def test_where_nothing_is_known_partition_numbers_go_round(given):
    names = sorted(given)
    assert divided(given, range(7))[0] == {number: names[number % len(names)] for number in range(7)}


@given(
    st.dictionaries(st.integers(0, 15), st.floats(0, 2e6), max_size=16),
    st.lists(st.integers(0, 15), max_size=16), st.integers(1, 5), st.integers(1, 16),
)  # fmt: skip
def test_all_are_assigned_once_and_a_second_assignment_moves_nothing(loads, owned, members, partitions):
    had: dict[str, dict[int, float]] = {f"m{number}": {} for number in range(members)}
    for place, partition in enumerate(dict.fromkeys(owned)):
        had[f"m{place % members}"][partition] = loads.get(partition, 0.0)
    before = {name: Member(1, each) for name, each in had.items()}
    owners, moves = divided(before, range(partitions))
    assert sorted(owners) == list(range(partitions))
    assert set(owners.values()) <= set(had)
    known = {partition: load for each in had.values() for partition, load in each.items()}
    after = {
        name: Member(2, {each: known.get(each, 0.0) for each, owner in owners.items() if owner == name}) for name in had
    }
    if len(known.keys() & set(range(partitions))) == partitions:
        assert divided(after, range(partitions)) == (owners, [])
    for move in moves:
        assert owners[move.partition] == move.target
        assert move.partition not in known if not move.source else move.partition in had[move.source]
