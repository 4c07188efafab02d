"""Targets: for each stream and kind of record its table, columns, and how existing rows are handled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import JSON, DateTime, LargeBinary, Table
from sqlalchemy.types import TypeEngine

from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.registry import Registry
from astrocyte.schemas.tables import (
    ActionModel,
    AgentModel,
    AgentStateModel,
    AlertRow,
    Base,
    Cell,
    CellGenome,
    DeadLetterRow,
    DnaMutation,
    DnaSnapshot,
    EvolutionaryEvent,
    ExperimentModel,
    HealthIncident,
    KarmaScore,
    KernelGeometry,
    KernelHistory,
    LearningExperienceModel,
    MultiEventRow,
    MultiEventSource,
    PopulationMetrics,
    ProblemResult,
    ResourceModel,
    Simulation,
    SimulationConfig,
    SimulationStepModel,
    SinkPosition,
    Spike,
    TextArray,
    Vector,
    WarHistory,
    WindowResult,
)

__all__ = [
    "EXPERIMENTS",
    "KIND_TARGETS",
    "LOGGED",
    "POSITIONS",
    "SIMULATIONS",
    "STREAM_TARGETS",
    "TABLES",
    "WINDOWS",
    "Also",
    "Computed",
    "Conflict",
    "Encoding",
    "Parent",
    "Target",
    "own_streams",
    "register_table",
    "registered_tables",
]

Conflict = Literal["replace", "fill", "latest", "ignore", "greatest", "refuse"]
"""How an existing row is handled.

replace: new values replace the old (an event written again has the same values). fill: new values that are not null
replace the old, so that birth, death and placeholder merge in any order. latest: as replace, unless the stored row is
newer by ``timestamp``. ignore: the stored row is kept. greatest: numbers and times only increase (``start_time`` only
decreases), the status of an ended run does not return to running, and an experiment once set is kept. refuse: the
database rejects the row.
"""

Encoding = Literal["plain", "vector", "floats", "strings", "json", "datetime", "bytes"]
"""How a staged column is passed to the driver: vector has a fixed size, floats is a BLOB of any length."""

_FIRST_WINS: Final = frozenset({"recorded_at"})


@dataclass(frozen=True, slots=True)
class Computed:
    """A table's column computed from staged columns, in two forms: each database uses the cheaper one."""

    sql: str
    """Expression over staged columns in braces, for SQLite."""
    arrow: Callable[[Mapping[str, pa.Array]], pa.Array]
    """The same over whole columns, for COPY."""


@dataclass(frozen=True, slots=True)
class Parent:
    """A parent row, written before its child: made from the child's staged columns where ``key`` is not null."""

    target: Target
    key: str
    columns: Mapping[str, str]
    """Staged column of the parent -> staged column of the child."""


