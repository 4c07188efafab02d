"""Requests about the broker and its topics: ApiVersions, Metadata, topics and their configuration, producer ids."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from astrocyte.pipeline.broker.groups.coordinator import Coordinator
from astrocyte.pipeline.broker.protocol.errors import ErrorCode, RequestRefused
from astrocyte.pipeline.broker.protocol.messages import APIS
from astrocyte.pipeline.broker.server.connection import Request
from astrocyte.pipeline.broker.settings import BrokerSettings
from astrocyte.pipeline.broker.storage.catalogue import Catalogue
from astrocyte.pipeline.broker.storage.topics import Topics

__all__ = ["NODE_ID", "ClusterApi"]

logger = logging.getLogger(__name__)

NODE_ID = 0
TOPIC_RESOURCE, BROKER_RESOURCE = 2, 4  # resource types of DescribeConfigs
SET_ON_TOPIC, SET_ON_BROKER, BY_DEFAULT = 1, 4, 5  # sources of a configuration value


class ClusterApi:
    """Serves requests about the single node of this cluster. ``address`` is the address announced to clients."""

    def __init__(
        self,
        topics: Topics,
        coordinator: Coordinator,
        catalogue: Catalogue,
        settings: BrokerSettings,
        address: tuple[str, int],
    ) -> None:
        self._topics, self._coordinator, self._catalogue = topics, coordinator, catalogue
        self._settings, self._address = settings, address
        self.removals: set[asyncio.Future[None]] = set()

    def api_versions(
        self, _body: dict[str, Any], _request: Request, error: ErrorCode = ErrorCode.NONE
    ) -> dict[str, Any]:
        """The supported requests and versions."""
        offered = [{"api_key": api.key, "min_version": api.oldest, "max_version": api.newest} for api in APIS.values()]
        return {"error_code": error, "api_keys": offered}

    def metadata(self, body: dict[str, Any], request: Request) -> dict[str, Any]:
        """The node and the requested (or all) topics; an unknown topic may be created."""
        names = body["topics"]
        if names is None or (request.version == 0 and not names):
            names = sorted(topic.name for topic in self._topics)
        may_create = self._settings.auto_create_topics and body.get("allow_auto_topic_creation", True)
        host, port = self._address
        return {
            "throttle_time_ms": 0,
            "brokers": [{"node_id": NODE_ID, "host": host, "port": port, "rack": None}],
            "cluster_id": "astrocyte-embedded",
            "controller_id": NODE_ID,
            "topics": [self._topic_metadata(name, may_create=may_create) for name in dict.fromkeys(names)],
        }

    def find_coordinator(self, body: dict[str, Any], request: Request) -> dict[str, Any]:
        """This node, for every group; transactions are rejected with an error that clients do not retry."""
        if body.get("key_type", 0) == 0:
            host, port = self._address
            return {
                "throttle_time_ms": 0,
                "error_code": ErrorCode.NONE,
                "error_message": None,
                "node_id": NODE_ID,
                "host": host,
                "port": port,
            }
        self._transaction_refused(request)
        return {
            "throttle_time_ms": 0,
            "error_code": ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "error_message": "the embedded broker has no transactions; use an idempotent producer, or Apache Kafka",
            "node_id": -1,
            "host": "",
            "port": -1,
        }

    def init_producer_id(self, body: dict[str, Any], request: Request) -> dict[str, Any]:
        """A producer id for a new idempotent producer."""
        error, producer_id = ErrorCode.NONE, -1
        if body["transactional_id"] is not None:
            self._transaction_refused(request)
            error = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        else:
            try:
                producer_id = self._catalogue.next_producer_id()
            except sqlite3.Error as failure:
                logger.error("a producer id cannot be stored: %s", failure)
                error = ErrorCode.COORDINATOR_NOT_AVAILABLE  # clients retry
        epoch = -1 if error else 0
        return {"throttle_time_ms": 0, "error_code": error, "producer_id": producer_id, "producer_epoch": epoch}

    def create_topics(self, body: dict[str, Any], _request: Request) -> dict[str, Any]:
        """Create topics, or only validate the request."""

        def create(topic: dict[str, Any]) -> None:
            partitions = _partitions_of(topic)
            config = {each["name"]: each["value"] for each in topic["configs"]}
            if body["validate_only"]:
                self._topics.check(topic["name"], partitions, config)
            else:
                self._topics.create(topic["name"], partitions, config)

        return {"throttle_time_ms": 0, "topics": [_outcome(topic, create) for topic in body["topics"]]}

    def delete_topics(self, body: dict[str, Any], _request: Request) -> dict[str, Any]:
        """Delete topics; their files are removed on another thread."""
        responses = []
        for name in body["topic_names"]:
            code = ErrorCode.NONE
            try:
                self._remove_later(self._topics.delete(name))
                self._coordinator.forget_topic(name)
            except RequestRefused as refused:
                code = refused.code
            responses.append({"name": name, "error_code": code})
        return {"throttle_time_ms": 0, "responses": responses}

    def create_partitions(self, body: dict[str, Any], _request: Request) -> dict[str, Any]:
        """Add partitions to topics."""

        def grow(topic: dict[str, Any]) -> None:
            self._topics.grow(topic["name"], topic["count"], validate_only=body["validate_only"])

        return {"throttle_time_ms": 0, "results": [_outcome(topic, grow) for topic in body["topics"]]}

    def describe_configs(self, body: dict[str, Any], _request: Request) -> dict[str, Any]:
        """The configuration of topics and of the broker."""
        results = []
        for resource in body["resources"]:
            kind, name, wanted = resource["resource_type"], resource["resource_name"], resource["configuration_keys"]
            topic = self._topics.get(name) if kind == TOPIC_RESOURCE else None
            error, message, config, of_its_own = ErrorCode.NONE, None, {}, {}
            if topic is not None:
                config, of_its_own = self._topics.effective_config(topic), topic.config
            elif kind == TOPIC_RESOURCE:
                error, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"no topic {name!r}"
            elif kind == BROKER_RESOURCE:
                config = self._broker_config()
            else:
                error, message = ErrorCode.INVALID_REQUEST, f"expected a topic (2) or a broker (4), got type {kind}"
            by_default = SET_ON_BROKER if kind == BROKER_RESOURCE else BY_DEFAULT
            results.append(
                {
                    "error_code": error,
                    "error_message": message,
                    "resource_type": kind,
                    "resource_name": name,
                    "configs": [
                        {
                            "name": key,
                            "value": value,
                            "read_only": kind == BROKER_RESOURCE,
                            "is_sensitive": False,
                            "config_source": SET_ON_TOPIC if key in of_its_own else by_default,
                            "synonyms": [],
                        }
                        for key, value in sorted(config.items())
                        if not wanted or key in wanted
                    ],
                }
            )
        return {"throttle_time_ms": 0, "results": results}

    def _broker_config(self) -> dict[str, str]:
        settings = self._settings
        return {
            "auto.create.topics.enable": str(settings.auto_create_topics).lower(),
            "broker.id": str(NODE_ID),
            "default.replication.factor": "1",
            "log.retention.bytes": str(settings.retention_bytes),
            "log.retention.ms": str(settings.retention_ms),
            "log.segment.bytes": str(settings.segment_bytes),
            "message.max.bytes": str(settings.max_message_bytes),
            "num.partitions": str(settings.default_partitions),
        }

    def _topic_metadata(self, name: str, *, may_create: bool) -> dict[str, Any]:
        error, topic = ErrorCode.NONE, self._topics.get(name)
        if topic is None:
            try:
                if may_create:
                    topic = self._topics.create(name)
                else:
                    self._topics.check(name, 1, {})
                    error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            except RequestRefused as refused:
                error = refused.code
        return {
            "error_code": error,
            "name": name,
            "is_internal": False,
            "partitions": [
                {
                    "error_code": ErrorCode.NONE,
                    "partition_index": index,
                    "leader_id": NODE_ID,
                    "replica_nodes": [NODE_ID],
                    "isr_nodes": [NODE_ID],
                    "offline_replicas": [],
                }
                for index in range(len(topic.logs) if topic is not None else 0)
            ],
        }

    def _remove_later(self, folder: Path) -> None:
        removal: asyncio.Future[None] = asyncio.get_running_loop().run_in_executor(None, _remove, folder)
        self.removals.add(removal)
        removal.add_done_callback(self.removals.discard)

    def _transaction_refused(self, request: Request) -> None:
        logger.warning(
            "client %r requested a transaction, which this broker does not support; configure it without "
            "a transactional id (Faust: processing_guarantee='at_least_once')",
            request.client_id,
        )


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _partitions_of(topic: dict[str, Any]) -> int:
    """The number of partitions in a CreateTopics request, given as a number or as a list of assignments."""
    if topic["replication_factor"] not in (-1, 1):
        raise RequestRefused(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"expected replication factor 1 (this is a single node), got {topic['replication_factor']}",
        )
    if not topic["assignments"]:
        return int(topic["num_partitions"])
    listed = sorted(each["partition_index"] for each in topic["assignments"])
    if listed != list(range(len(listed))) or any(each["broker_ids"] != [NODE_ID] for each in topic["assignments"]):
        raise RequestRefused(
            ErrorCode.INVALID_REQUEST, f"expected partitions 0 to n-1, all on node {NODE_ID}, got {listed}"
        )
    return len(listed)


def _outcome(topic: dict[str, Any], action: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    code, message = ErrorCode.NONE, None
    try:
        action(topic)
    except RequestRefused as refused:
        code, message = refused.code, str(refused)
    return {"name": topic["name"], "error_code": code, "error_message": message}
