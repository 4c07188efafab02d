"""The page "Data" is true: its program runs, its diagram is that of the models, its tables are those of the code."""

import re
import subprocess
import sys
from pathlib import Path

from astrocyte.agents.sinks.retention import DEFAULT_DAYS
from astrocyte.schemas.measurements import ALERT, MEASUREMENTS, MULTI_EVENT
from astrocyte.schemas.tables.diagram import entity_diagram

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text()


def table_rows():
    for line in PAGE.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_program_runs_and_prints_what_it_computed():
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "sim_001 [1.0, 0.9, 0.8, 0.7, 0.6]",
        "sim_002 [1.0, 0.8, 0.6, 0.4, 0.2]",
        "[('sim_001', 'completed'), ('sim_002', 'completed')]",
        (
            "[{'simulation_id': 'sim_001', 'steps': 5, 'mean_health': 0.8}, "
            "{'simulation_id': 'sim_002', 'steps': 5, 'mean_health': 0.6}]"
        ),
    ]


def test_the_diagram_is_that_of_the_models():
    (diagram,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
    assert diagram == entity_diagram(), "the models have changed; run: python docs/diagram.py"


def test_the_measurements_are_those_of_the_schema():
    listed = {row[0].strip("`"): tuple(row[1:]) for row in table_rows() if len(row) == 3}
    for each in (*MEASUREMENTS.values(), MULTI_EVENT, ALERT):
        assert listed[each.name] == (", ".join(each.tags), ", ".join(each.fields))


def test_the_days_of_retention_are_those_of_the_code():
    listed = {}
    for row in table_rows():
        if len(row) == 2 and re.match(r"\d+|for ever", row[1]):
            days = re.match(r"\d+", row[1])
            listed |= {name: float(days[0]) if days else None for name in re.findall(r"`(\w+)`", row[0])}
    for table, days in DEFAULT_DAYS.items():
        assert listed.get(table) == days