@dataclass(frozen=True, slots=True)
class Also:
    """A further table that the events of a stream, or those whose column ``where`` has the value ``equals``, go to."""

    target: Target
    where: str | None = None
    equals: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """One table and how staged columns become its rows.

    ``staged`` maps a staged column to the frame's column it is taken from. A staged column with the name of a
    table's column is written to it; ``computed`` gives further columns.
    """

    table: Table
    staged: Mapping[str, str]
    conflict: Conflict = "replace"
    computed: Mapping[str, Computed] = field(default_factory=dict)
    parents: tuple[Parent, ...] = ()
    sort: tuple[str, ...] = ()
    """Staged columns by which a batch is sorted, for locality in the table's largest index."""
    also: tuple[Also, ...] = ()
    """Further tables, written after this one."""
    merged: Mapping[str, str] = field(default_factory=dict)
    """Table column -> SQL expression for its value where the row exists, with ``{new}`` and ``{table}``."""

    @property
    def values(self) -> dict[str, str]:
        """Table column -> SQL expression over staged columns."""
        plain = {name: "{" + name + "}" for name in self.staged if name in self.table.c}
        return plain | {name: computed.sql for name, computed in self.computed.items()}

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Columns of the primary key."""
        return tuple(column.name for column in self.table.primary_key)

    def encoding(self, staged: str) -> Encoding:
        """How the staged column is passed to the driver."""
        if staged not in self.table.c:
            return "plain"
        return _encoding(self.table.c[staged].type)

    def on_conflict(self) -> str:
        """The ON CONFLICT clause, in syntax common to SQLite and PostgreSQL."""
        if self.conflict == "refuse":
            return ""
        key = ", ".join(self.primary_key)
        rest = [name for name in self.values if name not in self.primary_key and name not in _FIRST_WINS]
        if self.conflict == "ignore" or not rest:
            return f"ON CONFLICT ({key}) DO NOTHING"
        table = self.table.name
        sets = ", ".join(f"{_quoted(name)} = {self._merged(name)}" for name in rest)
        guard = f" WHERE excluded.timestamp >= {table}.timestamp" if self.conflict == "latest" else ""
        return f"ON CONFLICT ({key}) DO UPDATE SET {sets}{guard}"

    def _merged(self, name: str) -> str:
        new, old = f"excluded.{_quoted(name)}", f"{self.table.name}.{_quoted(name)}"
        if name in self.merged:
            return self.merged[name].format(new=new, table=self.table.name)
        if self.conflict in ("replace", "latest"):
            return new
        if self.conflict == "fill":
            return f"COALESCE({new}, {old})"
        if name == "status":
            return f"CASE WHEN {new} = 'running' THEN COALESCE({old}, {new}) ELSE COALESCE({new}, {old}) END"
        if name == "experiment_id":
            return f"COALESCE({old}, {new})"
        sign = "<" if name == "start_time" else ">"
        return f"CASE WHEN {old} IS NULL OR {new} {sign} {old} THEN {new} ELSE {old} END"


def _quoted(name: str) -> str:
    return f'"{name}"' if name in ("timestamp", "position", "domain", "mode", "source", "version", "key") else name


def _encoding(kind: TypeEngine[object]) -> Encoding:
    match kind:
        case Vector():
            return "vector"
        case TextArray():
            return "strings"
        case JSON():
            return "json"
        case DateTime():
            return "datetime"
        case LargeBinary():
            return "bytes"
    return "plain"


def _table(model: type[Base]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


def _of_stream(model: type[Base], stream: str, *extra: str, catalog: Catalog = CATALOG, **options: object) -> Target:
    """Target with every field of the stream's event type for which the table has a column."""
    table = _table(model)
    event_type = catalog[stream]
    staged = {name: name for name in event_type.fields if name in table.c}
    staged |= {name: name for name in ("simulation_id", "timestamp", "recorded_at") if name in table.c}
    for entry in extra:
        name, _, source = entry.partition("=")
        staged[name] = source or name
    return Target(table, staged, **options)  # type: ignore[arg-type]


def of_table(
    model: type[Base], *columns: str, conflict: Conflict = "replace", parents: tuple[Parent, ...] = ()
) -> Target:
    """Target whose staged columns are the given columns of the table (all by default)."""
    table = _table(model)
    names = columns or tuple(column.name for column in table.c)
    unknown = [name for name in names if name not in table.c]
    if unknown:
        raise InvalidSettings(
            f"table {table.name} has no column {unknown[0]!r}; it has {', '.join(column.name for column in table.c)}"
        )
    return Target(table, {name: name for name in names}, conflict=conflict, parents=parents)


_AGENT: Final = of_table(AgentModel, "agent_id", "simulation_id", conflict="ignore")
_KERNEL: Final = replace(
    of_table(KernelGeometry, "kernel_id", "simulation_id", conflict="ignore"),
    computed={"spawned_at": Computed("NULL", lambda columns: pa.nulls(len(columns["kernel_id"])))},
)
"""A kernel of a war. The column's default is the time of writing, which is no event time."""
_SNAPSHOT: Final = of_table(DnaSnapshot, "snapshot_id", "simulation_id", "agent_id", "version", conflict="ignore")


def _state_id(columns: Mapping[str, pa.Array]) -> pa.Array:
    agent, step = (pc.cast(columns[name], pa.utf8()) for name in ("agent_id", "step_number"))
    return pc.binary_join_element_wise(agent, step, "-")


def _resource_state_id(columns: Mapping[str, pa.Array]) -> pa.Array:
    return pc.bit_wise_or(pc.shift_left(columns["step_number"], 31), columns["resource_id"])


def _at_birth(name: str) -> Computed:
    """A value of an agent's birth; null in the record of its death, by which time the value may be another."""

    def arrow(columns: Mapping[str, pa.Array]) -> pa.Array:
        values = columns[name]
        died = pc.equal(columns["type"].cast(pa.utf8()), "died").fill_null(False)
        return pc.if_else(died, pa.scalar(None, values.type), values)

    return Computed(f"CASE WHEN {{type}} = 'died' THEN NULL ELSE {{{name}}} END", arrow)


