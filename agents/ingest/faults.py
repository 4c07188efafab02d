"""Faults: a step that fails on some of its rows is repeated on parts of them until the rows that fail are alone.

Nothing may be trusted never to raise: decoders and validators of users, the bytes of other programs, this project's
own code. A row that raises becomes a dead letter; the rows around it, and the process, go on. Each kind of fault is
logged once, with its traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from astrocyte.schemas.errors import AstrocyteError

__all__ = ["OperatorFailed", "apart", "reason_of"]

logger = logging.getLogger(__name__)

_SHOWN: Final = 500
"""Maximum number of characters of an error's text in a reason."""
_KEPT: Final = 1000
"""Number of kinds of faults that are remembered; above it all are forgotten and may be logged again."""
_logged: set[tuple[str, str, str]] = set()


class OperatorFailed(AstrocyteError):
    """An operator raised while it changed its state, so that no row can be named and the state is not valid any more.

    Whoever holds the operator must restore it from a snapshot, or stop.
    """


def apart(count: int, attempt: Callable[[int, int], None], refuse: Callable[[int, Exception], None]) -> None:
    """Call ``attempt(first, last)`` for the rows 0 to ``count``; where it raises, for each half of them, and so on.

    ``refuse`` is called for each single row that raises, in order. An attempt that raises must have changed nothing.
    `OperatorFailed` and MemoryError are raised, since no row is the cause.
    """
    waiting = [(0, count)]
    while waiting:
        first, last = waiting.pop()
        try:
            attempt(first, last)
        except (OperatorFailed, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  whatever a row causes concerns this row only
            if last - first <= 1:
                refuse(first, error)
            else:
                middle = (first + last) // 2
                waiting += [(middle, last), (first, middle)]


def reason_of(doing: str, error: BaseException) -> str:
    """Reason for a dead letter: ``doing`` failed with ``error``. Logs the traceback of each kind of fault once.

    Errors of this project state what was received and expected: their text alone is the reason.
    """
    if isinstance(error, AstrocyteError):
        return str(error)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    kind = (doing, type(error).__name__, place)
    if kind not in _logged:
        if len(_logged) >= _KEPT:
            _logged.clear()
        _logged.add(kind)
        logger.error("%s failed (this traceback is logged once; see the dead letters for all)", doing, exc_info=error)
    return f"{doing} failed: {type(error).__name__}: {str(error)[:_SHOWN]}"
