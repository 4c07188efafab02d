"""The Docker files against the settings, the commands and each other; no Docker engine is needed."""

import re
from pathlib import Path

import pytest
import yaml

from astrocyte.pipeline.settings import Settings
from tests.support.probes import probed

ROOT = Path(__file__).parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def environment(service: dict) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def test_every_astrocyte_variable_is_a_setting():
    for name, service in SERVICES.items():
        for variable in environment(service):
            if variable.startswith("ASTROCYTE_"):
                assert variable.removeprefix("ASTROCYTE_").lower() in Settings.model_fields, f"{name}: {variable}"


@pytest.mark.parametrize("name", ["worker", "simulator", "migrate"])
def test_the_environment_of_the_services_gives_valid_settings(name, monkeypatch):
    for variable, value in environment(SERVICES[name]).items():
        plain = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value)
        monkeypatch.setenv(variable, re.sub(r"\$\{[A-Z_]+:\?[^}]*\}", "hunter2", plain))
    settings = Settings()
    assert settings.broker == "kafka:9092"
    assert settings.influx_token is not None
    assert "hunter2" not in repr(settings)


def test_the_file_holds_no_secret():
    for service in SERVICES.values():
        for variable, value in environment(service).items():
            if re.search("PASSWORD|TOKEN|SECRET", variable):
                assert re.search(r"\$\{[A-Z_]+:\?", value), variable
    for line in (ROOT / "docker/example.env").read_text().splitlines():
        if re.match(r"[A-Z_]*(PASSWORD|TOKEN)", line):
            assert line.endswith("=")


def test_every_long_running_service_has_a_health_check_and_every_dependency_exists():
    for name, service in SERVICES.items():
        if name not in ("migrate", "simulator"):
            assert service["healthcheck"]["test"], name
        for wanted, how in service.get("depends_on", {}).items():
            assert wanted in SERVICES
            assert how["condition"] in ("service_healthy", "service_completed_successfully")


def test_every_port_is_bound_to_loopback():
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_commands_exist():
    from typer.main import get_command

    from astrocyte.pipeline.cli.app import app

    known = get_command(app).commands
    for name in ("worker", "simulator", "migrate"):
        assert SERVICES[name]["command"][0] in known


def test_the_probe_of_the_worker_asks_whether_it_is_ready():
    command = SERVICES["worker"]["healthcheck"]["test"][1:]
    assert SERVICES["worker"]["environment"]["ASTROCYTE_METRICS_PORT"] == "9100"
    with probed(Settings(metrics_port=0)) as probe:
        assert probe.ask(command)
        probe.ready = False
        assert not probe.ask(command)


def test_the_dockerfile_copies_what_exists():
    lines = (ROOT / "docker/Dockerfile").read_text().splitlines()
    for line in lines:
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--"):
            assert all((ROOT / source).exists() for source in words[1:-1]), line
    assert lines[-2].startswith("ENTRYPOINT")
