"""Sentences on the events of a sample whose clocks seem wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.rules.steps import format_duration
from astrocyte.pipeline.analysis.inspect.clocks.ahead import Ahead
from astrocyte.pipeline.analysis.inspect.clocks.strays import Apart, Clocks, Stray
from astrocyte.pipeline.analysis.inspect.reading import recommended_lateness
from astrocyte.pipeline.analysis.inspect.spans import span_text
from astrocyte.pipeline.console import short
from astrocyte.schemas.times import iso_from_us

__all__ = ["clock_lines"]

_MOST: Final = 5
"""Most keys that are named because they are ahead, and because their events are refused."""
_HOUR_US: Final = 3_600_000_000
_REMEDY: Final = "orrect them before they are sent, or refuse them by a validator"


def clock_lines(clocks: Clocks, refused: Sequence[Stray], key_field: str, *, makes_late: bool) -> Iterator[str]:
    """A sentence on the strays, and one on each key whose clock seems wrong.

    ``refused``: events that were refused for their clocks; ``makes_late``: an event far ahead makes others late.
    """
    if strays := clocks.strays:
        what = "1 event is" if len(strays) == 1 else f"{len(strays):,} events are"
        line = f"{what} dated far from the others, such as {_place(strays[0], key_field)}: the others span "
        line += span_text(clocks.usual_span_us)
        yield f"{line}, and a time far ahead makes the events after it late" if makes_late else line
    for ahead in clocks.ahead[:_MOST]:
        yield _ahead_line(ahead, key_field)
    for apart in clocks.apart:
        yield _apart_line(apart, key_field, clocks.enough_us)
    by_key: dict[str | None, list[Stray]] = {}
    for each in refused:
        by_key.setdefault(each.key, []).append(each)
    for found in islice(by_key.values(), _MOST):
        what = "1 event is" if len(found) == 1 else f"{len(found):,} events are"
        example = _place(found[0], key_field)
        yield f"{what} refused for a clock that is ahead, such as {example}. Correct that clock"


def _place(each: Stray, key_field: str) -> str:
    return f"{iso_from_us(each.time_us)} {_whose(each.key, key_field)} in partition {each.partition}"


def _whose(key: str | None, key_field: str) -> str:
    return "without a key" if key is None else f"of {short(key_field)} {short(key)!r}"


def _counted(count: int) -> tuple[str, str]:
    return ("1 event", "is") if count == 1 else (f"{count:,} events", "are")


def _ahead_line(each: Ahead, key_field: str) -> str:
    count, be = _counted(each.events)
    example = f"such as that of {iso_from_us(each.time_us)} in partition {each.partition}"
    line = f"{count} {_whose(each.key, key_field)} {be} "
    line += example if each.lead_us is None else f"{span_text(_rounded(each.lead_us))} ahead of Kafka's time, {example}"
    if each.held:
        held = "it" if each.events == 1 else "them" if each.held == each.events else f"{each.held:,} of them"
        line += f": a worker would hold {held} until that time has come, where match takes all at the end of a log"
    aside = ". The figures leave them out" if each.is_left_out else ""
    return f"{line}{aside}. C{_REMEDY}"


def _rounded(us: int) -> int:
    """A span of days to the hour."""
    return us if us < 24 * _HOUR_US else round(us / _HOUR_US) * _HOUR_US


def _apart_line(each: Apart, key_field: str, enough_us: NDArray[np.int64]) -> str:
    count, be = _counted(each.events)
    effect = "ahead of the others and makes them late" if each.ahead else "behind the others"
    enough = format_duration(recommended_lateness(enough_us))
    line = (
        f"{count} {_whose(each.key, key_field)} {be} far from the others in time, such as that of "
        f"{iso_from_us(each.time_us)} in partition {each.partition}, which is {effect}: without such events a lateness "
        f"of {enough} is enough"
    )
    if each.is_wrong:
        return f"{line}. The recommended one leaves them out: c{_REMEDY}"
    return f"{line}. C{_REMEDY}"
