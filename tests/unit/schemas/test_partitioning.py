import numpy as np
import pyarrow as pa
import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from astrocyte import Frame
from astrocyte.schemas.partitioning import murmur2, partition_keys, partition_of, split_by_partition


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
