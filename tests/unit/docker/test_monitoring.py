"""Grafana boards and Prometheus alerts: as generated, well formed, over metrics that exist; the alerts fire."""

import json
import os
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.pipeline.watch.web import Answer, serve
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.event_types.insight import RESULTS
from astrocyte.schemas.measurements import ALERT, MULTI_EVENT, measurement_of
from tests.support.prometheus import promtool

DOCKER = Path(__file__).parents[3] / "docker"
BOARDS = DOCKER / "grafana/boards"
RULES = DOCKER / "prometheus/alerts.yml"
METRIC = re.compile(r"\bastrocyte_\w+")
OPERATIONS = (DOCKER.parent / "docs/operations.md").read_text()


def boards():
    return {path.name: json.loads(path.read_text()) for path in sorted(BOARDS.glob("*.json"))}


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries():
    for name, board in boards().items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                if target["datasource"]["type"] == "prometheus":
                    yield f"{name}: {panel['title']}", target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


def test_the_boards_are_those_that_the_script_makes(tmp_path):
    subprocess.run([sys.executable, str(DOCKER / "grafana/make_boards.py"), str(tmp_path)], check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert {path.name: path.read_text() for path in BOARDS.iterdir()} == made


def test_every_query_goes_to_the_source_of_its_board():
    for name, board in boards().items():
        (chosen,) = board["templating"]["list"]
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                assert target["datasource"] == {"type": chosen["query"], "uid": "${source}"}, name


def test_each_source_of_the_boards_is_set_up_with_a_secret_from_the_environment():
    file = DOCKER / "grafana/provisioning/datasources/sources.yml"
    sources = yaml.safe_load(file.read_text())["datasources"]
    assert {board["templating"]["list"][0]["query"] for board in boards().values()} == {
        each["type"] for each in sources
    }
    assert len({each["uid"] for each in sources}) == len({each["name"] for each in sources}) == len(sources)
    given = COMPOSE["grafana"]["environment"]
    for each in sources:
        for value in each.get("secureJsonData", {}).values():
            (variable,) = re.findall(r"\$(\w+)", value)
            assert variable in given


MEASUREMENT = re.compile(r'_measurement == "([^"]+)"|FROM "([^"]+)"')
FIELD = re.compile(r'_field == "([^"]+)"|SELECT \w+\("([^"]+)"\)')


@pytest.mark.parametrize("name", ["worlds-flux.json", "worlds-influxql.json"])
def test_the_boards_of_worlds_ask_for_measurements_and_fields_that_there_are(name):
    known = {each.stream: set(measurement_of(each.stream).fields) for each in CATALOG if measurement_of(each.stream)}
    for each in RESULTS.values():
        known[each.stream] = {*each.fields}
    for world in ("axons", "cells", "ecology", "kernels", "dna"):
        rules = read_rule_files([world])
        known |= {window.name: {*window.select} for window in rules.windows}
        known |= {each.name: known[each.statistic] for each in rules.insight}
    known |= {each.name: {*each.fields} for each in (ALERT, MULTI_EVENT)}
    for panel in boards()[name]["panels"]:
        for target in panel.get("targets", ()):
            (measurement,) = map("".join, MEASUREMENT.findall(target["query"]))
            fields = set(map("".join, FIELD.findall(target["query"])))
            assert fields <= known[measurement], panel["title"]


@pytest.mark.parametrize("board", boards().values(), ids=boards())
def test_panels_have_ids_of_their_own_and_lie_beside_one_another(board):
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert panel["title"]
    for one, two in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]


def test_every_query_is_over_metrics_that_the_docs_list():
    listed = set(METRIC.findall(OPERATIONS))
    listed |= {f"{name}{end}" for name in listed for end in ("_sum", "_count")}
    for where, query in queries():
        found = set(METRIC.findall(query)) or {"up"}
        assert found <= listed | {"up"}, where


def test_every_alert_says_what_happened_and_what_to_do_and_is_in_the_docs():
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")
        assert f"`{rule['alert']}`" in OPERATIONS, rule["alert"]


