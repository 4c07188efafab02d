"""The broker's metadata: topics, committed offsets, group membership, producer ids.

An SQLite database in WAL mode. With ``synced`` a commit is on disk when it is acknowledged, like a record; without it
it is in the kernel's page cache then, and on disk within the flush interval (``checkpoint``). Topics are synced at once
in any case, so that a folder of records never exists without its topic.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from astrocyte.pipeline.broker.protocol.errors import BrokerError

__all__ = ["Catalogue", "CommittedOffset", "StoredTopic"]

_TABLES = """
create table if not exists topic(name text primary key, partitions int not null, config text not null) without rowid;
create table if not exists committed(
  grp text, topic text, part int, offset int not null, metadata text not null, primary key(grp, topic, part)) without
  rowid;
create table if not exists membership(grp text primary key, state text not null) without rowid;
create table if not exists counter(name text primary key, value int not null) without rowid;
"""


class StoredTopic(NamedTuple):
    """A topic's name, number of partitions and explicitly set configuration."""

    name: str
    partitions: int
    config: dict[str, str]


class CommittedOffset(NamedTuple):
    """A group's commit for a partition: the next offset to read, and the client's own metadata string."""

    offset: int
    metadata: str


class Catalogue:
    """The database of one data folder. Every method may raise sqlite3.Error, for example if the disk is full."""

    def __init__(self, path: Path, *, synced: bool = False) -> None:
        self.path = path
        self._level = "full" if synced else "normal"
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute(f"pragma synchronous={self._level}")
            # The flush task checkpoints each second, on another thread.
            self._db.execute("pragma wal_autocheckpoint=10000")
            self._db.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            raise BrokerError(
                f"the broker's catalogue {path} cannot be used: {error}; free disk space if the disk is full; if it is "
                "damaged, move it away (topics and offsets are then lost, the records in topics/ are kept)"
            ) from error

    def topics(self) -> list[StoredTopic]:
        """All topics."""
        rows = self._db.execute("select name, partitions, config from topic order by name")
        return [StoredTopic(name, partitions, json.loads(config)) for name, partitions, config in rows]

    def save_topic(self, topic: StoredTopic) -> None:
        """Create a topic, or change its number of partitions; on disk when it returns."""
        row = (topic.name, topic.partitions, json.dumps(topic.config))
        self._synced([("insert or replace into topic values(?, ?, ?)", row)])

    def drop_topic(self, name: str) -> None:
        """Delete a topic and its committed offsets; on disk when it returns."""
        self._synced(
            [("delete from topic where name = ?", (name,)), ("delete from committed where topic = ?", (name,))]
        )

    def commit_offsets(self, group: str, offsets: dict[tuple[str, int], CommittedOffset]) -> None:
        """Store a group's offsets, all or none."""
        rows = [(group, topic, partition, *committed) for (topic, partition), committed in offsets.items()]
        self._transaction("insert or replace into committed values(?, ?, ?, ?, ?)", rows)

    def committed_offsets(self) -> dict[str, dict[tuple[str, int], CommittedOffset]]:
        """All committed offsets, by group, then by (topic, partition)."""
        groups: dict[str, dict[tuple[str, int], CommittedOffset]] = {}
        for group, topic, partition, offset, metadata in self._db.execute("select * from committed"):
            groups.setdefault(group, {})[topic, partition] = CommittedOffset(offset, metadata)
        return groups

    def save_membership(self, group: str, state: dict[str, Any]) -> None:
        """Store a group's membership as JSON."""
        self._db.execute("insert or replace into membership values(?, ?)", (group, json.dumps(state)))

    def memberships(self) -> dict[str, dict[str, Any]]:
        """The stored membership by group."""
        return {group: json.loads(state) for group, state in self._db.execute("select grp, state from membership")}

    def drop_group(self, group: str) -> None:
        """Delete a group's membership and offsets."""
        self._db.execute("delete from membership where grp = ?", (group,))
        self._db.execute("delete from committed where grp = ?", (group,))

    def next_producer_id(self) -> int:
        """A producer id that was never issued before."""
        row = self._db.execute(
            "insert into counter values('producer_id', 1) "
            "on conflict(name) do update set value = value + 1 returning value"
        ).fetchone()
        return int(row[0])

    def checkpoint(self) -> None:
        """Sync all commits to disk. Thread-safe: it uses its own connection and does not block others."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            connection.execute("pragma wal_checkpoint(passive)")
        finally:
            connection.close()

    def close(self) -> None:
        """Close the database; all commits are on disk then."""
        self._db.close()

    def _synced(self, statements: list[tuple[str, tuple[Any, ...]]]) -> None:
        self._db.execute("pragma synchronous=full")
        try:
            with self._db:
                self._db.execute("begin")
                for statement, values in statements:
                    self._db.execute(statement, values)
        finally:
            self._db.execute(f"pragma synchronous={self._level}")

    def _transaction(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with self._db:
            self._db.execute("begin")
            self._db.executemany(statement, rows)
