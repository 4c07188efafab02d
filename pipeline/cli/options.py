"""Options that several commands share, and their defaults from the settings."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AsJson", "Broker", "broker_address", "replication", "sql_address"]

Broker = Annotated[
    str | None,
    typer.Option(
        "--broker", "-b", "--bootstrap-server", metavar="HOST:PORT", help="Kafka address; default: ASTROCYTE_BROKER."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def broker_address(broker: str | None) -> str:
    """The given address, else that of the settings; also limits repeated log messages of aiokafka to one a minute."""
    from astrocyte.pipeline.transport.client_log import limit_client_log

    limit_client_log()
    if broker is not None:
        return broker
    from astrocyte.pipeline.settings import load_settings

    return load_settings().broker


def sql_address(url: str | None) -> str:
    """The given URL or SQLite file, else that of the settings."""
    if url is not None:
        return url
    from astrocyte.pipeline.settings import load_settings

    return load_settings().sql_url.get_secret_value()


def replication() -> int:
    """Replication factor of topics that the command creates."""
    from astrocyte.pipeline.settings import load_settings

    return load_settings().replication
