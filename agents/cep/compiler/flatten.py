"""A rule's graph flattened to tables: for every state, what each kind of event does to a partial match.

PROCEED edges are followed once, here, so that an edge is TAKE or IGNORE under a disjunction of terms; greedy, until,
negation, optional parts and groups are then expressed by terms alone. For rules with few static atoms a table gives the
action directly: whether an event ends a partial match, leaves it unchanged, or requires evaluation of the edges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.cep.compiler.formula import DYNAMIC, TRUE, Formula, Term, both, dnf, either
from astrocyte.agents.cep.compiler.nfa import Action, Edge, Graph, Kind, State, build_graph
from astrocyte.agents.cep.compiler.running_values import Reader, Slot
from astrocyte.agents.cep.operator import Atom, OperatorName
from astrocyte.agents.expressions.bytecode import Code
from astrocyte.agents.expressions.nodes import Node
from astrocyte.agents.rules.model import Rule
from astrocyte.schemas.errors import InvalidRule

__all__ = ["DIES", "EVALUATE", "LOOK", "STAYS", "FlatEdge", "FlatState", "Program", "compile_rule"]

DIES, STAYS, LOOK, EVALUATE = 0, 1, 2, 3
MAX_TABLE_ATOMS: Final = 8
MAX_TABLE_BITS: Final = 10
MAX_TABLE_DYNAMIC: Final = 4
MAX_EDGES: Final = 62
_STATIC: Final = (1 << DYNAMIC) - 1


@dataclass(frozen=True, slots=True)
class FlatEdge:
    """``final``: terms under which the target also completes the match with this event."""

    take: bool
    step: int
    target: int
    kind: Kind
    terms: tuple[Term, ...]
    final: tuple[Term, ...]
    wait_us: int


@dataclass(frozen=True, slots=True)
class FlatState:
    """``unchanged``: sets of edges (as bits) which together leave a partial match equivalent to its previous state.

    ``deadline_us`` is the time since the last taken event after which no edge can be taken (0: no such time).
    """

    label: str
    kind: Kind
    edges: tuple[FlatEdge, ...]
    deadline_us: int
    unchanged: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What an event does to a partial match, by state and word, for rules with few atoms.

    ``bits`` and ``dynamic_bits`` are the numbers of static and dynamic atoms that index it; 0 bits: there is no table;
    0 dynamic bits with EVALUATE: there are too many dynamic atoms for a table.
    """

    bits: int
    dynamic_bits: int
    actions: NDArray[np.uint8]
    """Shape [states, 2**bits]: DIES, STAYS, LOOK (take the edges that fire), EVALUATE (depends on dynamic atoms)."""
    needed: NDArray[np.uint8]
    """Shape of ``actions``: bits of the dynamic atoms on which the action depends."""
    resolved: NDArray[np.uint8]
    """Shape [states, 2**dynamic_bits, 2**bits]: the action, given the truth of the dynamic atoms."""
    fired: NDArray[np.uint64]
    """Shape of ``resolved``, and a last axis of 2: bits of the edges that fire, and of those whose target completes."""
    idle: NDArray[np.uint8]
    """Per static word: 1 if it changes nothing in any state."""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A compiled ``seq`` or ``any``. Immutable."""

    operator: ClassVar[OperatorName] = "automaton"
    rule: Rule
    atoms: tuple[Atom, ...]
    dynamic: tuple[Node, ...]
    """Conditions over earlier events: bit `DYNAMIC` + j of a term is dynamic[j]."""
    states: tuple[FlatState, ...]
    start: int
    code: Code
    captures: tuple[str, ...]
    """Fields that conditions over several events read."""
    slots: tuple[Slot, ...]
    table: Table

    @property
    def fan_out(self) -> int:
        """Maximum number of partial matches and outputs that one partial match can become at one event."""
        return max(
            sum((edge.kind is not Kind.STOP) + bool(edge.final) for edge in state.edges) for state in self.states
        )


def compile_rule(rule: Rule) -> Program:
    """Tables of a rule whose top operator is ``seq`` or ``any``. Raises InvalidRule."""
    graph = build_graph(rule)
    states, start = _Flattener(graph).flatten()
    atoms = list(graph.atoms.static)
    if not _ignores_others(states, start):
        # A state reacts even to events that fit no step (strict contiguity): every event must reach the kernel.
        presence = Atom(rule.streams, None)
        if presence not in atoms:
            atoms.append(presence)
    if len(atoms) > DYNAMIC:
        raise InvalidRule(f"the rule has more than {DYNAMIC} different conditions; split it")
    reader = Reader({name: index for index, name in enumerate(rule.positive)})
    code = Code(reader.read)
    for node in graph.atoms.dynamic:
        code.add(node)
    table = _table(states, start, len(atoms), len(code.starts) - 1)
    dynamic = tuple(graph.atoms.dynamic)
    captures, slots = tuple(reader.captures), tuple(reader.slots)
    return Program(rule, tuple(atoms), dynamic, states, start, code, captures, slots, table)


class _Flattener:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.number: dict[State, int] = {}
        self.order: list[State] = []

    def flatten(self) -> tuple[tuple[FlatState, ...], int]:
        start = self.index(self.graph.start)
        flat: list[tuple[State, tuple[FlatEdge, ...]]] = []
        while len(flat) < len(self.order):
            state = self.order[len(flat)]
            flat.append((state, self.edges(state)))
        edges = [each for _, each in flat]
        kinds = [state.kind for state, _ in flat]
        done = [
            FlatState(state.label, state.kind, each, _deadline(state, each), _unchanged(index, kinds, edges))
            for index, (state, each) in enumerate(flat)
        ]
        return tuple(done), start

    def index(self, state: State) -> int:
        if state not in self.number:
            self.number[state] = len(self.order)
            self.order.append(state)
        return self.number[state]

    def edges(self, state: State) -> tuple[FlatEdge, ...]:
        if state.kind in (Kind.FINAL, Kind.STOP):
            return ()
        found: dict[tuple[bool, int, State, int], Formula] = {}

        def add(edge: Edge, target: State, condition: Formula) -> None:
            key = (edge.action is Action.TAKE, edge.step, target, edge.wait_us)
            found[key] = either(found[key], condition) if key in found else condition

        for reached, condition, confirmed in _reach(state):
            if reached.kind is Kind.PENDING and confirmed and reached is not state:
                continue  # entered together with this state, see below
            for edge in reached.edges:
                if edge.action is Action.PROCEED or (edge.action is Action.IGNORE and state is self.graph.start):
                    continue
                joined = both(condition, edge.effective)
                add(edge, edge.target, joined)
                if edge.action is Action.TAKE:
                    # Time may complete the match while it also waits for more events: two partial matches from here.
                    for pending, further, _ in _reach(edge.target, completing=True):
                        if pending.kind is Kind.PENDING and pending is not edge.target:
                            add(edge, pending, both(joined, further))
        edges = []
        for (take, step, target, wait_us), condition in found.items():
            terms = dnf(condition)
            if terms:
                final = _completes(target) if take and target.kind in (Kind.NORMAL, Kind.PENDING) else ()
                edges.append(FlatEdge(take, step, self.index(target), target.kind, terms, final, wait_us))
        edges.sort(key=lambda edge: edge.kind is not Kind.STOP)  # stable sort; edges that end the match come first
        if len(edges) > MAX_EDGES:
            raise InvalidRule(
                f"state {state.label!r} has {len(edges)} outgoing edges; the limit is {MAX_EDGES}, "
                "use fewer alternatives or optional steps"
            )
        return tuple(edges)


def _reach(state: State, *, completing: bool = False) -> Iterator[tuple[State, Formula, bool]]:
    """States reached by PROCEED edges: (state, condition, whether it is reached without a further event).

    ``completing``: the event has just been taken, and the match must complete without another one.
    """
    stack: list[tuple[State, Formula, bool, frozenset[State]]] = [(state, TRUE, True, frozenset())]
    while stack:
        reached, condition, confirmed, seen = stack.pop()
        yield reached, condition, confirmed
        for edge in reached.edges:
            # A repeated group that may be empty makes a cycle of PROCEED edges; one pass is enough.
            if edge.action is not Action.PROCEED or (completing and not edge.confirms):
                continue
            if edge.target not in seen and edge.target is not reached:
                joined = both(condition, edge.condition if completing else edge.effective)
                if dnf(joined):
                    stack.append((edge.target, joined, confirmed and edge.confirms, seen | {reached}))


def _completes(state: State) -> tuple[Term, ...]:
    conditions = [condition for reached, condition, _ in _reach(state, completing=True) if reached.kind is Kind.FINAL]
    if not conditions:
        return ()
    result = conditions[0]
    for condition in conditions[1:]:
        result = either(result, condition)
    return dnf(result)


def _deadline(state: State, edges: tuple[FlatEdge, ...]) -> int:
    if state.kind is Kind.PENDING:
        return state.wait_us
    waits = [edge.wait_us for edge in edges if edge.kind is not Kind.STOP and (edge.take or edge.kind is Kind.FINAL)]
    return max(waits, default=0) if all(waits) else 0


def _unchanged(index: int, kinds: list[Kind], edges: list[tuple[FlatEdge, ...]]) -> tuple[int, ...]:
    """Sets of IGNORE edges whose targets together are equivalent to the state."""
    own = edges[index]
    ignores = [number for number, edge in enumerate(own) if not edge.take and edge.kind is not Kind.FINAL]
    found = [1 << number for number in ignores if own[number].target == index]
    if kinds[index] is Kind.NORMAL:
        for size in range(1, min(len(ignores), 5) + 1):
            for chosen in combinations(ignores, size):
                reached = {own[number].target for number in chosen}
                if index in reached or any(kinds[target] is not Kind.NORMAL for target in reached):
                    continue
                if _same(own, [edges[target] for target in reached]):
                    found.append(sum(1 << number for number in chosen))
    return tuple(found[:2])


def _same(own: tuple[FlatEdge, ...], others: list[tuple[FlatEdge, ...]]) -> bool:
    joined = [edge for edges in others for edge in edges]
    return len(joined) == len(own) and set(joined) == set(own)


def _fires(terms: tuple[Term, ...], word: int, known: int) -> bool | None:
    """Whether one of the terms holds; None if that depends on atoms outside ``known``."""
    maybe = False
    for care, want in terms:
        if word & care & known == want & known:
            if not care & ~known:
                return True
            maybe = True
    return None if maybe else False


def _action(state: FlatState, word: int, known: int = _STATIC) -> tuple[int, int, int]:
    """Effect of an event with this word: the action, the edges that fire, the edges whose target completes."""
    bits = completing = 0
    stops = completes = False
    for number, edge in enumerate(state.edges):
        fires = _fires(edge.terms, word, known)
        final = _fires(edge.final, word, known) if fires else False
        if fires is None or final is None:
            return EVALUATE, 0, 0
        if fires:
            bits |= 1 << number
            completing |= bool(final) << number
            stops = stops or edge.kind is Kind.STOP
            completes = completes or edge.kind is Kind.FINAL or bool(final)
    if not bits or (stops and not completes):
        return DIES, 0, 0
    return (STAYS if bits in state.unchanged else LOOK), bits, completing


def _ignores_others(states: tuple[FlatState, ...], start: int) -> bool:
    """Whether an event for which no static atom holds changes nothing."""
    return all(
        _action(state, 0)[0] == (DIES if index == start else STAYS)
        for index, state in enumerate(states)
        if state.kind in (Kind.NORMAL, Kind.PENDING)
    )


def _table(states: tuple[FlatState, ...], start: int, atoms: int, dynamic: int) -> Table:
    if atoms > MAX_TABLE_ATOMS:
        none = np.zeros((len(states), 1), np.uint8)
        fired = np.zeros((len(states), 1, 1, 2), np.uint64)
        return Table(0, 0, none + EVALUATE, none, none[:, :, None], fired, np.zeros(1, np.uint8))
    if dynamic > MAX_TABLE_DYNAMIC or atoms + dynamic > MAX_TABLE_BITS:
        dynamic = 0
    static, assumed = range(1 << atoms), range(1 << dynamic)
    everything = _STATIC if dynamic == 0 else -1
    found = np.array(
        [
            [[_action(state, word | known << DYNAMIC, everything) for word in static] for known in assumed]
            for state in states
        ],
        np.uint64,
    ).reshape(len(states), len(assumed), len(static), 3)
    resolved = found[..., 0].astype(np.uint8)
    # A word needs a dynamic atom if flipping the atom changes anything.
    needed = np.zeros((len(states), len(static)), np.uint8)
    for atom in range(dynamic):
        pairs = found.reshape(len(states), len(assumed) >> atom + 1, 2, 1 << atom, len(static), 3)
        differs = (pairs[:, :, 0] != pairs[:, :, 1]).any(axis=(1, 2, 4))
        needed |= differs.astype(np.uint8) << atom
    actions = np.where(needed > 0, np.uint8(EVALUATE), resolved[:, 0])
    waiting = [i for i, state in enumerate(states) if state.kind in (Kind.NORMAL, Kind.PENDING) and i != start]
    idle = (actions[start] == DIES) & (actions[waiting] == STAYS).all(axis=0)
    return Table(atoms, dynamic, actions, needed, resolved, found[..., 1:].copy(), idle.astype(np.uint8))
