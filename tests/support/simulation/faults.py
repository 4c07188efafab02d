"""What goes wrong in a simulation, and when: drawn from the seed, described in one line each."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.support.simulation.pipeline import BROKER, PRODUCER, Simulation

__all__ = ["KINDS", "Fault", "drawn", "schedule"]

FIRST_S, LAST_S = 1.5, 10.0
"""When faults begin: from the moment at which the roles start to the end of the producer."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: at ``at_s``, or once ``target`` has sent ``sends`` more messages after that, for ``for_s``."""

    kind: str
    target: str
    at_s: float
    for_s: float
    sends: int = 0

    def __str__(self) -> str:
        when = f"{self.at_s:.2f} s" + (f" and {self.sends} messages" if self.sends else "")
        return f"{self.kind} {self.target} after {when}, for {self.for_s:.2f} s"


def _kill(simulation: Simulation, fault: Fault) -> None:
    simulation.kill(fault.target, fault.for_s)


def _terminate(simulation: Simulation, fault: Fault) -> None:
    simulation.terminate(fault.target)


def _power(simulation: Simulation, fault: Fault) -> None:
    simulation.cut_power(fault.for_s)


def _cut(simulation: Simulation, fault: Fault) -> None:
    simulation.world.network.cut(fault.target, BROKER)


def _lose_answer(simulation: Simulation, fault: Fault) -> None:
    """What the broker sends next is lost with the connection: it has done what was asked, and nobody knows."""
    for end in simulation.world.network.streams(BROKER, fault.target):
        end.cut_next = True


def _partition(simulation: Simulation, fault: Fault) -> None:
    network = simulation.world.network
    network.block(fault.target, BROKER)
    simulation.world.call_later(fault.for_s, lambda: network.heal(fault.target, BROKER))


def _slow_network(simulation: Simulation, fault: Fault) -> None:
    network, pair = simulation.world.network, frozenset((fault.target, BROKER))
    network.slow[pair] = 0.05
    simulation.world.call_later(fault.for_s, lambda: network.slow.pop(pair, None))


def _stall(simulation: Simulation, fault: Fault) -> None:
    node = simulation.nodes.get(fault.target)
    if node is not None:
        node.stall(fault.for_s)


def _slow_disk(simulation: Simulation, fault: Fault) -> None:
    simulation.slow_disk_s = 0.5

    def end() -> None:
        simulation.slow_disk_s = 0.0

    simulation.world.call_later(fault.for_s, end)


def _disk_fails(simulation: Simulation, fault: Fault) -> None:
    simulation.disk.fails = True

    def end() -> None:
        simulation.disk.fails = False

    simulation.world.call_later(fault.for_s, end)


def _lock_database(simulation: Simulation, fault: Fault) -> None:
    connection = sqlite3.connect(simulation.folder / "out.db", isolation_level=None, timeout=0)
    try:
        connection.execute("begin exclusive")
    except sqlite3.OperationalError:  # the sink itself is writing
        connection.close()
        return
    simulation.world.call_later(fault.for_s, connection.close)


def _join(simulation: Simulation, fault: Fault) -> None:
    """A second worker of the role for some time; it leaves by SIGTERM, or by kill -9."""
    name = f"{fault.target}-{sum(each.startswith(fault.target) for each in simulation.restarts)}"
    simulation.start(name)
    simulation.world.call_later(fault.for_s, lambda: simulation.leave(name, kill=fault.sends % 2 == 1))


@dataclass(frozen=True, slots=True)
class _Kind:
    act: Callable[[Simulation, Fault], None]
    targets: tuple[str, ...]
    """Nodes; `ROLES` stands for any of the roles that run."""
    longest_s: float
    weight: int = 1
    """How often it is drawn."""


ROLES: Final = "a role"
KINDS: Final[dict[str, _Kind]] = {
    "kill": _Kind(_kill, (ROLES, ROLES, ROLES, ROLES, BROKER), 3.0, 8),
    "terminate": _Kind(_terminate, (ROLES,), 0.0, 2),
    "cut the power of": _Kind(_power, (BROKER,), 3.0, 3),
    "cut the connections of": _Kind(_cut, (ROLES, ROLES, PRODUCER), 0.0, 2),
    "lose an answer to": _Kind(_lose_answer, (ROLES, ROLES, PRODUCER), 0.0, 4),
    "partition": _Kind(_partition, (ROLES, ROLES, PRODUCER), 3.0, 2),
    "slow network of": _Kind(_slow_network, (ROLES, ROLES, PRODUCER), 3.0),
    "stall": _Kind(_stall, (ROLES, ROLES, BROKER), 8.0, 3),
    "slow disk of": _Kind(_slow_disk, (BROKER,), 3.0),
    "failing disk of": _Kind(_disk_fails, (BROKER,), 2.0),
    "lock the database of": _Kind(_lock_database, ("sql",), 3.0, 2),
    "join": _Kind(_join, (ROLES,), 6.0, 2),
}


def drawn(dice: random.Random, roles: Sequence[str], most: int = 8) -> list[Fault]:
    """The faults of one seed, in the order of their times.

    A seed has few kinds of faults, so that several of one kind meet, and every other fault begins while one before it
    lasts or soon after.
    """
    kinds = dice.sample(list(KINDS), counts=[kind.weight for kind in KINDS.values()], k=dice.randint(2, 6))
    faults: list[Fault] = []
    for _ in range(dice.randint(2, most)):
        name = dice.choice(kinds)
        kind = KINDS[name]
        target = dice.choice(kind.targets)
        at_s = dice.uniform(FIRST_S, LAST_S)
        if faults and dice.random() < 0.5:
            before = dice.choice(faults)
            at_s = before.at_s + dice.uniform(0.0, before.for_s + 0.5)
        faults.append(
            Fault(
                name,
                dice.choice(roles) if target == ROLES else target,
                at_s,
                dice.uniform(0.05, kind.longest_s) if kind.longest_s else 0.0,
                dice.randint(1, 60) if dice.random() < 0.5 else 0,
            )
        )
    return sorted(faults, key=lambda fault: fault.at_s)


def schedule(simulation: Simulation, faults: list[Fault]) -> None:
    """Let them happen."""
    world = simulation.world
    for fault in faults:
        _schedule(simulation, fault)
        simulation.faults_end_s = max(simulation.faults_end_s, world.seconds + fault.at_s + fault.for_s)


def _schedule(simulation: Simulation, fault: Fault) -> None:
    world = simulation.world

    def act() -> None:
        if not simulation.faults_over:
            world.note("fault", fault)
            simulation.faults_end_s = max(simulation.faults_end_s, world.seconds + fault.for_s)
            KINDS[fault.kind].act(simulation, fault)

    def begin() -> None:
        if fault.sends and fault.kind != "join":
            # At a message, so that a moment is as likely as any other in which something has been done, however short.
            world.network.after_sends(fault.target, fault.sends, act)
        else:
            act()

    world.call_later(fault.at_s, begin)
