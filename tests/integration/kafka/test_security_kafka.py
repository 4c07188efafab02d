"""TLS and SASL on a real Kafka: a worker, clients and a publisher by settings alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import astrocyte
from astrocyte.pipeline.kafka.client import BrokerUnavailable, consumer_client, ensure_topics, scan, topic_partitions
from tests.support.certificates import Authority
from tests.support.kafka import Kafka, free_port, kafka_or_skip
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.soak]

PROPERTIES = """
listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{controller},SASL_SSL://127.0.0.1:{secured}
advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},SASL_SSL://127.0.0.1:{secured}
controller.quorum.voters=1@127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_me="secret";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\\
  org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class=\\
  org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler
listener.name.sasl_ssl.oauthbearer.sasl.login.callback.handler.class=\\
  org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredLoginCallbackHandler
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
"""
LOGINS = {
    "PLAIN": {"USERNAME": "me", "PASSWORD": "secret"},
    "SCRAM-SHA-256": {"USERNAME": "me", "PASSWORD": "secret256"},
    "SCRAM-SHA-512": {"USERNAME": "me", "PASSWORD": "secret512"},
    # An unsecured token (RFC 7515, "alg": "none") of the subject me, valid until 2286.
    "OAUTHBEARER": {"TOKEN": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSIsImlhdCI6MSwiZXhwIjo5OTk5OTk5OTk5fQ."},
}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a listener that takes TLS with a login only, and the file of its authority."""
    kafka_or_skip()
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    certificate, key = authority.issue("127.0.0.1", alternative="IP:127.0.0.1")
    (folder / "server.pem").write_text(key.read_text() + certificate.read_text())
    port = free_port()
    broker = Kafka(
        folder / "kafka",
        properties=PROPERTIES.format(controller=free_port(), secured=port, folder=folder),
        formatting=(
            "--add-scram",
            "SCRAM-SHA-256=[name=me,password=secret256]",
            "--add-scram",
            "SCRAM-SHA-512=[name=me,password=secret512]",
        ),
    )
    broker.start()
    yield f"127.0.0.1:{port}", authority.ca_file
    broker.stop()


def settings(secured: tuple[str, Path], mechanism: str, **changed: str) -> dict[str, str]:
    """Environment of a process that reaches the listener."""
    named = {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": mechanism, "CA_FILE": str(secured[1])}
    found = {f"ASTROCYTE_KAFKA_{name}": value for name, value in {**named, **LOGINS[mechanism], **changed}.items()}
    return found | {"ASTROCYTE_BROKER": secured[0]}


@pytest.mark.parametrize("mechanism", LOGINS)
async def test_clients_and_a_publisher_log_in(secured, monkeypatch, mechanism):
    for name, value in settings(secured, mechanism).items():
        monkeypatch.setenv(name, value)
    topic = f"mono.{mechanism.lower()}"
    await ensure_topics(secured[0], {topic: 1})
    with astrocyte.connect() as publisher:
        publisher.emit(topic.removeprefix("mono."), {"value": 1}, key="k")
        await asyncio.to_thread(wait_until, lambda: publisher.counts.delivered == 1, 30)
    async with consumer_client(secured[0]) as consumer:
        found = [record async for records in scan(consumer, {topic: 1}) for record in records]
    assert [record.key for record in found] == [b"k"]


@pytest.mark.parametrize("changed", [{"PASSWORD": "wrong1"}, {"CA_FILE": "/etc/ssl/certs/ca-certificates.crt"}])
async def test_a_wrong_password_and_an_unknown_authority_are_refused_without_the_password(
    secured, monkeypatch, changed
):
    for name, value in settings(secured, "SCRAM-SHA-256", **changed).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BrokerUnavailable, match="ASTROCYTE_KAFKA_") as raised:
        await topic_partitions(secured[0])
    assert "wrong1" not in str(raised.value)


def test_a_worker_reads_and_writes_by_settings_alone(secured, tmp_path):
    (tmp_path / "r.yaml").write_text(
        'rules: [{name: hot, seq: [{as: a, stream: readings, where: "t > 30"}], alert: {severity: info, message: hot}}]'
    )
    environment = settings(secured, "SCRAM-SHA-512")
    command = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()"]
    common = {"cwd": tmp_path, "env": os.environ | environment | {"ASTROCYTE_PARTITIONS": "1"}}
    log = tmp_path / "log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [*command, "worker", "--rules", "r.yaml", "--role", "correlate"], stdout=out, stderr=out, **common
        )
    try:
        wait_until(lambda: "is ready and reads" in log.read_text(), 120, log.read_text)
        code = "import astrocyte\nwith astrocyte.connect() as p: p.emit('readings', {'t': 40}, key='k')"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60, **common)
        tapped = subprocess.run(
            [*command, "tap", "alerts", "-c", "1"], check=True, capture_output=True, text=True, timeout=60, **common
        )
        assert '"hot"' in tapped.stdout
    finally:
        worker.terminate()
        worker.wait(30)
    assert "secret512" not in log.read_text()
