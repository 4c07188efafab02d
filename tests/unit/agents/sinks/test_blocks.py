"""Files of a folder that several processes write: each owns its file, no line is lost, cut or there twice."""

import errno
import gzip
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from astrocyte.agents.sinks import blocks
from astrocyte.agents.sinks.base import SinkError, SinkStopped, SourcedFrame, SourcedRecords
from astrocyte.agents.sinks.file import FileSink, read_lines
from astrocyte.agents.sinks.influx.file import InfluxFileSink
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.agents.sinks.testing import alert, multi_event, results
from astrocyte.schemas.frames import Frame
from tests.support.line_protocol import read_points

ZOMBIE = """
import asyncio, sys
from tests.unit.agents.sinks.test_blocks import opened, part, SINKS
async def main():
    sink = await opened(SINKS[sys.argv[1]], sys.argv[2])
    await sink.write(part(0))
    print("written", flush=True)
    sys.stdin.readline()
    for number in (1, 2):
        await sink.write(part(number))
    await sink.close()
asyncio.run(main())
"""
SINKS = {"influx": InfluxFileSink, "file": FileSink}


def part(number, rows=20):
    return [SourcedFrame(results(first_seq=number * rows, rows=rows), "mono.problem_solving", 0, number)]


async def opened(kind, folder, **options):
    sink = kind(folder, **options)
    await sink.open()
    return sink


def rows_of(folder):
    """What identifies each row of all files, which must be readable to the end."""
    if list(folder.glob("events-*")):
        return [(line["stream"], str(line["record"])) for line in read_lines(folder)]
    points = [gzip.decompress(path.read_bytes()) for path in sorted(folder.glob("points-*"))]
    return [point.identity for point in read_points(b"".join(points))]


def check_rows(folder, count):
    rows = rows_of(folder)
    assert len(rows) == count
    assert max(Counter(rows).values(), default=1) == 1


@pytest.fixture(params=SINKS.values(), ids=SINKS.keys())
def kind(request):
    return request.param


async def test_a_line_names_the_row_of_its_message_also_where_earlier_rows_were_refused(tmp_path):
    (message,) = part(4, rows=3)
    sink = await opened(FileSink, tmp_path)
    await sink.write([message.take(np.array([0, 2]))])
    await sink.close()
    assert [(line["offset"], line["row"]) for line in read_lines(tmp_path)] == [(4, 0), (4, 2)]