SERIES = {
    "AstrocyteWorkerGone": ('up{job="astrocyte", instance="w"}', "1x3 0x20"),
    "AstrocyteNotHealthy": ('astrocyte_healthy{role="sql", instance="w"}', "1x3 0x20"),
    "AstrocyteNotReady": ('astrocyte_ready{role="sql", instance="w"}', "1x3 0x40"),
    "AstrocyteRestarts": ('astrocyte_restarts_total{role="sql", instance="w", cause="ended"}', "0x8 5x20"),
    "AstrocyteLagGrows": ('astrocyte_lag{role="sql", topic="alerts", partition="0"}', "0+500x90"),
    "AstrocyteEventTimeStandsStill": (
        'astrocyte_stalled_seconds{role="correlate", topic="mono.a", origin="", why="silent"}',
        "0+15x20",
    ),
    "AstrocyteLateEvents": None,
    "AstrocyteDeadLetters": None,
    "AstrocyteStoreAway": ('astrocyte_store_waiting_seconds{role="sql", instance="w"}', "0+15x20"),
    "AstrocyteSnapshotsOld": ('astrocyte_snapshot_age_seconds{role="correlate", partition="0"}', "0+15x60"),
}
EVENTS = 'astrocyte_events_total{role="correlate", partition="0", outcome="%s"}'
MORE = {
    "AstrocyteLateEvents": [(EVENTS % "received", "0+1000x90"), (EVENTS % "late", "0+10x90")],
    "AstrocyteDeadLetters": [
        (EVENTS % "dead", "0x10 3x90"),
        ('astrocyte_store_rows_total{role="sql", outcome="rejected"}', "0x100"),
    ],
}
QUIET = {
    "AstrocyteWorkerGone": "1x200", "AstrocyteNotHealthy": "1x200", "AstrocyteNotReady": "1x200",
    "AstrocyteRestarts": "0x8 1x200", "AstrocyteLagGrows": "900x200", "AstrocyteEventTimeStandsStill": "5x200",
    "AstrocyteStoreAway": "20x200", "AstrocyteSnapshotsOld": "20x200",
}  # fmt: skip


def fired(tmp_path, name, series):
    """Whether the alert fires after 20 minutes of series, by Prometheus' own tester."""
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": each, "values": values} for each, values in series],
                "promql_expr_test": [
                    {
                        "expr": f'count(max_over_time(ALERTS{{alertname="{name}", alertstate="firing"}}[20m]))',
                        "eval_time": "20m",
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    }
                ],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(test))
    done = subprocess.run([promtool(), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERIES)
def test_each_alert_fires_over_series_for_which_it_is_meant(tmp_path, name):
    series = [SERIES[name]] if SERIES[name] is not None else MORE[name]
    found, said = fired(tmp_path, name, series)
    assert found, said


@pytest.mark.parametrize("name", SERIES)
def test_no_alert_fires_over_quiet_series(tmp_path, name):
    if SERIES[name] is not None:
        series = [(SERIES[name][0], QUIET[name])]
    else:
        series = [(each, "0+1000x90" if "received" in each else "0x100") for each, _ in MORE[name]]
    found, said = fired(tmp_path, name, series)
    assert not found
    assert "nil" in said or "[]" in said, said


def test_every_alert_is_tried():
    assert [rule["alert"] for rule in rules()] == list(SERIES)


COMPOSE = yaml.safe_load((DOCKER / "monitoring.yaml").read_text())["services"]


def test_the_services_beside_the_pipeline_bind_loopback_hold_no_secret_and_mount_what_exists():
    for name, service in COMPOSE.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for variable, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|TOKEN", variable) or re.fullmatch(r"\$\{[A-Z_]+:\?.*\}", value), variable
            setting = variable.removeprefix("ASTROCYTE_")
            assert setting == variable or setting.lower() in Settings.model_fields, variable
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            assert not source.startswith(".") or (DOCKER / source).is_dir(), mount


def test_the_health_check_of_a_worker_with_a_token_sends_it():
    command = COMPOSE["worker"]["healthcheck"]["test"][1:]
    settings = Settings(metrics_port=0, metrics_token="a-token")
    server = serve(settings, lambda path: Answer(200 if path == "/readyz" else 404, "text/plain", b""))
    try:
        for token, status in (("a-token", 0), ("another", 1)):
            done = subprocess.run(
                [sys.executable, *(part.replace("9100", str(server.port)) for part in command[1:])],
                env=os.environ | {"ASTROCYTE_METRICS_TOKEN": token}, check=False, capture_output=True,
            )  # fmt: skip
            assert done.returncode == status
    finally:
        server.stop()


def test_prometheus_scrapes_the_workers_with_the_token_and_has_the_rules():
    subprocess.run([promtool(), "check", "rules", str(RULES)], check=True, capture_output=True)
    config = yaml.safe_load((DOCKER / "prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_token"
    assert job["dns_sd_configs"][0] == {"names": ["worker"], "type": "A", "port": 9100}
    assert config["rule_files"] == [RULES.name]
    assert COMPOSE["prometheus"]["secrets"] == ["metrics_token"]
