"""Plugins: modules of the user, imported at start-up so that they can register extensions."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from astrocyte.schemas.errors import AstrocyteError, InvalidSettings

__all__ = ["load_plugins"]


def load_plugins(modules: Iterable[str]) -> None:
    """Import the modules of ``ASTROCYTE_PLUGINS``, also from the working folder. Raises InvalidSettings."""
    for module in modules:
        folder = str(Path.cwd())
        if folder not in sys.path and "" not in sys.path:
            sys.path.append(folder)
        try:
            import_module(module)
        except AstrocyteError as error:
            raise InvalidSettings(f"plugin {module!r} (ASTROCYTE_PLUGINS): {error}") from error
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise InvalidSettings(
                    f"plugin {module!r} (ASTROCYTE_PLUGINS): it imports {error.name!r}, which is not installed"
                ) from error
            raise InvalidSettings(
                f"plugin {module!r} (ASTROCYTE_PLUGINS): module {error.name!r} cannot be imported; name a module that "
                f"is installed, or one in the working folder {folder}"
            ) from error
        except Exception as error:
            raise InvalidSettings(
                f"plugin {module!r} (ASTROCYTE_PLUGINS): importing it failed: {type(error).__name__}: {error}"
            ) from error
