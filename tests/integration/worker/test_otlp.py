"""Workers deliver traces and metrics over OTLP, and never wait for a collector."""

import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.support.kafka import free_port
from tests.support.live import running
from tests.support.otlp_collector import otlp_collector
from tests.support.waiting import wait_until

CONSUMER, CLIENT = 5, 3


def scraped(port: int) -> dict[tuple[str, str], dict[tuple[tuple[str, str], ...], float]]:
    """By role and name of a sample: values by labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found: dict[tuple[str, str], dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            role = sample.labels.get("role", "")
            found.setdefault((role, sample.name), {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_a_collector_is_sent_what_the_roles_do_and_count(own_embedded, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=tests")
    port = free_port()
    with (
        otlp_collector() as collector,
        running(
            own_embedded, tmp_path, sinks=("sql",), supervised=True, metrics_port=port, otlp_url=collector.url,
            lateness="200ms", idle_timeout="1s",
        ) as live,
    ):  # fmt: skip
        wait_until(lambda: live.sending.events > 1_000, 60)
        live.outcome().check(repeats=False)

        def processed(topic: str) -> int:
            return sum(
                span.attributes["astrocyte.events"]
                for span in collector.spans
                if span.resource["astrocyte.role"] == "correlate" and span.name == f"process {topic}"
            )

        sent = live.sending.events
        topics = {span.attributes["messaging.destination.name"] for span in collector.spans if span.kind == CONSUMER}
        wait_until(lambda: sum(map(processed, topics)) == sent, 60, lambda: f"{sum(map(processed, topics))} of {sent}")
        spans = [span for span in collector.spans if span.resource["astrocyte.role"] == "correlate"]
        assert {span.attributes["messaging.consumer.group.name"] for span in spans} == {
            f"{live.settings.group}-correlate"
        }
        matches = sum(span.attributes["astrocyte.multi_events"] for span in spans)
        assert 0 < matches <= live.counters()["matches"]  # the others were made by a clock, between chunks
        wrote = [span for span in collector.spans if span.name == "write sql"]
        assert {span.kind for span in wrote} == {CLIENT}
        assert sum(span.attributes["db.operation.batch.size"] for span in wrote) > sent

        now = scraped(port)
        name = "astrocyte_events_total"
        wait_until(
            lambda: collector.values("correlate", name) == now["correlate", name],
            60,
            lambda: f"{now['correlate', name]}, got {collector.values('correlate', name)}",
        )
        assert (
            sum(value for labels, value in now["correlate", name].items() if ("outcome", "received") in labels) == sent
        )
        # What only a supervisor counts is at its page alone.
        own = {key for key in now if key[1] != "astrocyte_restarts_total"}
        assert own <= collector.metrics.keys()
        assert {kind for (_, each), (kind, _) in collector.metrics.items() if each.endswith("_total")} == {"sum"}
        assert collector.metrics["correlate", "astrocyte_lag"][0] == "gauge"
        assert all(each["x-tenant"] == "tests" for each in collector.headers)


def test_a_collector_that_takes_nothing_holds_nothing_up(own_embedded, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    with (
        otlp_collector() as collector,
        running(
            own_embedded, tmp_path, sinks=("sql",), otlp_url=collector.url, lateness="200ms", idle_timeout="1s"
        ) as live,
    ):
        collector.status = 503
        wait_until(lambda: live.sending.events > 1_000, 60)
        live.outcome().check(repeats=False)
        said = [f"the OTLP collector at {collector.url} takes no {what}" for what in ("spans", "metrics")]
        wait_until(lambda: all(line in worker.said for worker in live.workers for line in said), 60)
        for worker in live.workers:
            assert [worker.said.count(line) for line in said] == [1, 1]
            assert "Service Unavailable" in worker.said
            assert "retrying" not in worker.said.partition("takes no metrics")[0]
        began_s = time.monotonic()
        for worker in live.workers:
            worker.stop()
        assert time.monotonic() - began_s < 60
    assert not collector.spans
