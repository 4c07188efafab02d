"""The Faust app of this process: ``faust -A astrocyte.pipeline.app worker``.

It runs the first role of ``ASTROCYTE_ROLES`` (``correlate`` by default). Each role is a separate app with its own
consumer group, so a slow store does not delay other roles. `WorkerApp`, `Chunk` and `Settings` are the types that a
role of your own uses (docs/extending/agent.md).
"""

from __future__ import annotations

import sys
from typing import Any

from astrocyte.pipeline.roles.build import build_app
from astrocyte.pipeline.roles.worker_app import WorkerApp
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.transport.chunk import Chunk
from astrocyte.schemas.errors import AstrocyteError, InvalidRule, InvalidSettings, PluginError

__all__ = ["Chunk", "Settings", "WorkerApp", "app"]  # noqa: F822  app is created by __getattr__


def __getattr__(name: str) -> Any:
    # Built when Faust asks for it, so that importing this module reads no settings.
    if name == "app":
        try:
            globals()["app"] = app = build_app(load_settings())
        except AstrocyteError as error:
            # Faust's command line would print a traceback of its own imports around it.
            sys.stderr.write(f"astrocyte: {error}\n")
            sys.exit(2 if isinstance(error, InvalidRule | InvalidSettings | PluginError) else 1)
        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
