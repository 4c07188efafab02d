"""The events of the shipped streams as methods: dna snapshots, cells, kernels. Each emits one event and never waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import InvalidEvent

__all__ = ["CellEvents", "DnaEvents", "KernelEvents"]


class _Emitter(Protocol):
    def emit(self, stream: str, event: Mapping[str, Any], *, key: str | None = None) -> bool: ...


_SOURCES: Final = CATALOG["dna.snapshot_created"].about["source"].values


class DnaEvents:
    """Events of a service that evolves the configuration of agents, keyed by agent, in the dna envelope.

    Each method returns whether the event was buffered, as `Publisher.emit` does; times are seconds since 1970.
    """

    def __init__(self, publisher: _Emitter) -> None:
        self._publisher = publisher

    def snapshot_created(
        self,
        *,
        snapshot_id: int,
        agent_id: str,
        version: int,
        source: Literal["manual", "system", "mutation"],
        dna_size: int,
        traits_count: int,
        created_at: float,
        parent_snapshot_id: int | None = None,
        reason: str | None = None,
    ) -> bool:
        """A snapshot of an agent's configuration was created; ``parent_snapshot_id`` is None for the first."""
        if source not in _SOURCES:
            raise InvalidEvent(f"source {source!r}; expected one of {', '.join(_SOURCES)}")
        return self._emit(
            "dna.snapshot_created", created_at,
            snapshot_id=snapshot_id, agent_id=agent_id, version=version, source=source,
            parent_snapshot_id=parent_snapshot_id, dna_size=dna_size, traits_count=traits_count, reason=reason,
            created_at=created_at,
        )  # fmt: skip

    def mutation_applied(
        self,
        *,
        snapshot_id: int,
        agent_id: str,
        version: int,
        parent_snapshot_id: int,
        mutation_keys: Sequence[str],
        traits_delta: Mapping[str, float],
        created_at: float,
        reason: str | None = None,
    ) -> bool:
        """A mutation made the snapshot ``snapshot_id``: the keys that changed, and the changes of traits."""
        return self._emit(
            "dna.mutation_applied", created_at,
            snapshot_id=snapshot_id, agent_id=agent_id, version=version, parent_snapshot_id=parent_snapshot_id,
            mutation_keys=list(mutation_keys), traits_delta=dict(traits_delta), reason=reason, created_at=created_at,
        )  # fmt: skip

    def karma_updated(
        self,
        *,
        snapshot_id: int,
        agent_id: str,
        version: int,
        karma_score: float,
        updated_at: float,
        previous_score: float | None = None,
    ) -> bool:
        """A snapshot was scored, from 0 to 1; ``score_delta`` is the difference from ``previous_score``, if known."""
        if not 0.0 <= karma_score <= 1.0:
            raise InvalidEvent(f"karma_score {karma_score!r}; expected a number from 0 to 1")
        return self._emit(
            "dna.karma_updated", updated_at,
            snapshot_id=snapshot_id, agent_id=agent_id, version=version, karma_score=karma_score,
            previous_score=previous_score,
            score_delta=None if previous_score is None else karma_score - previous_score,
            updated_at=updated_at,
        )  # fmt: skip

    def _emit(self, stream: str, at_s: float, **payload: Any) -> bool:
        return self._publisher.emit(stream, {"timestamp": round(at_s * 1e6), **payload}, key=payload["agent_id"])


