"""Alerts in Alertmanager's terms: labels that name them, times between which they fire, every member of a cluster."""

import orjson
import pytest
from aiohttp import web

from astrocyte.agents.sinks.base import SinkError, SourcedRecords
from astrocyte.agents.sinks.http.alertmanager import AlertmanagerSink, posted_alert
from astrocyte.agents.sinks.http.server import HttpServer
from astrocyte.agents.sinks.testing import SinkUnderTest, alert, check_sink
from astrocyte.schemas.times import us_from_iso
from tests.support.http_receiver import http_receiver
from tests.support.notices import RetryNotices
from tests.support.written import written

NOW_US = us_from_iso("2025-01-01T00:10:00Z")
NOWHERE = "http://127.0.0.1:1/api/v2/alerts"


def sink_to(*urls, notices=None):
    servers = [HttpServer(url, name="Alertmanager", setting="ALERTMANAGER") for url in urls]
    retry = None if notices is None else notices.retry("alertmanager")
    return AlertmanagerSink(servers, now_us=lambda: NOW_US, retry=retry)


def alerts(*numbers):
    return [SourcedRecords("alerts", [alert(number) for number in numbers], "alerts", 2, 40)]


def ids(receiver):
    return [each["annotations"]["alert_id"] for _, _, body in receiver.requests for each in orjson.loads(body)]


async def test_the_sink_keeps_the_contract():
    async with http_receiver() as receiver:

        async def count():
            return {"alerts": len(set(ids(receiver)))}

        await check_sink(lambda: SinkUnderTest(sink_to(receiver.url), count), reads=("alerts",), unknown=True)


def test_labels_say_which_alert_it_is_and_annotations_what_receivers_should_read():
    found = posted_alert(alert(3) | {"simulation_id": "run-7", "count": 4, "keys": ["a", "b"]}, NOW_US, 300_000_000)
    assert found == {
        "labels": {"alertname": "collapse", "severity": "critical", "key": "run-1", "run": "run-7", "job": "astrocyte"},
        "annotations": {
            "summary": "the population fell to 3",
            "alert_id": "alert-3",
            "multi_event_id": "00000000-0000-8000-8000-000000000003",
            "count": "4",
            "keys": "a, b",
        },
        "startsAt": "2025-01-01T00:00:03Z",
        "endsAt": "2025-01-01T00:15:00Z",
    }


def test_an_alert_from_a_clock_that_is_ahead_ends_after_it_began():
    ahead = alert(1) | {"timestamp": "2025-01-01T02:00:00Z"}
    assert posted_alert(ahead, NOW_US, 300_000_000)["endsAt"] == "2025-01-01T02:05:00Z"


async def test_every_member_of_a_cluster_gets_the_alerts_and_one_that_is_away_is_passed_over(caplog):
    async with http_receiver() as one, http_receiver() as two:
        sink = sink_to(one.url, NOWHERE, two.url)
        await sink.open()
        assert await sink.write(alerts(1)) == []
        assert await sink.write(alerts(2)) == []
        await sink.close()
    assert ids(one) == ids(two) == ["alert-1", "alert-2"]
    assert caplog.text.count("the others get the alerts") == 1, "it is said once"


async def test_when_all_are_away_the_alerts_wait():
    async with http_receiver() as one, http_receiver() as two:
        one.answers += [web.Response(status=503), "cut"]
        two.answers += ["cut", web.Response(status=502)]
        notices = RetryNotices()
        assert await written(sink_to(one.url, two.url, notices=notices), alerts(1)) == []
    assert notices.waits == [0.1, 0.2]
    assert ids(one) == ids(two) == ["alert-1"]


async def test_an_alert_that_is_never_taken_is_rejected_and_the_others_are_written():
    async with http_receiver() as receiver:
        receiver.refuses = lambda body: b"fell to 2" in body
        (rejected,) = await written(sink_to(receiver.url), alerts(1, 2, 3))
    assert (rejected.offset, rejected.reason) == (41, "Alertmanager answered 400: bad request: not like this")
    assert sorted(ids(receiver)) == ["alert-1", "alert-3"]


async def test_a_retracted_alert_is_resolved_unless_another_of_its_labels_stands():
    one, other = alert(1), alert(2)  # of one rule, key and severity
    states = ((one, "provisional"), (other, "provisional"), (one, "retracted"), (other, "confirmed"))
    async with http_receiver() as receiver:
        sink = sink_to(receiver.url)
        await sink.open()
        for number, (which, status) in enumerate((*states, (other, "retracted"))):
            records = [which | {"status": status}]
            assert await sink.write([SourcedRecords("alerts", records, "alerts", 2, number)]) == []
        assert sink.written == 5
        await sink.close()
    posted = [each for _, _, body in receiver.requests for each in orjson.loads(body)]
    assert [(each["annotations"]["alert_id"], each["endsAt"]) for each in posted] == [
        ("alert-1", "2025-01-01T00:15:00Z"),
        ("alert-2", "2025-01-01T00:15:00Z"),
        ("alert-2", "2025-01-01T00:15:00Z"),
        ("alert-2", "2025-01-01T00:10:00Z"),
    ]


async def test_a_token_that_no_member_accepts_stops_the_role():
    async with http_receiver() as receiver:
        receiver.answers += [web.Response(status=403)]
        with pytest.raises(SinkError, match="set ASTROCYTE_ALERTMANAGER_TOKEN"):
            await written(sink_to(receiver.url), alerts(1))