async def test_the_newest_lines_are_recognised_however_many_older_ones_there_are(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(blocks, "_RECENT", 100)
    before = await opened(kind, tmp_path)
    for number in range(20):
        await before.write(part(number))
    await before.close()
    sink = await opened(kind, tmp_path)
    for number in (20, 21):
        await sink.write(part(number))
    # A restarted worker has sent these once more, so they have other offsets.
    await sink.write([replace(item, offset=50) for item in part(19) + part(20) + part(21)])
    await sink.close()
    check_rows(tmp_path, 22 * 20)


async def test_two_writers_of_one_folder_take_nothing_from_each_other(tmp_path, kind):
    first, second = await opened(kind, tmp_path), await opened(kind, tmp_path)
    for number in range(6):
        await (first, second)[number % 2].write(part(number))
    check_rows(tmp_path, 120)
    third = await opened(kind, tmp_path)
    await third.write(part(6))
    for sink in (first, second, third):
        await sink.close()
    check_rows(tmp_path, 140)


async def test_what_another_process_has_written_is_not_written_again(tmp_path, kind):
    first, second = await opened(kind, tmp_path), await opened(kind, tmp_path)
    await first.write(part(0))
    await second.write(part(0) + part(1))
    await first.write(part(1) + part(2))
    for sink in (first, second):
        await sink.close()
    check_rows(tmp_path, 60)


async def test_a_stopped_process_that_continues_harms_nothing(tmp_path, kind):
    name = next(name for name, each in SINKS.items() if each is kind)
    zombie = subprocess.Popen(
        [sys.executable, "-c", ZOMBIE, name, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert zombie.stdout.readline() == "written\n"
        os.kill(zombie.pid, signal.SIGSTOP)
        other = await opened(kind, tmp_path)
        await other.write(part(0) + part(1))
        await other.close()
        again = await opened(kind, tmp_path)
        os.kill(zombie.pid, signal.SIGCONT)
        _, _ = zombie.communicate("go\n", timeout=60)
        await again.write(part(2))
        await again.write(part(3))
        await again.close()
    finally:
        zombie.kill()
        zombie.wait()
    assert zombie.returncode == 0
    check_rows(tmp_path, 80)


async def test_a_process_that_was_killed_leaves_what_it_wrote_and_its_torn_end_is_cut_by_the_next(tmp_path, kind):
    other = await opened(kind, tmp_path)
    await other.write(part(0))
    dead = await opened(kind, tmp_path)
    await dead.write(part(1))
    path = max(tmp_path.glob("*-*"))
    whole = path.stat().st_size
    await dead.write(part(2))
    dead._files.close()
    os.truncate(path, (path.stat().st_size + whole) // 2)
    after = await opened(kind, tmp_path)
    assert path.stat().st_size == whole
    await after.write(part(1) + part(2))
    await other.write(part(3))
    for sink in (other, after):
        await sink.close()
    check_rows(tmp_path, 80)


async def test_a_file_that_is_damaged_in_its_middle_is_left_as_it_is(tmp_path, kind, caplog):
    sink = await opened(kind, tmp_path)
    for number in range(3):
        await sink.write(part(number))
    await sink.close()
    path = min(tmp_path.glob("*-*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : 2 * len(data) // 3] = b"damage" * (len(data) // 18)
    path.write_bytes(data)
    sink = await opened(kind, tmp_path)
    await sink.write(part(3))
    await sink.close()
    assert path.read_bytes() == data
    assert "damaged" in caplog.text
    assert len(list(tmp_path.glob("*-*"))) == 2


async def test_records_that_a_restarted_worker_sent_once_more_are_written_once(tmp_path, kind):
    sink = await opened(kind, tmp_path)
    await sink.write([SourcedRecords("multi_events", [multi_event(1), multi_event(2)], "multi.events", 0, 10)])
    await sink.write([SourcedRecords("multi_events", [multi_event(2), multi_event(3)], "multi.events", 0, 12)])
    await sink.close()
    again = await opened(kind, tmp_path)
    await again.write([SourcedRecords("multi_events", [multi_event(1), multi_event(4)], "multi.events", 0, 14)])
    await again.close()
    check_rows(tmp_path, 4)


async def test_offsets_of_another_cluster_do_not_hide_its_events(tmp_path, kind):
    sink = await opened(kind, tmp_path)
    await sink.write(part(0))
    await sink.write(part(1))
    await sink.close()
    new = await opened(kind, tmp_path)
    await new.write([SourcedFrame(results("run-2", rows=20), "mono.problem_solving", 0, 0)])
    await new.write([SourcedFrame(results("run-2", rows=20, first_seq=20), "mono.problem_solving", 0, 1)])
    await new.close()
    check_rows(tmp_path, 80)


async def test_lines_with_newlines_and_carriage_returns_are_recognised(tmp_path, kind):
    alerts = [alert(number) | {"message": f"one\ntwo {number}\r\nthree"} for number in range(4)]
    batch = [SourcedRecords("alerts", alerts, "alerts", 0, 0)]
    for _ in range(2):
        sink = await opened(kind, tmp_path)
        await sink.write(batch)
        await sink.close()
    check_rows(tmp_path, 4)


async def test_blocks_that_are_no_longer_kept_in_memory_are_found_in_the_files(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("astrocyte.agents.sinks.blocks._BLOCKS", 3)
    monkeypatch.setattr("astrocyte.agents.sinks.blocks._RECENT", 20)
    sink = await opened(kind, tmp_path, rotate_bytes=2500)
    for number in range(12):
        await sink.write(part(number))
    assert len(list(tmp_path.glob("*-*"))) > 2
    for number in (0, 5, 11, 3):
        await sink.write(part(number))
    await sink.close()
    again = await opened(kind, tmp_path, rotate_bytes=2500)
    for number in (0, 5, 11, 12):
        await again.write(part(number))
    await again.close()
    check_rows(tmp_path, 260)


@pytest.mark.parametrize("what", ["file", "folder", "replaced", "cut"])
async def test_a_sink_whose_files_were_deleted_says_so_and_confirms_nothing(tmp_path, kind, what):
    folder = tmp_path / "points"
    sink = await opened(kind, folder)
    await sink.write(part(0))
    path = next(folder.glob("*-*"))
    if what == "folder":
        shutil.rmtree(folder)
    elif what == "cut":
        os.truncate(path, 10)
    else:
        path.unlink()
        if what == "replaced":
            path.write_bytes(b"")
    with pytest.raises(SinkError, match="has changed it" if what == "cut" else "was deleted or replaced"):
        await sink.write(part(1))
    await sink.close()
    again = await opened(kind, folder)
    await again.write(part(1))
    await again.close()


async def test_files_that_were_taken_away_when_they_were_full_are_no_fault(tmp_path, kind):
    sink = await opened(kind, tmp_path, rotate_bytes=1)
    for number in range(4):
        await sink.write(part(number))
        next(tmp_path.glob("*-*")).unlink()
    await sink.close()
    assert rows_of(tmp_path) == []


async def test_a_process_that_is_stopped_in_the_middle_of_a_write_is_waited_for(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("astrocyte.agents.sinks.blocks._ATTEMPTS", 2)
    notices = []
    retry = RetryPolicy("file", on_retry=lambda notice: (notices.append(notice.reason), retry.stop.set()))
    first, second = await opened(kind, tmp_path), await opened(kind, tmp_path, retry=retry)
    with first._files._alone(), pytest.raises(SinkStopped):
        await second.write(part(0))
    assert "another process holds the lock" in notices[0]
    retry.stop.clear()
    await second.write(part(0))
    for sink in (first, second):
        await sink.close()
    check_rows(tmp_path, 20)


async def test_rows_with_offsets_of_their_own_are_recognised_in_any_division(tmp_path, kind):
    frame: Frame = results(rows=10)
    sink = await opened(kind, tmp_path)
    await sink.write([SourcedFrame(frame, "mono.problem_solving", 2, 3, np.arange(3, 13))])
    await sink.close()
    again = await opened(kind, tmp_path)
    await again.write([SourcedFrame(frame.take(np.arange(4, 10)), "mono.problem_solving", 2, 7, np.arange(7, 13))])
    await again.close()
    check_rows(tmp_path, 10)


@pytest.mark.parametrize("number", [errno.EFBIG, errno.EROFS, errno.EACCES])
async def test_an_error_that_no_retry_mends_ends_the_sink_with_one_line_and_nothing_is_confirmed(
    kind, tmp_path, monkeypatch, number
):
    sink = await opened(kind, tmp_path)
    await sink.write(part(0))

    def fails(*_arguments):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(sink._files, "_write", fails)
        with pytest.raises(SinkError, match=f"{os.strerror(number)}; nothing was dropped, the batch is read again"):
            await sink.write(part(1))
    await sink.write(part(1))
    await sink.close()
    check_rows(tmp_path, 40)
