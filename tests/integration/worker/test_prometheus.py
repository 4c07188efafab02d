"""A real Prometheus scrapes a real worker, and answers every query of the boards and alerts."""

import pytest

from tests.support.kafka import free_port
from tests.support.live import running
from tests.support.waiting import wait_until
from tests.unit.docker.test_monitoring import RULES, queries

TOKEN = "a-token-of-the-tests"
BASICS = ("Events by outcome", "Matches by rule", "Lag by role", "Watermark delay", "Rows by outcome", "Memory",
          "Processor time", "Snapshot size", "Time of a batch", "Roles that are not ready")  # fmt: skip


@pytest.mark.time_limit(180, "a worker of three roles, and a minute of scrapes on a machine with other work")
def test_every_query_of_the_boards_is_answered(own_embedded, tmp_path, prometheus):
    port = free_port()
    with running(
        own_embedded, tmp_path, sinks=("sql",), supervised=True, metrics_port=port, metrics_token=TOKEN,
        lateness="200ms", idle_timeout="1s",
    ) as live:  # fmt: skip
        live.worker.ready()
        server = prometheus(
            {
                "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
                "rule_files": [str(RULES)],
                "scrape_configs": [
                    {
                        "job_name": "astrocyte",
                        "authorization": {"type": "Bearer", "credentials": TOKEN},
                        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
                    }
                ],
            }
        )
        asked = {where: query.replace("$__rate_interval", "1m") for where, query in queries()}
        basics = {where: query for where, query in asked.items() if where.partition(": ")[2] in BASICS}
        assert len(basics) == len(BASICS)
        wait_until(
            lambda: not [where for where, query in basics.items() if not server.query(query)],
            120,
            lambda: f"no series: {[where for where, query in basics.items() if not server.query(query)]}",
        )
        for query in asked.values():
            server.query(query)
