"""What travels through Astrocyte: events, frames, ids, topics and the catalog of event types.

``import schemas`` costs nothing: Arrow is loaded with the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schemas.catalog import CATALOG, Catalog, EventType
    from schemas.errors import AstrocyteError
    from schemas.frames import Frame, decode_frame, encode_frame

__all__ = ["CATALOG", "AstrocyteError", "Catalog", "EventType", "Frame", "decode_frame", "encode_frame"]

_HOME = {
    "CATALOG": "catalog",
    "AstrocyteError": "errors",
    "Catalog": "catalog",
    "EventType": "catalog",
    "Frame": "frames",
    "decode_frame": "frames",
    "encode_frame": "frames",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"schemas.{_HOME[name]}"), name)
    raise AttributeError(f"module 'schemas' has no attribute {name!r}")
