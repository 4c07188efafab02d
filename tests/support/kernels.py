"""Numba caches from which compiled operators are missing, as on a machine on which nothing has run yet."""

from __future__ import annotations

import shutil
from pathlib import Path

from numba.core.caching import _CacheLocator

from astrocyte import agents

__all__ = ["COMPILING", "some_kernels"]

COMPILING = "compiling correlation kernels for this machine"
"""What a process logs that compiles operators."""
MISSING = "cep"
"""The package whose operators are left out: few, which compile in seconds."""


def some_kernels(folder: Path) -> dict[str, str]:
    """Environment of a process that finds the operators of all packages but one, in its own cache in ``folder``."""
    for cache in Path(agents.__file__).parent.rglob("__pycache__"):
        if cache.parent.name != MISSING:
            kept = folder / _CacheLocator.get_suitable_cache_subpath(str(cache.parent / "any.py"))
            shutil.copytree(cache, kept, ignore=shutil.ignore_patterns("*.pyc"))
    return {"NUMBA_CACHE_DIR": str(folder)}
