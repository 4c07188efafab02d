"""Line protocol files: after a crash, a full disk or a repetition they hold each point once, readable by gunzip."""

import errno
import os
import shutil
import subprocess

import numpy as np
import pytest

from astrocyte.agents.sinks.base import SinkError, SinkStopped, SourcedFrame, SourcedRecords
from astrocyte.agents.sinks.influx.file import InfluxFileSink
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.agents.sinks.testing import SinkUnderTest, check_sink, multi_event, results
from tests.support.line_protocol import read_points
from tests.support.notices import RetryNotices


def text_of(folder):
    """The decompressed files."""
    gunzip = shutil.which("gunzip")
    assert gunzip is not None
    return "".join(
        subprocess.run([gunzip, "-c", path], check=True, capture_output=True, text=True).stdout
        for path in sorted(folder.glob("points-*.lp.gz"))
    )


def count(folder):
    found = {}
    points = read_points(text_of(folder))
    assert len({point.identity for point in points}) == len(points), "no point is there twice"
    for point in points:
        found[point.measurement] = found.get(point.measurement, 0) + 1
    return found


def part(number, rows=20):
    return [SourcedFrame(results(first_seq=number * rows, rows=rows), "mono.problem_solving", 0, number)]


async def opened(folder, **options):
    sink = InfluxFileSink(folder, **options)
    await sink.open()
    return sink


@pytest.mark.parametrize("rotate_bytes", [300, 64 << 20])
async def test_influx_file_sink_keeps_the_contract(tmp_path, rotate_bytes):
    async def counted():
        return count(tmp_path)

    await check_sink(lambda: SinkUnderTest(InfluxFileSink(tmp_path, rotate_bytes=rotate_bytes), counted), unknown=True)
    assert (len(list(tmp_path.glob("*.gz"))) > 1) == (rotate_bytes == 300)


async def test_files_are_gzipped_line_protocol_with_comments_that_hold_their_offsets(tmp_path):
    sink = await opened(tmp_path)
    await sink.write(part(0))
    await sink.write(part(1))
    await sink.close()
    lines = text_of(tmp_path).splitlines()
    assert lines[0] == '# offsets {"offsets":[["mono.problem_solving",0,0,1]],"split":{}}'
    assert lines[21] == '# offsets {"offsets":[["mono.problem_solving",0,1,2]],"split":{}}'
    assert lines[1].startswith("problem_solving,cell_id=0,difficulty=easy,problem_type=sum accuracy=0,")
    assert len(read_points("\n".join(lines) + "\n")) == 40


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.99])
async def test_a_member_truncated_by_a_crash_is_removed_and_written_again(tmp_path, kept):
    sink = await opened(tmp_path)
    await sink.write(part(0))
    path = tmp_path / "points-000001.lp.gz"
    whole = path.stat().st_size
    await sink.write(part(1))
    await sink.close()
    os.truncate(path, whole + int((path.stat().st_size - whole) * kept))
    sink = await opened(tmp_path)
    assert path.stat().st_size == whole
    await sink.write(part(0))
    await sink.write(part(1))
    await sink.write(part(2))
    await sink.close()
    assert count(tmp_path) == {"problem_solving": 60}


async def test_a_crash_just_after_a_rotation_loses_nothing(tmp_path):
    sink = await opened(tmp_path, rotate_bytes=1)
    await sink.write(part(0))
    await sink.close()
    first = tmp_path / "points-000001.lp.gz"
    assert list(tmp_path.glob("*.gz")) == [first], "no file is empty"
    (tmp_path / "points-000002.lp.gz").write_bytes(first.read_bytes()[:20])
    sink = await opened(tmp_path, rotate_bytes=1)
    await sink.write(part(0))
    await sink.write(part(1))
    await sink.close()
    assert count(tmp_path) == {"problem_solving": 40}
    sink = await opened(tmp_path)
    await sink.write(part(1))
    await sink.close()
    assert count(tmp_path) == {"problem_solving": 40}


async def test_a_batch_that_overlaps_stored_records_adds_only_new_ones(tmp_path):
    sink = await opened(tmp_path)
    events = [multi_event(number) for number in range(6)]
    await sink.write([SourcedRecords("multi_events", events[:4], "multi.events", 0, 10)])
    await sink.write([SourcedRecords("multi_events", events[2:], "multi.events", 0, 12)])
    with_offsets = SourcedFrame(results(rows=4), "mono.problem_solving", 2, 3, np.array([3, 5, 6, 9]))
    await sink.write([with_offsets])
    await sink.write([with_offsets])
    await sink.close()
    assert count(tmp_path) == {"multi_events": 6, "problem_solving": 4}


async def test_a_refused_record_is_reported_again_after_a_crash_before_its_dead_letter(tmp_path):
    batch = [SourcedRecords("alerts", [{"alert_id": "x"}], "alerts", 0, 7), *part(0)]
    sink = await opened(tmp_path)
    first = await sink.write(batch)
    await sink.close()
    sink = await opened(tmp_path)
    assert await sink.write(batch) == first
    await sink.close()
    assert [(row.stream, row.offset) for row in first] == [("alerts", 7)]
    assert count(tmp_path) == {"problem_solving": 20}


async def test_a_full_disk_is_waited_for_and_leaves_no_torn_member(tmp_path):
    sink = await opened(tmp_path)
    await sink.write(part(0))
    path = tmp_path / "points-000001.lp.gz"
    seen = []

    class Full:
        """A file on a disk that takes 30 more bytes."""

        def __init__(self, file):
            self.file = file

        def write(self, data):
            self.file.write(data[:30])
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name):
            return getattr(self.file, name)

    files = sink._files
    real = files._file

    async def free():
        seen.append((path.stat().st_size, files._end))
        files._file = real

    notices = RetryNotices(free, at=2)
    sink._retry = notices.retry()
    files._file = Full(real)
    assert await sink.write(part(1)) == []
    await sink.close()
    assert [notice.attempt for notice in notices] == [1, 2, 0]
    assert str(path) in notices[0].reason
    assert "No space left" in notices[0].reason
    assert seen[0][0] == seen[0][1]
    assert count(tmp_path) == {"problem_solving": 40}


async def test_a_stopped_sink_confirms_nothing_of_the_batch(tmp_path):
    retry = RetryPolicy("influx", on_retry=lambda _: retry.stop.set())
    sink = await opened(tmp_path, retry=retry)

    def full(_rows):
        raise OSError(errno.ENOSPC, "No space left on device")

    sink._files.append = full
    with pytest.raises(SinkStopped):
        await sink.write(part(0))
    await sink.close()
    again = await opened(tmp_path)
    await again.write(part(0))
    await again.close()
    assert count(tmp_path) == {"problem_solving": 20}


async def test_other_files_in_the_folder_are_not_changed(tmp_path):
    for name in ("points-notes.txt", "points-1.lp.gz", "points-000001.lp.gz.bak"):
        (tmp_path / name).write_text("mine")
    sink = await opened(tmp_path)
    await sink.write(part(0))
    await sink.close()
    assert (tmp_path / "points-000001.lp.gz").stat().st_size > 0
    assert (tmp_path / "points-1.lp.gz").read_text() == "mine"


async def test_a_folder_that_cannot_be_created_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"folder .*file/influx of sink 'influx' cannot be used"):
        await InfluxFileSink(tmp_path / "file" / "influx").open()
    with pytest.raises(SinkError, match="await open"):
        await InfluxFileSink(tmp_path).write(part(0))
