"""A real Apache Kafka (KRaft, one node) from Maven Central's jars, for tests against a real broker.

The jars come through Maven into a cache folder outside the repository. Needs Java 17 or newer and mvn.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

import pytest

VERSION = "4.1.0"

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>astrocyte.tests</groupId><artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>{artifact}</artifactId><version>{version}</version>
    </dependency>
  </dependencies>
</project>
"""

_PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
message.max.bytes=33554432
log.cleaner.backoff.ms=200
# After kill -9 the controller refuses the broker until its old session has ended.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
"""

_LOGGING = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders><Console name="console"><PatternLayout pattern="%d %p %c{1} %m%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="console"/></Root></Loggers>
</Configuration>
"""


class KafkaUnavailable(RuntimeError):
    """Java or Maven is absent, or the jars cannot be downloaded."""


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def jars(artifact: str = "kafka_2.13") -> Path:
    """Folder of the jars of the broker, or of ``kafka-tools``, filled by Maven the first time.

    Raises KafkaUnavailable.
    """
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        raise KafkaUnavailable(f"{' and '.join(missing)} not found; a real Kafka needs Java 17 or newer and Maven")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astrocyte-tests"
    cache = folder / ("kafka" if artifact == "kafka_2.13" else artifact) / VERSION
    libs = cache / "libs"
    if not (cache / "complete").exists():
        # A separate folder until it is complete, so that two test runs may do this at once.
        work = cache.with_name(f"{VERSION}-{os.getpid()}")
        work.mkdir(parents=True, exist_ok=True)
        (work / "pom.xml").write_text(_POM.format(artifact=artifact, version=VERSION))
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={work / 'libs'}"]
        done = subprocess.run(command, check=False, cwd=work, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise KafkaUnavailable(f"Maven could not fetch {artifact}:{VERSION}: {(done.stdout + done.stderr)[-500:]}")
        (work / "complete").touch()
        with contextlib.suppress(OSError):
            work.rename(cache)
        if work.exists():
            shutil.rmtree(work)
    return libs


# Few threads and a small heap: the machine is shared with the code under test.
_JAVA = ["java", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


def run_tool(main: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A tool of Kafka's own, with its Java client: ``ConsoleProducer``, ``consumer.ConsoleConsumer`` and others."""
    command = [*_JAVA, "-Xmx256m", "-cp", f"{jars('kafka-tools')}/*", f"org.apache.kafka.tools.{main}", *arguments]
    return subprocess.run(command, input=stdin, check=False, capture_output=True, timeout=120)


class Kafka:
    """One broker on a free loopback port; its data survives `kill` and `start`."""

    def __init__(self, folder: Path, *, properties: str = "", formatting: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._libs = jars()
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "kafka.log"
        self._settings = folder / "server.properties"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log4j2.xml").write_text(_LOGGING)
        text = _PROPERTIES.format(port=self.port, controller=free_port(), folder=folder / "data")
        # Of two lines for one property Kafka takes the last.
        self._settings.write_text(text + properties.replace("{port}", str(self.port)))
        cluster = uuid.uuid4().hex[:22]
        self._run("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._settings), *formatting)

    @property
    def address(self) -> str:
        """Bootstrap address."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        assert self._process is not None
        return self._process.pid

    def _command(self, main: str, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self._folder / 'log4j2.xml'}"
        return [*_JAVA, "-Xmx512m", logging, "-cp", f"{self._libs}/*", main, *arguments]

    def _run(self, main: str, *arguments: str) -> None:
        done = subprocess.run(self._command(main, *arguments), check=False, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise KafkaUnavailable(f"{main} {arguments[0]} failed: {(done.stdout + done.stderr)[-2000:]}")

    def start(self, timeout_s: float = 60.0) -> None:
        """Start, and return when the broker answers a metadata request."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command("kafka.Kafka", str(self._settings)), stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + timeout_s
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise KafkaUnavailable(f"Kafka did not come up: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it runs, and answers within a second."""
        # ApiVersions v0 without arguments: key 18, version 0, correlation 1, no client id.
        request = bytes.fromhex("0000000a 0012 0000 00000001 ffff".replace(" ", ""))
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.settimeout(1.0)
                connection.sendall(request)
                return len(connection.recv(8)) == 8
        except OSError:
            return False

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """A clean shutdown, or kill -9 after ten seconds."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def kafka_or_skip(artifact: str = "kafka_2.13") -> None:
    """Skip the test where a real Kafka, or its tools, cannot be had; in CI, where they must be there, let it fail."""
    try:
        jars(artifact)
    except KafkaUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no real Kafka: {error}")