def _agent(column: str = "agent_id") -> Parent:
    return Parent(_AGENT, column, {"agent_id": column, "simulation_id": "simulation_id"})


def _state(column: str, ahead: int) -> Parent:
    """The state to which an action refers; until it is stored, a placeholder, which the state's own event completes."""
    target = Target(
        _table(AgentStateModel),
        {name: name for name in ("id", "simulation_id", "agent_id", "step_number", "recorded_at")},
        conflict="fill",
        computed={
            "step_number": Computed(f"{{step_number}} + {ahead}", lambda columns: pc.add(columns["step_number"], ahead))
        },
    )
    return Parent(target, column, {**{name: name for name in target.staged}, "id": column})


def _kernel(column: str) -> Parent:
    return Parent(_KERNEL, column, {"kernel_id": column, "simulation_id": "simulation_id"})


def _snapshot_of_mutation() -> Parent:
    names = ("snapshot_id", "simulation_id", "agent_id", "version", "parent_snapshot_id", "reason", "dna_size",
             "traits_count", "created_at")  # fmt: skip
    target = Target(
        _table(DnaSnapshot),
        {name: name for name in names},
        conflict="fill",
        computed={
            "source": Computed("'mutation'", lambda columns: pa.array(["mutation"] * len(columns["snapshot_id"])))
        },
    )
    return Parent(target, "snapshot_id", {name: name for name in names})


_DEATH: Final = Target(
    _table(Cell),
    {"cell_id": "cell_id", "simulation_id": "simulation_id", "generation": "generation", "died_at": "timestamp"},
    conflict="fill",
    computed={"alive": Computed("0", lambda columns: pa.array([False] * len(columns["cell_id"])))},
)
"""A death: it never changes the vitals of the cell, so that rows do not depend on which of the two is read first."""


STREAM_TARGETS: Final[Mapping[str, Target]] = {
    **{
        f"axon_{number}": _of_stream(Spike, f"axon_{number}", "axon=stream", "id", "domain=key", "type")
        for number in (1, 2, 3)
    },
    "population_metrics": _of_stream(PopulationMetrics, "population_metrics"),
    "agents": _of_stream(
        AgentModel,
        "agents",
        "type",
        conflict="fill",
        computed={name: _at_birth(name) for name in ("agent_type", "genome_id", "generation")},
    ),
    "agent_states": _of_stream(
        AgentStateModel,
        "agent_states",
        computed={"id": Computed("{agent_id} || '-' || {step_number}", _state_id)},
        parents=(_agent(),),
        sort=("agent_id", "step_number"),
    ),
    "resource_states": _of_stream(
        ResourceModel,
        "resource_states",
        computed={"id": Computed("({step_number} << 31) | {resource_id}", _resource_state_id)},
    ),
    "simulation_steps": _of_stream(SimulationStepModel, "simulation_steps"),
    "agent_actions": _of_stream(
        ActionModel,
        "agent_actions",
        parents=(_agent(), _agent("action_target_id"), _state("state_before_id", -1), _state("state_after_id", 0)),
    ),
    "learning_experiences": _of_stream(LearningExperienceModel, "learning_experiences", parents=(_agent(),)),
    "health_incidents": _of_stream(HealthIncident, "health_incidents", parents=(_agent(),)),
    "cell_vitals": _of_stream(
        Cell,
        "cell_vitals",
        conflict="latest",
        merged={"alive": "CASE WHEN {table}.died_at IS NULL THEN {new} ELSE {table}.alive END"},
    ),
    "genome_data": _of_stream(CellGenome, "genome_data", conflict="latest"),
    "problem_solving": _of_stream(
        ProblemResult,
        "problem_solving",
        "id",
        "type",
        computed={
            "solved": Computed("{type} = 'solved'", lambda columns: pc.equal(columns["type"].cast(pa.utf8()), "solved"))
        },
    ),
    "evolutionary_events": _of_stream(
        EvolutionaryEvent, "evolutionary_events", "id", also=(Also(_DEATH, "event_type", "death"),)
    ),
    "kernel_geometry": _of_stream(
        KernelGeometry,
        "kernel_geometry",
        "status=type",
        conflict="latest",
        also=(Also(_of_stream(KernelHistory, "kernel_geometry", "id", "status=type")),),
    ),
    "war_history": _of_stream(
        WarHistory, "war_history", parents=(_kernel("attacker_id"), _kernel("defender_id"), _kernel("winner_id"))
    ),
    "dna.snapshot_created": _of_stream(DnaSnapshot, "dna.snapshot_created", conflict="fill"),
    "dna.mutation_applied": _of_stream(DnaMutation, "dna.mutation_applied", parents=(_snapshot_of_mutation(),)),
    "dna.karma_updated": _of_stream(
        KarmaScore,
        "dna.karma_updated",
        "id",
        parents=(
            Parent(
                _SNAPSHOT,
                "snapshot_id",
                {name: name for name in ("snapshot_id", "simulation_id", "agent_id", "version")},
            ),
        ),
    ),
}
"""Streams that have a table. ``id`` is the event's number in its run (see `rows.row_numbers`)."""

