"""An embedded, single-node, disk-backed broker that speaks Kafka's wire protocol.

Any Kafka client connects to it unchanged: aiokafka, Faust, librdkafka, kcat, Java. It is for one machine: it has no
replication and rejects transactions. An acknowledged record survives a kill -9 of the broker and a power failure; with
``sync="interval"`` the latter may lose the last second.

    async with EmbeddedBroker("data", port=0) as broker:
        ...  # bootstrap_servers=broker.address
"""

from __future__ import annotations

from astrocyte.pipeline.broker.protocol.errors import BrokerError, DataFolderInUse
from astrocyte.pipeline.broker.server.broker import EmbeddedBroker
from astrocyte.pipeline.broker.server.process import BrokerProcess, BrokerThread
from astrocyte.pipeline.broker.server.service import serve
from astrocyte.pipeline.broker.settings import BrokerSettings

__all__ = [
    "BrokerError",
    "BrokerProcess",
    "BrokerSettings",
    "BrokerThread",
    "DataFolderInUse",
    "EmbeddedBroker",
    "serve",
]
