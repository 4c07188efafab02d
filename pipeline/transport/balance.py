"""Which member of a group has which domain, by what each domain costs, so that few domains move.

The longest processing time first (Graham 1969): a domain without a member goes, the most expensive first, to the member
that has least to do. Then domains move to the member that has least, one after the other, while that gains enough: a
move costs a snapshot and its reading. The gain for which a new assignment is asked for is greater than that up to which
domains move once there is one, and must last: nothing moves back and forth by differences that come and go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

__all__ = ["Balance", "Member", "Move", "divided", "gain_of", "packed", "plan_of", "unpacked"]

MOVING: Final = 0.1
"""Least gain of a move at an assignment, as a share of the mean load of a member."""
ASKING: Final = 0.25
"""Least gain for which an assignment is asked for, as a share of that mean."""
ASKED_TIMES: Final = 3
"""How often in a row it must have been seen."""
LEAST_US: Final = 20_000.0
"""Load of a group, in microseconds of processor time a second, below which all domains count alike."""
_BASE: Final = 0.1
"""What each domain counts beside its load, as a share of the mean: domains that rest are divided as well."""
_LEAST_MOVES: Final = 1e-9


class Move(NamedTuple):
    """A domain that goes from one member to another, with its load in microseconds a second."""

    partition: int
    source: str
    """Empty where no member has it, because that member has gone."""
    target: str
    load_us: float


class Member(NamedTuple):
    """What a member says when it joins: the number of its last assignment, and the load of each domain it had there."""

    round: int
    loads: Mapping[int, float]


def divided(members: Mapping[str, Member], partitions: Collection[int]) -> tuple[dict[int, str], list[Move]]:
    """The member of each partition, and the moves by which that differs from the last assignment, if there was one.

    Where none has anything, partition numbers go round, in order.
    """
    order = sorted(members)
    owners = _owners(members, partitions)
    weights = _weights(members, partitions)
    before = dict(owners)
    if not owners:
        owners = {partition: order[partition % len(order)] for partition in partitions}
    totals = dict.fromkeys(order, 0.0)
    for partition, member in owners.items():
        totals[member] += weights[partition]
    for partition in sorted(set(partitions) - owners.keys(), key=lambda each: (-weights[each], each)):
        owners[partition] = min(order, key=lambda member: (totals[member], member))
        totals[owners[partition]] += weights[partition]
    least = MOVING * sum(totals.values()) / len(order)
    for _ in range(len(weights)):
        found = _best_move(owners, weights, totals)
        if found is None or found[0] <= max(least, _LEAST_MOVES):
            break
        _, partition, target = found
        totals[owners[partition]] -= weights[partition]
        totals[target] += weights[partition]
        owners[partition] = target
    loads = _loads(members)
    moves = [
        Move(partition, before.get(partition, ""), owner, loads.get(partition, 0.0))
        for partition, owner in sorted(owners.items())
        if before.get(partition) != owner and any(each.round for each in members.values())
    ]
    return owners, moves


def gain_of(member: str, members: Mapping[str, Member], partitions: Collection[int]) -> float:
    """By how much the best move would relieve ``member``, as a share of the mean load; 0 where another gains more."""
    owners, weights = _owners(members, partitions), _weights(members, partitions)
    totals = dict.fromkeys(members, 0.0)
    for partition, owner in owners.items():
        totals[owner] += weights[partition]
    mean = sum(totals.values()) / len(totals)
    found = _best_move(owners, weights, totals)
    return 0.0 if found is None or owners[found[1]] != member else found[0] / mean


def _owners(members: Mapping[str, Member], partitions: Collection[int]) -> dict[int, str]:
    """Who had each partition last. One that was cut off from the group may name what others have had since."""
    found: dict[int, str] = {}
    for member, said in sorted(members.items(), key=lambda item: (item[1].round, item[0])):
        found |= {partition: member for partition in said.loads if partition in partitions}
    return found


def _loads(members: Mapping[str, Member]) -> dict[int, float]:
    found: dict[int, float] = {}
    for _, said in sorted(members.items(), key=lambda item: (item[1].round, item[0])):
        found |= said.loads
    return found


def _weights(members: Mapping[str, Member], partitions: Collection[int]) -> dict[int, float]:
    loads = {partition: load for partition, load in _loads(members).items() if partition in partitions}
    total = sum(loads.values())
    if total < LEAST_US:
        return dict.fromkeys(partitions, 1.0)
    mean = total / len(loads)
    return {partition: loads.get(partition, mean) + _BASE * mean for partition in partitions}


def _best_move(
    owners: Mapping[int, str], weights: Mapping[int, float], totals: Mapping[str, float]
) -> tuple[float, int, str] | None:
    """Gain, partition and target of the move to the idlest member that most relieves another; None without any.

    The gain is by how much the busier of the two is relieved. A member's only domain would be no cheaper elsewhere.
    """
    idlest = min(totals, key=lambda member: (totals[member], member))
    counts = Counter(owners.values())
    low = totals[idlest]
    found = [
        (totals[member] - max(totals[member] - weights[each], low + weights[each]), -weights[each], -each)
        for each, member in owners.items()
        if member != idlest and counts[member] > 1
    ]
    if not found:
        return None
    gain, _, partition = max(found)
    return gain, -partition, idlest


@dataclass(slots=True)
class Balance:
    """What one member of a group knows of the loads, from one assignment to the next.

    ``measured`` gives the load of each domain that it has now, in microseconds of processor time a second.
    """

    measured: Callable[[], Mapping[int, float]]
    member: Member = field(default_factory=lambda: Member(0, {}))
    """This one, as of its last assignment."""
    others: dict[str, Member] = field(default_factory=dict)
    """The other members as of that assignment."""
    moves: list[Move] = field(default_factory=list)
    """Moves to this member that were not written yet."""
    _seen: int = 0
    _looks_needed: int = ASKED_TIMES

    def said(self) -> Member:
        """What this member says when it joins: loads are as they are now where they are measured."""
        now = self.measured()
        return Member(self.member.round, {each: now.get(each, load) for each, load in self.member.loads.items()})

    def assigned(self, own: str, plan: Mapping[str, Any]) -> None:
        """Take over an assignment, as the leader of the group sent it (`plan_of`) to the member ``own``."""
        members = {
            name: Member(plan["round"], {int(each): load for each, load in loads.items()})
            for name, loads in plan["members"].items()
        }
        moves = [Move(*each) for each in plan["moves"]]
        # One that was asked for in vain is asked for less readily.
        self._looks_needed = ASKED_TIMES if any(move.source for move in moves) else self._looks_needed
        self._seen = 0
        self.member = members.pop(own, Member(plan["round"], {}))
        self.others = members
        self.moves += [move for move in moves if move.target == own]

    def wants(self) -> bool:
        """Whether to ask for an assignment. To be called regularly, by each member."""
        own = self.said()
        members = {**self.others, "": own}
        gain = gain_of("", members, {each for member in members.values() for each in member.loads})
        self._seen = self._seen + 1 if gain > ASKING else 0
        if self._seen < self._looks_needed:
            return False
        self._seen, self._looks_needed = 0, 2 * self._looks_needed
        return True


def plan_of(members: Mapping[str, Member], owners: Mapping[int, str], moves: Sequence[Move]) -> dict[str, Any]:
    """What the leader of a group sends to all members of an assignment."""
    loads = _loads(members)
    given: dict[str, dict[str, float]] = {name: {} for name in members}
    for partition, owner in owners.items():
        given[owner][str(partition)] = round(loads.get(partition, 0.0), 1)
    return {
        "round": 1 + max((each.round for each in members.values()), default=0),
        "members": given,
        "moves": [[*move] for move in moves],
    }


def packed(note: str, said: Member) -> bytes:
    """What a member says, as bytes in its metadata, beside its note."""
    loads = {str(partition): round(load, 1) for partition, load in said.loads.items()}
    return orjson.dumps({"note": note, "round": said.round, "loads": loads})


def unpacked(data: bytes | None) -> tuple[str, Member | None]:
    """Note and loads of the metadata of a member; None for one that gives no loads. Raises ValueError."""
    if not data or not data.startswith(b"{"):
        return (data or b"").decode(), None
    body = orjson.loads(data)
    return body["note"], Member(int(body["round"]), {int(each): float(load) for each, load in body["loads"].items()})
