"""Writes the Grafana boards in `boards/`: run it after a change, ``python docker/grafana/make_boards.py``.

A test holds the files to it, and asks a real Prometheus every query.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOARDS = Path(__file__).parent / "boards"
WIDTH = 24
PARTITION = "partition {{partition}}"
SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True)
class Panel:
    """A chart of one or several queries; ``queries`` are pairs of an expression and the legend of its series."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    about: str = ""
    width: int = 8
    kind: str = "timeseries"
    red_above: float | None = None


def one(title: str, query: str, legend: str, **options: Any) -> Panel:
    """A panel of one query."""
    return Panel(title, ((query, legend),), **options)


PIPELINE: tuple[tuple[str, tuple[Panel, ...]], ...] = (
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


def chart(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    """A panel as Grafana keeps it."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_above is not None:
        steps.append({"color": "red", "value": panel.red_above + 1e-9})
    options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"}
    if panel.kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "graphMode": "area"}
        custom = {}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": 4 if panel.kind == "stat" else 8},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": custom,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + at), "expr": query, "legendFormat": legend, "datasource": SOURCE}
            for at, (query, legend) in enumerate(panel.queries)
        ],
    }


def board(uid: str, title: str, rows: Iterable[tuple[str, tuple[Panel, ...]]]) -> dict[str, Any]:
    """A board: rows of panels, laid from left to right."""
    panels: list[dict[str, Any]] = []
    y = 0
    for name, charts in rows:
        heading = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": name, "gridPos": heading, "panels": []})
        x, y, height = 0, y + 1, 0
        for each in charts:
            if x + each.width > WIDTH:
                x, y = 0, y + height
            made = chart(len(panels) + 1, each, x, y)
            panels.append(made)
            x, height = x + each.width, made["gridPos"]["h"]
        y += height
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}
    return {
        "uid": uid,
        "title": title,
        "tags": ["astrocyte"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "browser",
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def boards() -> dict[str, str]:
    """The text of each file."""
    made = {"pipeline.json": board("astrocyte-pipeline", "Astrocyte: the pipeline", PIPELINE)}
    return {name: json.dumps(each, indent=1) + "\n" for name, each in made.items()}


if __name__ == "__main__":
    BOARDS.mkdir(exist_ok=True)
    for file, text in boards().items():
        (BOARDS / file).write_text(text)
