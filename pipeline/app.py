"""The Faust app of this process: ``faust -A astrocyte.pipeline.app worker``.

Which role it has is the first of ``ASTROCYTE_ROLES`` (``correlate`` by default); every role is an app of its own with
a consumer group of its own, so that a slow store delays nobody else. `WorkerApp`, `Chunk` and `Settings` are the types
that a role of one's own meets (docs/extending/agent.md).
"""

from __future__ import annotations

from typing import Any

from astrocyte.pipeline.roles.build import build_app
from astrocyte.pipeline.roles.worker_app import WorkerApp
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.transport.chunk import Chunk

__all__ = ["Chunk", "Settings", "WorkerApp", "app"]  # noqa: F822  app is made by __getattr__


def __getattr__(name: str) -> Any:
    # Built when Faust asks for it, so that importing this module reads no settings.
    if name == "app":
        globals()["app"] = app = build_app(load_settings())
        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
