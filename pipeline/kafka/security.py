"""TLS and SASL: the arguments of every Kafka client, from the settings ``ASTROCYTE_KAFKA_*`` of the process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astrocyte.agents.tls import tls_context
from astrocyte.pipeline.settings import load_settings

if TYPE_CHECKING:
    from pydantic import SecretStr

__all__ = ["security_arguments", "security_names"]


def security_arguments() -> dict[str, Any]:
    """Arguments of a client of aiokafka for TLS and SASL; none where the settings say nothing of them.

    The settings are those of the process, as every client is made for the same broker. Raises InvalidSettings, also
    for files that cannot be read.
    """
    settings = load_settings()
    protocol = settings.kafka_security_protocol
    if protocol == "PLAINTEXT":
        return {}
    found: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        found["ssl_context"] = tls_context(settings.of("kafka"), "kafka")
    if protocol.startswith("SASL"):
        found["sasl_mechanism"] = settings.kafka_sasl_mechanism
        if settings.kafka_sasl_mechanism == "OAUTHBEARER":
            found["sasl_oauth_token_provider"] = _token_provider(settings.kafka_token, settings.kafka_token_file)
        else:
            found["sasl_plain_username"] = settings.kafka_username
            found["sasl_plain_password"] = _text(settings.kafka_password)
    return found


def security_names() -> str:
    """The protocol and the mechanism of login that are set; empty for a connection in the clear."""
    settings = load_settings()
    protocol, mechanism = settings.kafka_security_protocol, settings.kafka_sasl_mechanism
    return "" if protocol == "PLAINTEXT" else f"{protocol} {mechanism or ''}".rstrip()


def _text(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _token_provider(token: SecretStr | None, file: Path | None) -> Any:
    """Gives the token whenever a connection is made; from a file it is read anew, since tokens expire."""
    from aiokafka.abc import AbstractTokenProvider

    def read() -> str:
        try:
            return (_text(token) or "") if file is None else file.read_text().strip()
        except OSError as error:
            raise ConnectionError(f"the token file {file} cannot be read: {error.strerror}") from None

    class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
        async def token(self) -> str:
            return await asyncio.to_thread(read)

    return TokenProvider()
