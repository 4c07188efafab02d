"""Writes the Grafana boards: run it after a change, ``python docker/grafana/make_boards.py [FOLDER]``.

Tests hold the files in `boards/` to it, and ask a real Prometheus and a real InfluxDB every query.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from influx_queries import Language
from panels import Rows, Source, board
from pipeline_rows import PIPELINE
from world_rows import WORLDS

BOARDS = Path(__file__).parent / "boards"
TIMES = (
    "Simulated time begins on 2025-01-01 unless epoch_us says otherwise: set the range of the board to the time of the "
    "run."
)


def worlds(language: Language) -> dict[str, Any]:
    """The board of worlds with its queries in one language."""
    name = {"flux": "Flux", "influxql": "InfluxQL"}[language]
    rows: Rows = tuple((title, tuple(chart.panel(language) for chart in charts)) for title, charts in WORLDS)
    source = Source("influxdb", f"InfluxDB ({name})")
    return board(f"astrocyte-worlds-{language}", f"Astrocyte: worlds ({name})", source, rows, about=TIMES)


def boards() -> dict[str, str]:
    """The text of each file."""
    made = {
        "pipeline.json": board(
            "astrocyte-pipeline", "Astrocyte: the pipeline", Source("prometheus", "Prometheus"), PIPELINE
        ),
        "worlds-flux.json": worlds("flux"),
        "worlds-influxql.json": worlds("influxql"),
    }
    return {name: json.dumps(each, indent=1) + "\n" for name, each in made.items()}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else BOARDS
    folder.mkdir(exist_ok=True)
    for file, text in boards().items():
        (folder / file).write_text(text)
