"""Wire formats: frames, JSON records and CSV lines, encoded, decoded and divided over partitions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.small_frames import decode_small_frames
from astrocyte.schemas.contract import Contract, Contracts
from astrocyte.schemas.declarations import StreamDeclaration
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord, frame_to_records, records_to_frame
from astrocyte.schemas.partitioning import split_by_partition

__all__ = ["run"]


def _spikes(rows: int, keys: int) -> Frame:
    random = np.random.default_rng(1)
    names = pa.array([f"d{index:06d}" for index in range(keys)])
    key = pa.DictionaryArray.from_arrays(pa.array(random.integers(0, keys, rows).astype(np.int32)), names)
    columns = {
        "timestamp": 1_735_689_600_000_000 + np.arange(rows) * 10,
        "key": key,
        "type": pa.DictionaryArray.from_arrays(pa.array(random.integers(0, 3, rows).astype(np.int32)), ["A", "B", "C"]),
        "value": random.random(rows),
    }
    return Frame.from_columns("axon_1", "bench", columns)


def _foreign(count: int) -> dict[str, Callable[[], object]]:
    """Readings of flat JSON as other programs write it: clean, with text among the numbers, and with exact digits."""
    random = np.random.default_rng(2)
    names, amounts = random.integers(0, 1_000, count).tolist(), random.integers(0, 100_000, count).tolist()
    contract = Contract("purchases", None, None, ("amount",))

    def reading(contract: Contract | None, body: Callable[[int], dict[str, Any]]) -> Callable[[], object]:
        bodies = [
            {"timestamp": 1_735_689_600_000 + at, "customer": f"d{names[at]:06d}", "amount": amounts[at] / 100}
            | body(at)
            for at in range(count)
        ]
        sources = [RawRecord(at, 0, body["customer"].encode(), orjson.dumps(body)) for at, body in enumerate(bodies)]
        return lambda: records_to_frame("purchases", 0, "purchases", sources, contract=contract)

    shares = random.random(count).tolist()
    return {
        "flat_json_to_frame": reading(None, lambda at: {"share": at / 4}),
        "mixed_json_to_frame": reading(None, lambda at: {"share": at / 4 if at % 2 else "none"}),
        # Rules correlate by the amount, and another field has digits that the fast reader has to look at.
        "exact_json_to_frame": reading(contract, lambda at: {"share": shares[at]}),
    }


def _arrow_alone(data: bytes) -> list[pa.RecordBatch]:
    return list(pa.ipc.open_stream(data))


def _best_s(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """Best of several runs each; ``events_per_s`` is for one core."""
    rows, keys, repeats = (20_000, 1_000, 3) if quick else (65_536, 10_000, 20)
    frame = _spikes(rows, keys)
    payload = encode_frame(frame)
    some = frame.take(np.arange(min(rows, 20_000)))
    records = frame_to_records(some)
    # Frames of the sizes that producers send: what all checks cost beside Arrow's reader alone, which has none.
    sent = {count: encode_frame(frame.slice(0, count)) for count in (1_000, 8_000)}
    silent = encode_frame(frame.slice(0, 0))
    small = [encode_frame(_spikes(85, 1_000).numbered(first)) for first in range(0, 85 * 128, 85)]
    opened = [
        (name, partial(read, data), count, len(data))
        for count, data in sent.items()
        for name, read in ((f"decode_frame_{count}", decode_frame), (f"arrow_alone_{count}", _arrow_alone))
    ]
    sources = [RawRecord(index, 0, record.key, record.value) for index, record in enumerate(records)]
    lines = [
        RawRecord(each.offset, 0, each.key, f"{row['timestamp']},{row['value']}".encode())
        for each, row in zip(sources, some.rows(), strict=True)
    ]
    csv = {"name": "lines", "decoder": {"name": "csv", "columns": ["timestamp", "value"]}}
    decoders = Decoders(Contracts([StreamDeclaration.model_validate(csv)]))
    for name, work, events, size in (
        ("encode_frame", lambda: encode_frame(frame), rows, len(payload)),
        ("decode_frame", lambda: decode_frame(payload), rows, len(payload)),
        *opened,
        ("decode_frame_without_rows", lambda: [decode_frame(silent) for _ in range(1_000)], 1_000, len(silent) * 1_000),
        ("small_frames_one_by_one", lambda: list(map(decode_frame, small)), 85 * len(small), sum(map(len, small))),
        ("small_frames_together", lambda: decode_small_frames(small), 85 * len(small), sum(map(len, small))),
        ("split_by_partition_8", lambda: split_by_partition(frame, 8), rows, len(payload)),
        ("frame_to_json", lambda: frame_to_records(some), len(records), sum(len(record.value) for record in records)),
        ("json_to_frame", lambda: records_to_frame("t", 0, "axon_1", sources), len(records), 0),
        *((name, work, len(records), 0) for name, work in _foreign(len(records)).items()),
        ("csv_to_frame", lambda: decode_chunk("mono.lines", 0, lines, decoders=decoders), len(records), 0),
    ):
        seconds = _best_s(work, repeats)
        yield {
            "bench": f"frames/{name}",
            "events": events,
            "keys": keys,
            "bytes_per_event": round(size / events, 1),
            "seconds": seconds,
            "events_per_s": events / seconds,
        }
