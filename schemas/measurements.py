"""InfluxDB measurements: which columns of a stream are tags and fields, and unique timestamps for points of one series.

InfluxDB identifies a point by measurement, tags and time; a second point of the same identity replaces the first.
Rows often share tags and time (all cells of one tick), so `times_apart` shifts each by nanoseconds computed from its
sequence number: the same row always gets the same time, and rows of one run never collide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.schemas.catalog import CATALOG, Catalog, EventType

__all__ = [
    "ALERT",
    "MEASUREMENTS",
    "MULTI_EVENT",
    "RECORD_SLOTS",
    "Measurement",
    "hashes_apart",
    "measurement_of",
    "number_field",
    "times_apart",
    "window_measurement",
]

_MS_US: Final = 1_000
_TICK_US: Final = 10_000
RECORD_SLOTS: Final = 64
"""Distinct values of the tag ``slot`` of multi events and alerts."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """How the events of one stream become points.

    ``tags`` and ``fields`` name columns (``key`` and ``type`` among them). ``entities`` are tags of unbounded
    cardinality: only ids below the configured limit are tags, others are a field (`number_field`). Where ``apart`` is
    false, measurement, tags and time already identify a row, and its time is not shifted. The field ``weight`` is the
    number of events for which a sampled row stands; points of a stream that is not sampled may lack it.
    """

    name: str
    tags: tuple[str, ...]
    fields: tuple[str, ...]
    entities: tuple[str, ...] = ()
    apart: bool = True


_CELLS: Final = (
    Measurement(
        "cell_vitals",
        ("cell_id", "generation", "lineage"),
        ("energy", "mass", "age_ticks", "alive", "weight"),
        entities=("cell_id", "lineage"),
    ),
    Measurement(
        "genome_data",
        ("cell_id", "genome_type"),
        (
            "metabolism", "growth_rate", "division_size", "mutation_rate", "neural_weights", "tpu_cores",
            "tpu_memory", "tpu_efficiency", "weight",
        ),
        entities=("cell_id",),
    ),
    Measurement(
        "problem_solving",
        ("cell_id", "problem_type", "difficulty"),
        ("accuracy", "energy_reward", "processing_time", "tpu_utilization", "weight"),
        entities=("cell_id",),
    ),
    Measurement(
        "population_metrics",
        ("simulation_id",),
        ("total_population", "avg_accuracy", "genome_diversity", "avg_generation", "energy_efficiency"),
    ),
    Measurement(
        "evolutionary_events",
        ("event_type", "cell_id", "parent_id"),
        ("mutation_magnitude", "fitness_delta", "generation_gap", "generation", "age_ticks"),
        entities=("cell_id", "parent_id"),
    ),
)  # fmt: skip
MEASUREMENTS: Final[Mapping[str, Measurement]] = {each.name: each for each in _CELLS}
"""The five measurements of the ``cells`` scenario (docs/data.md)."""

MULTI_EVENT: Final = Measurement(
    "multi_events", ("rule", "slot"), ("key", "integrated_value", "confidence", "event_id", "sources")
)
ALERT: Final = Measurement("alerts", ("rule", "severity", "slot"), ("key", "message", "alert_id", "multi_event_id"))


def measurement_of(stream: str, catalog: Catalog = CATALOG) -> Measurement | None:
    """Measurement of a stream of the catalog; None for an unlisted stream and for ``truth``."""
    if stream in MEASUREMENTS:
        return MEASUREMENTS[stream]
    event_type = catalog.find(stream)
    if event_type is None or stream == "truth":
        return None
    return _derived(event_type)


def _derived(event_type: EventType) -> Measurement:
    """Measurement of a listed stream without a definition here: type and run are tags, all other columns fields."""
    tags = ("simulation_id", "type")
    fields = tuple(name for name in event_type.fields if name not in tags)
    if event_type.key not in (*event_type.fields, *tags):
        fields = ("key", *fields)
    return Measurement(event_type.stream, tags, fields)


def number_field(entity: str) -> str:
    """Field that holds an id which is no tag; a name that is both makes queries of InfluxDB take either."""
    return f"{entity}_number"


def window_measurement(name: str, fields: tuple[str, ...], identity: tuple[str, ...] = ()) -> Measurement:
    """Measurement of the results of a window or statistic; a later revision of a result replaces the earlier one.

    ``identity`` are the fields that tell the results of a statistic about one run and window apart. A window named as
    one of `MEASUREMENTS` (such as ``population_metrics``) has the tags and fields of that one.
    """
    if name in MEASUREMENTS and not identity:
        known = MEASUREMENTS[name]
        return Measurement(name, known.tags, known.fields, known.entities, apart=False)
    tags = ("key", "simulation_id", *identity)
    return Measurement(name, tags, tuple(field for field in fields if field not in tags), apart=False)


def times_apart(timestamps_us: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Times in nanoseconds, each shifted within the apparent resolution of its timestamp to a slot from ``numbers``.

    A whole 10 ms (a tick) is shifted by less than 10 ms, to one of 5,000,000 slots; another whole ms by less than 1 ms,
    to one of 100,000; any other microsecond to one of 400 within it. The slots of the three kinds differ in their last
    digit. Rows collide only if they have the same timestamp and their numbers differ by a multiple of its slots.
    """
    moved = numbers % 400
    moved = moved // 4 * 10 + moved % 4
    whole = timestamps_us % _MS_US == 0
    if whole.any():
        tick = timestamps_us % _TICK_US == 0
        coarse = numbers % 5_000_000
        moved = np.where(whole, numbers % 100_000 * 10 + 4, moved)
        moved = np.where(tick, coarse // 5 * 10 + 5 + coarse % 5, moved)
    times: NDArray[np.int64] = timestamps_us * 1_000 + moved
    return times


def hashes_apart(
    timestamps_us: NDArray[np.int64], hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Times in nanoseconds and values of the tag ``slot`` for records that have an id and no sequence number.

    Two records of one rule and instant collide with a probability of 1 in 64 million (640 million on whole ticks).
    """
    slots = (hashes % np.uint64(RECORD_SLOTS)).astype(np.int64)
    rest = (hashes // np.uint64(RECORD_SLOTS)).astype(np.int64)
    room = np.where(timestamps_us % _TICK_US == 0, 10_000_000, 1_000_000)
    return timestamps_us * 1_000 + rest % room, slots
