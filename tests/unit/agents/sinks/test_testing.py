"""`check_sink` on sinks of users: which it passes, and which faults it names."""

import pytest

from astrocyte.agents.sinks.base import SourcedFrame, SourcedRecords
from astrocyte.agents.sinks.memory import MemorySink
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame
from astrocyte.sink import Rejected
from astrocyte.testing import SinkUnderTest, check_sink


class Counted(MemorySink):
    """A right sink; `counts` is the number of rows by stream and kind."""

    async def counts(self):
        return {name: len(rows) for name, rows in {**self.events, **self.records}.items()}


async def check(sink, **options):
    await check_sink(lambda: SinkUnderTest(sink, sink.counts), **options)


@pytest.mark.parametrize("reads", [("dead_letters",), ("simulations", "experiments"), ("audit",), ("axon_1", "alerts")])
async def test_every_kind_of_record_and_every_stream_of_the_catalog_can_be_named(reads):
    sink = Counted()
    await check(sink, reads=reads)
    assert set(await sink.counts()) >= set(reads)


async def test_events_of_an_own_stream_are_given():
    sink = Counted()
    events = [{"kg": 31.5, "hive": "north"}, {"kg": 30.0, "hive": "south"}]
    await check(sink, reads=("alerts",), events={"hive_scale": events})
    assert [row["kg"] for row in sink.events["hive_scale"].values()] == [31.5, 30.0]


async def test_a_stream_that_is_not_known_is_named_with_what_to_do():
    with pytest.raises(InvalidSettings, match=r"'hive_scale' is neither a kind of record .* events={'hive_scale'"):
        await check(Counted(), reads=("hive_scale",))


async def test_a_sink_of_one_stream_gets_events_of_no_other_unless_that_is_asked_for():
    sink = Counted()
    await check(sink, reads=("axon_1",))
    assert set(await sink.counts()) == {"axon_1"}
    await check(sink, reads=("axon_1",), unknown=True)
    assert set(await sink.counts()) == {"axon_1", "unlisted"}


class TakesNoHeavyHive(Counted):
    """A sink that rejects rows, ``lost`` with one row less than it should name."""

    lost = 0

    async def write(self, batch):
        rejected, others = [], []
        for item in batch:
            heavy = []
            if isinstance(item, SourcedFrame) and item.frame.has("kg"):
                heavy = [row for row, kg in enumerate(item.frame.values("kg")) if kg > 100]
            rejected += [item.rejected(row, "too heavy") for row in heavy]
            others += [] if heavy else [item]
        await super().write(others)
        return rejected[self.lost :]


class RejectsTooFew(TakesNoHeavyHive):
    lost = 1


async def test_rows_that_a_sink_must_reject_are_given_and_only_they_may_be():
    options = {"events": {"hive_scale": [{"kg": 31.5}]}, "rejects": {"hive_scale": [{"kg": 200.0}, {"kg": 300.0}]}}
    sink = TakesNoHeavyHive()
    await check(sink, reads=(), **options)
    assert (await sink.counts()) == {"hive_scale": 1}
    with pytest.raises(
        AssertionError, match=r"rejected the rows \[\('hive_scale', 'mono.hive_scale', 70, 1\)\]; expect"
    ):
        await check(RejectsTooFew(), reads=(), **options)


class Forgets(Counted):
    async def open(self):
        self.events.clear()
        self.records.clear()


class Empties(Counted):
    async def write(self, batch):
        await super().write(batch)
        batch.clear()
        return []


class ReturnsNothing(Counted):
    async def write(self, batch):
        await super().write(batch)


class RejectsText(Counted):
    async def write(self, batch):
        return ["no"] if batch else []


class RejectsWrongly(Counted):
    async def write(self, batch):
        return [Rejected("alerts", "alerts", "0", 0, None, "no", None, b"{}")] if batch else []


class NotAsync(Counted):
    def write(self, batch):
        return []


class OpenFails(Counted):
    async def open(self):
        raise RuntimeError("boom in open")


class FailsOnNothing(Counted):
    async def write(self, batch):
        if not batch:
            raise RuntimeError("empty")
        return await super().write(batch)


class NeverCloses(Counted):
    close = None


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        (Forgets(), "after a new sink opened the same store, which must keep what it has, the store holds"),
        (Empties(), "changed the list that it was given"),
        (ReturnsNothing("mine"), r"write\(\) of sink 'mine' returned None; expected a list of Rejected"),
        (RejectsText("mine"), r"returned 'no' of type str; expected a list of Rejected"),
        (RejectsWrongly("mine"), "returned '0' of type str; .*this is 'partition' of one of them"),
        (NotAsync("mine"), r"returned \[\] of type list; expected a coroutine; define it with async def"),
        (OpenFails("mine"), r"open\(\) of sink 'mine' raised RuntimeError: boom in open \(.*test_testing.py:\d+\)"),
        (
            FailsOnNothing("mine"),
            r"an empty batch must be accepted; write\(\) of sink 'mine' raised RuntimeError: empty",
        ),
        (NeverCloses("mine"), "sink 'mine': NeverCloses has no method close; expected async def"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, MemorySink) else "",
)
async def test_a_wrong_sink_is_found_and_its_fault_named(sink, message):
    with pytest.raises(AssertionError, match=message):
        await check(sink)


def test_a_rejected_row_is_made_of_its_item():
    frame = Frame.from_columns("s", "run", {"timestamp": [1, 2], "key": ["a", "b"], "value": [1.0, 2.0]})
    of_frame = SourcedFrame(frame, "mono.s", 3, 40).rejected(1, "too much")
    assert (of_frame.stream, of_frame.topic, of_frame.partition, of_frame.offset, of_frame.row) == (
        "s",
        "mono.s",
        3,
        40,
        1,
    )
    assert (of_frame.reason, of_frame.key) == ("too much", b"b")
    assert b'"value":2.0' in of_frame.payload
    alerts = SourcedRecords("alerts", [{"alert_id": "x", "key": "k"}, {"alert_id": "y"}], "alerts", 0, 7)
    assert alerts.rejected(0, "no") == Rejected(
        "alerts", "alerts", 0, 7, None, "no", b"k", b'{"alert_id":"x","key":"k"}'
    )
    assert alerts.rejected(1, "no").offset == 8
