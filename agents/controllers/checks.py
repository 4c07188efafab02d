"""Checks of the settings of the shipped controllers, and a warning for an input that lacks what they read."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from astrocyte.agents.controllers.rows import is_number
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame

__all__ = ["check_count", "check_limits", "check_name", "check_number", "warn_of_missing"]

logger = logging.getLogger(__name__)


def check_number(name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf) -> None:
    """Raise InvalidSettings unless a setting is a finite number ``above`` a bound and ``least`` or more."""
    if not _is_finite(value) or not (value > above and value >= least):
        wanted = f" above {above:g}" if above > -math.inf else f" of {least:g} or more" if least > -math.inf else ""
        raise InvalidSettings(f"{name} {value!r}; expected a number{wanted}")


def check_count(name: str, value: Any) -> None:
    """Raise InvalidSettings unless a setting is an integer of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidSettings(f"{name} {value!r}; expected an integer of at least 1")


def check_limits(name: str, value: Any) -> None:
    """Raise InvalidSettings unless a setting is a pair of numbers above 0, the lower first or both equal."""
    pair = list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else []
    if len(pair) != 2 or not all(map(_is_finite, pair)) or not 0 < pair[0] <= pair[1]:
        raise InvalidSettings(
            f"{name} {value!r}; expected two numbers above 0, the lower one first, such as (0.5, 2.0)"
        )


def check_name(name: str, value: Any, of: str) -> None:
    """Raise InvalidSettings unless a setting is the name of something."""
    if not isinstance(value, str) or not value:
        raise InvalidSettings(f"{name} {value!r}; expected the name of {of}")


def warn_of_missing(reader: str, frame: Frame, names: Sequence[str]) -> None:
    """Log, once for each kind of input, that a frame has no column of some field that a controller reads."""
    missing = [name for name in names if not frame.has(name)]
    if missing and frame.num_rows:
        _warn(reader, frame.stream, ", ".join(missing), ", ".join(frame.fields))


@lru_cache(maxsize=256)
def _warn(reader: str, stream: str, missing: str, present: str) -> None:
    logger.warning(
        "%s reads %s of %s, and what came has no such field, so it changes nothing; it has %s",
        reader, missing, stream, present,
    )  # fmt: skip


def _is_finite(value: Any) -> bool:
    return is_number(value) and not isinstance(value, bool)
