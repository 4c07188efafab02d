"""Alerts as CloudEvents over HTTP: confirmed by 2xx, repeated until then, signed, and read back by our own decoder."""

import base64
import hashlib
import hmac

import orjson
import pytest
from aiohttp import web

from astrocyte.agents.sinks.base import SinkError, SinkStopped, SourcedRecords
from astrocyte.agents.sinks.http.server import HttpServer
from astrocyte.agents.sinks.http.webhook import WebhookSink, signing_key
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.agents.sinks.testing import SinkUnderTest, alert, check_sink
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.json.reader import RawRecord, records_to_frame
from tests.support.http_receiver import http_receiver
from tests.support.notices import RetryNotices
from tests.support.written import written

NOW_US = 1_735_689_700_000_000
SECRET = "whsec_" + base64.b64encode(b"a key of 24 random bytes").decode()


def webhook(receiver, notices=None, *, url=None, token=None, timeout_s=30.0, retry=None, **options):
    server = HttpServer(
        url or f"{receiver.url}/hooks/T0/secret-path",
        name="the webhook",
        setting="WEBHOOK",
        token=token,
        timeout_s=timeout_s,
    )
    retry = retry or (notices.retry("webhook") if notices is not None else None)
    return WebhookSink(server, now_us=lambda: NOW_US, retry=retry, **options)


def alerts(*numbers, **more):
    return [SourcedRecords("alerts", [alert(number) | more for number in numbers], "alerts", 2, 40)]


def events_of(receiver):
    bodies = [orjson.loads(body) for _, _, body in receiver.requests]
    return [event for body in bodies for event in (body if isinstance(body, list) else [body])]


@pytest.mark.parametrize("most_events", [1, 2])
async def test_the_webhook_keeps_the_contract(most_events):
    async with http_receiver() as receiver:

        async def count():
            # Receivers recognise an event by its source and id (CloudEvents 1.0).
            return {"alerts": len({(event["source"], event["id"]) for event in events_of(receiver)})}

        await check_sink(
            lambda: SinkUnderTest(webhook(receiver, most_events=most_events), count), reads=("alerts",), unknown=True
        )


async def test_an_alert_is_a_cloud_event_that_our_decoder_reads():
    async with http_receiver() as receiver:
        await written(webhook(receiver, token="the-token"), alerts(3, simulation_id="run-7"))
    ((path, headers, body),) = receiver.requests
    assert (path, headers["authorization"]) == ("/hooks/T0/secret-path", "Bearer the-token")
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert orjson.loads(body) == {
        "specversion": "1.0",
        "id": "alert-3",
        "source": "/astrocyte/rules/collapse",
        "type": "astrocyte.alert",
        "time": "2025-01-01T00:00:03Z",
        "datacontenttype": "application/json",
        "subject": "run-1",
        "simulationid": "run-7",
        "data": alert(3),
    }
    frame, _, refused = records_to_frame("mono.hooks", 0, "hooks", [RawRecord(0, 0, None, body)])
    assert not refused
    (row,) = frame.rows()
    assert (row["event_id"], row["type"], row["severity"]) == (
        "/astrocyte/rules/collapse:alert-3",
        "astrocyte.alert",
        "critical",
    )


async def test_a_retraction_is_an_event_of_its_own_after_the_alert_and_a_confirmation_is_the_alert_again():
    states = ("provisional", "retracted", "provisional", "confirmed")
    records = [alert(number) | {"status": status} for number, status in zip((1, 1, 2, 2), states, strict=True)]
    async with http_receiver() as receiver:
        await written(webhook(receiver), [SourcedRecords("alerts", records, "alerts", 2, 40)])
    found = [(event["type"], event["id"], event["status"]) for event in events_of(receiver)]
    assert sorted(found[:3]) == [
        ("astrocyte.alert", "alert-1", "provisional"),
        ("astrocyte.alert", "alert-2", "confirmed"),
        ("astrocyte.alert", "alert-2", "provisional"),
    ]
    assert found[3:] == [("astrocyte.alert.retracted", "alert-1.retracted", "retracted")]
    assert "status" not in events_of(receiver)[0]["data"]


