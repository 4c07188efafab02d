"""Settings: the environment (``ASTROCYTE_*``) overrides ``astrocyte.toml``, which overrides the embedded defaults.

On a cluster only settings change: with ``ASTROCYTE_BROKER``, ``ASTROCYTE_SQL_URL`` and ``ASTROCYTE_INFLUX_URL`` set,
the same pipeline runs on Kafka, PostgreSQL and InfluxDB.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import logging
import os
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from astrocyte.agents.rules.steps import parse_duration
from astrocyte.agents.rules.streams import Overload, overload_of
from astrocyte.agents.tls import TLS_FILES
from astrocyte.pipeline.plugins import load_installed, load_plugins
from astrocyte.pipeline.role_registry import check_role
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["DURATIONS", "Settings", "load_settings"]


logger = logging.getLogger(__name__)


def _duration(value: Any) -> int:
    return 0 if value in (0, "0", "0s") else parse_duration(value)


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


_IS_DURATION: Final = BeforeValidator(_duration)
Duration = Annotated[int, _IS_DURATION]
"""Microseconds, written as a duration with a unit; 0 needs none."""
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Strings separated by commas."""
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)]


def is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


_FORMER_ROLES: Final = {"rekey": "repartition"}
"""Former names of roles, which settings may still use."""


