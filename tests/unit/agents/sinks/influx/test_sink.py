"""The InfluxDB sink against a strict stub: nothing lost, nothing written twice, and clear messages."""

import asyncio

import numpy as np
import pyarrow as pa
import pytest

from astrocyte.agents.sinks.base import SinkError, SinkStopped, SourcedFrame
from astrocyte.agents.sinks.influx.sink import InfluxSink
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.agents.sinks.testing import START_US, SinkUnderTest, check_sink, results
from astrocyte.schemas.frames import Frame
from tests.support.influx_stub import TOKEN, Answer, InfluxStub, influx_stub
from tests.support.notices import RetryNotices
from tests.support.written import written


def sink_on(stub, notices=None, **options):
    options = {"token": TOKEN, "org": "astrocyte", "bucket": "astrocyte"} | options
    retry = options.pop("retry", None) or (notices.retry() if notices is not None else None)
    return InfluxSink(options.pop("url", stub.url), retry=retry, **options)


def batch_of(rows=20, **columns):
    frame = results(rows=rows)
    for name, values in columns.items():
        index = frame.batch.schema.get_field_index(name)
        frame = Frame(frame.stream, frame.run, frame.batch.set_column(index, name, values))
    return [SourcedFrame(frame, "mono.problem_solving", 0, 5)]


async def test_influx_sink_keeps_the_contract():
    async with influx_stub() as stub:

        async def count():
            return stub.count()

        await check_sink(lambda: SinkUnderTest(sink_on(stub, most_lines=50), count), unknown=True)
    assert stub.replaced == 0
    assert max(stub.requests) == 50


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"Retry-After": "7"}, [7.0, 0.2]),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, [30.0, 0.2]),
        ({"Retry-After": "soon"}, [0.1, 0.2]),
        ({}, [0.1, 0.2]),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_server_gets_the_delay_that_it_requests(status, headers, waits):
    async with influx_stub() as stub:
        stub.answers += [Answer(status=status, headers=headers), Answer(status=500)]
        notices = RetryNotices()
        assert await written(sink_on(stub, notices), batch_of()) == []
    assert notices.waits == waits
    assert [notice.attempt for notice in notices] == [1, 2, 0]
    assert f"answered {status}" in notices[0].reason
    assert stub.count() == {"problem_solving": 20}


async def test_a_connection_cut_before_and_after_the_write_was_applied_loses_and_doubles_nothing():
    async with influx_stub() as stub:
        stub.answers += [Answer("cut"), Answer("cut", applied=True), Answer(status=504, applied=True)]
        notices = RetryNotices()
        sink = sink_on(stub, notices)
        assert await written(sink, batch_of(100)) == []
    assert "cannot be reached" in notices[0].reason
    assert len(notices.waits) == 3
    assert stub.requests == [100, 100, 100], "it was written three times"
    assert stub.count() == {"problem_solving": 100}
    assert stub.replaced == 0
    assert sink.written == 100


async def test_a_missing_answer_is_a_timeout_and_the_write_is_repeated():
    async with influx_stub() as stub:
        stub.answers += [Answer("hang", applied=True)]
        notices = RetryNotices()
        assert await written(sink_on(stub, notices, timeout_s=0.2), batch_of()) == []
    assert "Timeout" in notices[0].reason
    assert stub.requests == [20, 20]
    assert (stub.count(), stub.replaced) == ({"problem_solving": 20}, 0)


async def test_a_server_that_is_unavailable_for_long_is_waited_for():
    async with influx_stub() as stub:
        port = int(stub.url.rpartition(":")[2])
    stack = []

    async def come_back():
        stack.append(influx_stub(InfluxStub(), port))
        stack.append(await stack[0].__aenter__())

    notices = RetryNotices(come_back, at=12)
    assert await written(sink_on(stub, notices), batch_of()) == []
    await stack[0].__aexit__(None, None, None)
    assert stack[1].count() == {"problem_solving": 20}
    assert notices.waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(notices.waits) == 5.0
    assert notices[-1].attempt == 0


