"""The Faust transport ``astrocyte://host:9092``: no loss, and the cost of one Faust message per chunk.

Stock Faust commits past events that are not acknowledged and spends 57 microseconds per message. This transport
subclasses its aiokafka driver: exact commits (`pipeline.transport.commits`), one event per fetched chunk
(`pipeline.transport.chunk`), whole domains per worker (`pipeline.transport.assignor`), an idempotent producer that
retries until a record is confirmed (`pipeline.transport.producer`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, ClassVar, Final

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from astrocyte.pipeline.transport.chunk import Chunk, ack_handle
from astrocyte.pipeline.transport.client_log import limit_client_log
from astrocyte.pipeline.transport.consumer import Consumer
from astrocyte.pipeline.transport.options import TransportOptions, client_security, configure, options_of
from astrocyte.pipeline.transport.producer import ConfirmedProducer
from astrocyte.pipeline.transport.producer_record import DeliveryFailed, ProducerRecord, producer_settings

__all__ = [
    "TP",
    "Chunk",
    "Consumer",
    "DeliveryFailed",
    "Producer",
    "ProducerRecord",
    "Transport",
    "TransportOptions",
    "ack_handle",
    "app_settings",
    "configure",
    "confirm",
]


_STOP_S: Final = 5.0


class Producer(driver.Producer):  # type: ignore[misc]
    """Faust's producer on top of a `ConfirmedProducer`."""

    confirmed: ConfirmedProducer | None = None

    @property
    def _producer(self) -> Any:
        # Faust reads aiokafka's producer here; it changes when a failed one is replaced.
        return self.confirmed.current if self.confirmed is not None else None

    @_producer.setter
    def _producer(self, value: Any) -> None:
        """No-op: the confirmed producer owns aiokafka's."""

    def _settings(self) -> dict[str, Any]:
        servers = driver.server_list(self.transport.url, self.transport.default_port)
        return producer_settings(
            servers,
            client_id=self.client_id,
            max_batch_size=self.max_batch_size,
            max_request_size=max(self.max_request_size, options_of(self.app).max_request_bytes),
            linger_ms=self.linger_ms,
            compression_type=self.compression_type,
            request_timeout_ms=int(self.request_timeout * 1000),
            partitioner=self.partitioner,
            metadata_max_age_ms=self.app.conf.producer_metadata_max_age_ms,
            connections_max_idle_ms=self.app.conf.producer_connections_max_idle_ms,
            **client_security(self.app.conf),
        )

    async def on_start(self) -> None:
        """Connect, retrying until a broker answers."""
        await super(driver.Producer, self).on_start()
        self.confirmed = ConfirmedProducer(self._settings(), should_stop=lambda: bool(self.should_stop))
        await self.confirmed.start()

    async def on_stop(self) -> None:
        """Deliver the records sent so far, within a few seconds."""
        await super(driver.Producer, self).on_stop()
        self.transport._topic_waiters.clear()
        if self.confirmed is not None:
            left = await self.confirmed.stop(_STOP_S)
            if left:
                self.log.warning("%s records were not confirmed; their inputs are not acknowledged", left)

    async def send(  # noqa: PLR0917  Faust's signature
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> Awaitable[Any]:
        """Send one record; the awaitable resolves when the broker has confirmed it."""
        if transactional_id:
            raise NotImplementedError(
                "this transport has no transactions; leave out transactional_id, sinks are idempotent instead"
            )
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers or ())
        stamp = int(timestamp * 1000) if timestamp else None
        self._send_on_produce_message(key=key, value=value, partition=partition, timestamp=timestamp, headers=pairs)
        return await self._sender().send(ProducerRecord(topic, value, key, partition, pairs, stamp))

    async def send_and_confirm(self, records: Iterable[ProducerRecord]) -> None:
        """Return when the broker has confirmed every record, in order within each partition.

        Retriable errors are retried for ever. Raises DeliveryFailed for a record that the broker rejects and that a
        retry cannot deliver.
        """
        await self._sender().deliver(records)

    async def flush(self) -> None:
        """Return when every record sent is confirmed or rejected."""
        await self.buffer.flush()
        if self.confirmed is not None:
            await self.confirmed.flush()

    def _sender(self) -> ConfirmedProducer:
        if self.confirmed is None:
            raise driver.NotReady("the producer has not started yet")
        return self.confirmed


class Transport(driver.Transport):  # type: ignore[misc]
    """Registered as ``astrocyte`` in the entry points of ``faust.transports``."""

    Consumer: ClassVar[type[Any]] = Consumer
    Producer: ClassVar[type[Any]] = Producer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        limit_client_log()


async def confirm(app: Any, records: Iterable[ProducerRecord]) -> None:
    """`Producer.send_and_confirm` of the app: await it before acknowledging the inputs of the records."""
    await app.producer.send_and_confirm(records)


def app_settings(broker: str = "127.0.0.1:9092", **overrides: Any) -> dict[str, Any]:
    """Settings of a Faust app that this transport requires, for ``faust.App(id, **settings)``."""
    settings: dict[str, Any] = {
        "broker": [f"astrocyte://{address.strip()}" for address in broker.split(",")],
        # Agents decode values: Faust would acknowledge a record that it cannot decode.
        "value_serializer": "raw",
        "key_serializer": "raw",
        # An unacknowledged chunk would otherwise block every shutdown and every rebalance.
        "stream_wait_empty": False,
        # Faust's transactions bind outputs to the wrong group of offsets, and do not cover databases.
        "processing_guarantee": "at_least_once",
        # After a crash the inputs acknowledged since the last commit are processed again.
        "broker_commit_interval": 0.5,
        # Only the timer commits: the number of acknowledgements does not measure chunks.
        "broker_commit_every": None,
        # A killed worker blocks its partitions for this time.
        "broker_session_timeout": 10.0,
        "broker_heartbeat_interval": 3.0,
        "broker_rebalance_timeout": 60.0,
        # Longest wait for an unresponsive broker; must not be below the session timeout.
        "broker_request_timeout": 30.0,
        # A new group reads everything; "latest" would skip records produced before its first commit.
        "consumer_auto_offset_reset": "earliest",
        # Limit of bytes of one partition in one chunk; a larger message is delivered alone.
        "consumer_max_fetch_size": 4 << 20,
        # Delay until new topics and partitions are seen; aiokafka's default of five minutes looks like a hang.
        "consumer_metadata_max_age_ms": 10_000,
        "producer_metadata_max_age_ms": 10_000,
        # Chunks in an agent's queue, each up to consumer_max_fetch_size: bounds the memory.
        "stream_buffer_maxsize": 32,
        # A failed agent has lost its position in the stream: the process ends, and its successor reads again from the
        # commit. Faust would restart the agent after the event on which it failed.
        "agent_supervisor": "mode.CrashingSupervisor",
        "producer_acks": -1,
        "producer_linger": 0,
        "producer_max_batch_size": 1 << 20,
        # Idempotence makes retries safe, so a request times out early.
        "producer_request_timeout": 30.0,
        # `ensure_topics` creates topics with the configured partitions; Faust must not create them.
        "topic_disable_leader": True,
        "topic_allow_declare": False,
        "web_enabled": False,
    }
    return settings | overrides
