"""What a browser loads: the files of ``static``, as they are installed, read once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

__all__ = ["StaticFile", "static_files"]

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file: its content, its type, and a tag that changes with the content."""

    body: bytes
    kind: str
    tag: str


def static_files() -> dict[str, StaticFile]:
    """The files by their path below ``static``."""
    found: dict[str, StaticFile] = {}
    todo = [("", files("astrocyte.pipeline.page") / "static")]
    while todo:
        path, entry = todo.pop()
        if entry.is_dir():
            todo += [(f"{path}/{each.name}" if path else each.name, each) for each in entry.iterdir()]
            continue
        kind = _TYPES.get("." + path.rpartition(".")[2])
        if kind is not None:
            body = entry.read_bytes()
            found[path] = StaticFile(body, kind, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    return found
