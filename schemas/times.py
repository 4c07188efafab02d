"""Times: microseconds since 1970 (UTC) as integers, their text forms, and the value that precedes all times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["EPOCH", "NEVER_US", "iso_from_us", "iso_strings", "us_from_datetime", "us_from_iso", "utc_from_us"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NEVER_US: Final = -(2**63)
"""Earlier than every time: the watermark of a source that has sent no event yet."""


def utc_from_us(time_us: int) -> datetime:
    """Datetime in UTC. Raises OverflowError after the year 9999."""
    return EPOCH + timedelta(microseconds=time_us)


def us_from_datetime(moment: datetime) -> int:
    """Microseconds since 1970; a datetime without a zone is taken as UTC."""
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)


def iso_from_us(time_us: int) -> str:
    """ISO 8601 text of microseconds since 1970 (UTC); whole seconds have no fraction."""
    return utc_from_us(time_us).replace(tzinfo=None).isoformat() + "Z"


def iso_strings(times_us: NDArray[np.int64]) -> list[str]:
    """`iso_from_us` of a whole column."""
    strings = np.datetime_as_string(times_us.view("M8[us]"), timezone="UTC").tolist()
    return [f"{text[:19]}Z" if text.endswith(".000000Z") else text for text in strings]


def us_from_iso(text: str) -> int:
    """Microseconds since 1970 of ISO 8601 text; text without a zone is taken as UTC. Raises ValueError."""
    return us_from_datetime(datetime.fromisoformat(text))
