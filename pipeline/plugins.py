"""Plugins: modules of the user and of installed packages, imported at start-up so that they can register extensions."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from astrocyte.schemas.registry import Registry, install_hint, one_line

__all__ = ["load_installed", "load_plugins"]

logger = logging.getLogger(__name__)

_PLANNED_BY: Final = (
    ("astrocyte.streams", "astrocyte.schemas.catalog", "STREAMS"),
    ("astrocyte.decoders", "astrocyte.agents.ingest.decoders", "DECODERS"),
    ("astrocyte.tables", "astrocyte.agents.sinks.sql.targets", "TABLES"),
)
"""Groups of entry points that say what streams there are, and their registries."""


_checked: Final[set[str]] = set()
"""Modules of plugins that were found to be those that the user means."""


def load_plugins(modules: Iterable[str]) -> None:
    """Import the modules of ``ASTROCYTE_PLUGINS``, also from the working folder. Raises InvalidSettings."""
    for module in modules:
        what = f"plugin {module!r} (ASTROCYTE_PLUGINS)"
        folder = str(Path.cwd())
        if folder not in sys.path and "" not in sys.path:
            sys.path.append(folder)
        top = module.partition(".")[0]
        loaded_before = top in sys.modules
        try:
            import_module(module)
        except AstrocyteError as error:
            raise InvalidSettings(f"{what}: {error}") from error
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                hint = install_hint(error.name or "")
                raise InvalidSettings(f"{what}: it imports {error.name!r}, which is not installed{hint}") from error
            raise InvalidSettings(
                f"{what}: module {error.name!r} cannot be imported; name a module that is installed, or one in the "
                f"working folder {folder}"
            ) from error
        except (Exception, SystemExit) as error:
            raise InvalidSettings(f"{what}: importing it failed: {one_line(error)}") from error
        if top not in _checked:
            _check_place(what, top, loaded_before=loaded_before)
            _checked.add(top)


def _check_place(what: str, name: str, *, loaded_before: bool) -> None:
    """Say that a module of that name in the working folder is not the one that was imported.

    Raises InvalidSettings if it never can be, because Python or Astrocyte itself uses one of that name.
    """
    own = next((path for path in (Path(f"{name}.py"), Path(name, "__init__.py")) if path.is_file()), None)
    place = getattr(sys.modules.get(name), "__file__", None)
    if own is None or (place is not None and Path(place).resolve() == own.resolve()):
        return
    if loaded_before or name in sys.stdlib_module_names:
        raise InvalidSettings(
            f"{what}: {own} of the working folder cannot be imported, since another module is called {name!r} "
            f"({place or 'part of Python'}); rename the file"
        )
    logger.warning("%s is %s; %s of the working folder is not used", what, place, own)


@cache
def load_installed() -> None:
    """Import what installed packages say of streams: which there are, their decoders and tables.

    Topics and partitions are planned by them, so they are known before. One that cannot be loaded is named in a
    warning and left out.
    """
    for group, module, name in _PLANNED_BY:
        if entry_points(group=group):  # without one nothing is imported: the tables alone need SQLAlchemy
            registry: Registry[Any] = getattr(import_module(module), name)
            registry.items()
