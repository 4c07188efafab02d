"""Demos of other scenarios: every table of the ecology on both databases, every measurement as line protocol."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from astrocyte.agents.sinks.sql.engines import engine_of

TABLES = ("experiments", "simulations", "simulation_config", "agents", "agent_states", "resource_states",
          "simulation_steps", "agent_actions", "learning_experiences", "health_incidents")  # fmt: skip
MEASUREMENTS = {"cell_vitals", "genome_data", "problem_solving", "population_metrics", "evolutionary_events"}


def demo(scenario: str, folder: Path, *more: str) -> dict[str, object]:
    arguments = ["demo", "--scenario", scenario, "--seconds", "4", "--data", str(folder / "data"), "--json", *more]
    command = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", *arguments]
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


def dangling(database: str) -> dict[str, int]:
    """Number of rows without their referenced row, by each foreign key that the database declares."""
    with engine_of(database).connect() as connection:
        found = {}
        for table in inspect(connection).get_table_names():
            for key in inspect(connection).get_foreign_keys(table):
                pairs = list(zip(key["constrained_columns"], key["referred_columns"], strict=True))
                given = " AND ".join(f'a."{own}" IS NOT NULL' for own, _ in pairs)
                same = " AND ".join(f'b."{other}" = a."{own}"' for own, other in pairs)
                query = (
                    f'SELECT count(*) FROM "{table}" a WHERE {given} AND NOT EXISTS '
                    f'(SELECT 1 FROM "{key["referred_table"]}" b WHERE {same})'
                )
                found[f"{table} -> {key['referred_table']}"] = connection.execute(text(query)).scalar_one()
        return found


@pytest.mark.parametrize("database", [pytest.param("sqlite", marks=pytest.mark.soak), "postgresql"], indirect=True)
def test_the_ecology_fills_every_table(database, tmp_path):
    summary = demo("ecology", tmp_path, "--size", "300", "--db", database)
    assert (summary["lost"], summary["late"], summary["dead_letters"]) == (0, 0, 0)
    with engine_of(database).connect() as connection:
        rows = {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in TABLES}
        assert connection.execute(text("SELECT timestamp FROM simulation_config")).scalars().all() == [None]
    assert min(rows.values()) > 0, rows
    references = dangling(database)
    assert len(references) > 10
    assert not any(references.values()), references
    assert not (tmp_path / "data" / "astrocyte.db").exists()


def test_cells_write_their_measurements_as_line_protocol(tmp_path):
    summary = demo("cells", tmp_path, "--size", "1024")
    assert summary["lost"] == 0
    points = 0
    measured = set()
    for path in (tmp_path / "data" / "influx").glob("**/*.lp.gz"):
        with gzip.open(path, "rt") as lines:
            for line in lines:
                if line.strip() and not line.startswith("#"):
                    points += 1
                    measured.add(line.split(",", 1)[0].split(" ", 1)[0])
    assert measured >= MEASUREMENTS
    assert points == summary["influx_points"]
