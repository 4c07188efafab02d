"""Asking the web endpoint of a worker for the state of its roles."""

from __future__ import annotations

import contextlib
import ipaddress
import urllib.error
import urllib.request
from typing import Any, Final

import orjson

from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.errors import TransientError

__all__ = ["WorkerUnreachable", "roles_of_worker"]

_TIMEOUT_S: Final = 10.0


class WorkerUnreachable(TransientError):
    """No worker answers at the address of the settings."""


def roles_of_worker(settings: Settings) -> dict[str, dict[str, Any]]:
    """By role: what the worker at ``metrics_host`` and ``metrics_port`` says. Raises WorkerUnreachable."""
    host = settings.metrics_host
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_unspecified:  # it listens at all addresses
            host = "127.0.0.1" if address.version == 4 else "::1"
    where = f"{f'[{host}]' if ':' in host else host}:{settings.metrics_port}"
    request = urllib.request.Request(f"http://{where}/readyz")
    if settings.metrics_token is not None:
        request.add_header("Authorization", f"Bearer {settings.metrics_token.get_secret_value()}")
    # Not by a proxy of the environment, which would learn the token.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
        if error.code != 503:  # 503: it is not ready, and says why
            hint = "; set its ASTROCYTE_METRICS_TOKEN" if error.code == 401 else ""
            raise WorkerUnreachable(f"what answers at {where} says {error.code} {error.reason}{hint}") from None
    except OSError as error:
        raise WorkerUnreachable(
            f"no worker answers at {where} ({getattr(error, 'reason', error)}); start one with this "
            "ASTROCYTE_METRICS_PORT, or look at its log"
        ) from None
    try:
        found = orjson.loads(body)
        roles: dict[str, dict[str, Any]] = found["roles"] if "roles" in found else {found["role"]: found}
    except (ValueError, KeyError, TypeError):
        raise WorkerUnreachable(f"what answers at {where} is no worker of Astrocyte") from None
    return roles
