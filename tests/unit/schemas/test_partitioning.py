import numpy as np
import pyarrow as pa
import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from astrocyte import Frame
from astrocyte.schemas.partitioning import (
    KeySample,
    murmur2,
    partition_keys,
    partition_of,
    split_by_partition,
    spread_keys,
)


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_murmur2_equals_the_clients_own(keys):
    expected = [reference(key) & 0xFFFF_FFFF for key in keys]
    assert murmur2(pa.array(keys, pa.binary())).tolist() == expected


@given(st.text(min_size=1, max_size=20), st.integers(1, 64))
def test_a_key_goes_where_another_producer_sends_it(key, partitions):
    everything = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key.encode(), everything, everything)


@given(
    keys=st.lists(st.none() | st.sampled_from([f"k{i}" for i in range(12)]), max_size=60),
    partitions=st.integers(1, 9),
)
def test_splitting_keeps_every_row_once_in_order_in_its_keys_partition(keys, partitions):
    frame = Frame.from_columns("s", "r", {"timestamp": np.arange(len(keys)), "key": pa.array(keys, pa.utf8())})
    seen = []
    for partition, part in split_by_partition(frame, partitions):
        found = part.column("key").to_pylist()
        assert all(key is None or partition_of(key, partitions) == partition for key in found)
        assert part.timestamps().tolist() == sorted(part.timestamps().tolist())
        assert [keys[row] for row in part.timestamps()] == found
        assert part.ids().tolist() == frame.ids(part.timestamps()).tolist()
        seen += part.timestamps().tolist()
    assert sorted(seen) == list(range(len(keys)))


def test_a_watermark_and_an_end_reach_partitions_without_rows():
    frame = Frame.from_columns("s", "r", {"timestamp": [5], "key": ["k"]}, watermark_us=5, end=True)
    parts = split_by_partition(frame, 4)
    assert [partition for partition, _ in parts] == [0, 1, 2, 3]
    assert sum(part.num_rows for _, part in parts) == 1
    assert all(part.watermark_us == 5 and part.end for _, part in parts)


@pytest.mark.parametrize("partitions", [1, 5])
def test_rows_that_are_partitioned_by_a_field_keep_their_keys(partitions):
    cells, keys = [17, 18, None, 17, 19], ["a", "b", "c", None, "a"]
    frame = Frame.from_columns("s", "r", {"timestamp": range(5), "key": keys, "cell": cells})
    assert partition_keys(frame, "cell").to_pylist() == ["17", "18", None, "17", "19"]
    seen = {}
    for partition, part in split_by_partition(frame, partitions, by="cell"):
        for row in part.rows():
            assert partition == (0 if row["cell"] is None else partition_of(str(row["cell"]), partitions))
            seen[row["timestamp"]] = (row["key"], row["cell"])
    assert seen == dict(enumerate(zip(keys, cells, strict=True)))


rows_of_keys = st.lists(
    st.tuples(st.integers(0, 3), st.none() | st.sampled_from([f"k{i}" for i in range(40)])), max_size=120
)


def sampled(rows, most: int):
    samples = {partition: KeySample(most) for partition, _ in rows}
    for partition in samples:
        own = [key for number, key in rows if number == partition]
        for at in range(0, len(own), 7):
            part = own[at : at + 7]
            frame = Frame.from_columns("s", "", {"timestamp": np.arange(len(part)), "key": pa.array(part, pa.utf8())})
            samples[partition].add(frame, "key")
    return spread_keys(samples.items())


@given(rows_of_keys)
def test_samples_that_hold_all_keys_tell_exactly_which_are_in_several_partitions(rows):
    places = {}
    for partition, key in rows:
        if key is not None:
            places.setdefault(key, set()).add(partition)
    spread = sorted(key for key, found in places.items() if len(found) > 1)
    found = sampled(rows, most=40)
    if not spread:
        assert found is None
        return
    assert (found.spread, found.looked_at, found.key) == (len(spread), len(places), spread[0])
    assert found.partitions == tuple(sorted(places[spread[0]]))


@given(rows_of_keys)
def test_small_samples_tell_of_keys_that_are_in_several_partitions_and_of_no_other(rows):
    found = sampled(rows, most=5)
    if found is not None:
        assert set(found.partitions) <= {partition for partition, key in rows if key == found.key}
        assert found.looked_at <= 20


def test_where_all_keys_are_in_several_partitions_a_small_sample_says_so_of_all_that_it_holds():
    rows = [(partition, f"key {number}") for number in range(3000) for partition in (0, 1)]
    found = sampled(rows, most=64)
    assert found.spread == found.looked_at == 64
    assert found.sentence("shop.orders", "order").startswith(
        "64 of 64 keys looked at have events in several partitions of shop.orders, which never meet, such as 'key "
    )


def test_no_key_is_in_several_partitions_where_kafka_itself_divides_them():
    rows = [(partition_of(f"key {number}", 4), f"key {number}") for number in range(3000)]
    assert sampled(rows, most=64) is None
