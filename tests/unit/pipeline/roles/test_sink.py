"""From chunks to a store, with fakes and in virtual time."""

import asyncio
from types import SimpleNamespace

import orjson
import pytest
from faust.types import TP

from astrocyte.agents.sinks.base import Rejected, RetryNotice, SinkError
from astrocyte.agents.sinks.memory import MemorySink
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.agents.sinks.testing import alert, multi_event, results
from astrocyte.pipeline.roles.refusals import STOPPED_STATUS, stopping
from astrocyte.pipeline.roles.sink.build import _listener
from astrocyte.pipeline.roles.sink.runner import SinkRunner
from astrocyte.pipeline.state.lost import report_empty_store
from astrocyte.schemas.errors import PluginError
from astrocyte.schemas.frames import encode_frame
from astrocyte.schemas.json.reader import RawRecord
from tests.support.batches import a_batch
from tests.support.waiting import loop_turns

TICK_S = 0.05


class FakeStore:
    """A sink that accepts all rows but those of ``refuses``, and records the times."""

    name = "influx"

    def __init__(self, clock, refuses=(), failure=None):
        self.clock, self.refuses, self.failure = clock, refuses, failure
        self.writes = []

    async def write(self, batch):
        if self.failure is not None:
            raise self.failure
        self.writes.append((self.clock.now_s, batch))
        return [
            Rejected("problem_solving", "mono.problem_solving", 0, 5, row, "no", b"k", b"{}") for row in self.refuses
        ]


class Pipeline:
    """A runner whose acknowledgements and dead letters are recorded in order."""

    def __init__(self, **options):
        self.now_s = 100.0
        self.done = []
        self.store = FakeStore(self, **options)
        self.runner = SinkRunner(self.store, self._deliver, partitions=4, monotonic=lambda: self.now_s)

    async def _deliver(self, records):
        self.done += [("dead", orjson.loads(record.value)) for record in records]

    async def take(self, topic, *values, offset=5):
        records = [RawRecord(offset + number, 0, b"k", value) for number, value in enumerate(values)]
        delivery = SimpleNamespace(ack_through=lambda: self.done.append(("acked", topic)))
        await self.runner.handle(SimpleNamespace(topic=topic, partition=0), delivery, records)

    async def run_for(self, seconds):
        for _ in range(round(seconds / TICK_S)):
            self.now_s += TICK_S
            await self.runner.tick()


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        ("alerts", orjson.dumps(alert(1))),
        ("multi.events", orjson.dumps(multi_event(1))),
        (
            "mono.evolutionary_events",
            orjson.dumps({"timestamp": "2025-01-01T00:00:00Z", "type": "birth", "event_type": "birth", "cell_id": 1,
                          "parent_id": 2, "mutation_magnitude": 0.1, "fitness_delta": 0.0, "generation_gap": 1}),
        ),
    ],
)  # fmt: skip
async def test_critical_events_are_stored_well_below_a_second_among_a_flow_of_routine_ones(topic, value):
    pipeline = Pipeline()
    frame = encode_frame(results(rows=100))
    for number in range(20):
        await pipeline.take("mono.problem_solving", frame, offset=number)
        if number == 10:
            came_s = pipeline.now_s
            await pipeline.take(topic, value)
        await pipeline.run_for(TICK_S)
    stored_s = min(at_s for at_s, batch in pipeline.store.writes if any(item.topic == topic for item in batch))
    assert stored_s - came_s <= 0.25 + 1e-9


async def test_routine_events_wait_for_a_batch_but_no_longer_than_a_second():
    pipeline = Pipeline()
    await pipeline.take("mono.problem_solving", encode_frame(results(rows=100)))
    await pipeline.run_for(0.9)
    assert pipeline.store.writes == []
    await pipeline.run_for(0.2)
    ((at_s, _),) = pipeline.store.writes
    assert at_s <= 101.05 + 1e-9
    assert pipeline.done == [("acked", "mono.problem_solving")]
    assert pipeline.runner.written == 100


async def test_a_full_batch_is_written_at_once_and_pauses_the_reader():
    pipeline = Pipeline()
    gate = asyncio.Event()
    write = pipeline.store.write

    async def slow(batch):
        await gate.wait()
        return await write(batch)

    pipeline.store.write = slow
    taking = asyncio.ensure_future(pipeline.take("mono.problem_solving", encode_frame(results(rows=20_000))))
    await loop_turns(20)
    assert not taking.done()
    gate.set()
    await taking
    assert [sum(item.frame.num_rows for item in batch) for _, batch in pipeline.store.writes] == [20_000]


