import numpy as np
import pyarrow as pa
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from astrocyte import Frame
from astrocyte.schemas.partitioning import murmur2, partition_of, repartition, split_by_partition


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


def test_a_repartitioned_frame_has_another_key_and_keeps_the_field():
    frame = Frame.from_columns("s", "r", {"timestamp": [1, 2], "key": ["a", "b"], "cell": [17, 18]})
    assert repartition(frame, "cell").column("key").to_pylist() == ["17", "18"]
    assert repartition(frame, "cell").column("cell").to_pylist() == [17, 18]
