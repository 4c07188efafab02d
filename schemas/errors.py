"""The exception tree: every failure that Astrocyte itself raises.

A message states what was received, what was expected and what to do, so that the command line can print it unchanged.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "AstrocyteError",
    "InvalidEvent",
    "InvalidFrame",
    "InvalidRule",
    "InvalidSettings",
    "PluginError",
    "SchemaMismatch",
    "TransientError",
    "UnknownEventType",
    "plugin_raised",
    "redacted",
    "shown_object",
    "shown_with_type",
    "wrong_return",
]

_SHOWN: Final = 80
"""Maximum number of characters of a value in a message."""
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")
_IN_URL: Final = re.compile(r"""(://[^\s/@:"']*):(?!\d{1,5}(?:[/?#,;\s"']|$))[^\s"']*@""")
"""``scheme://user:password@``, but not a port; a password may hold ``/`` and ``@`` that were not escaped."""
_IN_ADDRESS: Final = re.compile(r"""(?<![\w/])([\w.+-]+):(?!//)[^\s@"',]+@(?=[\w.\[-]+:\d)""")
"""``user:password@host:port`` without a scheme."""
_IN_QUERY: Final = re.compile(
    r"""(?i)\b((?:ssl|db|sasl[._]?(?:plain[._]?)?)?(?:password|passwd|pwd|passfile|token|secret|api_?key)=)[^\s&"',;]+"""
)
"""``password=...`` in the query of a URL, and in a connection string of PostgreSQL."""


def redacted(text: str) -> str:
    """The text without the passwords of URLs, addresses and connection strings: each is ``***``."""
    if "@" in text:
        text = _IN_ADDRESS.sub(r"\1:***@", _IN_URL.sub(r"\1:***@", text))
    return _IN_QUERY.sub(r"\1***", text) if "=" in text else text


class AstrocyteError(Exception):
    """Base of all errors of Astrocyte; ``retriable``: the same call may succeed later.

    The message is shown without passwords (`redacted`), whatever it quotes.
    """

    retriable: bool = False

    def __str__(self) -> str:
        return redacted(super().__str__())


class TransientError(AstrocyteError):
    """A temporary failure of the environment (network, lock, full queue)."""

    retriable = True


class InvalidEvent(AstrocyteError):
    """A record that is not an event of its stream."""


class InvalidFrame(AstrocyteError):
    """Bytes that are not a frame, or columns that cannot form one."""


class SchemaMismatch(AstrocyteError):
    """A frame whose fields were removed or retyped compared with the catalog's version of its event type."""


class UnknownEventType(AstrocyteError):
    """A stream or event type that the catalog does not list."""


class InvalidRule(AstrocyteError):
    """A rule, window or expression that cannot be compiled."""


class InvalidSettings(AstrocyteError):
    """A setting or option that is out of range or contradicts another."""


class PluginError(AstrocyteError):
    """An extension broke its contract: it returned what it may not return, or raised where it must not."""


def wrong_return(plugin: str, got: object, expected: str) -> PluginError:
    """The error for what ``plugin`` (its kind and name, such as ``decoder 'csv'``) returned instead of ``expected``."""
    return PluginError(f"{plugin} returned {shown_with_type(got)}; expected {expected}")


def plugin_raised(plugin: str, error: BaseException) -> PluginError:
    """The error for what ``plugin`` raised, with the place in its source."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})"
    text = f": {error}" if str(error) else ""
    return PluginError(f"{plugin} raised {type(error).__name__}{text}{place}")


def shown_object(value: object) -> str:
    """A value in a message, shortened, without its address in memory, so that equal values give equal messages."""
    try:
        text = _ADDRESS.sub("", repr(value))
    except Exception:  # noqa: BLE001  a method of the user's
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def shown_with_type(value: object) -> str:
    """The same with its type, such as ``7 of type int``."""
    return "None" if value is None else f"{shown_object(value)} of type {type(value).__name__}"
