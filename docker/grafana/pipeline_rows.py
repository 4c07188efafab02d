"""Board of the pipeline's own metrics, which Prometheus scrapes from the workers."""

from __future__ import annotations

from typing import Any, Final

from panels import Panel, Rows

PARTITION: Final = "partition {{partition}}"


def one(title: str, query: str, legend: str, **options: Any) -> Panel:
    """A panel of one expression; ``legend`` names its series."""
    return Panel(title, ({"expr": query, "legendFormat": legend},), **options)


PIPELINE: Rows = (
    (
        "Is it well?",
        (
            one(
                "Roles that are not ready",
                "count(astrocyte_ready == 0) or vector(0)",
                "",
                width=4,
                kind="stat",
                red_above=0,
                about="Partitions, their state, broker and store: /readyz says what is missing.",
            ),
            one(
                "Roles without progress",
                "count(astrocyte_healthy == 0) or vector(0)",
                "",
                width=4,
                kind="stat",
                red_above=0,
                about="Started again after ASTROCYTE_LIVENESS_TIMEOUT.",
            ),
            one(
                "Started again, last hour",
                "sum(increase(astrocyte_restarts_total[1h])) or vector(0)",
                "",
                width=4,
                kind="stat",
                red_above=2,
            ),
            one(
                "Dead letters, last hour",
                'sum(increase(astrocyte_events_total{outcome="dead"}[1h])) or vector(0)',
                "",
                width=4,
                kind="stat",
                red_above=0,
                about="astrocyte dead-letters ls",
            ),
            one(
                "Late, last hour",
                'sum(increase(astrocyte_events_total{outcome="late"}[1h])) or vector(0)',
                "",
                width=4,
                kind="stat",
                red_above=0,
            ),
            one(
                "Event time stands still",
                "max(astrocyte_stalled_seconds) or vector(0)",
                "",
                width=4,
                kind="stat",
                unit="s",
                red_above=60,
                about="Events wait for a source that is silent: astrocyte health says which.",
            ),
        ),
    ),
    (
        "Events",
        (
            one(
                "Events by outcome",
                "sum by (outcome) (rate(astrocyte_events_total[$__rate_interval]))",
                "{{outcome}}",
                unit="eps",
                about="received = processed + late + dead + duplicate + sampled + skipped",
            ),
            one(
                "Matches by rule",
                'sum by (rule) (rate(astrocyte_rule_total{what="matches"}[$__rate_interval]))',
                "{{rule}}",
                unit="eps",
            ),
            one(
                "Cost by rule",
                'sum by (rule) (rate(astrocyte_rule_total{what="microseconds"}[$__rate_interval])) / 1e6',
                "{{rule}}",
                unit="percentunit",
                about="Share of one processor that matching takes.",
            ),
            one("Lag by role", "sum by (role) (astrocyte_lag)", "{{role}}", about="Records that are not read yet."),
            one(
                "Time to clear the lag of correlate",
                'sum(astrocyte_lag{role="correlate"}) / sum(rate(astrocyte_events_total{outcome="processed"}[5m]))',
                "at the rate of now",
                unit="s",
                about="Where a record is one event; a frame holds many.",
            ),
            one(
                "Watermark delay",
                "max by (partition) (astrocyte_watermark_behind_seconds)",
                PARTITION,
                unit="s",
                about="Wall clock less the watermark: a match comes no sooner.",
            ),
        ),
    ),
    (
        "State",
        (
            one(
                "Partial matches",
                "sum by (by) (astrocyte_partial_matches)",
                "by {{by}}",
                about="Partial matches, and events that wait for the others of theirs.",
            ),
            one("Events that wait for the watermark", "sum by (by) (astrocyte_waiting)", "by {{by}}"),
            one(
                "Not used",
                "sum by (cause) (rate(astrocyte_unused_total[$__rate_interval]))",
                "{{cause}}",
                unit="eps",
            ),
            one(
                "Snapshot size",
                "max by (partition) (astrocyte_snapshot_bytes)",
                PARTITION,
                unit="bytes",
            ),
            one(
                "Snapshot time",
                "sum by (partition) (rate(astrocyte_snapshot_seconds_sum[5m])) "
                "/ sum by (partition) (rate(astrocyte_snapshot_seconds_count[5m]))",
                PARTITION,
                unit="s",
            ),
            one(
                "Snapshot age",
                "max by (partition) (astrocyte_snapshot_age_seconds)",
                PARTITION,
                unit="s",
            ),
        ),
    ),
    (
        "Stores",
        (
            one(
                "Rows by outcome",
                "sum by (role, outcome) (rate(astrocyte_store_rows_total[$__rate_interval]))",
                "{{role}} {{outcome}}",
                unit="rowsps",
            ),
            one(
                "Time of a batch",
                "sum by (role) (rate(astrocyte_store_write_seconds_sum[5m])) "
                "/ sum by (role) (rate(astrocyte_store_write_seconds_count[5m]))",
                "{{role}}",
                unit="s",
            ),
            one(
                "Store away for",
                "max by (role) (astrocyte_store_waiting_seconds)",
                "{{role}}",
                unit="s",
                about="The role waits without limit, and nothing is lost.",
            ),
        ),
    ),
    (
        "Processes",
        (
            one(
                "Processor time",
                "sum by (role) (rate(astrocyte_process_cpu_seconds_total[$__rate_interval]))",
                "{{role}}",
                unit="percentunit",
            ),
            one("Memory", "sum by (role) (astrocyte_process_resident_memory_bytes)", "{{role}}", unit="bytes"),
            one("Open files", "sum by (role) (astrocyte_process_open_fds)", "{{role}}"),
            one(
                "Chunks on their way",
                'sum by (role) (astrocyte_queue_length{queue="chunks"})',
                "{{role}}",
            ),
            one(
                "Event loop blocked",
                "max by (role) (astrocyte_loop_blocked_seconds)",
                "{{role}}",
                unit="s",
                about="While it is, the role reads and answers nothing.",
            ),
            one(
                "Partitions that stand still",
                "max by (role, topic, partition) (astrocyte_standstill_seconds) > 0",
                "{{role}} {{topic}} {{partition}}",
                unit="s",
            ),
        ),
    ),
)
