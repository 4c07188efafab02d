"""A recorded log as the source of a page: read from its beginning to its end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, Final

from astrocyte.pipeline.analysis.origins import LogOrigin
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.page.content.state import PageState
from astrocyte.pipeline.page.sources.messages import Newest, newest_of_log
from astrocyte.pipeline.page.sources.run_frames import RecordedFrames, RunFrames
from astrocyte.pipeline.page.sources.source import Lineages, Reader
from astrocyte.pipeline.recording.format import TornLog
from astrocyte.pipeline.recording.index import read_index
from astrocyte.pipeline.recording.reader import read_header, read_log
from astrocyte.schemas.errors import AstrocyteError

__all__ = ["LogSource"]

_PORTION: Final = 500
"""Messages that are taken at once; between portions the page is published. Frames hold thousands of events each."""
_MOST_KEPT: Final = 128 << 20
"""Bytes of keys and values up to which a log is kept in memory once somebody has asked for a lineage."""


class _KeptLog(LogOrigin):
    """A log that is read once: a lineage looks through it several times."""

    _kept: list[ConsumedRecord] | None = None

    def _records(self) -> Iterator[ConsumedRecord]:
        if self._kept is None:
            self._kept = list(super()._records())
        return iter(self._kept)


class LogSource:
    """One recorded log, or a file of events that `read_log` reads. Raises InvalidLog for a file that is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        read_header(path)
        index = read_index(path)
        self._records = None if index is None else index.records
        size = None if index is None else sum(totals.bytes for totals in index.topics.values())
        self._origin = LogOrigin([path]) if size is None or size > _MOST_KEPT else _KeptLog([path])
        self._torn = ""

    @property
    def logs(self) -> Sequence[Path]:
        """See `Source`."""
        return (self.path,)

    def about(self) -> Mapping[str, Any]:
        """See `Source`."""
        name = str(self.path)
        return {
            "kind": "log",
            "name": name,
            "live": False,
            "records": self._records,
            "note": self._torn,
            "again": f"astrocyte page {quote(name)}",
        }

    async def feed(self, page: Reader) -> None:
        """See `Source`."""
        records = read_log(self.path, on_torn=self._note)
        while True:
            portion, damage = await asyncio.to_thread(_portion, records)

            def change(state: PageState, portion: Any = portion) -> None:
                state.traffic.take(portion)
                state.take(portion)

            if portion:
                await page.take(change)
            if damage is not None:
                raise damage
            if not portion:
                return

    def frames(self, run: str, streams: Sequence[str]) -> RunFrames:
        """See `Source`."""
        return RecordedFrames(str(self.path), run, streams)

    async def newest(self, wanted: Newest) -> list[ConsumedRecord]:
        """See `Source`."""
        return await asyncio.to_thread(newest_of_log, self.path, wanted)

    def origins(self) -> Sequence[Lineages]:
        """See `Source`."""
        return (self._origin,)

    def _note(self, error: TornLog) -> None:
        self._torn = str(error)


def _portion(records: Iterator[ConsumedRecord]) -> tuple[list[ConsumedRecord], AstrocyteError | None]:
    """The next messages, and why there are no more where the log is damaged after them."""
    portion: list[ConsumedRecord] = []
    try:
        portion.extend(itertools.islice(records, _PORTION))
    except AstrocyteError as damage:
        return portion, damage
    return portion, None
