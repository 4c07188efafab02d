"""Public names that are imported when they are first used, so that importing them loads no heavy library."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy"]


def lazy(module: str, home: Mapping[str, str], name: str, namespace: dict[str, Any]) -> Any:
    """The object ``name`` of the module that ``home`` says, kept in ``namespace``. Raises AttributeError."""
    if name not in home:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    namespace[name] = value = getattr(import_module(f"astrocyte.{home[name]}"), name)
    return value
