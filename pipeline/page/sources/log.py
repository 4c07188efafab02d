"""A recorded log as the source of a page: read from its beginning to its end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from astrocyte.pipeline.analysis.origins import LogOrigin
from astrocyte.pipeline.page.content.state import PageState
from astrocyte.pipeline.page.sources.source import Lineages, Reader
from astrocyte.pipeline.recording.format import TornLog
from astrocyte.pipeline.recording.index import read_index
from astrocyte.pipeline.recording.reader import read_header, read_log

__all__ = ["LogSource"]

_PORTION: Final = 500
"""Messages that are taken at once; between portions the page is published. Frames hold thousands of events each."""


class LogSource:
    """One recorded log, or a file of events that `read_log` reads. Raises InvalidLog for a file that is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        read_header(path)
        index = read_index(path)
        self._records = None if index is None else index.records
        self._torn = ""

    @property
    def logs(self) -> Sequence[Path]:
        """See `Source`."""
        return (self.path,)

    def about(self) -> Mapping[str, Any]:
        """See `Source`."""
        return {"kind": "log", "name": str(self.path), "live": False, "records": self._records, "note": self._torn}

    async def feed(self, page: Reader) -> None:
        """See `Source`."""
        records = read_log(self.path, on_torn=self._note)
        while True:
            portion = await asyncio.to_thread(lambda: list(itertools.islice(records, _PORTION)))
            if not portion:
                return

            def change(state: PageState, portion: Any = portion) -> None:
                state.traffic.take(portion)
                state.take(portion)

            await page.take(change)

    def origins(self) -> Sequence[Lineages]:
        """See `Source`."""
        return (LogOrigin([self.path]),)

    def _note(self, error: TornLog) -> None:
        self._torn = str(error)
