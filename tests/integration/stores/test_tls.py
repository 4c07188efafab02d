"""TLS to PostgreSQL and InfluxDB by settings alone: verified, never switched off silently, one error for each fault."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from astrocyte.agents.sinks.base import RetryNotice, Sink, SinkError
from astrocyte.agents.sinks.registry import SINKS, SinkContext
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.agents.sinks.sql.engines import driver_errors, engine_of
from astrocyte.pipeline.bench.servers.postgres import PostgresServer
from astrocyte.pipeline.bench.servers.victoria import VictoriaUnavailable, victoria_server
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.settings import load_settings
from tests.support.batches import a_batch
from tests.support.certificates import Authority, tls_front
from tests.support.influx_stub import InfluxStub, influx_thread
from tests.support.postgres import Secured, server_or_skip

SECRET = "hunter2Secret"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> tuple[Path, Path]:
    """Of the servers: for the name localhost, not for the address 127.0.0.1."""
    return authority.issue("localhost")


@pytest.fixture(scope="module")
def client(authority: Authority) -> tuple[Path, Path]:
    """Of a client, whose key has a password."""
    return authority.issue("app", password=SECRET)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with server_or_skip() as found:
        yield found


@pytest.fixture(scope="module")
def postgres_port(server: PostgresServer, certificate: tuple[Path, Path]) -> Iterator[int]:
    with tls_front(server.port, certificate, postgres=True) as port:
        yield port


@pytest.fixture
def stub() -> Iterator[InfluxStub]:
    with influx_thread() as found:
        found.token = SECRET
        yield found


def port_of(stub: InfluxStub) -> int:
    return int(stub.url.rpartition(":")[2])


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Set settings by their names."""
    monkeypatch.chdir(tmp_path)

    def set_all(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"ASTROCYTE_{name.upper()}", str(value))

    return set_all


def sink_by_settings(role: str) -> Sink:
    """As a worker makes it."""

    def note(notice: RetryNotice) -> None:
        raise AssertionError(f"what no retry can help was retried: {notice.reason}")

    settings = load_settings()
    policy = RetryPolicy(role, on_retry=note)
    return SINKS.get(role).make(SinkContext(role, settings.of(role), policy, lambda: 1, settings.common()))


async def written(role: str) -> None:
    sink = sink_by_settings(role)
    try:
        await sink.open()
        assert await sink.write(a_batch()) == []
    finally:
        await sink.close()


def sql_url(port: int, host: str = "localhost", **options: object) -> str:
    asked = "&".join(f"{name}={value}" for name, value in options.items())
    return f"postgresql://app:{SECRET}@{host}:{port}/postgres?{asked}"


async def test_the_sql_role_and_commands_use_tls_by_the_address_alone(postgres_port, authority, choose):
    choose(sql_url=sql_url(postgres_port, sslrootcert=authority.ca_file))
    upgraded = CliRunner().invoke(app, ["db", "upgrade"], catch_exceptions=False)
    assert upgraded.exit_code == 0
    await written("sql")
    with engine_of(load_settings().sql_url.get_secret_value()).connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM multi_events").scalar() == 4


async def test_postgresql_may_ask_for_a_certificate_of_the_client(server, authority, certificate, client, choose):
    files = {"sslcert": client[0], "sslkey": client[1], "sslpassword": SECRET}
    client[1].chmod(0o600)
    with tls_front(server.port, certificate, clients_by=authority.ca_file, postgres=True) as port:
        choose(sql_url=sql_url(port, sslrootcert=authority.ca_file, **files))
        await written("sql")
        choose(sql_url=sql_url(port, sslrootcert=authority.ca_file))
        with pytest.raises(SinkError, match=r"no TLS connection to .*certificate required.*sslcert") as raised:
            await written("sql")
        assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("host", "options", "match"),
    [
        ("localhost", {"sslrootcert": "{other}"}, "certificate verify failed"),
        ("localhost", {"sslrootcert": "{other}", "sslmode": "verify-ca"}, "certificate verify failed"),
        ("localhost", {"sslmode": "verify-full", "sslrootcert": "system"}, "certificate verify failed"),
        ("127.0.0.1", {"sslrootcert": "{ca}"}, "does not match host name"),
        ("localhost", {"sslrootcert": "absent.pem"}, 'root certificate file "absent.pem" does not exist'),
        ("plain", {"sslrootcert": "{ca}"}, "server does not support SSL"),
        ("localhost", {"sslrootcert": "{ca}", "sslmode": "prefer"}, "may be made without it; expected sslmode=verify"),
        ("localhost", {"sslrootcert": "{ca}", "sslmode": "disable"}, "may be made without it; expected sslmode=verify"),
        ("localhost", {"sslmode": "on"}, "sslmode=on in the database address; expected one of disable, "),
    ],
)
async def test_a_postgresql_that_is_not_verified_is_one_error(
    server, postgres_port, authority, other, choose, host, options, match, capfd
):
    named = {name: value.format(ca=authority.ca_file, other=other.ca_file) for name, value in options.items()}
    port, host = (server.port, "localhost") if host == "plain" else (postgres_port, host)
    choose(sql_url=sql_url(port, host, **named))
    with pytest.raises(SinkError, match=match) as raised:
        await written("sql")
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)
    upgraded = CliRunner().invoke(app, ["db", "upgrade"])
    assert isinstance(upgraded.exception, SinkError)
    assert SECRET not in str(upgraded.exception) + upgraded.output + "".join(capfd.readouterr())


