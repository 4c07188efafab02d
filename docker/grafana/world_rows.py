"""Board of what a simulated world and the pipeline have written to InfluxDB."""

from __future__ import annotations

from typing import Final

from influx_queries import Chart, Newest, Series, chart

FOUND: Final = (
    chart("Alerts by rule", Series("alerts", "alert_id", "count", "{rule}, {severity}")),
    chart(
        "Multi events by rule",
        Series("multi_events", "event_id", "count", "{rule}"),
        about="Each match of a rule is one.",
    ),
    chart("Confidence by rule", Series("multi_events", "confidence", "mean", "{rule}"), unit="percentunit"),
    chart("Newest alerts", Newest("alerts", "message", ("rule", "severity")), kind="table", width=16, least=None),
    chart(
        "Events that a match joins",
        Series("multi_events", "sources", "mean", "{rule}"),
        about="How many source events a multi event of the rule has, on average.",
    ),
)
AXONS: Final = (
    chart(
        "Spikes",
        *(
            Series(f"axon_{number}", "value", "count", f"axon {number}, type {{type}}, {{simulation_id}}")
            for number in (1, 2, 3)
        ),
    ),
    chart(
        "Strength of spikes",
        *(Series(f"axon_{number}", "value", "mean", f"axon {number}, {{simulation_id}}") for number in (1, 2, 3)),
        least=None,
    ),
    chart(
        "Spikes of axon 2 by the pipeline's window",
        Series("spike_rate", "spikes", "sum", "{simulation_id}"),
        about="The window spike_rate, summed over its domains.",
    ),
)
CELLS: Final = (
    chart("Population", Series("population_metrics", "total_population")),
    chart(
        "Births and deaths",
        Series("population_second", "births", "sum", "births, {simulation_id}"),
        Series("population_second", "deaths", "sum", "deaths, {simulation_id}"),
        about="The window population_second.",
    ),
    chart(
        "Population, forecast",
        Series("forecast", "median", "mean", "in {horizon_us} us, {simulation_id}", {"target": "total_population"}),
        about="The median of what the statistic forecast expects, by its horizon.",
    ),
    chart("Accuracy", Series("population_metrics", "avg_accuracy"), unit="percentunit"),
    chart("Accuracy by problem", Series("problem_solving", "accuracy", "mean", "{problem_type}"), unit="percentunit"),
    chart(
        "Attempts by problem",
        Series("problem_solving", "weight", "sum", "{problem_type}"),
        about="Sampled: each point counts for as many attempts as its weight.",
    ),
    chart("Generation", Series("population_metrics", "avg_generation")),
    chart(
        "Diversity of genomes",
        Series("diversity_metrics", "entropy_metabolism", "mean", "metabolism, {simulation_id}"),
        Series("diversity_metrics", "entropy_tpu_cores", "mean", "tpu_cores, {simulation_id}"),
        about="Entropy in nats, by the window diversity_metrics.",
    ),
    chart("Genomes by type", Series("genome_data", "weight", "sum", "{genome_type}")),
    chart(
        "Energy earned for energy spent",
        Series("population_metrics", "energy_efficiency"),
        about="Below 1 the population consumes more than it produces.",
    ),
    chart("Use of TPUs", Series("problem_solving", "tpu_utilization", "mean", "{problem_type}"), unit="percentunit"),
    chart("Newborn that are mutants", Series("novelty", "mutant_share"), unit="percentunit"),
    chart(
        "Selection by trait",
        Series("selection", "differential", "mean", "{trait}, {simulation_id}"),
        about="Selection differential: how much larger the trait is in parents than in all.",
        least=None,
    ),
    chart("Mutation rate", Series("genome_data", "mutation_rate", "mean", "{genome_type}")),
    chart(
        "Energy of cells",
        Series("cell_vitals", "energy", "min", "least"),
        Series("cell_vitals", "energy", "mean", "mean"),
        Series("cell_vitals", "energy", "max", "most"),
        about="Of the cells that were sampled.",
    ),
)
ECOLOGY: Final = (
    chart(
        "Agents",
        Series("simulation_steps", "system_agents", "mean", "system, {simulation_id}"),
        Series("simulation_steps", "independent_agents", "mean", "independent, {simulation_id}"),
        Series("simulation_steps", "control_agents", "mean", "control, {simulation_id}"),
    ),
    chart(
        "Births and deaths",
        Series("simulation_steps", "births", "sum", "births, {simulation_id}"),
        Series("simulation_steps", "deaths", "sum", "deaths, {simulation_id}"),
    ),
    chart("Resources", Series("simulation_steps", "total_resources")),
    chart(
        "Incidents by cause",
        Series("incidents_by_cause", "incidents", "sum", "{key}, {simulation_id}"),
        about="The window incidents_by_cause.",
    ),
    chart(
        "Rewards by action",
        Series("rewards_by_action", "mean_reward", "mean", "{key}, {simulation_id}"),
        about="The window rewards_by_action.",
        least=None,
    ),
    chart(
        "Learning by module",
        Series("learning", "reward_trend", "mean", "{key}, {simulation_id}"),
        about="The window learning: a moving average of rewards.",
        least=None,
    ),
)
KERNELS: Final = (
    chart("Kernels", Series("kernel_health", "kernels"), about="The window kernel_health."),
    chart(
        "Integration (phi)",
        Series("kernel_health", "mean_phi", "mean", "mean, {simulation_id}"),
        Series("kernel_health", "best_phi", "max", "best, {simulation_id}"),
    ),
    chart("Wars by mode", Series("wars", "wars", "sum", "{key}, {simulation_id}"), about="The window wars."),
    chart("Entropy of domains", Series("kernel_health", "domain_entropy")),
    chart("Coupling (kappa)", Series("kernel_geometry", "kappa", "mean", "{simulation_id}"), least=None),
    chart("Success rate", Series("kernel_health", "success_rate"), unit="percentunit"),
)
DNA: Final = (
    chart("Karma", Series("scores_second", "mean_karma"), about="The window scores_second.", unit="percentunit"),
    chart("Mutations", Series("mutations_second", "mutations", "sum"), about="The window mutations_second."),
    chart(
        "Snapshots", Series("dna.snapshot_created", "dna_size", "count", "{type}, {simulation_id}"), about="By type."
    ),
    chart("Size of snapshots", Series("dna.snapshot_created", "dna_size"), unit="bytes"),
    chart(
        "Best karma of an agent",
        Series("karma_by_agent", "best_karma", "max"),
        about="The window karma_by_agent.",
        unit="percentunit",
    ),
)
WORLDS: Final[tuple[tuple[str, tuple[Chart, ...]], ...]] = (
    ("What was found", FOUND),
    ("Axons", AXONS),
    ("Cells", CELLS),
    ("Ecology", ECOLOGY),
    ("Kernels", KERNELS),
    ("DNA", DNA),
)
