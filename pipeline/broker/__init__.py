"""An embedded, single-node, disk-backed broker that speaks Kafka's wire protocol.

Any Kafka client connects to it unchanged: aiokafka, Faust, librdkafka, kcat, Java. It is for one machine: no
replication and no transactions, which it refuses. An acknowledged record survives a kill -9 of the broker; a power cut
may take the last second.

    async with EmbeddedBroker("data", port=0) as broker:
        ...  # bootstrap_servers=broker.address
"""

from __future__ import annotations

from pipeline.broker.broker import EmbeddedBroker
from pipeline.broker.errors import BrokerError, DataFolderInUse
from pipeline.broker.process import BrokerProcess, BrokerThread
from pipeline.broker.service import serve
from pipeline.broker.settings import BrokerSettings

__all__ = [
    "BrokerError",
    "BrokerProcess",
    "BrokerSettings",
    "BrokerThread",
    "DataFolderInUse",
    "EmbeddedBroker",
    "serve",
]
