"""Messages that ``dead-letters retry`` sent again: rules are run over the first message, a worker matched the second.

A worker refused the first message by the rules of its time. The events of both have the same ids, and their results
differ in nothing but the offset that their lineage names. The letter of the first message is one of earlier rules.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from copy import deepcopy
from typing import Any

from astrocyte.pipeline.analysis.verify.ledger import Entry
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import raw_record
from astrocyte.schemas.json.reader import first_offset, is_retried

__all__ = ["Retries"]

_OF_RESULT = ("topic", "partition", "offset")
_OF_ROW = ("source_topic", "source_partition", "source_offset")


class Retries:
    """The messages of the input that were dead letters before, by their places."""

    def __init__(self) -> None:
        self.letters: set[str] = set()
        """Ids of the letters that were sent again."""
        self._first: dict[tuple[Any, Any, Any], int] = {}

    def note(self, record: ConsumedRecord) -> None:
        """Look at a message of the input."""
        raw = raw_record(record)
        if is_retried(raw):
            self.letters.update(raw.headers[0][1].decode(errors="replace").split(","))
            self._first[record.topic, record.partition, record.offset] = first_offset(raw)

    def at_first(self, entry: Entry) -> Entry:
        """A record of an output topic as it were if its events had not been refused at first."""
        if not self._first:
            return entry
        bodies = {name: deepcopy(getattr(entry, name)) for name in ("expected", "found", "other")}
        for body in bodies.values():
            for place in _places(body or {}):
                self._replace(place, _OF_RESULT)
        return entry._replace(**bodies)

    def row_at_first(self, row: dict[str, Any]) -> dict[str, Any]:
        """The same of a row of a table, a new one."""
        row = dict(row)
        self._replace(row, _OF_ROW)
        return row

    def _replace(self, place: MutableMapping[str, Any], names: tuple[str, str, str]) -> None:
        topic, partition, offset = names
        first = self._first.get((place.get(topic), place.get(partition), place.get(offset)))
        if first is not None:
            place[offset] = first


def _places(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The source events that the lineage of a multi event names."""
    for source in (body.get("lineage") or {}).values():
        yield source
        yield from source.get("also") or ()
