"""A user's own modules, imported at the start so that they can register things, and the settings of those things."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from astrocyte.schemas.errors import AstrocyteError, InvalidSettings

if TYPE_CHECKING:
    from astrocyte.pipeline.settings import Settings

__all__ = ["common_settings", "load_plugins", "own_settings"]


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
            raise InvalidSettings(
                f"plugin {module!r} (ASTROCYTE_PLUGINS): module {error.name!r} cannot be imported; name a module that "
                f"is installed, or one in the working folder {folder}"
            ) from error
        except Exception as error:
            raise InvalidSettings(
                f"plugin {module!r} (ASTROCYTE_PLUGINS): importing it failed: {type(error).__name__}: {error}"
            ) from error


def own_settings(settings: Settings, name: str) -> dict[str, Any]:
    """Settings of a registered sink or role: ``ASTROCYTE_<NAME>_*`` over the table ``[options.<name>]``.

    Of a shipped sink they are the settings that begin with its name, such as ``influx_url``.
    """
    prefix = name.replace("-", "_").replace(".", "_").lower() + "_"
    found: dict[str, Any] = dict(settings.options.get(name, {}))
    for variable, text in os.environ.items():
        setting = variable.lower().removeprefix("astrocyte_")
        if (
            variable.startswith("ASTROCYTE_")
            and setting.startswith(prefix)
            and setting not in type(settings).model_fields
        ):
            found[setting.removeprefix(prefix)] = text
    common = common_settings(settings)
    return found | {field.removeprefix(prefix): common[field] for field in common if field.startswith(prefix)}


def common_settings(settings: Settings) -> Mapping[str, Any]:
    """All settings of the process by name, secrets as plain text."""
    values = {field: getattr(settings, field) for field in type(settings).model_fields}
    return {name: each.get_secret_value() if isinstance(each, SecretStr) else each for name, each in values.items()}
