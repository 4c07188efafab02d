"""Compiled simulations are kept between runs, in the user's cache folder.

Compiling a world takes 5 to 15 s, reading it back takes one. The simulator itself leaves JAX's settings to the program
that embeds it; the commands call `keep_compilations`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path
from typing import Any, Final

__all__ = ["compilation_folder", "is_compiled", "keep_compilations", "note_compiled"]

_FOLDER: Final = "JAX_COMPILATION_CACHE_DIR"


def keep_compilations() -> Path | None:
    """Let JAX keep what it compiles, and return the folder; None where no folder can be made.

    JAX's own setting ``JAX_COMPILATION_CACHE_DIR`` takes precedence; empty, it keeps nothing. Child processes inherit
    the setting.
    """
    given = os.environ.get(_FOLDER)
    if given is not None:
        return Path(given) if given else None
    folder = compilation_folder()
    if folder is None:
        return None  # every run compiles anew
    os.environ[_FOLDER] = str(folder)
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_compilation_cache_dir", str(folder))
    return folder


def compilation_folder(program: str = "astrocyte") -> Path | None:
    """Folder for what ``program`` compiles for this processor, in the user's cache; None where none can be made."""
    import llvmlite.binding

    # Code for one processor may not run on another, and home folders are shared by machines.
    processor = f"{llvmlite.binding.get_host_cpu_name()} {llvmlite.binding.get_host_cpu_features().flatten()}"
    name = f"jax-{hashlib.sha256(processor.encode()).hexdigest()[:12]}"
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        # As XDG's specification says, a relative path is ignored.
        folder = (cache if cache.is_absolute() else Path.home() / ".cache") / program / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None  # no home, or none that can be written to
    return folder


def is_compiled(scenario: str, static: Any) -> bool:
    """Whether a world with these shapes has been compiled into the folder of `keep_compilations` before."""
    mark = _mark(scenario, static)
    return mark is not None and mark.exists()


def note_compiled(scenario: str, static: Any) -> None:
    """Remember for `is_compiled` that a world with these shapes has been compiled."""
    mark = _mark(scenario, static)
    if mark is not None:
        with contextlib.suppress(OSError):
            mark.touch()


def _mark(scenario: str, static: Any) -> Path | None:
    folder = os.environ.get(_FOLDER)
    if not folder:
        return None
    from importlib.metadata import version

    shapes = f"{scenario} {static!r} {version('astrocyte')} {version('jax')}"
    return Path(folder) / f"world-{hashlib.sha256(shapes.encode()).hexdigest()[:16]}"
