"""Expected and found records side by side, by id, in a file: memory does not grow with their number.

What was found is entered first, then what is expected. Of a record that is as expected only its id stays; of one that
differs, both contents.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

__all__ = ["Entry", "Item", "Ledger", "Seen"]

_TABLE: Final = """
CREATE TABLE entries (
    number INTEGER PRIMARY KEY, place TEXT, digest BLOB, identity TEXT, time_us INTEGER, run TEXT, due INTEGER,
    times INTEGER, partition INTEGER, offset INTEGER, last_offset INTEGER, expected BLOB, found BLOB, other BLOB
);
CREATE UNIQUE INDEX of_record ON entries (place, digest);
"""
_ABSENT, _MAY, _MUST = 0, 1, 2
_DIFFERS: Final = f"""
(due = {_MUST} AND times = 0) OR (due != {_ABSENT} AND times > 0 AND found IS NOT NULL) OR other IS NOT NULL
OR (due = {_ABSENT} AND times > 0) OR (due != {_ABSENT} AND times > 1)
"""
_COLUMNS: Final = "identity, time_us, run, due, times, partition, offset, last_offset, expected, found, other"


class Item(NamedTuple):
    """One record as it is compared."""

    identity: str
    time_us: int | None
    run: str | None
    body: dict[str, Any]
    status: str = ""
    """Of a match of `eventual` workers: provisional, confirmed, retracted."""


class Seen(NamedTuple):
    """Where a record was found first; ``times`` is 0 if it was not."""

    times: int
    partition: int
    offset: int


class Entry(NamedTuple):
    """A record that differs: ``expected`` or ``found`` is None where there is none, ``other`` a second content."""

    identity: str
    time_us: int | None
    run: str | None
    due: bool
    times: int
    partition: int
    offset: int
    last_offset: int
    expected: dict[str, Any] | None
    found: dict[str, Any] | None
    other: dict[str, Any] | None


class Ledger:
    """Records of several places in the file ``path``, which is made anew; deleted with its folder by the caller."""

    def __init__(self, path: Path, *, cache_bytes: int = 64 << 20) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "page_size=8192",
                       f"cache_size={-cache_bytes // 1024}"):  # fmt: skip
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_TABLE)
        self._connection.execute("BEGIN")
        self._by_run = False

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def found(self, place: str, item: Item, at: tuple[int, int]) -> None:
        """Enter a record that is there, at a partition and offset; entering one message again has no effect."""
        text = _packed(item.body)
        known = self._find(place, item.identity)
        if known is None:
            self._connection.execute(
                "INSERT INTO entries (place, digest, identity, time_us, run, due, times, partition, offset, "
                "last_offset, found) VALUES (?, ?, ?, ?, ?, 0, 1, ?, ?, ?, ?)",
                (place, _digest(item.identity), item.identity, item.time_us, item.run, *at, at[1], text),
            )
            return
        number, due, times, partition, _, last, expected, content = known
        if times and partition == at[0] and at[1] <= last:
            return
        if not times:
            content = None if text == expected else text
            self._connection.execute(
                "UPDATE entries SET times = 1, partition = ?, offset = ?, last_offset = ?, found = ? WHERE number = ?",
                (*at, at[1], content, number),
            )
            return
        first = expected if content is None and due else content
        self._connection.execute(
            "UPDATE entries SET times = times + 1, last_offset = max(last_offset, ?), other = coalesce(other, ?) "
            "WHERE number = ?",
            (at[1], None if text == first else text, number),
        )

    def seen(self, place: str, identity: str) -> Seen:
        """Where a record was found."""
        known = self._find(place, identity)
        return Seen(0, -1, -1) if known is None else Seen(known[2], known[3], known[4])

    def expect(self, place: str, item: Item, *, due: bool, replace: bool = False) -> None:
        """Enter a record that must be there if ``due``, and else may be; ``replace``: in place of an earlier one."""
        text, level = _packed(item.body), _MUST if due else _MAY
        known = self._find(place, item.identity)
        if known is None:
            self._connection.execute(
                "INSERT INTO entries (place, digest, identity, time_us, run, due, times, expected) "
                "VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
                (place, _digest(item.identity), item.identity, item.time_us, item.run, level, text),
            )
            return
        number, before, times, _, _, _, earlier, content = known
        if not replace and before != _ABSENT and text != earlier:
            # Two results under one id: whichever is there, the other one is not.
            self._connection.execute("UPDATE entries SET other = ? WHERE number = ?", (text, number))
            return
        if replace and before != _ABSENT:
            found = content if content is not None else (earlier if times else None)
            self._connection.execute(
                "UPDATE entries SET due = max(due, ?), expected = ?, found = ? WHERE number = ?",
                (level, text, None if found == text else found, number),
            )
        elif times and content == text:
            self._connection.execute(
                "UPDATE entries SET due = max(due, ?), expected = found, found = NULL WHERE number = ?", (level, number)
            )
        elif before == _ABSENT:
            self._connection.execute("UPDATE entries SET due = ?, expected = ? WHERE number = ?", (level, text, number))

    def counts(self, place: str) -> tuple[int, int, int]:
        """Records that are expected, those found, and those that may still come."""
        query = (
            "SELECT coalesce(sum(due = 2 OR (due = 1 AND times > 0)), 0), coalesce(sum(times > 0), 0), "
            "coalesce(sum(due = 1 AND times = 0), 0) FROM entries WHERE place = ?"
        )
        expected, found, waiting = self._connection.execute(query, (place,)).fetchone()
        return int(expected), int(found), int(waiting)

    def differing(self, place: str) -> Iterator[Entry]:
        """Records that are not as expected, or there more than once, in the order in which they were entered."""
        query = f"SELECT {_COLUMNS} FROM entries WHERE place = ? AND ({_DIFFERS}) ORDER BY number"  # noqa: S608  constants
        yield from map(_entry, self._connection.execute(query, (place,)))

    def lost_of(self, place: str, run: str) -> Entry | None:
        """One record of a run that must be there and is not."""
        if not self._by_run:
            self._connection.execute("CREATE INDEX by_run ON entries (place, run) WHERE times = 0")
            self._by_run = True
        query = f"SELECT {_COLUMNS} FROM entries WHERE place = ? AND run = ? AND times = 0 AND due = {_MUST} LIMIT 1"  # noqa: S608  constants
        row = self._connection.execute(query, (place, run)).fetchone()
        return None if row is None else _entry(row)

    def _find(self, place: str, identity: str) -> Any:
        return self._connection.execute(
            "SELECT number, due, times, partition, offset, last_offset, expected, found FROM entries "
            "WHERE place = ? AND digest = ?",
            (place, _digest(identity)),
        ).fetchone()


def _entry(row: tuple[Any, ...]) -> Entry:
    identity, time_us, run, due, times, partition, offset, last_offset, *bodies = row
    expected, found, other = (None if each is None else orjson.loads(each) for each in bodies)
    return Entry(identity, time_us, run, due == _MUST, times, partition, offset, last_offset, expected, found, other)


def _digest(identity: str) -> bytes:
    return blake2b(identity.encode(errors="surrogatepass"), digest_size=16).digest()


def _packed(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)
    except TypeError:  # integers beyond 64 bits
        return json.dumps(body, sort_keys=True, default=str).encode()
