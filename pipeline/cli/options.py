"""Options that several commands share, and their defaults from the settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from astrocyte.schemas.errors import InvalidSettings

if TYPE_CHECKING:
    from astrocyte.agents.rules.model import RuleSet

__all__ = [
    "AsJson",
    "Broker",
    "EventTime",
    "Lateness",
    "Rules",
    "Show",
    "benchmark_names",
    "broker_address",
    "broker_option",
    "event_time",
    "pairs",
    "read",
    "refuse_swapped",
    "replication",
    "rule_names",
    "scenario_names",
    "simulated",
    "sql_address",
    "stored_address",
    "study_names",
    "worker_roles",
]


def rule_names(incomplete: str) -> list[str]:
    """Shipped rule files that begin so; where none does, a shell offers its files."""
    from astrocyte.pipeline.topology.rule_files import shipped_rules

    return _beginning(incomplete, shipped_rules())


def scenario_names(incomplete: str) -> list[str]:
    """Scenarios that begin so."""
    from astrocyte.simulator.scenario import SCENARIOS

    return _beginning(incomplete, SCENARIOS.names())


def study_names(incomplete: str) -> list[str]:
    """Studies that begin so."""
    from astrocyte.pipeline.studies.study import STUDIES

    return _beginning(incomplete, STUDIES.names())


def benchmark_names(incomplete: str) -> list[str]:
    """Benchmarks that begin so."""
    from astrocyte.pipeline.bench import BENCHMARKS

    return _beginning(incomplete, BENCHMARKS)


def worker_roles(incomplete: str) -> list[str]:
    """Roles that begin so; after a comma, further ones."""
    from astrocyte.pipeline.role_registry import role_names

    given, comma, last = incomplete.rpartition(",")
    return [f"{given}{comma}{name}" for name in _beginning(last, role_names())]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def broker_option(text: str) -> Any:
    """The option ``--broker`` with that help."""
    return typer.Option("--broker", "-b", "--bootstrap-server", metavar="HOST:PORT", help=text)


Broker = Annotated[str | None, broker_option("Kafka address; default: ASTROCYTE_BROKER.")]
Lateness = Annotated[
    str | None, typer.Option(metavar="T", help="How far out of order events may arrive; default: ASTROCYTE_LATENESS.")
]
Rules = Annotated[
    str, typer.Argument(help="Rule file, or name of a shipped one such as axons.", autocompletion=rule_names)
]
Show = Annotated[int, typer.Option(min=0, help="Maximum number of examples of each kind.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def broker_address(broker: str | None) -> str:
    """The given address, else that of the settings; also limits repeated log messages of aiokafka to one a minute."""
    from astrocyte.pipeline.transport.client_log import limit_client_log

    limit_client_log()
    from astrocyte.pipeline.settings import load_settings

    return load_settings(broker=broker).broker


def sql_address(url: str | None) -> str:
    """The given URL or SQLite file, else that of the settings."""
    if url is not None:
        return url
    from astrocyte.pipeline.settings import load_settings

    return load_settings().sql_url.get_secret_value()


def stored_address(url: str | None, *, option: str = "--url") -> str:
    """`sql_address` of a database that a command reads: an SQLite file that is not there is refused, not created."""
    from astrocyte.agents.sinks.sql.url import database_url, sqlite_path

    address = sql_address(url)
    parsed = database_url(address)
    if parsed.get_backend_name() == "sqlite" and not Path(sqlite_path(parsed)).exists():
        raise InvalidSettings(f"there is no database {sqlite_path(parsed)}; name another one with {option}")
    return address


def replication() -> int:
    """Replication factor of topics that the command creates."""
    from astrocyte.pipeline.settings import load_settings

    return load_settings().replication


def read(*files: str) -> RuleSet:
    """The rules of files, or of shipped ones. Raises InvalidRule."""
    from astrocyte.pipeline.settings import load_settings
    from astrocyte.pipeline.topology.rule_files import read_rule_files

    load_settings()  # imports the plugins, whose validators the files may name
    return read_rule_files(files)


def simulated(scenario: str) -> None:
    """Raise InvalidSettings for an unknown scenario, and where what runs one is not installed."""
    from astrocyte.pipeline.settings import load_settings
    from astrocyte.simulator.scenario import require_scenario

    load_settings()  # imports the plugins, which may register the scenario
    require_scenario(scenario)


def refuse_swapped(rules: str, paths: Sequence[str]) -> None:
    """Raises InvalidSettings where the rule file stands after the log."""
    swapped = next((path for path in paths if path.endswith((".yaml", ".yml"))), None)
    if swapped is not None and not rules.endswith((".yaml", ".yml")) and Path(rules).is_file():
        raise InvalidSettings(f"the rule file comes first, then the events: {swapped} {rules}")


class EventTime(TypedDict):
    """How far out of order events may arrive, how far ahead their clocks may be, and the number of domains."""

    lateness_us: int
    clock_tolerance_us: int
    domains: int | None


def event_time(lateness: str | None) -> EventTime:
    """The given lateness, else that of the settings; their clock tolerance, and their partitions if these are set."""
    from astrocyte.pipeline.kafka.offsets import parse_span_us
    from astrocyte.pipeline.settings import load_settings

    settings = load_settings()
    return {
        "lateness_us": settings.lateness if lateness is None else parse_span_us(lateness),
        "clock_tolerance_us": settings.clock_tolerance,
        "domains": settings.partitions if "partitions" in settings.model_fields_set else None,
    }


def pairs(assignments: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """Settings given as NAME=VALUE; a value is JSON, else text. Raises InvalidSettings."""
    import json

    values: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidSettings(f"--set: expected NAME=VALUE, such as domains=64, got {text!r}")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values