LOGGED: Final[Mapping[str, Target]] = {
    "agents": of_table(AgentModel, conflict="fill"),
    "agent_states": of_table(AgentStateModel, parents=(_agent(),)),
    "resource_states": of_table(ResourceModel),
    "simulation_steps": of_table(SimulationStepModel),
    "agent_actions": of_table(ActionModel, parents=(_agent(), _agent("action_target_id"))),
    "learning_experiences": of_table(LearningExperienceModel, parents=(_agent(),)),
    "health_incidents": of_table(HealthIncident, parents=(_agent(),)),
    "kernel_geometry": of_table(KernelGeometry, conflict="fill"),
    "kernel_history": of_table(KernelHistory),
    "war_history": of_table(WarHistory, parents=tuple(map(_kernel, ("attacker_id", "defender_id", "winner_id")))),
    "dead_letters": of_table(DeadLetterRow),
}
"""Tables to which `SimulationLogger` writes, in the order that foreign keys require."""

SIMULATIONS: Final = of_table(
    Simulation, "simulation_id", "experiment_id", "start_time", "end_time", "status", conflict="greatest"
)
EXPERIMENTS: Final = of_table(ExperimentModel, "experiment_id", "name", "creation_date", "status", conflict="ignore")
WINDOWS: Final = of_table(WindowResult)
"""Results of windows, one row for each field."""
POSITIONS: Final = of_table(SinkPosition, conflict="greatest")

KIND_TARGETS: Final[Mapping[str, tuple[Target, ...]]] = {
    "multi_events": (of_table(MultiEventRow), of_table(MultiEventSource)),
    "alerts": (of_table(AlertRow),),
    "dead_letters": (of_table(DeadLetterRow),),
    "experiments": (of_table(ExperimentModel, conflict="fill"),),
    "simulations": (of_table(Simulation, conflict="fill"), of_table(SimulationConfig)),
}
"""Tables of each kind of record, in the order that foreign keys require."""


def _convert(name: str, found: object) -> Target:
    if isinstance(found, Target):
        return found
    if not isinstance(found, Table):
        raise InvalidSettings(f"table of stream {name!r} is a {type(found).__name__}; expected a sqlalchemy Table")
    if not found.primary_key.columns:
        raise InvalidSettings(
            f"table {found.name!r} has no primary key; expected one, so that an event is not stored twice"
        )
    return Target(found, {column.name: column.name for column in found.c})


TABLES: Final[Registry[Target]] = Registry("table", group="astrocyte.tables", shipped=STREAM_TARGETS, convert=_convert)
"""Table of each stream that the role ``sql`` stores."""


def register_table(stream: str, table: Table) -> None:
    """Let the role ``sql`` store a stream in a table, which it creates if it is missing.

    Columns are filled from the fields of the same name, and from ``timestamp`` (microseconds), ``key``, ``type``,
    ``simulation_id`` (the run), ``id`` (a whole number, unique in its run and stream) and ``recorded_at``. The primary
    key must be unique for each event, such as (simulation_id, id): an event written again replaces its row. Raises
    InvalidSettings.
    """
    TABLES.register(stream, table)


def registered_tables() -> list[Table]:
    """Registered tables, which Astrocyte's migrations do not create."""
    return [target.table for name, target in TABLES.items() if name not in STREAM_TARGETS]


def own_streams() -> list[str]:
    """Streams of which a table is registered or installed, besides those that Astrocyte ships."""
    return [name for name, _ in TABLES.items() if name not in STREAM_TARGETS]