async def test_several_alerts_are_one_request_in_batched_mode():
    async with http_receiver() as receiver:
        await written(webhook(receiver, most_events=2), alerts(1, 2, 3))
    assert [headers["content-type"] for _, headers, _ in receiver.requests] == [
        "application/cloudevents-batch+json; charset=utf-8"
    ] * 2
    assert sorted(event["id"] for event in events_of(receiver)) == ["alert-1", "alert-2", "alert-3"]


async def test_requests_are_signed_as_standard_webhooks_asks():
    async with http_receiver() as receiver:
        await written(webhook(receiver, secret=SECRET, most_events=2), alerts(1, 2))
    ((_, headers, body),) = receiver.requests
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("alert-1..alert-2", "1735689700")
    signed = b"alert-1..alert-2.1735689700." + body
    expected = base64.b64encode(hmac.new(b"a key of 24 random bytes", signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


@pytest.mark.parametrize("secret", ["whsec_", "not base64!", "whsec_c2hvcnQ="])
def test_a_secret_that_is_none_is_refused_without_being_shown(secret):
    with pytest.raises(SinkError, match="openssl rand -base64 32") as caught:
        signing_key(secret)
    assert secret.removeprefix("whsec_") not in str(caught.value) or secret == "whsec_"


async def test_a_receiver_that_is_away_busy_or_silent_is_asked_again_until_it_takes_the_alerts():
    async with http_receiver() as receiver:
        receiver.answers += [
            "cut",
            "hang",
            web.Response(status=503),
            web.Response(status=429, headers={"Retry-After": "7"}),
        ]
        notices = RetryNotices()
        assert await written(webhook(receiver, notices, timeout_s=0.3), alerts(1)) == []
    assert notices.waits == [0.1, 0.2, 0.4, 7.0]
    assert [event["id"] for event in events_of(receiver)] == ["alert-1"]
    assert "secret-path" not in "".join(notice.reason for notice in notices), "the path may be the receiver's secret"


async def test_a_stopped_sink_confirms_nothing():
    async with http_receiver() as receiver:
        receiver.answers += [web.Response(status=503)]
        retry = RetryPolicy("webhook", on_retry=lambda _: retry.stop.set())
        with pytest.raises(SinkStopped, match="nothing of the batch was confirmed"):
            await written(webhook(receiver, retry=retry), alerts(1))


@pytest.mark.parametrize("most_events", [1, 8])
async def test_an_alert_that_is_never_taken_is_rejected_and_the_others_are_written(most_events):
    async with http_receiver() as receiver:
        receiver.refuses = lambda body: b"fell to 3" in body
        sink = webhook(receiver, most_events=most_events)
        (rejected,) = await written(sink, alerts(1, 2, 3, 4, 5))
    assert (rejected.topic, rejected.partition, rejected.offset) == ("alerts", 2, 42)
    assert rejected.reason == "the webhook answered 400: bad request: not like this"
    assert sorted(event["id"] for event in events_of(receiver)) == ["alert-1", "alert-2", "alert-4", "alert-5"]
    assert sink.written == 4


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (web.Response(status=401), "does not accept the token; set ASTROCYTE_WEBHOOK_TOKEN"),
        (web.Response(status=404), "nothing takes events there; set ASTROCYTE_WEBHOOK_URL"),
        (web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"}), "a redirection, which is not followed"),
    ],
)
async def test_what_waiting_does_not_mend_stops_the_role_and_drops_nothing(answer, said):
    async with http_receiver() as receiver:
        receiver.answers += [answer]
        with pytest.raises(SinkError, match=said) as caught:
            await written(webhook(receiver, token="the-token"), alerts(1))
    assert "nothing was dropped" in str(caught.value)
    assert not {"secret-path", "the-token"} & set(str(caught.value).replace("/", " ").split())
    assert receiver.requests == []


@pytest.mark.parametrize(
    "url", ["localhost:80/secret", "ftp://host/secret", "http://user:secret@host/", "http://", "http://host:0/secret"]
)
def test_what_is_no_address_is_refused_without_being_shown(url):
    with pytest.raises((SinkError, InvalidSettings), match="ASTROCYTE_WEBHOOK_URL") as caught:
        webhook(None, url=url)
    assert "secret" not in str(caught.value)
