"""bytewax: tumbling windows of an event clock, by `fold_window`; one worker in this process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing
from bytewax.testing import TestingSink, TestingSource, run_main
from protocol import arguments, match_hash, records, serve

WITHIN_US = int(arguments()["within"])
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BATCH = 1_000

Row = tuple[datetime, int, float]


def prepare(data: bytes) -> list[tuple[str, Row]]:
    return [(str(key), (EPOCH + timedelta(microseconds=t), key, value)) for t, key, _, value in records(data)]


def fold(total: list[float], row: Row) -> list[float]:
    total[0] += 1
    total[1] += row[2]
    total[2] = max(total[2], row[2])
    return total


def merge(one: list[float], other: list[float]) -> list[float]:
    return [one[0] + other[0], one[1] + other[1], max(one[2], other[2])]


def run(state: object, events: list[tuple[str, Row]]) -> list[Any]:
    flow = Dataflow("windows")
    stream = op.input("input", flow, TestingSource(events, batch_size=BATCH))
    folded = windowing.fold_window(
        "fold",
        stream,
        # Its watermark also goes on with the clock of the system, by default, and events would be late by chance.
        windowing.EventClock(lambda row: row[0], timedelta(0), now_getter=lambda: EPOCH),
        windowing.TumblingWindower(length=timedelta(microseconds=WITHIN_US), align_to=EPOCH),
        lambda: [0, 0.0, float("-inf")],
        fold,
        merge,
        ordered=False,
    )
    found: list[Any] = []
    op.output("output", folded.down, TestingSink(found))
    run_main(flow)
    return found


def read(found: list[Any]) -> tuple[int, int]:
    total = 0
    for key, (window, (count, amount, top)) in found:
        numbers = [int(key), window * WITHIN_US, int(count), int(amount * 1024), int(top * 1024)]
        total += match_hash(numbers)
    return len(found), total


if __name__ == "__main__":
    serve(prepare, run, read=read)
