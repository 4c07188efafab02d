"""The sinks that ship with Astrocyte, as registry entries. Client libraries are imported when a sink is created."""

from __future__ import annotations

from typing import Final

from astrocyte.agents.sinks.base import Sink
from astrocyte.agents.sinks.registry import SinkContext, SinkType
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["ALERTMANAGER", "AUDIT", "FILE", "INFLUX", "SQL", "WEBHOOK"]


def _sql(context: SinkContext) -> Sink:
    from astrocyte.agents.sinks.sql.sink import SqlSink
    from astrocyte.agents.sinks.sql.targets import TABLES

    for stream in context.common.get("streams") or [event_type.stream for event_type in CATALOG]:
        if stream in TABLES:
            TABLES.get(stream)  # refused now, not when its first event comes
    return SqlSink(
        context.common["sql_url"],
        now_us=context.now_us,
        experiment_id=context.common["experiment"],
        retry=context.retry,
    )


def _retain(context: SinkContext) -> int:
    """Delete expired rows in small transactions, interleaved with the sink's own; returns the number of rows."""
    from astrocyte.agents.sinks.retention import apply_retention

    return sum(step.rows for step in apply_retention(context.common["sql_url"], now_us=context.now_us()))


def _influx(context: SinkContext) -> Sink:
    from astrocyte.agents.sinks.influx.points import PointRules

    settings = context.settings
    rules = PointRules(settings["cell_tags"], settings["run_tag"])
    if settings["url"] is None or settings["token"] is None:
        from astrocyte.agents.sinks.influx.file import InfluxFileSink

        return InfluxFileSink(settings["dir"], rules=rules, retry=context.retry)
    from astrocyte.agents.sinks.influx.address import influx_tls
    from astrocyte.agents.sinks.influx.sink import InfluxSink

    return InfluxSink(
        settings["url"],
        token=settings["token"],
        org=settings["org"],
        bucket=settings["bucket"],
        rules=rules,
        tls=influx_tls(settings),
        retry=context.retry,
    )


def _audit(context: SinkContext) -> Sink:
    from astrocyte.agents.sinks.audit.sink import AuditSink

    return AuditSink(context.common["sql_url"], now_us=context.now_us, retry=context.retry)


def _file(context: SinkContext) -> Sink:
    from astrocyte.agents.sinks.file import FileSink

    return FileSink(context.settings.get("folder", "events"), name=context.name, retry=context.retry)


def _webhook(context: SinkContext) -> Sink:
    from astrocyte.agents.sinks.http.server import server_of
    from astrocyte.agents.sinks.http.webhook import WebhookSink

    settings = context.settings
    return WebhookSink(
        server_of(settings, _address(context, "http://host:9000/alerts"), name="the webhook", setting="WEBHOOK"),
        now_us=context.now_us,
        secret=settings["secret"],
        most_events=settings["batch"],
        retry=context.retry,
    )


def _alertmanager(context: SinkContext) -> Sink:
    from astrocyte.agents.sinks.http.alertmanager import AlertmanagerSink
    from astrocyte.agents.sinks.http.server import server_of

    settings = context.settings
    addresses = [each.strip().rstrip("/") for each in _address(context, "http://host:9093").split(",")]
    return AlertmanagerSink(
        [
            server_of(settings, f"{address}/api/v2/alerts", name="Alertmanager", setting="ALERTMANAGER")
            for address in addresses
        ],
        now_us=context.now_us,
        resolve_after_us=settings["resolve_after"],
        retry=context.retry,
    )


def _address(context: SinkContext, example: str) -> str:
    url: str | None = context.settings["url"]
    if url is None:
        raise InvalidSettings(
            f"role {context.name} needs an address; set ASTROCYTE_{context.name.upper()}_URL, such as {example}"
        )
    return url


def _own_tables() -> list[str]:
    from astrocyte.agents.sinks.sql.targets import own_streams

    return own_streams()


def _dna_streams() -> list[str]:
    return [event_type.stream for event_type in CATALOG if event_type.envelope == "dna"]


def _without_table(stream: str) -> str | None:
    from astrocyte.agents.sinks.sql.targets import TABLES

    return None if stream in TABLES else "it has no table; give it one (register_table), or take the role file"


def _without_measurement(stream: str) -> str | None:
    from astrocyte.schemas.measurements import measurement_of

    if measurement_of(stream) is not None:
        return None
    return "it has no measurement, whose fields have the types of the catalog; list it there, or take the role file"


# SQL indexes are written by page: larger batches rewrite fewer pages twice.
SQL: Final = SinkType(
    _sql, batch_rows=100_000, upkeep=_retain, windows=True, own_streams=_own_tables, unstored=_without_table
)
INFLUX: Final = SinkType(_influx, windows=True, unstored=_without_measurement)
AUDIT: Final = SinkType(_audit, streams=_dna_streams, records=(), audited=True)
FILE: Final = SinkType(_file)
WEBHOOK: Final = SinkType(_webhook, streams=(), records=("alerts",), batch_rows=500)
ALERTMANAGER: Final = SinkType(_alertmanager, streams=(), records=("alerts",), batch_rows=500)