class CellEvents:
    """The five streams of a simulation of cells, for a simulator of your own.

    A cell, problem, result or population is a mapping or any object with attributes of the streams' field names
    (docs/fields.md); what it lacks is null. Event time is ``start_us`` + tick x ``tick_us``, by the newest tick passed
    to any method, or the wall clock without ``tick_us``. Cells are partitioned by ``island``, if they have one.
    """

    def __init__(
        self, publisher: _Emitter, simulation_id: str, *, tick_us: int | None = None, start_us: int = 0
    ) -> None:
        self._publisher, self._simulation_id = publisher, simulation_id
        self._tick_us, self._start_us, self._tick = tick_us, start_us, 0

    def stream_cell_state(self, cell: Any, tick: int) -> bool:
        """State of one cell at a tick: energy, mass, age and whether it lives."""
        self._tick = max(self._tick, tick)
        return self._emit("cell_vitals", "vitals", _chosen("cell_vitals", cell), cell)

    def stream_genome(self, cell: Any) -> bool:
        """Genome of one cell."""
        return self._emit("genome_data", "genome", _chosen("genome_data", cell), cell)

    def stream_problem_result(self, cell: Any, problem: Any, result: Any) -> bool:
        """One attempt at a problem. It succeeded if ``result.solved`` says so, by default with accuracy 0.5 or more."""
        fields = _chosen("problem_solving", problem) | _chosen("problem_solving", result)
        fields["cell_id"] = _get(cell, "cell_id")
        solved = _get(result, "solved")
        if solved is None:
            accuracy = fields.get("accuracy")
            if accuracy is None:
                raise InvalidEvent("a result with neither 'solved' nor 'accuracy'; give it one of them")
            solved = accuracy >= 0.5
        return self._emit("problem_solving", "solved" if solved else "failed", fields, cell)

    def stream_division_event(self, parent: Any, offspring: Any) -> bool:
        """A cell divided: one event about the offspring, with its mother as ``parent_id``.

        ``generation_gap`` is the difference of generations, where both have one. The simulator's own divisions are
        about the mother, beside an event ``birth`` about the daughter.
        """
        born, before = _get(offspring, "generation"), _get(parent, "generation")
        fields = {
            "event_type": "division",
            "cell_id": _get(offspring, "cell_id"),
            "parent_id": _get(parent, "cell_id"),
            "generation_gap": None if born is None or before is None else born - before,
            **_own_age(offspring),
        }
        return self._emit("evolutionary_events", "division", fields, offspring)

    def stream_mutation_event(self, cell: Any, mutation_type: str, magnitude: float) -> bool:
        """A mutation of a cell; its type is part of the event's type, ``mutation`` or ``mutation.<mutation_type>``."""
        fields = {
            "event_type": "mutation",
            "cell_id": _get(cell, "cell_id"),
            "parent_id": _get(cell, "parent_id"),
            "mutation_magnitude": magnitude,
            **_own_age(cell),
        }
        kind = "mutation" if mutation_type in ("", "mutation") else f"mutation.{mutation_type}"
        return self._emit("evolutionary_events", kind, fields, cell)

    def stream_population_snapshot(self, population: Any, tick: int) -> bool:
        """Metrics of the population at a tick; of an iterable of cells, its size and the means of what cells hold."""
        self._tick = max(self._tick, tick)
        if isinstance(population, Iterable) and not isinstance(population, Mapping):
            fields = _summary(list(population))
        else:
            fields = _chosen("population_metrics", population)
        fields |= {"tick": tick, "simulation_id": self._simulation_id}
        return self._publisher.emit("population_metrics", self._timed(fields) | {"type": "snapshot"})

    def _emit(self, stream: str, kind: str, fields: dict[str, Any], cell: Any) -> bool:
        if fields.get("cell_id") is None:
            raise InvalidEvent(f"a cell without 'cell_id': {cell!r}; expected a mapping or an object that has one")
        island = _get(cell, "island")
        key = "0" if island is None else str(island)
        fields = self._timed(fields) | {"type": kind, "simulation_id": self._simulation_id}
        return self._publisher.emit(stream, fields, key=key)

    def _timed(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self._tick_us is None:
            return fields
        return {"timestamp": self._start_us + self._tick * self._tick_us, **fields}


class KernelEvents:
    """Kernels as events of ``kernel_geometry``. An update carries the whole kernel, as the newest event is its row."""

    def __init__(self, publisher: _Emitter, simulation_id: str) -> None:
        self._publisher, self._simulation_id = publisher, simulation_id
        self._kernels: dict[int, dict[str, Any]] = {}

    def store_kernel(self, kernel: Any = None, /, **columns: Any) -> bool:
        """A kernel was spawned: a mapping, an object or keywords with the fields of the stream (docs/fields.md).

        ``kernel_id`` is a whole number, ``basin_coordinates`` 8 numbers. Storing it again replaces what is known.
        """
        fields = ({} if kernel is None else _chosen("kernel_geometry", kernel)) | columns
        kernel_id = fields.get("kernel_id")
        if type(kernel_id) is not int:
            raise InvalidEvent(f"kernel_id {kernel_id!r}; expected a whole number")
        basin = fields.get("basin_coordinates")
        if basin is not None and len(basin) != 8:
            raise InvalidEvent(f"basin_coordinates has {len(basin)} numbers; expected 8")
        accepted = self._emit("spawned", fields)
        self._kernels[kernel_id] = fields
        return accepted

    def update_kernel_metrics(self, kernel_id: int, **metrics: Any) -> bool:
        """A kernel was trained: its new ``phi``, ``kappa``, ``training_steps`` and so on; the others stay."""
        if kernel_id not in self._kernels:
            raise InvalidEvent(f"kernel {kernel_id!r} is not known to this publisher; call store_kernel first")
        fields = self._kernels[kernel_id] | metrics
        accepted = self._emit("updated", fields)
        self._kernels[kernel_id] = fields
        return accepted

    def retire_kernel(self, kernel_id: int) -> bool:
        """A kernel is no longer used; it is forgotten here."""
        if kernel_id not in self._kernels:
            raise InvalidEvent(f"kernel {kernel_id!r} is not known to this publisher; call store_kernel first")
        return self._emit("retired", self._kernels.pop(kernel_id))

    def _emit(self, kind: str, fields: Mapping[str, Any]) -> bool:
        return self._publisher.emit("kernel_geometry", {**fields, "type": kind}, key=self._simulation_id)


def _get(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def _own_age(cell: Any) -> dict[str, Any]:
    return {name: value for name in ("generation", "age_ticks") if (value := _get(cell, name)) is not None}


def _chosen(stream: str, thing: Any) -> dict[str, Any]:
    """The fields of a stream that a mapping or an object has."""
    found = {name: _get(thing, name) for name in CATALOG[stream].fields}
    return {name: value for name, value in found.items() if value is not None}


def _summary(cells: Sequence[Any]) -> dict[str, Any]:
    means = {"avg_generation": "generation", "avg_energy": "energy", "avg_accuracy": "accuracy"}
    fields: dict[str, Any] = {"total_population": len(cells)}
    for name, of_cell in means.items():
        values = [value for cell in cells if (value := _get(cell, of_cell)) is not None]
        if values:
            fields[name] = sum(values) / len(values)
    return fields
