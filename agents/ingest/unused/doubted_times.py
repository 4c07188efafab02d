"""Times of JSON records that are rather none: of a declared unit before 1980, and numbers whose unit was guessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.agents.ingest.unused.counts import Cause
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.schemas.contract import ENVELOPES, Contract, read_event, time_member
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import KafkaRecord, read_body
from astrocyte.schemas.times import (
    DOUBTED_US,
    NS_FROM_US,
    PER_UNIT,
    TimeUnit,
    fitting_unit,
    iso_from_us,
    reading_of,
)

__all__ = ["DoubtedTimes", "doubted_times"]


class DoubtedTimes(NamedTuple):
    """Rows of a frame with times that are rather none."""

    cause: Cause
    detail: str
    """The declared unit, or the member that is the time."""
    row: int
    """Row of the first of them."""
    example: str
    """How it was read, as it follows the row's place in a sentence."""
    rows: int


def doubted_times(
    sourced: SourcedFrame, kept: Frame, rows: NDArray[np.int64], contract: Contract
) -> DoubtedTimes | None:
    """The rows of ``kept``, which are ``rows`` of ``sourced``, with such times; None for frames, and without any.

    Text that names an early time is taken at its word, and so is Kafka's own time.
    """
    if sourced.offsets is None or not kept.num_rows:
        return None
    time = None if contract.declaration is None else contract.declaration.time
    times_us = kept.timestamps()
    if time is not None and time.unit is not None:
        return _of_unit(times_us, time.unit)
    records = sourced.received if sourced.made is None else sourced.made
    early = np.flatnonzero(times_us < NS_FROM_US)
    if records is None or not len(early):
        return None
    read = [records[row] for row in rows[early].tolist()]
    if int(times_us[early].min()) >= DOUBTED_US and _doubted(read[0], contract) is None:
        return None  # a history of the years before 2001, which it would be a waste to read twice
    return _of_guess(early, read, contract)


def _of_unit(times_us: NDArray[np.int64], unit: TimeUnit) -> DoubtedTimes | None:
    doubted = np.flatnonzero(times_us < DOUBTED_US)
    if not len(doubted):
        return None
    first_us = int(times_us[doubted[0]])
    factor, divisor = PER_UNIT[unit]
    better = fitting_unit(first_us * divisor // factor)
    example = f" of {iso_from_us(first_us)}" + (f"; did you mean unit: {better}?" if better is not None else "")
    return DoubtedTimes("unit", unit, int(doubted[0]), example, len(doubted))


def _of_guess(early: NDArray[np.int64], records: Sequence[KafkaRecord], contract: Contract) -> DoubtedTimes | None:
    """Those of the ``early`` rows whose time was such a number; what came is read again: the frame has times only."""
    found: DoubtedTimes | None = None
    for row, record in zip(early.tolist(), records, strict=True):
        given = _doubted(record, contract)
        if given is None:
            continue
        if found is None:
            member, number = given
            found = DoubtedTimes("guessed_unit", member, row, f": {reading_of(number)}", 0)
        found = found._replace(rows=found.rows + 1)
    return found


def _doubted(record: KafkaRecord, contract: Contract) -> tuple[str, int | float] | None:
    """The member that is the time of an event, and the number in it, if that is doubted; None for text."""
    try:
        body, envelope = read_body(record, contract, contract.decoder if contract.decoder in ENVELOPES else None)
        event = read_event(body, contract, envelope=envelope)
    except (InvalidEvent, orjson.JSONDecodeError, UnicodeDecodeError):
        return None
    number = event.doubted_time
    if number is None:
        return None
    declared = None if contract.declaration is None else contract.declaration.time
    return (time_member(event.document) or "time") if declared is None else declared.field, number
