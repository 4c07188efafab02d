"""The newest messages of a topic of a log, as of an instant, whether it has an index or not."""

import pytest

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.page.sources.messages import Newest, newest_of_log
from tests.support.logs import T0_US, write_log

T0_MS = T0_US // 1000


@pytest.fixture(scope="module", params=["indexed", "without index"])
def log(request, tmp_path_factory):
    """Messages of one topic every ten seconds, of another one every 100 ms, and an hour without any in the middle."""
    records = []
    for tick in range(2_000):
        at_ms = T0_MS + tick * 100 + (3_600_000 if tick >= 1_000 else 0)
        if tick % 100 == 0:
            records.append(ConsumedRecord("rare", 0, tick // 100, at_ms, None, b"%d" % tick))
        records.append(ConsumedRecord("usual", 0, tick, at_ms, None, b"%d" % tick))
    path = write_log(tmp_path_factory.mktemp("log") / "log.jsonl.zst", records, partitions=1)
    if request.param == "without index":
        import zstandard

        plain = path.with_suffix("")
        with path.open("rb") as file:
            plain.write_bytes(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read())
        return plain
    return path


def ticks(log, wanted):
    return [int(record.value) for record in newest_of_log(log, wanted)]


def test_the_newest_are_those_at_the_end(log):
    assert ticks(log, Newest("usual", 3)) == [1997, 1998, 1999]
    assert ticks(log, Newest("rare", 3)) == [1700, 1800, 1900]


def test_of_an_instant_they_are_those_before_it_however_far_back(log):
    assert ticks(log, Newest("usual", 2, T0_MS + 50_000)) == [498, 499]
    assert ticks(log, Newest("rare", 4, T0_MS + 50_000)) == [100, 200, 300, 400]
    assert ticks(log, Newest("rare", 2, T0_MS + 3_600_000)) == [800, 900]
    assert ticks(log, Newest("rare", 2, T0_MS)) == []


def test_a_topic_that_is_not_there_has_none(log):
    assert ticks(log, Newest("absent", 3)) == []
