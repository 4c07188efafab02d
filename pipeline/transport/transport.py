"""The Faust transport ``astrocyte://host:9092``: nothing is lost, and a chunk costs what a message did.

Stock Faust commits past events that are still held and spends 57 microseconds a message. This transport subclasses its
aiokafka driver: exact commits (`pipeline.transport.commits`), one event per fetched chunk
(`pipeline.transport.chunk`), whole domains per worker (`pipeline.transport.assignor`), an idempotent producer that is
never given up (`pipeline.transport.producer`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, ClassVar, Final

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from astrocyte.pipeline.transport.chunk import Chunk, ack_handle
from astrocyte.pipeline.transport.client_log import limit_client_log
from astrocyte.pipeline.transport.consumer import Consumer, WorkerStalled
from astrocyte.pipeline.transport.options import TransportOptions, configure, options_of
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
    "WorkerStalled",
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
        # Faust asks for aiokafka's producer here; which one it is changes when a broken one is replaced.
        return self.confirmed.current if self.confirmed is not None else None

    @_producer.setter
    def _producer(self, value: Any) -> None:
        """Nothing: the confirmed producer decides."""

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
            **self._settings_auth(),
        )

    async def on_start(self) -> None:
        """Connect, for as long as that takes."""
        await super(driver.Producer, self).on_start()
        self.confirmed = ConfirmedProducer(self._settings(), should_stop=lambda: bool(self.should_stop))
        await self.confirmed.start()

    async def on_stop(self) -> None:
        """Deliver what was handed over, within a few seconds."""
        await super(driver.Producer, self).on_stop()
        self.transport._topic_waiters.clear()
        if self.confirmed is not None:
            left = await self.confirmed.stop(_STOP_S)
            if left:
                self.log.warning("%s records were not confirmed; what caused them is not acknowledged", left)

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
        """Hand over one record; the awaitable resolves when the broker has confirmed it."""
        if transactional_id:
            raise NotImplementedError("this transport has no transactions; its sinks are idempotent instead")
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers or ())
        stamp = int(timestamp * 1000) if timestamp else None
        self._send_on_produce_message(key=key, value=value, partition=partition, timestamp=timestamp, headers=pairs)
        return await self._sender().send(ProducerRecord(topic, value, key, partition, pairs, stamp))

    async def send_and_confirm(self, records: Iterable[ProducerRecord]) -> None:
        """Return when the broker has confirmed every record, in order within each partition.

        It retries for ever what may succeed. Raises DeliveryFailed for a record that the broker refuses for good.
        """
        await self._sender().deliver(records)

    async def flush(self) -> None:
        """Return when all that was handed over is confirmed or refused."""
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
    """`Producer.send_and_confirm` of the app: await it before acknowledging what caused the records."""
    await app.producer.send_and_confirm(records)


def app_settings(broker: str = "127.0.0.1:9092", **overrides: Any) -> dict[str, Any]:
    """Settings of a Faust app that this transport needs, to be passed to ``faust.App(id, **settings)``."""
    settings: dict[str, Any] = {
        "broker": [f"astrocyte://{address.strip()}" for address in broker.split(",")],
        # Agents decode for themselves: Faust would count a record it cannot decode as done.
        "value_serializer": "raw",
        "key_serializer": "raw",
        # A held chunk would otherwise hang every shutdown and every rebalance.
        "stream_wait_empty": False,
        # Transactions of Faust bind outputs to the wrong group of offsets, and cover no database.
        "processing_guarantee": "at_least_once",
        # What a crash repeats beyond the open windows is what was acknowledged since the last commit.
        "broker_commit_interval": 0.5,
        # Only the timer commits: a count of acknowledgements says nothing about chunks.
        "broker_commit_every": None,
        # A worker that was killed blocks its partitions for so long.
        "broker_session_timeout": 10.0,
        "broker_heartbeat_interval": 3.0,
        "broker_rebalance_timeout": 60.0,
        # Longest wait for a broker that hangs; must not be below the session timeout.
        "broker_request_timeout": 30.0,
        # A new group reads everything; "latest" would lose what came before its first commit.
        "consumer_auto_offset_reset": "earliest",
        # Most bytes of one partition in one chunk; a larger message still comes, alone.
        "consumer_max_fetch_size": 4 << 20,
        # New topics and partitions are seen after this; aiokafka's own five minutes look like a hang.
        "consumer_metadata_max_age_ms": 10_000,
        "producer_metadata_max_age_ms": 10_000,
        # Chunks in an agent's queue, of up to consumer_max_fetch_size each: this bounds the memory.
        "stream_buffer_maxsize": 32,
        # An agent that fails has lost its place in the stream: the process ends, and another reads again from the
        # commit. Faust would restart the agent after the event that it failed on.
        "agent_supervisor": "mode.CrashingSupervisor",
        "producer_acks": -1,
        "producer_linger": 0,
        "producer_max_batch_size": 1 << 20,
        # Idempotence makes it safe to try again, so a request is given up soon.
        "producer_request_timeout": 30.0,
        # Topics are made by `ensure_topics` with the configured partitions; nobody else should make them.
        "topic_disable_leader": True,
        "topic_allow_declare": False,
        "web_enabled": False,
    }
    return settings | overrides