async def test_a_stopped_sink_ends_and_reports_that_nothing_was_confirmed():
    async with influx_stub() as stub:
        stub.answers += [Answer()]
        retry = RetryPolicy("influx", on_retry=lambda _: retry.stop.set())
        with pytest.raises(SinkStopped, match="nothing of the batch was confirmed"):
            await written(sink_on(stub, retry=retry), batch_of())
    assert stub.count() == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"token": "wrong"}, r"answered 401: the token is not valid; set ASTROCYTE_INFLUX_TOKEN"),
        ({"org": "other"}, r"answered 404: organisation 'other' .* astrocyte influx setup"),
        ({"bucket": "other"}, r"bucket 'other' does not exist"),
        ({"url": "localhost:8086"}, r"InfluxDB address 'localhost:8086'; expected .* http://host:8086"),
    ],
)
async def test_an_error_that_retries_cannot_fix_stops_the_sink_and_confirms_nothing(options, said):
    async with influx_stub() as stub:
        notices = RetryNotices()
        sink = sink_on(stub, notices, **options)
        with pytest.raises(SinkError, match=said) as caught:
            await written(sink, batch_of())
    assert "wrong" not in str(caught.value), "a token is never shown"
    assert not caught.value.retriable
    assert (list(notices), stub.count(), sink.written) == ([], {}, 0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            Answer(status=400, said="The plain HTTP request was sent to HTTPS port"),
            "answered 400: .*sent to HTTPS port",
        ),
        (
            Answer(status=400, said="Client sent an HTTP request to an HTTPS server."),
            "answered 400: .*to an HTTPS server",
        ),
        # The client would repeat the lines as a GET of the other address.
        (Answer(status=301, headers={"Location": "https://elsewhere/api/v2/write"}), "answered 301"),
    ],
)
async def test_what_a_server_of_tls_answers_says_nothing_of_the_lines(answer, said):
    async with influx_stub() as stub:
        stub.fault = answer
        with pytest.raises(SinkError, match=said):
            await written(sink_on(stub), batch_of(3))
    assert stub.refusals == 1


async def test_a_line_of_another_type_than_before_is_rejected_alone():
    whole = pa.array([0.5] * 20, pa.float32())
    async with influx_stub() as stub:
        assert await written(sink_on(stub), batch_of(accuracy=whole)) == []
        mixed = [
            *[SourcedFrame(results(first_seq=100, rows=30), "mono.problem_solving", 0, 6)],
            *batch_of_integers(at=13),
            *[SourcedFrame(results(first_seq=300, rows=30), "mono.problem_solving", 0, 8)],
        ]
        rejected = await written(sink_on(stub), mixed)
        again = await written(sink_on(stub), mixed)
    assert rejected == again
    assert [(row.offset, row.row) for row in rejected] == [(7, 0)]
    assert (rejected[0].stream, rejected[0].topic, rejected[0].partition) == (
        "problem_solving", "mono.problem_solving", 0,
    )  # fmt: skip
    assert "422" in rejected[0].reason
    assert "field type conflict" in rejected[0].reason
    assert rejected[0].key == b"island-1"
    assert b'"cell_id":13' in rejected[0].payload
    assert stub.count() == {"problem_solving": 80}


def batch_of_integers(at):
    """A frame of one row whose accuracy is an integer, as the catalog would not let it be."""
    columns = {"timestamp": [START_US], "key": ["island-1"], "type": ["solved"], "cell_id": [at], "accuracy": [1]}
    return [SourcedFrame(Frame.from_columns("problem_solving", "run-1", columns), "mono.problem_solving", 0, 7)]


