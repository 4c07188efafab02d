"""What answers of fetches prove about the end of a partition, and what they do not."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest
from faust.types import TP

from astrocyte.pipeline.kafka.partition_end import AtEnd
from astrocyte.pipeline.transport.commits import CommitTracker
from astrocyte.pipeline.transport.consumer import Consumer
from astrocyte.pipeline.transport.partition_ends import PartitionEnds, longest_gap_s, observe_fetches

A, B = TP("a", 0), TP("b", 0)


class Clock:
    """Seconds that are moved by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ends(clock) -> PartitionEnds:
    return PartitionEnds(gap_s=2.0, monotonic=clock)


def empty_answers(ends, clock, seconds, offset=7) -> None:
    for _ in range(round(seconds * 10)):
        ends.answered(A, offset, offset, records=False, sent_s=clock.now_s)
        clock.now_s += 0.1


def test_answers_that_find_the_same_end_make_one_span(ends, clock):
    empty_answers(ends, clock, 5.0)
    assert ends.at_end(A) == AtEnd(7, 0.0, pytest.approx(4.9), 0.0)


@pytest.mark.parametrize(
    ("end", "records"),
    [(None, False), (-1, False), (9, False), (9, True)],
    ids=["unknown", "no high watermark", "more than fits into the answer", "records"],
)
def test_what_is_not_known_to_be_the_end_is_not(ends, clock, end, records):
    empty_answers(ends, clock, 5.0)
    ends.answered(A, 7, end, records=records, sent_s=clock.now_s)
    span = ends.at_end(A)
    assert span is None or span.offset != 7


def test_an_answer_that_waited_for_a_stopped_process_counts_from_when_its_fetch_was_sent(ends, clock):
    empty_answers(ends, clock, 1.0)
    clock.now_s += 15.0
    ends.answered(A, 7, 7, records=False, sent_s=1.0)
    assert ends.at_end(A) is None
    ends.answered(A, 7, 7, records=False, sent_s=clock.now_s)
    assert ends.at_end(A) == AtEnd(7, 16.0, 16.0, 16.0)


def test_a_span_that_is_not_confirmed_any_more_is_over(ends, clock):
    empty_answers(ends, clock, 5.0)
    clock.now_s += 2.1
    assert ends.at_end(A) is None


def test_reading_on_begins_a_new_span(ends, clock):
    empty_answers(ends, clock, 5.0)
    ends.answered(A, 7, 8, records=True, sent_s=clock.now_s)
    empty_answers(ends, clock, 1.0, offset=8)
    assert ends.at_end(A) == AtEnd(8, pytest.approx(5.0), pytest.approx(5.9), 0.0)


@pytest.mark.parametrize("interrupt", [lambda ends: ends.interrupt([A]), lambda ends: ends.interrupt_all()])
def test_an_interruption_begins_a_new_span(ends, clock, interrupt):
    empty_answers(ends, clock, 5.0)
    interrupt(ends)
    assert ends.at_end(A) is None
    empty_answers(ends, clock, 0.1)
    assert ends.at_end(A) == AtEnd(7, pytest.approx(5.0), pytest.approx(5.0), pytest.approx(5.0))


def test_the_longest_gap_grows_with_the_wait_of_fetches():
    assert longest_gap_s(100) == 2.0
    assert longest_gap_s(1000) == 20.0


class Client:
    """Answers fetches with what is set."""

    cluster = "the cluster"

    def __init__(self) -> None:
        self.answer: object = None

    async def send(self, _node, _request):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def fetch(ends, clock, client, answer):
    """Send a fetch of both partitions from offset 7."""
    client.answer = answer
    fetcher = SimpleNamespace(_client=client)

    async def ask():
        request = FetchRequest(100, 1, 1000, 1, [("a", [(0, 7, 100)]), ("b", [(0, 7, 100)])])
        return await fetcher._client.send(1, request)

    observe_fetches(fetcher, ends, clock)
    assert fetcher._client.cluster == "the cluster"
    return asyncio.run(ask())


def answer(a, b):
    return SimpleNamespace(topics=[("a", [(0, *a)]), ("b", [(0, *b)])])


def test_each_partition_of_an_answer_is_seen(ends, clock):
    client, end = Client(), (0, 7, 7, [], b"")
    given = answer(end, (0, 9, 9, [], b"records"))
    assert fetch(ends, clock, client, given) is given
    assert ends.at_end(A) == AtEnd(7, 0.0, 0.0, 0.0)
    assert ends.at_end(B).offset == 9, "which the reader has yet to come to"
    fetch(ends, clock, client, answer((6, -1, -1, [], b""), end))
    assert ends.at_end(A) is None, "the partition has another leader"
    assert ends.at_end(B) is not None


def test_a_fetch_that_fails_ends_the_spans_of_its_partitions(ends, clock):
    client, end = Client(), (0, 7, 7, [], b"")
    fetch(ends, clock, client, answer(end, end))
    with pytest.raises(KafkaConnectionError):
        fetch(ends, clock, client, KafkaConnectionError("the broker is away"))
    assert ends.at_end(A) is None
    assert ends.at_end(B) is None


class TestConsumer:
    """What the consumer makes of it: what it holds back or has not handed out is no end."""

    @pytest.fixture
    def consumer(self, ends, clock):
        tracker = CommitTracker()
        tracker.assign(A, 5)
        empty_answers(ends, clock, 1.0)
        return SimpleNamespace(ends=ends, tracker=tracker, _paused_tps=set(), _resumed=asyncio.Event())

    def test_records_that_were_fetched_and_not_handed_out_are_no_end(self, consumer):
        assert Consumer.at_end(consumer, A) is None
        consumer.tracker.delivered(A, 5, 7)
        assert Consumer.at_end(consumer, A).delivered == 7

    def test_offsets_without_records_count_as_read(self, consumer):
        consumer.tracker.advanced(A, 7)
        assert Consumer.at_end(consumer, A).delivered is None

    def test_a_paused_partition_is_not_at_its_end_and_begins_anew_when_resumed(self, consumer, ends, clock):
        consumer.tracker.delivered(A, 5, 7)
        Consumer.pause(consumer, [A])
        empty_answers(ends, clock, 5.0)
        assert Consumer.at_end(consumer, A) is None
        Consumer.resume(consumer, [A])
        assert Consumer.at_end(consumer, A) is None
        empty_answers(ends, clock, 0.1)
        assert Consumer.at_end(consumer, A).since_s == pytest.approx(6.0)

    def test_a_partition_that_is_not_assigned_is_not_at_its_end(self, consumer):
        consumer.tracker.forget([A])
        assert Consumer.at_end(consumer, A) is None
