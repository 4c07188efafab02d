"""Addresses of PostgreSQL and TLS: what names files of it is verified, and a server that is not is reported."""

import logging

import pytest

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.sql.url import database_url, report_unverified

ADDRESS = "postgresql://me:hunter2@db/x"


@pytest.fixture(autouse=True)
def _no_settings_of_libpq(monkeypatch):
    monkeypatch.delenv("PGSSLMODE", raising=False)
    report_unverified.cache_clear()


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
def test_an_address_with_files_of_tls_verifies_certificate_and_name(name):
    assert database_url(f"{ADDRESS}?{name}=file.pem").query["sslmode"] == "verify-full"


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_another_mode_that_uses_the_files_stays(mode):
    assert database_url(f"{ADDRESS}?sslrootcert=ca.pem&sslmode={mode}").query["sslmode"] == mode


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_a_mode_that_may_connect_without_tls_is_refused_beside_its_files(mode, monkeypatch):
    with pytest.raises(SinkError, match=f"sslmode={mode} the connection may be made without it") as raised:
        database_url(f"{ADDRESS}?sslrootcert=ca.pem&sslmode={mode}")
    assert "hunter2" not in str(raised.value)
    monkeypatch.setenv("PGSSLMODE", mode)
    with pytest.raises(SinkError, match="may be made without it"):
        database_url(f"{ADDRESS}?sslrootcert=ca.pem")


def test_a_mode_that_does_not_exist_is_refused():
    with pytest.raises(SinkError, match=r"sslmode=verify in the database address; expected one of disable, "):
        database_url(f"{ADDRESS}?sslmode=verify")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (ADDRESS, "the connection may be without TLS"),
        (f"{ADDRESS}?sslmode=prefer", "the connection may be without TLS"),
        (f"{ADDRESS}?sslmode=require", "is not verified; add sslmode=verify-full"),
        ("postgresql:///x?host=127.0.0.1&host=db", "is not verified"),
    ],
)
def test_a_server_elsewhere_that_is_not_verified_is_reported_once(address, said, caplog):
    for _ in range(2):
        report_unverified(address)
    assert len(caplog.records) == 1
    assert said in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me@127.0.0.1:5432/x", "postgresql://me@localhost/x", "postgresql://me@[::1]/x", "postgresql:///x",
        "postgresql:///x?host=/run/postgresql", f"{ADDRESS}?sslmode=disable", f"{ADDRESS}?sslmode=verify-ca",
        f"{ADDRESS}?sslrootcert=ca.pem", f"{ADDRESS}?sslrootcert=ca.pem&sslmode=require", "sqlite:///x.db",
    ],
)  # fmt: skip
def test_a_server_that_is_verified_or_here_or_meant_so_is_not_reported(address, caplog):
    with caplog.at_level(logging.WARNING):
        report_unverified(address)
    assert not caplog.records
