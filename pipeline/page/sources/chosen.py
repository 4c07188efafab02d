"""Which source is meant by what a user named."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import Final

import orjson

from astrocyte.pipeline.analysis.sources import is_database, source_path
from astrocyte.pipeline.page.sources.broker import BrokerSource
from astrocyte.pipeline.page.sources.database import DatabaseSource
from astrocyte.pipeline.page.sources.log import LogSource
from astrocyte.pipeline.page.sources.source import Source
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["chosen_source", "rules_of_demo"]

_MARK: Final = "astrocyte-demo.json"


def chosen_source(
    source: str | None,
    settings: Settings,
    *,
    inputs: Collection[str] = (),
    history_us: int | None = None,
    run: str | None = None,
    demo: Path | None = None,
) -> Source:
    """The broker of the settings without ``source``; else a demo's folder, a log, an SQLite file or a database's URL.

    ``inputs`` are the topics that the rules read, ``demo`` the folder of the demo whose broker it is. Raises
    InvalidSettings and AstrocyteError for what is none.
    """
    if source is None:
        return BrokerSource(settings, inputs=inputs, history_us=history_us, demo=demo)
    if "://" not in source and not Path(source).exists():
        raise InvalidSettings(
            f"there is no {source!r}; name the folder of a demo, a recorded log, an SQLite file or the URL of a "
            "database, or nothing for the broker of the settings"
        )
    path = source_path(source)
    if is_database(path):
        return DatabaseSource(str(path), run=run)
    return LogSource(Path(path))


def rules_of_demo(source: str | None) -> tuple[str, ...]:
    """Rule files that the demo ran whose folder this is; none if it is another source."""
    if source is None or "://" in source:
        return ()
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    with contextlib.suppress(OSError, ValueError, TypeError):
        body = orjson.loads((folder / _MARK).read_bytes())
        return tuple(str(each) for each in body.get("rules", ()))
    return ()
