"""The broker: serves a data folder on a port, inside a running asyncio loop."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from astrocyte.pipeline.broker.groups.coordinator import Coordinator
from astrocyte.pipeline.broker.protocol.errors import BrokerError, ErrorCode, MalformedRequest
from astrocyte.pipeline.broker.protocol.messages import API_VERSIONS, APIS
from astrocyte.pipeline.broker.server.cluster_api import ClusterApi
from astrocyte.pipeline.broker.server.connection import Answer, Connection, Request
from astrocyte.pipeline.broker.server.groups_api import GroupsApi, encode
from astrocyte.pipeline.broker.server.intake import Intake
from astrocyte.pipeline.broker.server.records_api import RecordsApi
from astrocyte.pipeline.broker.settings import BrokerSettings
from astrocyte.pipeline.broker.storage.catalogue import Catalogue
from astrocyte.pipeline.broker.storage.lock import FolderLock
from astrocyte.pipeline.broker.storage.maintenance import Maintenance
from astrocyte.pipeline.broker.storage.segment import SegmentPool
from astrocyte.pipeline.broker.storage.topics import Topics

__all__ = ["EmbeddedBroker"]

logger = logging.getLogger(__name__)

_ACCEPTING: Final = 5
"""Turns of the loop within which a client that asyncio has just accepted becomes a connection."""

PRODUCE, FETCH = 0, 1
Handler = Callable[[dict[str, Any], Request], "dict[str, Any] | asyncio.Future[Answer]"]


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class EmbeddedBroker:
    """A single-node Kafka broker: ``async with EmbeddedBroker(folder, port=0) as broker: broker.address``.

    Takes the fields of BrokerSettings as keywords. ``now_ms`` is the clock for the age of records; tests may replace
    the wall clock.
    """

    def __init__(self, data_dir: Path | str, *, now_ms: Callable[[], int] = _wall_clock_ms, **settings: Any) -> None:
        self.settings = BrokerSettings(data_dir=Path(data_dir), **settings)
        self.max_request_bytes = self.settings.max_request_bytes
        self.port = self.settings.port
        self._now_ms = now_ms
        self._intake = Intake(self.settings.max_unfinished_bytes, self.settings.idle_timeout_s)
        self._server: asyncio.Server | None = None
        self._stop_steps: list[Callable[[], Any]] = []
        self._handlers: dict[int, Handler] = {}

    @property
    def address(self) -> str:
        """``host:port`` for clients."""
        return f"{self.settings.advertised_host or self.settings.host}:{self.port}"

    async def start(self) -> Self:
        """Lock and recover the folder, then listen. Raises BrokerError, with all resources released, on failure."""
        settings, loop = self.settings, asyncio.get_running_loop()
        try:
            lock = FolderLock(settings.data_dir)
            self._stop_steps.append(lock.release)
            began = time.monotonic()
            self._catalogue = Catalogue(settings.data_dir / "catalogue.db", synced=settings.sync == "always")
            self._stop_steps.append(self._catalogue.close)
            self.topics = Topics(
                settings.data_dir / "topics",
                self._catalogue,
                settings,
                SegmentPool(settings.max_open_files),
                self._now_ms,
            )
            self._stop_steps.append(self.topics.close)
            cut = sum(log.cut_bytes for log in self.topics.logs())
            logger.info("recovered %s in %.2f s, %d bytes cut", settings.data_dir, time.monotonic() - began, cut)
            self.maintenance = Maintenance(self.topics, self._catalogue, settings, self._now_ms)
            self._stop_steps.append(self.maintenance.stop)
            await self.maintenance.flush()  # what a crash left in the page cache
            self._records = RecordsApi(self.topics, settings, self.maintenance.flush_soon)
            self._server = await self._listen()
            lock.note(address=self.address)
            coordinator = Coordinator(self._catalogue, loop, initial_delay_s=settings.initial_rebalance_delay_s)
            self._stop_steps.append(coordinator.close)
            self._cluster = ClusterApi(
                self.topics, coordinator, self._catalogue, settings, (self.address.rpartition(":")[0], self.port)
            )
            self._handlers = _handlers(self._records, self._cluster, GroupsApi(coordinator, self.topics, settings))
            coordinator.move_back(self.topics)
            self.maintenance.start()
            self._intake.start()
            self._stop_steps.append(self._intake.stop)
            await self._server.start_serving()
        except OSError as error:
            await self.stop()
            raise BrokerError(f"the broker cannot start on {settings.data_dir}: {error}") from error
        except BaseException:
            await self.stop()
            raise
        return self

    async def stop(self) -> None:
        """Close every connection, sync everything to disk, release the folder."""
        if self._server is not None:
            # First of all, since clients whose connection is closed connect again.
            self._server.close()
            for _ in range(_ACCEPTING):
                await asyncio.sleep(0)
        while self._stop_steps:
            stopped = self._stop_steps.pop()()
            if asyncio.iscoroutine(stopped):
                await stopped
            for connection in self._intake.connections:
                connection.abort()
            if self._intake.connections:
                await asyncio.sleep(0)  # the loop calls connection_lost
        if self._handlers and self._cluster.removals:
            await asyncio.wait(self._cluster.removals)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        self._intake.opened(connection)

    def closed(self, connection: Connection) -> None:
        """A client has disconnected."""
        self._intake.closed(connection)

    def received(self, connection: Connection) -> None:
        """What a connection holds has changed."""
        self._intake.received(connection)

    def serve(self, request: Request) -> Answer | asyncio.Future[Answer]:
        """Respond to one request, see connection.Dispatcher."""
        api = APIS.get(request.api_key)
        if api is None or not api.oldest <= request.version <= api.newest:
            if request.api_key == API_VERSIONS.key:
                # The protocol requires a response of version 0, from which the client chooses another.
                return encode(API_VERSIONS, 0, self._cluster.api_versions({}, request, ErrorCode.UNSUPPORTED_VERSION))
            raise MalformedRequest(f"api {request.api_key} version {request.version} is not supported")
        if request.api_key == PRODUCE:
            return self._records.produce(request)
        if request.api_key == FETCH:
            return self._records.fetch(request)
        body, _ = api.request.at_version(request.version).read(request.frame, request.at)
        answer = self._handlers[request.api_key](body, request)
        return answer if isinstance(answer, asyncio.Future) else encode(api, request.version, answer)

    async def _listen(self) -> asyncio.Server:
        host, port = self.settings.host, self.settings.port
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(lambda: Connection(self), host, port, backlog=256, start_serving=False)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise BrokerError(
                    f"port {port} of {host} is in use by another program; choose another with --port (0: any free one)"
                ) from error
            raise BrokerError(f"the broker cannot listen on {host}:{port}: {error.strerror}") from error
        self.port = server.sockets[0].getsockname()[1]
        return server


def _handlers(records: RecordsApi, cluster: ClusterApi, groups: GroupsApi) -> dict[int, Handler]:
    by_name: dict[str, Handler] = {
        "ListOffsets": records.list_offsets,
        "Metadata": cluster.metadata,
        "OffsetCommit": groups.offset_commit,
        "OffsetFetch": groups.offset_fetch,
        "FindCoordinator": cluster.find_coordinator,
        "JoinGroup": groups.join_group,
        "Heartbeat": groups.heartbeat,
        "LeaveGroup": groups.leave_group,
        "SyncGroup": groups.sync_group,
        "DescribeGroups": groups.describe_groups,
        "ListGroups": groups.list_groups,
        "ApiVersions": cluster.api_versions,
        "CreateTopics": cluster.create_topics,
        "DeleteTopics": cluster.delete_topics,
        "InitProducerId": cluster.init_producer_id,
        "DescribeConfigs": cluster.describe_configs,
        "CreatePartitions": cluster.create_partitions,
        "DeleteGroups": groups.delete_groups,
    }
    return {api.key: by_name[api.name] for api in APIS.values() if api.key not in (PRODUCE, FETCH)}
