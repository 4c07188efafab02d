"""The scenes that browsers look at, whose streams are read while somebody does."""

from __future__ import annotations

from typing import Any, Final

from astrocyte.pipeline.page.scenes import basin, field
from astrocyte.pipeline.page.sources.looks import Looks
from astrocyte.pipeline.page.sources.source import Source
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.registry import did_you_mean

__all__ = ["Scenes"]

_KINDS: Final = ("map", "basin")


class Scenes:
    """Map and basin by run; `close` ends their reading."""

    def __init__(self, source: Source) -> None:
        self._looks: dict[str, Looks[Any]] = {
            "map": Looks(source, field.STREAMS, field.Field, field.Field.add),
            "basin": Looks(source, basin.STREAMS, basin.Basin, basin.Basin.add),
        }

    async def at(self, kind: str, run: str, at_us: int | None) -> dict[str, Any]:
        """A scene at an instant, by default the newest, with how far it is read. Raises InvalidSettings."""
        if kind not in self._looks:
            raise InvalidSettings(f"no scene {kind!r}; expected {' or '.join(_KINDS)}{did_you_mean(kind, _KINDS)}")
        return await self._looks[kind].ask(run, lambda look: look.about() | look.held.at(at_us))

    async def close(self) -> None:
        """End all reading."""
        for looks in self._looks.values():
            await looks.close()
