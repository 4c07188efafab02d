"""The topics of a data folder, each with the logs of its partitions."""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from astrocyte.pipeline.broker.protocol.errors import ErrorCode, RequestRefused
from astrocyte.pipeline.broker.settings import BrokerSettings
from astrocyte.pipeline.broker.storage.catalogue import Catalogue, StoredTopic
from astrocyte.pipeline.broker.storage.log import PartitionLog
from astrocyte.pipeline.broker.storage.segment import SegmentPool
from astrocyte.pipeline.broker.storage.topic_config import checked_config, default_config, log_config

__all__ = ["Topic", "Topics"]

logger = logging.getLogger(__name__)

MAX_PARTITIONS = 10_000
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_DELETED, _STRAY = ".deleted-", ".stray-"  # topic names that begin with these are rejected


class Topic:
    """A topic: its explicitly set configuration, and its logs by partition."""

    def __init__(self, name: str, config: dict[str, str], logs: list[PartitionLog]) -> None:
        self.name, self.config, self.logs = name, config, logs


class Topics:
    """All topics by name; ``folder`` has a folder for each, with one for each partition inside."""

    def __init__(
        self, folder: Path, catalogue: Catalogue, settings: BrokerSettings, pool: SegmentPool, now_ms: Callable[[], int]
    ) -> None:
        self._folder, self._catalogue, self._settings, self._pool, self._now_ms = (
            folder,
            catalogue,
            settings,
            pool,
            now_ms,
        )
        self._topics: dict[str, Topic] = {}
        folder.mkdir(parents=True, exist_ok=True)
        stored = catalogue.topics()
        self._clear_leftovers({topic.name for topic in stored})
        for topic in stored:
            if not (folder / topic.name).exists():
                logger.error(
                    "the records of topic %s are lost: %s is missing; it starts empty", topic.name, folder / topic.name
                )
            logs = [self._open_log(topic.name, index, topic.config) for index in range(topic.partitions)]
            self._topics[topic.name] = Topic(topic.name, topic.config, logs)

    def __iter__(self) -> Iterator[Topic]:
        return iter(list(self._topics.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._topics

    def get(self, name: str) -> Topic | None:
        """The topic with a name, or None."""
        return self._topics.get(name)

    def log(self, name: str, partition: int) -> PartitionLog | None:
        """The log of a partition, or None."""
        topic = self._topics.get(name)
        return topic.logs[partition] if topic is not None and 0 <= partition < len(topic.logs) else None

    def logs(self) -> Iterator[PartitionLog]:
        """The logs of all partitions of all topics at this moment."""
        return iter([log for topic in self._topics.values() for log in topic.logs])

    def check(self, name: str, partitions: int, config: dict[str, str | None]) -> tuple[int, dict[str, str]]:
        """Number of partitions and configuration of a topic to be created. Raises RequestRefused if it is invalid."""
        if not _NAME.match(name) or name in (".", "..") or name.startswith((_DELETED, _STRAY)):
            raise RequestRefused(
                ErrorCode.INVALID_TOPIC,
                f"topic name: expected 1 to 249 letters, digits, dots, underscores and hyphens, got {name!r}",
            )
        if name in self._topics:
            raise RequestRefused(ErrorCode.TOPIC_ALREADY_EXISTS, f"topic {name!r} already exists")
        partitions = self._settings.default_partitions if partitions == -1 else partitions
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise RequestRefused(
                ErrorCode.INVALID_PARTITIONS, f"expected 1 to {MAX_PARTITIONS} partitions, got {partitions}"
            )
        return partitions, checked_config(config)

    def create(self, name: str, partitions: int = -1, config: dict[str, str | None] | None = None) -> Topic:
        """Create a topic (-1: default number of partitions); it is on disk when this returns. Raises RequestRefused."""
        partitions, given = self.check(name, partitions, config or {})
        folder = self._folder / name
        try:
            if folder.exists():
                self._move_away(folder, _STRAY)
            logs = [self._open_log(name, index, given) for index in range(partitions)]
            self._catalogue.save_topic(StoredTopic(name, partitions, given))
        except (OSError, sqlite3.Error) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise RequestRefused(ErrorCode.KAFKA_STORAGE_ERROR, f"topic {name!r} cannot be stored: {error}") from error
        topic = self._topics[name] = Topic(name, given, logs)
        return topic

    def grow(self, name: str, partitions: int, *, validate_only: bool = False) -> None:
        """Add partitions to a topic. Raises RequestRefused if it has as many already, or is unknown."""
        topic = self._topics.get(name)
        if topic is None:
            raise RequestRefused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"no topic {name!r}")
        if not len(topic.logs) < partitions <= MAX_PARTITIONS:
            raise RequestRefused(
                ErrorCode.INVALID_PARTITIONS,
                f"topic {name!r}: expected {len(topic.logs) + 1} to {MAX_PARTITIONS} partitions, got {partitions}",
            )
        if validate_only:
            return
        try:
            added = [self._open_log(name, index, topic.config) for index in range(len(topic.logs), partitions)]
            self._catalogue.save_topic(StoredTopic(name, partitions, topic.config))
        except (OSError, sqlite3.Error) as error:
            raise RequestRefused(ErrorCode.KAFKA_STORAGE_ERROR, f"topic {name!r} cannot grow: {error}") from error
        topic.logs.extend(added)

    def delete(self, name: str) -> Path:
        """Delete a topic and return the folder of its records, which the caller removes: that may take long."""
        topic = self._topics.get(name)
        if topic is None:
            raise RequestRefused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"no topic {name!r}")
        try:
            self._catalogue.drop_topic(name)
        except sqlite3.Error as error:
            raise RequestRefused(ErrorCode.KAFKA_STORAGE_ERROR, f"topic {name!r} cannot be deleted: {error}") from error
        del self._topics[name]
        for log in topic.logs:
            log.close(seal=False)
        try:
            return self._move_away(self._folder / name, _DELETED)
        except OSError as error:
            logger.warning("the records of deleted topic %s stay in %s: %s", name, self._folder / name, error.strerror)
            return self._folder / name

    def effective_config(self, topic: Topic) -> dict[str, str]:
        """The complete configuration of a topic, set or default."""
        compacted = "compact" in topic.config.get("cleanup.policy", "")
        return default_config(self._settings, compacted=compacted) | topic.config

    def close(self) -> None:
        """Sync and close every log."""
        for log in self.logs():
            log.close()

    def _open_log(self, name: str, index: int, config: dict[str, str]) -> PartitionLog:
        settings = self._settings
        return PartitionLog(
            self._folder / name / str(index),
            log_config(config, settings),
            self._pool,
            self._now_ms,
            settings.verify,
            stable_reads=settings.sync == "always",
        )

    def _move_away(self, folder: Path, prefix: str) -> Path:
        moved = self._folder / f"{prefix}{uuid.uuid4().hex[:8]}-{folder.name[:200]}"
        if folder.exists():
            folder.rename(moved)
        return moved

    def _clear_leftovers(self, known: set[str]) -> None:
        for folder in self._folder.iterdir():
            if folder.name.startswith(_DELETED):
                shutil.rmtree(folder, ignore_errors=True)
            elif folder.name not in known and not folder.name.startswith(_STRAY):
                moved = self._move_away(folder, _STRAY)
                logger.warning(
                    "%s belongs to no topic (a deletion or creation was interrupted, or the catalogue was moved away); "
                    "it is kept as %s; delete it if it is not needed",
                    folder,
                    moved.name,
                )