class Settings(BaseSettings):
    """All settings of all processes; each process reads the ones it needs."""

    model_config = SettingsConfigDict(
        env_prefix="ASTROCYTE_",
        toml_file="astrocyte.toml",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    broker: str = Field("127.0.0.1:9092", description="Kafka bootstrap address, host:port[,host:port]")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="SSL for TLS, SASL_SSL for TLS and a login, SASL_PLAINTEXT for a login alone"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="how to log in to Kafka: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
    )
    kafka_username: str | None = Field(None, description="user name for PLAIN and SCRAM")
    kafka_password: SecretStr | None = Field(None, description="password for PLAIN and SCRAM")
    kafka_token: SecretStr | None = Field(None, description="token for OAUTHBEARER")
    kafka_token_file: Path | None = Field(
        None, description="file with the token for OAUTHBEARER, read at every connection"
    )
    kafka_ca_file: Path | None = Field(
        None, description="certificates (PEM) by which that of the broker is verified; by default those of the system"
    )
    kafka_cert_file: Path | None = Field(None, description="certificate (PEM) of this client")
    kafka_key_file: Path | None = Field(None, description="its key (PEM), if it is in a file of its own")
    kafka_key_password: SecretStr | None = Field(None, description="password of that key")

    partitions: int = Field(
        4, ge=1, le=1024, description="number of domains, and of partitions of the topics that are created"
    )
    replication: int = Field(1, ge=1, le=9, description="replication factor of the topics that Astrocyte creates")
    group: str = Field("astrocyte", pattern=r"^[A-Za-z0-9._-]+$", description="prefix of the consumer groups")

    instance: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="stable name of this worker: it keeps its partitions while it restarts",
    )
    rules: Paths = Field((), description="rule files, separated by commas; shipped files by name, such as axons")
    streams: Names = Field(
        (),
        description="streams to read; by default correlate reads those that the rules name, and a sink those of the "
        "catalog (sql also those of your own tables)",
    )
    roles: Names = Field(
        ("correlate", "sql", "influx"),
        description="roles of a worker: correlate, repartition, insight, control, sinks (sql, influx, audit, file, "
        "webhook, alertmanager), your own",
    )
    plugins: Names = Field(
        (), description="modules to import at start-up, separated by commas; they register validators, sinks and more"
    )
    options: dict[str, dict[str, Any]] = Field(
        {}, description="settings of registered sinks by name, JSON; each also as `ASTROCYTE_<NAME>_<SETTING>`"
    )
    consistency: Literal["strong", "eventual"] = "strong"
    lateness: Duration = Field(1_000_000, ge=0, description="how far out of order the events of a partition may arrive")
    clock_tolerance: Duration = Field(
        3_600_000_000,
        ge=0,
        description="how far an event may be ahead of its Kafka timestamp and of all other keys",
    )
    idle_timeout: Duration = Field(
        5_000_000, gt=0, description="time after which an idle source no longer delays the watermark"
    )
    overload: Annotated[Overload, NoDecode, BeforeValidator(overload_of)] = Field(
        Overload(),
        description="what correlate leaves out of streams that declare nothing while it is behind: block (nothing), or "
        'JSON such as `{"policy": "sample", "share": 0.1, "above": 20000}`; critical streams are spared',
    )
    producer_timeout: Duration = Field(
        600_000_000,
        gt=0,
        description="time after which a silent producer that sends watermarks no longer delays event time",
    )
    snapshot_interval: Duration = Field(1_000_000, gt=0, description="time between snapshots of the state of a domain")
    lost_state: Literal["refuse", "empty"] = Field(
        "refuse", description="where offsets are committed and the state topic is gone: stop, or go on with no state"
    )
    dead_letter_limit: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of dead letters among at least 1,000 records above which a role stops; 1 is no limit",
    )
    liveness_timeout: Duration = Field(
        120_000_000,
        ge=0,
        description="a worker that makes no progress although records wait, or whose event loop is blocked, for this "
        "long is started again; ten times that for a start or a restored state; 0: never",
    )
    stall_timeout: Duration = Field(
        15_000_000, gt=0, description="time after which it is reported that events wait and event time stands still"
    )
    session_timeout: Duration = Field(
        10_000_000, ge=1_000_000, description="time after which the partitions of a dead worker move to others"
    )

    sql_url: SecretStr = Field(SecretStr("sqlite:///astrocyte.db"), description="SQLAlchemy URL")
    retention_interval: Duration = Field(
        3_600_000_000, gt=0, description="time between removals of rows whose retention has ended, by the sql role"
    )
    experiment: str = Field("default", max_length=64, description="experiment to which new simulations belong")
    influx_url: str | None = Field(None, description="address of InfluxDB; without it points are written to influx_dir")
    influx_token: SecretStr | None = None
    influx_org: str = "astrocyte"
    influx_bucket: str = "astrocyte"
    influx_ca_file: Path | None = Field(
        None, description="certificates (PEM) by which that of InfluxDB is verified; by default those of the system"
    )
    influx_cert_file: Path | None = Field(None, description="certificate (PEM) that InfluxDB, or a proxy, asks for")
    influx_key_file: Path | None = Field(None, description="its key (PEM), if it is in a file of its own")
    influx_key_password: SecretStr | None = Field(None, description="password of that key")
    influx_dir: Path = Field(Path("influx"), description="folder of the compressed line protocol")
    influx_cell_tags: int = Field(
        10_000, ge=0, description="cell ids below this limit are written as the tag cell_id, others as a field"
    )
    influx_run_tag: bool = Field(False, description="add the run to every point as the tag simulation_id")

    webhook_url: SecretStr | None = Field(None, description="address to which the role webhook posts alerts")
    webhook_token: SecretStr | None = Field(None, description="bearer token that the receiver asks for")
    webhook_secret: SecretStr | None = Field(
        None, description="secret with which requests are signed, as Standard Webhooks asks: whsec_ and base64"
    )
    webhook_batch: int = Field(
        1, ge=1, le=1000, description="alerts in one request; above 1 a request is a batch of CloudEvents"
    )
    webhook_ca_file: Path | None = Field(
        None, description="certificates (PEM) by which the receiver is verified; by default those of the system"
    )
    webhook_cert_file: Path | None = Field(None, description="certificate (PEM) that the receiver asks for")
    webhook_key_file: Path | None = Field(None, description="its key (PEM), if it is in a file of its own")
    webhook_key_password: SecretStr | None = Field(None, description="password of that key")
    alertmanager_url: str | None = Field(
        None, description="address of Alertmanager, such as http://host:9093; of a cluster all, separated by commas"
    )
    alertmanager_token: SecretStr | None = Field(None, description="bearer token that it, or a proxy, asks for")
    alertmanager_resolve_after: Duration = Field(
        300_000_000, ge=1_000_000, description="time after which an alert is resolved, unless it was raised again"
    )
    alertmanager_ca_file: Path | None = Field(
        None, description="certificates (PEM) by which it is verified; by default those of the system"
    )
    alertmanager_cert_file: Path | None = Field(None, description="certificate (PEM) that it, or a proxy, asks for")
    alertmanager_key_file: Path | None = Field(None, description="its key (PEM), if it is in a file of its own")
    alertmanager_key_password: SecretStr | None = Field(None, description="password of that key")

    data_dir: Path = Field(Path("astrocyte-data"), description="folder of the embedded broker's records")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port of /healthz, /readyz and /metrics of a worker; without it they are off"
    )
    metrics_host: str = Field(
        "127.0.0.1", min_length=1, description="address at which they are served; beyond loopback only with a token"
    )
    metrics_token: SecretStr | None = Field(
        None, min_length=1, description="bearer token that requests of these pages must have"
    )
    otlp_url: str | None = Field(
        None,
        description="address of an OpenTelemetry collector, such as http://host:4318, to which workers deliver traces "
        "and metrics over OTLP; needs the extra otlp",
    )
    page_port: int = Field(8470, ge=0, le=65535, description="port of the live page; 0 chooses a free one")
    page_host: str = Field(
        "127.0.0.1", min_length=1, description="address at which the page is served; beyond loopback only with a token"
    )
    page_token: SecretStr | None = Field(
        None, min_length=1, description="token that browsers must show to see the page"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = Field(False, description="log JSON lines instead of key=value")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  part of the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, the environment, ``astrocyte.toml``."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @field_validator("roles")
    @classmethod
    def _current_names(cls, roles: tuple[str, ...]) -> tuple[str, ...]:
        if not roles:
            raise ValueError("expected at least one role, such as correlate, got an empty text")
        return tuple(_FORMER_ROLES.get(role, role) for role in roles)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.influx_url is not None and self.influx_token is None:
            raise ValueError("influx_url is set but influx_token is not; set ASTROCYTE_INFLUX_TOKEN as well")
        for address in self.broker.split(","):
            if not re.fullmatch(r"[^\s:/,]+:\d{1,5}", address.strip()):
                raise ValueError(f"broker: expected host:port, such as 127.0.0.1:9092, got {address!r}")
        self._check_kafka()
        for name in ("influx", "webhook", "alertmanager"):
            self._check_tls(name)
        if self.otlp_url is not None:
            self._check_otlp(urlsplit(self.otlp_url))
        if self.metrics_port is not None and self.metrics_token is None and not is_loopback(self.metrics_host):
            raise ValueError(
                f"metrics_host {self.metrics_host!r} can be reached from other machines, and metrics_token is not set; "
                "set ASTROCYTE_METRICS_TOKEN as well, or leave ASTROCYTE_METRICS_HOST at 127.0.0.1"
            )
        return self

    def _check_otlp(self, url: SplitResult) -> None:
        if url.scheme not in ("http", "https") or not url.hostname or url.query:
            raise ValueError(
                "otlp_url: expected http:// or https:// with a host, such as http://host:4318, to which /v1/traces and "
                "/v1/metrics are added"
            )
        if url.username is not None:
            raise ValueError(
                "otlp_url holds a user or a password; set them in OTEL_EXPORTER_OTLP_HEADERS, such as "
                "authorization=Basic%20..."
            )

    def _check_kafka(self) -> None:
        """Raise ValueError for settings of TLS and SASL that contradict one another."""
        protocol, mechanism = self.kafka_security_protocol, self.kafka_sasl_mechanism
        login = ("kafka_sasl_mechanism", "kafka_username", "kafka_password", "kafka_token", "kafka_token_file")
        tls = tuple(f"kafka_{name}" for name in TLS_FILES)
        for names, part in ((login, "SASL"), (tls, "SSL")):
            given = next((name for name in names if getattr(self, name) is not None), None)
            if given is not None and part not in protocol:
                raise ValueError(
                    f"{given} is set and has no effect with kafka_security_protocol {protocol}; set "
                    f"ASTROCYTE_KAFKA_SECURITY_PROTOCOL to {'SASL_SSL' if part == 'SASL' else 'SSL or SASL_SSL'}"
                )
        if "SASL" in protocol:
            needed = ("kafka_username", "kafka_password") if mechanism != "OAUTHBEARER" else ("kafka_token",)
            if mechanism is None:
                raise ValueError(f"kafka_security_protocol {protocol} needs ASTROCYTE_KAFKA_SASL_MECHANISM")
            for name in needed:
                if getattr(self, name) is None and not (name == "kafka_token" and self.kafka_token_file is not None):
                    also = " or ASTROCYTE_KAFKA_TOKEN_FILE" if name == "kafka_token" else ""
                    raise ValueError(f"kafka_sasl_mechanism {mechanism} needs ASTROCYTE_{name.upper()}{also}")
        self._check_key("kafka")

    def _check_tls(self, name: str) -> None:
        """Raise ValueError for settings of TLS of a sink that would have no effect."""
        address = getattr(self, f"{name}_url")
        text = address.get_secret_value() if isinstance(address, SecretStr) else address or ""
        given = next((f"{name}_{each}" for each in TLS_FILES if getattr(self, f"{name}_{each}") is not None), None)
        if given is not None and "https:" not in text.lower():
            found = (
                f"no {name}_url" if address is None else f"{'a' if name == 'webhook' else 'an'} {name}_url without TLS"
            )
            raise ValueError(
                f"{given} is set and has no effect with {found}; set ASTROCYTE_{name.upper()}_URL to https://..."
            )
        self._check_key(name)

    def _check_key(self, prefix: str) -> None:
        if getattr(self, f"{prefix}_key_file") is not None and getattr(self, f"{prefix}_cert_file") is None:
            raise ValueError(
                f"{prefix}_key_file is set but {prefix}_cert_file is not; set ASTROCYTE_{prefix.upper()}_CERT_FILE "
                "as well"
            )

    def common(self) -> dict[str, Any]:
        """All settings by name, secrets as plain text."""
        values = {field: getattr(self, field) for field in type(self).model_fields}
        return {name: each.get_secret_value() if isinstance(each, SecretStr) else each for name, each in values.items()}

    def of(self, name: str) -> dict[str, Any]:
        """Settings of a registered sink or role: ``ASTROCYTE_<NAME>_*`` over the table ``[options.<name>]``.

        For a shipped sink these are the settings whose names begin with its name, such as ``influx_url``.
        """
        prefix = name.replace("-", "_").replace(".", "_").lower() + "_"
        found: dict[str, Any] = dict(self.options.get(name, {}))
        fields = type(self).model_fields
        for variable, value in os.environ.items():
            setting = variable.lower().removeprefix("astrocyte_")
            if variable.startswith("ASTROCYTE_") and setting.startswith(prefix) and setting not in fields:
                found[setting.removeprefix(prefix)] = value
        common = self.common()
        return found | {field.removeprefix(prefix): common[field] for field in common if field.startswith(prefix)}


DURATIONS: Final = frozenset(name for name, field in Settings.model_fields.items() if _IS_DURATION in field.metadata)
"""Names of the settings that are durations, in microseconds."""


def load_settings(**overrides: Any) -> Settings:
    """Settings of this process; an override that is None leaves the setting to the environment.

    Also imports the plugins and what installed packages say of streams, so that it is known before it is looked up.
    Raises InvalidSettings.
    """
    settings = _read_settings({name: value for name, value in overrides.items() if value is not None})
    load_plugins(settings.plugins)
    load_installed()
    for variable in sorted(os.environ):
        if variable.startswith("ASTROCYTE_") and (meant := _meant_by(variable)):
            _warn_once(variable, meant)
    for role in settings.roles:
        try:
            check_role(role)
        except InvalidSettings as error:
            raise InvalidSettings(f"settings: roles (ASTROCYTE_ROLES): {error}") from None
    return settings


def _read_settings(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False, include_input=False):
            name = ".".join(str(part) for part in item["loc"])
            text = item["msg"].removeprefix("Value error, ")
            lines.append(f"{name} (ASTROCYTE_{name.upper()}): {text}" if name else text)
        raise InvalidSettings("settings: " + "; ".join(lines)) from None
    except (OSError, ValueError) as error:
        raise InvalidSettings(f"settings: astrocyte.toml cannot be read: {error}") from None


def _meant_by(variable: str) -> str:
    """The variable that was meant by one that is no setting but is spelt almost as one; else empty."""
    name = variable.lower().removeprefix("astrocyte_")
    fields = Settings.model_fields
    close = () if name in fields else difflib.get_close_matches(name, fields, n=1, cutoff=0.85)
    return f"ASTROCYTE_{close[0].upper()}" if close else ""


@cache
def _warn_once(variable: str, meant: str) -> None:
    logger.warning("%s is no setting of Astrocyte; did you mean %s?", variable, meant)
