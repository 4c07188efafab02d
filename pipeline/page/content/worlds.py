"""The charts of the shipped worlds, by the streams that they are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from astrocyte.pipeline.page.aggregates.grid import Classes
from astrocyte.pipeline.page.content.charts import Chart, How, Line, Measure
from astrocyte.schemas.catalog import CATALOG

__all__ = ["CHARTS", "FORECASTS", "NOT_DRAWN", "SAMPLES", "SCENES"]

FORECASTS: Final = "forecast"
"""Stream of the forecasts, drawn beside the lines that they continue."""
SCENES: Final[Mapping[str, str]] = {"map": "simulation_steps", "basin": "kernel_geometry"}
"""Pictures in space, by the stream whose events say that a run has one."""
SAMPLES: Final = frozenset({"genome_data", "problem_solving"})
"""Streams that are samples already, of which charts show means and shares alone: a part of them says the same."""
NOT_DRAWN: Final = frozenset(
    {
        "truth", "simulation_controls", "evolutionary_events", "cell_vitals", "agents", "agent_states",
        "resource_states", "agent_actions", "learning_experiences", "health_incidents",
    }
)  # fmt: skip
"""Streams of single individuals of which other streams give the sums, so that a large world costs the page no more."""


def _lines(
    title: str, unit: str, stream: str, *fields: tuple[str, str, How], note: str = "", forecast: str = ""
) -> Chart:
    """Lines of fields of one stream: (label, field, how)."""
    lines = tuple(Line(label, Measure(stream, field), how, band=how == "last") for label, field, how in fields)
    return Chart(title, unit, "lines", lines, note=note, forecast=forecast)


def _values_of(stream: str, field: str) -> tuple[str, ...]:
    """All values of a text, from the catalog."""
    known = CATALOG[stream]
    return known.types if field == "type" else known.about[field].values


def _shares(title: str, stream: str, by: str, *, note: str = "") -> Chart:
    """Shares of the values of a text field."""
    measure = Measure(stream, None, by, _values_of(stream, by))
    lines = tuple(Line(label, measure, "count", group) for group, label in enumerate(measure.groups))
    return Chart(title, "share of events", "shares", lines, note=note)


def _means_by(title: str, unit: str, stream: str, field: str, by: str, *, note: str = "") -> Chart:
    """Mean of a field for each text of another."""
    measure = Measure(stream, field, by, _values_of(stream, by))
    lines = tuple(Line(label, measure, "mean", group) for group, label in enumerate(measure.groups))
    return Chart(title, unit, "lines", lines, note=note)


def _rates_by(title: str, stream: str, by: str, begins: tuple[str, ...] = ()) -> Chart:
    """Events in a second for each text of a field, or for each of the given beginnings of it."""
    measure = Measure(stream, None, by, begins or _values_of(stream, by), begins=bool(begins))
    lines = tuple(Line(label, measure, "rate", group) for group, label in enumerate(measure.groups))
    return Chart(title, "events/s", "lines", lines)


def _path(title: str, unit: str, over: Line, line: Line, note: str) -> Chart:
    return Chart(title, unit, "path", (over, line), note=note)


def _heat(title: str, stream: str, bounds: Mapping[str, tuple[float, float]], *, note: str = "") -> Chart:
    measures = tuple(
        Measure(stream, field, classes=Classes(low, high, by_ratio=low > 0 and high >= 20 * low))
        for field, (low, high) in bounds.items()
    )
    return Chart(title, "share of values", "heat", classes=measures, note=note)


def _bounds(stream: str, *fields: str) -> dict[str, tuple[float, float]]:
    """Bounds of numbers, from the catalog."""
    found = {}
    for name in fields:
        about = CATALOG[stream].about[name]
        assert about.low is not None
        assert about.high is not None
        found[name] = (about.low, about.high)
    return found


_GENERATION: Final = Line("mean generation", Measure("population_metrics", "avg_generation"), "last")
_ACCURACY: Final = Line("mean accuracy", Measure("population_metrics", "avg_accuracy"), "last")
_MUTATION: Final = Line("mean mutation rate", Measure("genome_data", "mutation_rate"), "mean")
_KARMA: Final = Measure("dna.karma_updated", "karma_score")
_VERSION: Final = Measure("dna.mutation_applied", "version")
_KEYS: Final = Measure("dna.mutation_applied", by="mutation_keys", inside="strings")
_TRAITS: Final = Measure("dna.mutation_applied", by="traits_delta", inside="numbers")
_SAMPLE: Final = "from the sample of single cells"
_OF_SCORES: Final = "of all agents that are scored"

CHARTS: Final[tuple[Chart, ...]] = (
    # cells
    _lines(
        "Population", "cells", "population_metrics", ("living cells", "total_population", "last"),
        forecast="total_population",
    ),
    _shares("Population by type", "genome_data", "genome_type", note=_SAMPLE),
    _lines(
        "Births and deaths", "cells/s", "population_metrics",
        ("births", "births", "rate"), ("deaths", "deaths", "rate"),
    ),
    _lines(
        "Accuracy", "share", "population_metrics", ("mean accuracy", "avg_accuracy", "last"), forecast="avg_accuracy",
    ),
    _means_by("Accuracy by problem", "share", "problem_solving", "accuracy", "problem_type", note=_SAMPLE),
    _path("Accuracy by generation", "share", _GENERATION, _ACCURACY, "each point is one moment of the run"),
    _lines("Diversity", "nats", "population_metrics", ("genome diversity", "genome_diversity", "last")),
    _lines("Energy", "energy", "population_metrics", ("mean energy of a cell", "avg_energy", "last")),
    _lines(
        "Energy earned against spent", "ratio", "population_metrics", ("earned / spent", "energy_efficiency", "last"),
        note="below 1 the population lives on what it has stored",
    ),
    _lines(
        "Mutation rate", "probability", "genome_data", ("mean mutation rate", "mutation_rate", "mean"), note=_SAMPLE,
    ),
    _path("Mutation rate against accuracy", "share", _MUTATION, _ACCURACY, "each point is one moment of the run"),
    _lines("Hardware use", "share", "problem_solving", ("TPU utilization", "tpu_utilization", "mean"), note=_SAMPLE),
    _heat(
        "Traits over time", "genome_data",
        _bounds(
            "genome_data", "metabolism", "growth_rate", "division_size", "mutation_rate", "tpu_cores", "tpu_memory",
            "tpu_efficiency",
        ),
        note=_SAMPLE,
    ),
    # ecology
    _lines(
        "Agents by type", "agents", "simulation_steps", ("system", "system_agents", "last"),
        ("independent", "independent_agents", "last"), ("control", "control_agents", "last"),
    ),
    _lines(
        "Births and deaths", "agents/s", "simulation_steps", ("births", "births", "rate"), ("deaths", "deaths", "rate"),
    ),
    _lines("Resources on the tiles", "resources", "simulation_steps", ("resources", "total_resources", "last")),
    _lines(
        "Resources of an agent", "resources", "simulation_steps",
        ("mean of the living", "average_agent_resources", "last"),
    ),
    _lines(
        "Resources used", "resources/s", "simulation_steps", ("gathered", "resources_consumed", "rate"),
        ("shared", "resources_shared", "rate"),
    ),
    _lines("Genetic diversity", "share", "simulation_steps", ("effective genomes / 64", "genetic_diversity", "last"),
           ("commonest genome", "dominant_genome_ratio", "last")),
    _lines("Health", "share", "simulation_steps", ("mean health", "average_agent_health", "last")),
    _lines("Attacks", "attacks/s", "simulation_steps", ("met", "combat_encounters", "rate"),
           ("succeeded", "successful_attacks", "rate")),
    _lines("Reward", "resources", "simulation_steps", ("mean total reward", "average_reward", "last")),
    # axons
    *(_rates_by(f"Spikes on axon {number}", f"axon_{number}", "type") for number in (1, 2, 3)),
    *(_heat(f"Strength on axon {number}", f"axon_{number}", {"value": (0.0, 48.0)}) for number in (1, 2, 3)),
    # kernels
    _rates_by("Kernels by event", "kernel_geometry", "type"),
    _shares("Regimes", "kernel_geometry", "regime"),
    _lines("Phi", "share", "kernel_geometry", ("mean phi", "phi", "mean")),
    _lines("Kappa", "coupling", "kernel_geometry", ("mean kappa", "kappa", "mean"), note="training returns it to 64"),
    _heat("Phi over time", "kernel_geometry", {"phi": (0.0, 1.0)}),
    _shares("Wars by outcome", "war_history", "outcome"),
    # dna
    Chart("Karma", "score", "lines", (Line("mean score", _KARMA, "mean", band=True),), note=_OF_SCORES),
    _heat(
        "Karma over time", "dna.karma_updated", _bounds("dna.karma_updated", "karma_score", "score_delta"),
        note=_OF_SCORES,
    ),
    Chart("Snapshots, mutations and scores", "events/s", "lines", (
        Line("snapshots", Measure("dna.snapshot_created"), "rate"),
        Line("mutations", Measure("dna.mutation_applied"), "rate"),
        Line("scores", Measure("dna.karma_updated"), "rate"),
    )),
    Chart("Mutations by key", "share of changes", "heat", inside=_KEYS,
          note="how often each key was changed"),
    Chart("Change of traits by a mutation", "trait", "lines", inside=_TRAITS,
          note="mean over the mutations that change the trait"),
    _rates_by("Mutations by kind", "dna.mutation_applied", "reason", ("Crossover", "Exploration")),
    _rates_by("Snapshots by source", "dna.snapshot_created", "source"),
    Chart("Versions", "snapshots", "lines", (Line("mean version of mutants", _VERSION, "mean", band=True),)),
    _lines("Size of a configuration", "keys and traits", "dna.mutation_applied", ("keys held", "dna_size", "mean"),
           ("traits expressed", "traits_count", "mean")),
)  # fmt: skip