async def test_a_refused_row_is_written_to_the_dead_letters_before_its_chunk_is_acknowledged():
    pipeline = Pipeline(refuses=[13])
    await pipeline.take("mono.problem_solving", encode_frame(results(rows=100)))
    await pipeline.runner.finish()
    assert [what for what, _ in pipeline.done] == ["dead", "acked"]
    letter = pipeline.done[0][1]
    assert (letter["stage"], letter["row"], letter["offset"], letter["reason"]) == ("influx", 13, 5, "no")
    assert (pipeline.runner.written, pipeline.runner.rejected) == (99, 1)


async def test_an_unusable_store_acknowledges_nothing():
    pipeline = Pipeline(failure=SinkError("the token is not valid"))
    await pipeline.take("mono.problem_solving", encode_frame(results(rows=100)))
    with pytest.raises(SinkError, match="token"):
        await pipeline.runner.finish()
    assert pipeline.done == []
    assert pipeline.runner.written == 0


def test_the_watch_learns_when_a_store_is_away_and_when_it_is_back():
    said = []
    hear = _listener(SimpleNamespace(store_away=said.append))
    hear(RetryNotice("influx", 1, 0.1, "away"))
    hear(RetryNotice("influx", 2, 5.0, "still away"))
    hear(RetryNotice("influx", 0, 0.0, "the store took the batch at attempt 3"))
    assert said == ["away", "still away", ""]


async def test_batches_and_the_time_of_their_writes_are_counted():
    pipeline = Pipeline()
    write = pipeline.store.write

    async def slow(batch):
        pipeline.now_s += 0.25
        return await write(batch)

    pipeline.store.write = slow
    await pipeline.take("mono.problem_solving", encode_frame(results(rows=100)))
    assert pipeline.runner.waiting == 100
    await pipeline.runner.finish()
    await pipeline.runner.finish()
    assert (pipeline.runner.writes, pipeline.runner.waiting) == (1, 0)
    assert pipeline.runner.writes_s == 0.25


async def test_a_store_that_was_emptied_behind_the_group_is_said(tmp_path, caplog):
    committed = {TP("alerts", 0): 7, TP("alerts", 1): None}
    sink = SqlSink(f"sqlite:///{tmp_path / 'a.db'}", now_us=lambda: 1)
    await sink.open()
    await report_empty_store(sink, "sql", "astrocyte-sql", dict.fromkeys(committed))
    assert caplog.text == ""
    await report_empty_store(sink, "sql", "astrocyte-sql", committed)
    assert "has read 1 partitions up to offsets such as 7 of alerts[0], and the store holds nothing" in caplog.text
    caplog.clear()
    await sink.write(a_batch())
    await report_empty_store(sink, "sql", "astrocyte-sql", committed)
    await report_empty_store(MemorySink(), "memory", "astrocyte-memory", committed)
    assert caplog.text == ""
    await sink.close()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, r"write\(\) of sink 'influx' returned None; expected a list of Rejected"),
        ([{"row": 13}], r"returned {'row': 13} of type dict; .*; this is one of them"),
        ([Rejected("s", "t", 0, None, 1, "no", None, b"")], "returned None; .*; this is 'offset' of one of them"),
    ],
)
async def test_what_write_may_not_return_names_the_sink_and_acknowledges_nothing(found, message):
    pipeline = Pipeline()

    async def write(batch):
        return found

    pipeline.store.write = write
    await pipeline.take("mono.problem_solving", encode_frame(results(rows=100)))
    with pytest.raises(PluginError, match=message):
        await pipeline.runner.finish()
    assert (pipeline.done, pipeline.runner.written) == ([], 0)


async def test_a_write_that_is_no_coroutine_is_the_fault_of_the_sink_and_of_no_row():
    pipeline = Pipeline()
    pipeline.store.write = lambda batch: []
    await pipeline.take("mono.problem_solving", encode_frame(results(rows=100)))
    with pytest.raises(
        PluginError, match=r"returned \[\] of type list; expected a coroutine; define it with async def"
    ):
        await pipeline.runner.finish()
    assert pipeline.done == []


async def test_a_write_that_exits_is_the_fault_of_the_sink_and_acknowledges_nothing():
    pipeline = Pipeline()

    async def write(batch):
        raise SystemExit(5)

    pipeline.store.write = write
    await pipeline.take("mono.problem_solving", encode_frame(results(rows=100)))
    with pytest.raises(PluginError, match=r"write\(\) of sink 'influx' raised SystemExit: 5"):
        await pipeline.runner.finish()
    assert pipeline.done == []


def test_a_plugin_that_breaks_its_contract_ends_its_role_with_one_line(caplog, monkeypatch):
    ended = []
    monkeypatch.setattr("astrocyte.pipeline.roles.refusals.os._exit", ended.append)
    with stopping():
        raise PluginError("write() of sink 'mine' returned None; expected a list of Rejected")
    assert ended == [STOPPED_STATUS]
    assert [record.message for record in caplog.records] == [
        "write() of sink 'mine' returned None; expected a list of Rejected"
    ]
