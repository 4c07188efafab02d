import socket
import urllib.request
from types import SimpleNamespace

import pytest

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.unused import Unused
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline import metrics
from astrocyte.pipeline.role_registry import role_names
from astrocyte.pipeline.settings import load_settings
from astrocyte.schemas.errors import InvalidSettings

RULES = load_rules("rules: [{name: one, within: 1s, seq: [{as: a, stream: axon_1}]}]")


def served(collector, monkeypatch) -> str:
    ports = []
    start = metrics.start_http_server

    def started(*arguments, **options):
        server, thread = start(*arguments, **options)
        ports.append((server, thread))
        return server, thread

    monkeypatch.setattr(metrics, "start_http_server", started)
    port = metrics.serve_metrics(load_settings(metrics_port=0), "correlate", collector)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    for server, thread in ports:
        server.shutdown()
        server.server_close()
        thread.join()
    return text


def test_counters_of_every_domain_are_served(monkeypatch):
    topics = {"axon_1": "mono.axon_1"}
    domain = Domain(3, [DomainGroup("key", Engine(RULES), topics)], topics=topics.values())
    domain.counters.processed = 7
    text = served(metrics.DomainMetrics(lambda: {3: domain}), monkeypatch)
    assert 'astrocyte_events_total{outcome="processed",partition="3"} 7.0' in text
    assert 'rule="one"' in text


def test_rows_of_a_store_are_served(monkeypatch):
    unused = Unused()
    unused.add("dead", "mono.A", "mono.A[0]@5: no", detail="sql", count=3)
    text = served(metrics.StoreMetrics("sql", SimpleNamespace(written=5, rejected=1, unused=unused)), monkeypatch)
    assert 'astrocyte_unused_total{cause="dead",detail="sql",of="mono.A"} 3.0' in text
    assert 'astrocyte_store_rows_total{outcome="written",role="sql"} 5.0' in text


def test_messages_on_which_a_recogniser_failed_are_served(monkeypatch):
    monkeypatch.setitem(metrics.RECOGNISE_FAILED, "hive", 4)
    text = served(metrics.UnusedMetrics("control", Unused()), monkeypatch)
    assert 'astrocyte_recognise_failed_total{decoder="hive"} 4.0' in text


def test_without_a_port_nothing_is_served():
    assert metrics.serve_metrics(load_settings(), "sql", metrics.StoreMetrics("sql", None)) is None


def test_a_port_that_is_in_use_is_an_error_that_names_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = load_settings(metrics_port=port - role_names().index("repartition"))
        with pytest.raises(InvalidSettings, match=rf"metrics of role 'repartition' need port {port} .*METRICS_PORT"):
            metrics.serve_metrics(settings, "repartition", metrics.DomainMetrics(dict))
