"""Lazy import of public names at their first use, so that importing a package loads no large library."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy"]


def lazy(module: str, home: Mapping[str, str], name: str, namespace: dict[str, Any]) -> Any:
    """Import ``name`` from the module given by ``home`` and store it in ``namespace``. Raises AttributeError."""
    if name not in home:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    namespace[name] = value = getattr(import_module(f"astrocyte.{home[name]}"), name)
    return value