@pytest.fixture(scope="module")
def secured_port(certificate: tuple[Path, Path], authority: Authority) -> Iterator[int]:
    needed = bool(os.environ.get("CI"))
    with server_or_skip(lambda folder: Secured(folder, certificate, authority.ca_file), needed=needed) as server:
        yield server.port


USING_TLS = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def test_a_real_postgresql_with_tls_verifies_both_sides(secured_port, authority, client, choose):
    client[1].chmod(0o600)
    files = {"sslrootcert": authority.ca_file, "sslcert": client[0], "sslkey": client[1], "sslpassword": SECRET}
    with engine_of(sql_url(secured_port, **files)).connect() as connection:
        assert connection.exec_driver_sql(USING_TLS).one() == (True, "TLSv1.3")
    without = sql_url(secured_port, sslrootcert=authority.ca_file)
    with pytest.raises(SinkError, match="certificate") as raised, driver_errors(without):
        engine_of(without).connect()
    assert SECRET not in str(raised.value)


def test_a_real_postgresql_with_tls_takes_no_connection_without_it(secured_port, other):
    address = sql_url(secured_port).replace("/postgres?", "/template1?")
    with engine_of(address + "sslmode=require").connect() as connection:
        assert connection.exec_driver_sql(USING_TLS).one()[0]
    for options, match in (
        ("sslmode=disable", "no pg_hba.conf entry"),
        (f"sslrootcert={other.ca_file}", "verify fail"),
    ):
        with pytest.raises(SinkError, match=match), driver_errors(address + options):
            engine_of(address + options).connect()


async def test_the_influx_role_and_commands_use_tls_by_settings_alone(stub, authority, certificate, choose):
    with tls_front(port_of(stub), certificate) as port:
        choose(influx_url=f"https://localhost:{port}", influx_token=SECRET, influx_ca_file=authority.ca_file)
        await written("influx")
        made = CliRunner().invoke(app, ["influx", "setup"], catch_exceptions=False)
    assert stub.points
    assert made.exit_code == 0
    assert len(stub.buckets) == 2


async def test_influxdb_may_ask_for_a_certificate_of_the_client(stub, authority, certificate, client, choose):
    with tls_front(port_of(stub), certificate, clients_by=authority.ca_file) as port:
        choose(influx_url=f"https://localhost:{port}", influx_token=SECRET, influx_ca_file=authority.ca_file)
        with pytest.raises(SinkError, match=r"asks for one: .*CERTIFICATE_REQUIRED.*ASTROCYTE_INFLUX_CERT_FILE"):
            await written("influx")
        choose(influx_cert_file=client[0], influx_key_file=client[1], influx_key_password=SECRET)
        await written("influx")
    assert stub.points


@pytest.mark.parametrize(
    ("host", "ca", "match"),
    [
        ("localhost", "{other}", "its certificate is not trusted: unable to get local issuer certificate"),
        ("localhost", None, "its certificate is not trusted: unable to get local issuer certificate"),
        ("127.0.0.1", "{ca}", "its certificate is not trusted: IP address mismatch"),
        ("plain", "{ca}", "it does not speak TLS at this address; expected http:// or another port"),
    ],
)
async def test_an_influxdb_that_is_not_verified_is_one_error(
    stub, authority, other, certificate, choose, host, ca, match
):
    with tls_front(port_of(stub), certificate) as front:
        port, host = (port_of(stub), "localhost") if host == "plain" else (front, host)
        choose(influx_url=f"https://{host}:{port}", influx_token=SECRET)
        if ca is not None:
            choose(influx_ca_file=ca.format(ca=authority.ca_file, other=other.ca_file))
        with pytest.raises(SinkError, match=match) as raised:
            await written("influx")
        made = CliRunner().invoke(app, ["influx", "setup"])
    assert not stub.points
    assert isinstance(made.exception, SinkError)
    for said in (str(raised.value), str(made.exception)):
        assert f"no TLS connection to InfluxDB at https://{host}:{port}: " in said
        assert "ASTROCYTE_INFLUX_CA_FILE" in said
        assert "\n" not in said
        assert SECRET not in said


async def test_a_real_server_stores_points_over_tls(authority, certificate, choose):
    try:
        context = victoria_server(certificate, authority.ca_file)
        server = context.__enter__()
    except VictoriaUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    try:
        choose(influx_url=server.url, influx_token=SECRET, influx_ca_file=authority.ca_file)
        await written("influx")
        assert server.samples("problem_solving_accuracy")
    finally:
        context.__exit__(None, None, None)
