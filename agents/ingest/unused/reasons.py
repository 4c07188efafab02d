"""Kinds of reasons for which events are refused: what is the same in all reasons that differ in values only."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["reason_kind"]

_CONDITION: Final = re.compile(r"(.+ does not hold) \(.*\)", re.DOTALL)
"""A condition of a validator, whose constants are no values of events, and the values for which it does not hold."""
_NAMED: Final = r"(?<!\bfield )(?<!\bvalidator )(?<!\bdecoder )(?<!\bmember )(?<!\brule )(?<!\bwindow )(?<!\bcolumn )"
"""Names of what a reason is about tell kinds apart."""
_VALUE: Final = re.compile(
    rf"{_NAMED}(?<!\w)b?(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")(?!\w)"
    r"|(?<![\w.])[-+]?\d{4}-\d\d-\d\d(?:[T ][\d:.]+)?(?:Z|[-+]\d\d:?\d\d)?"
    r"|(?<!\w)0x[0-9a-fA-F]+"
    r"|(?<![\w.])[-+]?\d[\d,_]*(?:\.\d+)?(?:[eE][-+]?\d+)?"
    r"|(?<=\bis )(?:None|True|False|null|true|false|nan|[-+]?inf)\b"
)
_LIST: Final = re.compile(r"#(?:, #)+")
_SPACES: Final = re.compile(r"\s+")


def reason_kind(reason: str) -> str:
    """The reason with ``#`` for each value: quoted text, a time, a number, or several of them.

    Two reasons have one kind if they are the same sentence about other values. The names of fields, validators,
    decoders and rules are part of it, and so is the condition of a validator.
    """
    condition = _CONDITION.fullmatch(reason)
    if condition is not None:
        return condition[1]
    return _SPACES.sub(" ", _LIST.sub("#", _VALUE.sub("#", reason)))
