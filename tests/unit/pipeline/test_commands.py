"""What commands say: of themselves, of what is empty, and where they end without what they need."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from astrocyte.agents.sinks.registry import SINKS
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.client import BrokerUnavailable
from astrocyte.pipeline.role_registry import ROLES
from astrocyte.pipeline.simulation.run import describe_run
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from tests.support.brokers import NOWHERE


def test_the_help_of_worker_names_every_shipped_role_in_their_order():
    shown = " ".join(CliRunner().invoke(app, ["worker", "--help"], env={"COLUMNS": "400"}).stdout.split())
    assert f"Role: {', '.join((*ROLES.shipped, *SINKS.shipped))}, or your own" in shown


def test_a_run_without_a_broker_ends_after_the_time_that_it_says_and_names_the_way_without_one(capsys):
    with pytest.raises(
        BrokerUnavailable, match=r"none answered for 0\.1 s\. --out FILE simulates into a log"
    ) as raised:
        describe_run(NOWHERE, {"simulation_id": "r"}, timeout_s=0.1)
    assert isinstance(raised.value, AstrocyteError)
    said = capsys.readouterr().err
    assert "waiting for it for 0.1 s. --out FILE simulates into a log without a broker" in said


def test_an_empty_audit_log_is_not_called_intact(tmp_path):
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    runner = CliRunner()
    runner.invoke(app, ["db", "upgrade", "--url", url], catch_exceptions=False)
    result = runner.invoke(app, ["audit", "verify", "--url", url], catch_exceptions=False)
    assert result.exit_code == 0
    assert "the audit log is empty: nothing was checked" in result.stderr
    assert "--role audit" in result.stderr


def test_health_says_in_words_that_a_role_has_read_nothing_yet(monkeypatch):
    async def states(_settings):
        return {
            "correlate": {"members": 1, "state": "Stable", "lag": None},
            "sql": {"members": 2, "state": "Stable", "lag": 1234, "unstored": ["stream 'A' is not written"]},
        }

    monkeypatch.setattr("astrocyte.pipeline.roles.health.group_health", states)
    shown = CliRunner().invoke(app, ["health", "-b", NOWHERE], catch_exceptions=False).stdout
    assert shown.splitlines() == [
        "correlate: 1 member, Stable, nothing read yet",
        "sql: 2 members, Stable, lag 1,234",
        "  stream 'A' is not written",
    ]


@pytest.mark.parametrize("command", [["audit", "verify"], ["audit", "export"], ["db", "retention"]], ids=" ".join)
def test_a_database_that_is_not_there_is_refused_and_not_created(tmp_path, command):
    path = tmp_path / "absent.db"
    result = CliRunner().invoke(app, [*command, "--url", str(path)])
    assert isinstance(result.exception, InvalidSettings)
    assert str(result.exception) == f"there is no database {path}; name another one with --url"
    assert not path.exists()


@pytest.mark.parametrize("command", [["audit", "verify"], ["audit", "export"]], ids=" ".join)
def test_a_file_that_is_no_database_of_astrocyte_has_no_audit_log(tmp_path, command):
    path = tmp_path / "other.db"
    path.touch()
    result = CliRunner().invoke(app, [*command, "--url", str(path)])
    assert isinstance(result.exception, AstrocyteError)
    assert str(result.exception) == f"the database cannot be used: {path}: no such table: audit_log"


@pytest.mark.parametrize("command", [["audit", "verify"], ["db", "retention"], ["db", "url"]], ids=" ".join)
def test_a_server_that_does_not_answer_is_named_in_one_line_without_the_password(command):
    result = CliRunner().invoke(app, [*command, "--url", "postgresql://me:secret@127.0.0.1:1/db"])
    assert isinstance(result.exception, AstrocyteError)
    said = str(result.exception)
    assert "127.0.0.1:1/db" in said
    assert "Connection refused" in said
    assert "secret" not in said
    assert "\n" not in said


def test_an_export_of_the_audit_log_replaces_no_file(tmp_path):
    url, kept = str(tmp_path / "some.db"), tmp_path / "kept.jsonl"
    kept.write_text("mine")
    CliRunner().invoke(app, ["db", "upgrade", "--url", url], catch_exceptions=False)
    result = CliRunner().invoke(app, ["audit", "export", "--url", url, "-o", str(kept)])
    assert isinstance(result.exception, InvalidSettings)
    assert str(result.exception) == f"-o {kept}: File exists; expected a file that does not exist yet"
    assert kept.read_text() == "mine"


NEEDS_JAX = "scenario 'axons' needs JAX, which is not installed: pip install 'astrocyte[simulator]'"
UNKNOWN = "there is no scenario 'axxons'; known: axons, "


@pytest.mark.parametrize(
    "command", ["demo --scenario", "simulate", "score axons --seeds 2 --scenario", "experiment run"]
)
def test_without_jax_a_command_that_simulates_says_what_to_install_and_names_a_misspelt_scenario_first(
    command, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.chdir(tmp_path)
    for scenario, said in (("axons", NEEDS_JAX), ("axxons", UNKNOWN)):
        sweep = tmp_path / f"{scenario}.yaml"
        sweep.write_text(f"experiment: e\nscenario: {scenario}\nticks: 5\nseeds: [1]\n")
        given = [*command.split(), str(sweep) if command.startswith("experiment") else scenario]
        with pytest.raises(InvalidSettings) as refused:
            CliRunner().invoke(app, given, catch_exceptions=False)
        assert str(refused.value).startswith(said)


def test_without_jax_a_benchmark_that_needs_it_ends_in_one_line():
    code = (
        "import sys; sys.modules['jax'] = None; sys.argv = ['astrocyte', 'bench', 'simulator', '--quick'];"
        "from astrocyte.pipeline.cli.app import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    line = "astrocyte: this command needs JAX, which is not installed: pip install 'astrocyte[simulator]'\n"
    assert (ended.returncode, ended.stderr) == (2, line)


def test_a_worker_without_roles_is_refused(monkeypatch):
    with pytest.raises(
        InvalidSettings, match=r"roles.*: expected at least one role, such as correlate, got an empty text"
    ):
        CliRunner().invoke(app, ["worker", "--role", ""], catch_exceptions=False)
    monkeypatch.setenv("ASTROCYTE_ROLES", " ,")
    with pytest.raises(InvalidSettings, match=r"roles.*: expected at least one role"):
        CliRunner().invoke(app, ["worker"], catch_exceptions=False)