async def test_a_malformed_line_is_found_by_halving_and_rejected_alone():
    types = pa.array(["sum"] * 399 + ["x" * 10], pa.utf8()).dictionary_encode()

    class Picky(InfluxStub):
        def _store(self, points):
            if any(dict(point.tags)["problem_type"] == "x" * 10 for point in points):
                from tests.support.influx_stub import _error

                return _error(400, "invalid", "unable to parse: max key size exceeded")
            return super()._store(points)

    async with influx_stub(Picky()) as stub:
        rejected = await written(sink_on(stub), batch_of(400, problem_type=types))
    assert [row.row for row in rejected] == [399]
    assert "answered 400" in rejected[0].reason
    assert "max key size exceeded" in rejected[0].reason
    assert stub.count() == {"problem_solving": 399}
    assert len(stub.requests) < 25, "halves, not lines, are tried"


async def test_a_request_that_is_too_large_is_sent_in_parts():
    async with influx_stub(InfluxStub(most_bytes=2_000)) as stub:
        assert await written(sink_on(stub), batch_of(100)) == []
        stub.most_bytes = 10
        rejected = await written(sink_on(stub), batch_of(2))
    assert stub.count() == {"problem_solving": 100}
    assert len(stub.requests) > 5
    assert [row.row for row in rejected] == [0, 1]
    assert "413" in rejected[0].reason


async def test_points_older_than_the_bucket_keeps_are_counted_and_not_rejected(caplog):
    async with influx_stub() as stub:
        stub.oldest_ns = (START_US + 50_000) * 1000
        sink = sink_on(stub, most_lines=30)
        assert await written(sink, batch_of(100)) == []
    assert (sink.written, sink.expired) == (50, 50)
    assert stub.count() == {"problem_solving": 50}
    assert "older than the retention of bucket 'astrocyte'" in caplog.text


async def test_a_sink_must_be_opened():
    async with influx_stub() as stub:
        with pytest.raises(SinkError, match="await open"):
            await sink_on(stub).write(batch_of())


async def test_ten_thousand_rows_of_one_tick_are_ten_thousand_points():
    frame = results(rows=10_000)
    batch = frame.batch.set_column(0, "timestamp", pa.array(np.full(10_000, START_US)))
    async with influx_stub() as stub:
        sink = sink_on(stub)
        frame = Frame(frame.stream, frame.run, batch)
        assert await written(sink, [SourcedFrame(frame, "mono.problem_solving", 0, 5)]) == []
    assert (stub.count(), stub.replaced) == ({"problem_solving": 10_000}, 0)
    assert stub.requests == [5_000, 5_000]


async def test_requests_of_one_batch_are_under_way_together_and_each_is_repeated_by_itself():
    async with influx_stub() as stub:
        stub.answers += [Answer(), Answer("cut", applied=True), Answer(status=429), Answer("cut")]
        notices = RetryNotices()
        sink = sink_on(stub, notices, most_lines=10, in_flight=4)
        assert await written(sink, batch_of(200)) == []
    assert (stub.count(), stub.replaced, sink.written) == ({"problem_solving": 200}, 0, 200)
    assert len(notices.waits) == 4
    firsts = [notice.attempt for notice in notices].count(1)
    assert [notice.attempt for notice in notices].count(0) == firsts, (
        "each request with a retry notice also reported its end"
    )


async def test_a_token_refused_in_the_middle_of_a_batch_ends_it_without_a_confirmation():
    async with influx_stub() as stub:
        sink = sink_on(stub, most_lines=10, in_flight=2)
        await sink.open()
        stub.answers += [Answer("hang"), Answer(status=401)]
        with pytest.raises(SinkError, match="401"):
            await asyncio.wait_for(sink.write(batch_of(200)), 5)
        stub.answers.clear()
        assert await sink.write(batch_of(200)) == []
        await sink.close()
    assert stub.count() == {"problem_solving": 200}


async def test_two_sinks_on_one_server_do_not_wait_for_each_other():
    async with influx_stub() as stub:
        await asyncio.gather(*(written(sink_on(stub), batch_of(50)) for _ in range(4)))
    assert stub.count() == {"problem_solving": 50}
