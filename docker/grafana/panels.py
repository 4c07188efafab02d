"""Panels and boards of Grafana as JSON, from short descriptions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

WIDTH: Final = 24


@dataclass(frozen=True)
class Panel:
    """A chart of one or several queries, each as the plugin of the board's source keeps it.

    ``least``: where the axis of values begins; None lets the values decide. ``legend``: pattern of the names of series.
    """

    title: str
    targets: tuple[Mapping[str, Any], ...]
    unit: str = "short"
    about: str = ""
    width: int = 8
    kind: str = "timeseries"
    red_above: float | None = None
    least: float | None = 0
    legend: str | None = None


Rows = tuple[tuple[str, tuple[Panel, ...]], ...]
"""Headings, and the panels below each."""


@dataclass(frozen=True)
class Source:
    """Where the queries of a board go: the plugin, and what the list of its sources is called."""

    plugin: str
    label: str
    reference: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reference", {"type": self.plugin, "uid": "${source}"})


def chart(number: int, panel: Panel, source: Source, x: int, y: int) -> dict[str, Any]:
    """A panel as Grafana keeps it."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_above is not None:
        steps.append({"color": "red", "value": panel.red_above + 1e-9})
    options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"}
    if panel.kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "graphMode": "area"}
    if panel.kind == "table":
        options = {"showHeader": True}
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        **({} if panel.least is None else {"min": panel.least}),
        **({} if panel.legend is None else {"displayName": panel.legend}),
        "custom": custom if panel.kind == "timeseries" else {},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": source.reference,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": 4 if panel.kind == "stat" else 8},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + at), **target, "datasource": source.reference}
            for at, target in enumerate(panel.targets)
        ],
    }


def board(
    uid: str, title: str, source: Source, rows: Iterable[tuple[str, tuple[Panel, ...]]], *, about: str = ""
) -> dict[str, Any]:
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
            made = chart(len(panels) + 1, each, source, x, y)
            panels.append(made)
            x, height = x + each.width, made["gridPos"]["h"]
        y += height
    chosen = {"name": "source", "label": source.label, "type": "datasource", "query": source.plugin, "current": {}}
    return {
        "uid": uid,
        "title": title,
        **({"description": about} if about else {}),
        "tags": ["astrocyte"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "browser",
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [chosen]},
        "panels": panels,
    }
