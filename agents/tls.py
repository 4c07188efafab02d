"""TLS of the clients of Kafka and InfluxDB: a context that verifies, from the files that settings name."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final

from astrocyte.schemas.errors import InvalidSettings

__all__ = ["TLS_FILES", "tls_context", "tls_fault"]

TLS_FILES: Final = ("ca_file", "cert_file", "key_file", "key_password")
"""Settings of a client of TLS, each with the prefix of its server, such as ``influx_ca_file``."""

_PLAIN: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})
_NO_CLIENT: Final = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA", "ALERT_HANDSHAKE_FAILURE")


def tls_context(settings: Mapping[str, Any], prefix: str) -> ssl.SSLContext:
    """A context that verifies the certificate and the name of a server, by ``ca_file`` or the system's authorities.

    ``cert_file``, ``key_file`` and ``key_password`` are the certificate of this client, if it has one. ``prefix`` is
    that of the settings in messages. Nothing switches the verification off. Raises InvalidSettings.
    """
    ca_file, cert_file = settings["ca_file"], settings["cert_file"]
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidSettings(
            f"settings: {prefix}_ca_file (ASTROCYTE_{prefix.upper()}_CA_FILE): {ca_file} cannot be used: "
            f"{_reason(error)}; expected certificates in PEM form"
        ) from None
    if cert_file is not None:
        try:
            # An empty password, so that the program does not ask for one at a terminal.
            context.load_cert_chain(cert_file, settings["key_file"], password=settings["key_password"] or "")
        except (OSError, ssl.SSLError) as error:
            raise InvalidSettings(
                f"settings: {prefix}_cert_file (ASTROCYTE_{prefix.upper()}_CERT_FILE): {cert_file} and its key cannot "
                f"be used: {_reason(error)}; expected PEM form, and ASTROCYTE_{prefix.upper()}_KEY_PASSWORD for an "
                "encrypted key"
            ) from None
    return context


def tls_fault(error: BaseException | None) -> str | None:
    """Why a client of HTTP could not connect, where TLS is the cause and a retry cannot help; else None."""
    seen: set[int] = set()
    found = [error]
    while found:
        each = found.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        # Errors of aiohttp are errors of ssl as well, without their attributes.
        reason = str(getattr(each, "reason", "")) if isinstance(each, ssl.SSLError) else ""
        if message := getattr(each, "verify_message", ""):
            return f"its certificate is not trusted: {message}"
        if reason in _PLAIN:
            return "it does not speak TLS at this address; expected http:// or another port"
        if any(name in reason for name in _NO_CLIENT):
            return f"it refuses the certificate of this client, or asks for one: {reason}"
        # aiohttp and urllib3 keep the cause in attributes of their own.
        found += [each.__cause__, each.__context__, *each.args]
        found += [getattr(each, name, None) for name in ("certificate_error", "os_error", "reason")]
    return None


def _reason(error: OSError) -> str:
    return str(error.strerror or error)
