"""What the page asks of a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from astrocyte.pipeline.analysis.origins import BrokerOrigin, LogOrigin, SqlOrigin
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.page.content.state import PageState
from astrocyte.pipeline.page.sources.messages import Newest
from astrocyte.pipeline.page.sources.run_frames import RunFrames

__all__ = ["Lineages", "Reader", "Source"]

Lineages = BrokerOrigin | LogOrigin | SqlOrigin


class Reader(Protocol):
    """The page, as a source sees it."""

    async def take(self, change: Callable[[PageState], object]) -> None:
        """Let ``change`` advance the state."""

    async def take_records(self, records: Sequence[ConsumedRecord]) -> None:
        """Advance the state by messages."""

    def figures(self, name: str, values: Mapping[str, Any]) -> None:
        """Show values that are not of the state."""

    @property
    def is_looked_at(self) -> bool:
        """Whether somebody looks."""

    async def wait_for_looks(self) -> None:
        """Wait until somebody looks."""


class Source(Protocol):
    """One source. `feed` is called once, when somebody looks for the first time."""

    @property
    def logs(self) -> Sequence[Path]:
        """Recorded logs over which rules can be run again."""

    def about(self) -> Mapping[str, Any]:
        """``kind`` (broker, log or database), ``name``, and ``live``: whether more may come.

        ``note`` is what is to be said of it, ``again`` the command that opens a page of it, and ``start`` one that
        gives a broker events; in a ``demo`` they come by themselves.
        """

    async def feed(self, page: Reader) -> None:
        """Give all that there is to the page, and what comes later. Raises AstrocyteError."""

    def frames(self, run: str, streams: Sequence[str]) -> RunFrames:
        """The events of some streams of a run, which are read only while somebody asks for them."""

    async def newest(self, wanted: Newest) -> list[ConsumedRecord]:
        """The newest messages of a topic, in order. Raises AstrocyteError."""

    def origins(self) -> Sequence[Lineages]:
        """Where lineages are looked up."""
