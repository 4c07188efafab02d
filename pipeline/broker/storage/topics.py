"""The topics of a data folder: created, found, grown, deleted, each with the logs of its partitions."""

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

MOST_PARTITIONS = 10_000
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_DELETED, _STRAY = ".deleted-", ".stray-"  # a topic's name cannot hold both a dot first and these words' random suffix


class Topic:
    """A topic: the configuration that was set for it, and its logs by partition."""

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
                    "the records of topic %s are gone: %s is missing; it starts empty", topic.name, folder / topic.name
                )
            logs = [self._open_log(topic.name, index, topic.config) for index in range(topic.partitions)]
            self._topics[topic.name] = Topic(topic.name, topic.config, logs)

    def __iter__(self) -> Iterator[Topic]:
        return iter(list(self._topics.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._topics

    def get(self, name: str) -> Topic | None:
        """The topic of a name, if there is one."""
        return self._topics.get(name)

    def log(self, name: str, partition: int) -> PartitionLog | None:
        """The log of a partition, if there is one."""
        topic = self._topics.get(name)
        return topic.logs[partition] if topic is not None and 0 <= partition < len(topic.logs) else None

    def logs(self) -> Iterator[PartitionLog]:
        """The logs of all partitions of all topics, as of now."""
        return iter([log for topic in self._topics.values() for log in topic.logs])

    def check(self, name: str, partitions: int, config: dict[str, str | None]) -> tuple[int, dict[str, str]]:
        """The number of partitions and the configuration that a new topic would get; RequestRefused if it cannot be."""
        if not _NAME.match(name) or name in (".", "..") or name.startswith((_DELETED, _STRAY)):
            raise RequestRefused(
                ErrorCode.INVALID_TOPIC,
                f"topic name {name!r}; wanted 1 to 249 of letters, digits, dot, underscore and hyphen",
            )
        if name in self._topics:
            raise RequestRefused(ErrorCode.TOPIC_ALREADY_EXISTS, f"topic {name!r} already exists")
        partitions = self._settings.default_partitions if partitions == -1 else partitions
        if not 1 <= partitions <= MOST_PARTITIONS:
            raise RequestRefused(
                ErrorCode.INVALID_PARTITIONS, f"{partitions} partitions; wanted 1 to {MOST_PARTITIONS}"
            )
        return partitions, checked_config(config)

    def create(self, name: str, partitions: int = -1, config: dict[str, str | None] | None = None) -> Topic:
        """A new topic (-1: default number of partitions), on disk when it returns; RequestRefused if it cannot be."""
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
        """Give a topic more partitions; RequestRefused if it has as many already, or is unknown."""
        topic = self._topics.get(name)
        if topic is None:
            raise RequestRefused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"no topic {name!r}")
        if not len(topic.logs) < partitions <= MOST_PARTITIONS:
            raise RequestRefused(
                ErrorCode.INVALID_PARTITIONS,
                f"{partitions} partitions for {name!r} of {len(topic.logs)}; wanted more, at most {MOST_PARTITIONS}",
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
        """Forget a topic. The folder returned holds its records; removing it is the caller's, who may take a while."""
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
        """Every configuration of a topic, set or default."""
        compacted = "compact" in topic.config.get("cleanup.policy", "")
        return default_config(self._settings, compacted=compacted) | topic.config

    def close(self) -> None:
        """Sync and close every log."""
        for log in self.logs():
            log.close()

    def _open_log(self, name: str, index: int, config: dict[str, str]) -> PartitionLog:
        settings = self._settings
        return PartitionLog(
            self._folder / name / str(index), log_config(config, settings), self._pool, self._now_ms, settings.verify
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
                    "%s belongs to no topic (a deletion or creation was cut off, or the catalogue was moved away); "
                    "it is kept as %s, delete it if you do not want it",
                    folder,
                    moved.name,
                )
