"""One clear line where a client library would repeat itself: the broker's state, and a limit on aiokafka's log."""

from __future__ import annotations

import logging
import time
from typing import Final

__all__ = ["StateLog", "limit_client_log"]

_CHATTY: Final = (
    "aiokafka",
    "aiokafka.client",
    "aiokafka.cluster",
    "aiokafka.conn",
    "aiokafka.consumer.consumer",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.producer.producer",
    "aiokafka.producer.sender",
)

_LOST_CONNECTION: Final = (
    "Close connection",
    "Error sending",
    "Failed fetch messages from",
    "Failed fetch offsets from",
    "Got error produce response: ",
    "Group Coordinator Request failed",
    "Heartbeat send request failed",
    "Heartbeat session expired",
    "LeaveGroup request failed",
    "Marking the coordinator dead",
    "Unable connect to",
    "Unable to request metadata",
    "Unable to update metadata",
)
"""How aiokafka says, ten times a second, what `StateLog` says once."""


class StateLog:
    """Reports that the broker went away and that it is back, each once."""

    def __init__(self, who: str, broker: str) -> None:
        self._who = who
        self._broker = broker
        self._log = logging.getLogger("astrocyte.broker_state")
        self._away_since: float | None = None

    @property
    def is_away(self) -> bool:
        """Whether the broker was last reported away."""
        return self._away_since is not None

    def away(self, reason: str) -> None:
        """Say that the broker does not serve us, unless that was said already."""
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._log.warning(
                "%s: the broker at %s does not serve us (%s); trying again until it does, nothing is lost; "
                "is it running, and is ASTROCYTE_BROKER right?",
                self._who,
                self._broker,
                reason,
            )

    def back(self) -> None:
        """Say that the broker is back, if it was away."""
        if self._away_since is not None:
            gone_s = time.monotonic() - self._away_since
            self._away_since = None
            self._log.warning("%s: the broker at %s is back after %.1f s", self._who, self._broker, gone_s)


class _Sparing(logging.Filter):
    """Drops what is said of lost connections, and passes any other warning once per ``interval_s``."""

    def __init__(self, interval_s: float) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._passed_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        text = str(record.msg)
        if text.startswith(_LOST_CONNECTION):
            return False
        now = time.monotonic()
        if now - self._passed_at.get(text, -self._interval_s) < self._interval_s:
            return False
        self._passed_at[text] = now
        return True


def limit_client_log(interval_s: float = 60.0) -> None:
    """Drop aiokafka's complaints about connections, and limit each other warning of it to one per ``interval_s``.

    Calling it again changes nothing.
    """
    for name in _CHATTY:
        logger = logging.getLogger(name)
        if not any(isinstance(item, _Sparing) for item in logger.filters):
            logger.addFilter(_Sparing(interval_s))
