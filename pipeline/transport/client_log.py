"""Log of the broker's state, one line per change, and a rate limit on aiokafka's repeated warnings."""

from __future__ import annotations

import logging
import time
from typing import Final

__all__ = ["Silence", "StateLog", "limit_client_log"]

_LIMITED_LOGGERS: Final = (
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
"""Beginnings of aiokafka's messages, up to ten a second, about what `StateLog` reports once."""


class StateLog:
    """Reports that the broker became unavailable and that it is available again, once each."""

    def __init__(self, who: str, broker: str, meanwhile: str = "no data is lost") -> None:
        self._who = who
        self._meanwhile = meanwhile
        self._broker = broker
        self._log = logging.getLogger("astrocyte.broker_state")
        self._unavailable_since: float | None = None

    def away(self, reason: str) -> None:
        """Report that the broker is unavailable, unless that was already reported."""
        if self._unavailable_since is None:
            self._unavailable_since = time.monotonic()
            self._log.warning(
                "%s: the broker at %s is unavailable (%s); retrying until it answers, %s; "
                "check that it is running and that ASTROCYTE_BROKER is correct",
                self._who,
                self._broker,
                reason,
                self._meanwhile,
            )

    def back(self) -> None:
        """Report that the broker is available again, if it was reported unavailable."""
        if self._unavailable_since is not None:
            downtime_s = time.monotonic() - self._unavailable_since
            self._unavailable_since = None
            self._log.warning(
                "%s: the broker at %s is available again after %.1f s", self._who, self._broker, downtime_s
            )


class Silence:
    """How long something has been looked for and not found; more patient before it is found for the first time.

    A busy process looks seldom: the time counts from the first look in vain, not from the last one that found it.
    """

    def __init__(self, first_s: float, later_s: float) -> None:
        self._limit_s, self._later_s = first_s, later_s
        self._since_s: float | None = None

    def is_long(self, now_s: float, *, found: bool) -> bool:
        """Whether it is missing for longer than the limit; called at each look."""
        if found:
            self._limit_s, self._since_s = self._later_s, None
            return False
        if self._since_s is None:
            self._since_s = now_s
        return now_s - self._since_s > self._limit_s


class _RateLimit(logging.Filter):
    """Drops warnings about lost connections, and passes each other warning once per ``interval_s``."""

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
    """Drop aiokafka's warnings about lost connections, and limit each other one to one per ``interval_s``.

    Idempotent.
    """
    for name in _LIMITED_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(item, _RateLimit) for item in logger.filters):
            logger.addFilter(_RateLimit(interval_s))
