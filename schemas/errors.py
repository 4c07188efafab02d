"""The exception tree: every failure that Astrocyte itself raises.

A message states what was received, what was expected and what to do, so that the command line can print it unchanged.
"""

from __future__ import annotations

__all__ = [
    "AstrocyteError",
    "InvalidEvent",
    "InvalidFrame",
    "InvalidRule",
    "InvalidSettings",
    "SchemaMismatch",
    "TransientError",
    "UnknownEventType",
]


class AstrocyteError(Exception):
    """Base of all errors of Astrocyte; ``retriable``: the same call may succeed later."""

    retriable: bool = False


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
