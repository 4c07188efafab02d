"""InfluxDB measurements: which columns of a stream are tags, which are fields, and how points are kept apart.

InfluxDB identifies a point by measurement, tags and time; a second point of the same identity replaces the first.
Rows of one stream often share tags and time (all cells of one tick), so each is moved by some nanoseconds that follow
from its sequence number: the same row always gets the same time, and rows of one run never meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.catalog import CATALOG, Catalog, EventType

__all__ = ["ALERT", "MEASUREMENTS", "MULTI_EVENT", "Measurement", "measurement_of", "window_measurement"]

MICROSECOND_NS: Final = 1_000
TICK_NS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Measurement:
    """How the events of one stream become points.

    ``tags`` name columns (``key`` and ``type`` among them) in the order in which they are written. ``entity`` is a tag
    that would grow without bound: only ids below the configured limit are tags, the others are a field of that name.
    ``spread_ns`` bounds by how much a point's time may be moved to keep it apart.
    """

    name: str
    tags: tuple[str, ...]
    fields: tuple[str, ...]
    entity: str | None = None
    spread_ns: int = MICROSECOND_NS


_CELLS: Final = (
    Measurement(
        "cell_vitals",
        ("cell_id", "generation", "lineage"),
        ("energy", "mass", "age_ticks", "alive"),
        entity="cell_id",
        spread_ns=TICK_NS,
    ),
    Measurement(
        "genome_data",
        ("cell_id", "genome_type"),
        (
            "metabolism", "growth_rate", "division_size", "mutation_rate", "neural_weights", "tpu_cores",
            "tpu_memory", "tpu_efficiency",
        ),
        entity="cell_id",
        spread_ns=TICK_NS,
    ),
    Measurement(
        "problem_solving",
        ("cell_id", "problem_type", "difficulty"),
        ("accuracy", "energy_reward", "processing_time", "tpu_utilization"),
        entity="cell_id",
        spread_ns=TICK_NS,
    ),
    Measurement(
        "population_metrics",
        ("simulation_id",),
        ("total_population", "avg_accuracy", "genome_diversity", "avg_generation", "energy_efficiency"),
    ),
    Measurement(
        "evolutionary_events",
        ("event_type", "cell_id", "parent_id"),
        ("mutation_magnitude", "fitness_delta", "generation_gap"),
        entity="cell_id",
        spread_ns=TICK_NS,
    ),
)  # fmt: skip
MEASUREMENTS: Final[Mapping[str, Measurement]] = {each.name: each for each in _CELLS}
"""The five measurements of seed 000, with exactly its tags and fields."""

MULTI_EVENT: Final = Measurement(
    "multi_events", ("rule",), ("key", "integrated_value", "confidence", "event_id", "sources")
)
ALERT: Final = Measurement("alerts", ("rule", "severity"), ("key", "message", "alert_id", "multi_event_id"))


def measurement_of(stream: str, catalog: Catalog = CATALOG) -> Measurement | None:
    """Measurement of a stream of the catalog; None for one that is not listed or is a planted truth."""
    if stream in MEASUREMENTS:
        return MEASUREMENTS[stream]
    event_type = catalog.find(stream)
    if event_type is None or stream == "truth":
        return None
    return _derived(event_type)


def _derived(event_type: EventType) -> Measurement:
    """A listed stream without a measurement of its own: its type is a tag, its key too where the catalog bounds it."""
    tags = ("type", "simulation_id") if event_type.key == "simulation_id" else ("type",)
    fields = tuple(name for name in event_type.fields if name not in tags)
    if event_type.key not in event_type.fields:
        fields = ("key", *fields)
    spread_ns = TICK_NS if "step_number" in event_type.fields else MICROSECOND_NS
    return Measurement(event_type.stream, tags, fields, spread_ns=spread_ns)


def window_measurement(name: str, fields: tuple[str, ...]) -> Measurement:
    """Measurement of the results of a window: its key is a tag, because a window has one series a key."""
    return Measurement(name, ("key",), fields)
