"""Alerts of real workers reach a webhook and a real Alertmanager, each at least once and none with two contents."""

from __future__ import annotations

import orjson

from astrocyte.schemas.topics import ALERTS
from tests.support.http_receiver import http_receiver
from tests.support.live import running
from tests.support.threads import in_thread
from tests.support.waiting import wait_until

HASTY = {"lateness": "200ms", "idle_timeout": "1s"}


def alerts_of(live):
    return {each["alert_id"]: each for each in (orjson.loads(record.value) for record in live.records(ALERTS))}


def test_a_webhook_gets_every_alert_although_its_role_is_killed(own_embedded, tmp_path):
    with (
        in_thread(http_receiver()) as receiver,
        running(own_embedded, tmp_path, sinks=("webhook",), webhook_url=f"{receiver.url}/alerts", **HASTY) as live,
    ):
        role = live.of("webhook")
        wait_until(lambda: receiver.requests, 120, "the first alert")
        role.kill()
        live.sending.wait(1)
        role.start()
        role.ready()
        live.sending.wait(1)
        live.sending.stop()
        wait_until(lambda: live.counters()["received"] >= live.sending.events, 120, "the rest of the events")
        wait_until(lambda: all(live.lag(each) == 0 for each in live.roles), 120, "the rest of the alerts")
        events = [orjson.loads(body) for _, _, body in receiver.requests]
        wanted = alerts_of(live)
    found = {(event["source"], event["id"]): event["data"] for event in events}
    assert len(wanted) > 20
    assert {data["alert_id"]: data for data in found.values()} == wanted
    assert all(found[event["source"], event["id"]] == event["data"] for event in events)


def test_alertmanager_fires_every_alert_and_notifies_its_receivers(own_embedded, tmp_path, alertmanager):
    with in_thread(http_receiver()) as receiver:
        server = alertmanager(f"{receiver.url}/notified")
        with running(
            own_embedded, tmp_path, sinks=("alertmanager",), alertmanager_url=server.url, **HASTY
        ) as live:  # fmt: skip
            wait_until(server.alerts, 120, "the first alert")
            live.sending.stop()
            wait_until(lambda: live.counters()["received"] >= live.sending.events, 120, "the rest of the events")
            wait_until(lambda: all(live.lag(each) == 0 for each in live.roles), 120, "the rest of the alerts")
            wanted = alerts_of(live)
        fired = server.alerts()
        # Alerts of one rule and key are one there: its labels are those of the alert.
        assert {each["labels"]["key"] for each in fired} == {each["key"] for each in wanted.values()}
        assert {each["annotations"]["alert_id"] for each in fired} <= wanted.keys()
        assert {each["labels"]["alertname"] for each in fired} == {"rising"}
        assert {each["status"]["state"] for each in fired} == {"active"}
        wait_until(
            lambda: {
                each["labels"]["key"] for _, _, body in receiver.requests for each in orjson.loads(body)["alerts"]
            } == {each["key"] for each in wanted.values()},
            60,
            "the notifications",
        )  # fmt: skip
