"""`simulate`: the same frames however the run is divided, and what happens on errors."""

import threading
from pathlib import Path

import numpy as np
import pytest

from astrocyte.scenario import CallableSink, MemorySink, simulate
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.simulator.emission.emitter import EmissionFailed
from astrocyte.simulator.run import RunSummary
from astrocyte.simulator.runtime.checkpoint import CheckpointMismatch
from astrocyte.simulator.runtime.world import World
from astrocyte.simulator.testing import check_frames
from tests.support.worlds import MORAN, MoranConfig

CONFIG = MoranConfig(slots=64, replicates=3, death_rate=0.1, births_capacity=64)


def run(config: MoranConfig = CONFIG, *, ticks: int = 60, seed: int = 4, **options: object) -> tuple[bytes, RunSummary]:
    sink = MemorySink()
    summary = simulate(MORAN, config, seed=seed, ticks=ticks, sink=sink, run="r", **options)
    assert list(check_frames(sink.frames)) == []
    return b"".join(map(encode_frame, sink.frames)), summary


def test_frames_are_the_same_for_every_chunk_length_and_grouping_of_islands() -> None:
    whole, _ = run()
    assert run(chunk_ticks=3)[0] == whole
    assert run(chunk_ticks=35)[0] == whole
    assert run(group_islands=3)[0] == whole
    assert run(queue_rounds=1)[0] == whole


def test_another_seed_gives_other_frames() -> None:
    assert run(seed=5)[0] != run()[0]


def test_frame_size_does_not_change_rows_or_numbers() -> None:
    tables = []
    for frame_ticks, frame_rows in ((10, 65_536), (7, 5)):
        sink = MemorySink()
        simulate(MORAN, CONFIG, seed=4, ticks=60, sink=sink, run="r", frame_ticks=frame_ticks, frame_rows=frame_rows)
        frames = sink.of("test_births")
        assert max(frame.num_rows for frame in frames) <= frame_rows
        numbers = np.concatenate([frame.sequences() for frame in frames]).tolist()
        tables.append((numbers, [row for frame in frames for row in frame.batch.to_pylist()]))
    assert tables[0] == tables[1]


def test_chunks_that_overflow_are_run_again_with_larger_buffers_and_no_rows_are_lost() -> None:
    tight = CONFIG.model_copy(update={"births_capacity": 4})
    whole, wide = run()
    again, narrow = run(tight)
    assert (wide.reruns, narrow.reruns > 0) == (0, True)
    assert again == whole
    assert narrow.events == wide.events


def test_a_resumed_run_gives_the_frames_of_an_uninterrupted_one(tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    whole, parts = MemorySink(), MemorySink()
    simulate(MORAN, CONFIG, seed=4, ticks=60, sink=whole, run="r")
    simulate(MORAN, CONFIG, seed=4, ticks=30, sink=parts, run="r", checkpoint=file, chunk_ticks=4)
    summary = simulate(MORAN, CONFIG, seed=4, ticks=60, sink=parts, checkpoint=file, resume=True)

    def content(sink: MemorySink) -> list[bytes]:
        return [encode_frame(frame) for frame in sink.frames if frame.num_rows]

    assert content(parts) == content(whole)
    assert (summary.first_tick, summary.end_tick, summary.run) == (30, 60, "r")


def test_checkpoints_are_saved_during_the_run_after_the_sink_confirmed(tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    seen: list[tuple[bool, str]] = []

    class Sink(MemorySink):
        def flush(self) -> None:
            seen.append((file.exists(), "flush"))

    simulate(MORAN, CONFIG, seed=4, ticks=55, sink=Sink(), checkpoint=file, checkpoint_ticks=15)
    # At 20, 40 and 50 (multiples of ten), and once more at the end of the run.
    assert [existed for existed, _ in seen] == [False, True, True, True]
    assert World(MORAN, CONFIG, 4).tick == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "is of seed 4, not 5"),
        ({"config": CONFIG.model_copy(update={"advantage": 0.5})}, "made with advantage = 0.0, this run has 0.5"),
        ({"config": CONFIG.model_copy(update={"slots": 128})}, "made with slots = 64, this run has 128"),
    ],
)
def test_a_checkpoint_of_another_seed_or_config_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    file = tmp_path / "run.ckpt"
    run(ticks=10, checkpoint=file)
    with pytest.raises(CheckpointMismatch, match=message):
        run(change.get("config", CONFIG), seed=change.get("seed", 4), ticks=20, checkpoint=file, resume=True)


def test_a_file_that_is_not_a_checkpoint_or_of_another_version_is_refused(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "run.ckpt"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointMismatch, match="cannot be read as a checkpoint"):
        run(ticks=20, checkpoint=file, resume=True)
    monkeypatch.setattr("astrocyte.simulator.runtime.checkpoint.CHECKPOINT_VERSION", 99)
    run(ticks=10, checkpoint=file)
    monkeypatch.undo()
    with pytest.raises(CheckpointMismatch, match=r"expected version 1, got 99\. Resume it with"):
        run(ticks=20, checkpoint=file, resume=True)


def test_every_stream_has_watermarks_and_an_end() -> None:
    sink = MemorySink()
    quiet = CONFIG.model_copy(update={"death_rate": 0.0})
    simulate(MORAN, quiet, seed=4, ticks=25, sink=sink)
    for stream in ("test_births", "test_deaths"):
        marks = [
            (frame.num_rows, (frame.watermark_us - CONFIG.epoch_us) // CONFIG.tick_us, frame.end)
            for frame in sink.of(stream)
        ]
        assert marks == [(0, 0, False), (0, 10, False), (0, 20, False), (0, 25, False), (0, 25, True)]


def test_a_sink_that_fails_ends_the_run_with_its_reason() -> None:
    def refuse(frame: Frame) -> None:
        raise OSError("the disk is full")

    with pytest.raises(EmissionFailed, match="the disk is full"):
        simulate(MORAN, CONFIG, seed=4, ticks=500, sink=CallableSink(refuse))
    assert not [thread for thread in threading.enumerate() if thread.name == "simulator-emitter"]


def test_an_interrupted_run_leaves_no_thread_behind() -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(MORAN, CONFIG, seed=4, ticks=500, sink=MemorySink(), progress=interrupt)
    assert not [thread for thread in threading.enumerate() if thread.name == "simulator-emitter"]


def test_a_blocking_sink_slows_the_simulation_without_loss() -> None:
    whole, _ = run(ticks=200)
    gate = threading.Semaphore(0)
    sink = MemorySink()
    ticks: list[int] = []

    def write(frame: Frame) -> None:
        gate.acquire()
        sink.write(frame)

    def progress(done) -> None:
        ticks.append(done.tick)
        if done.tick == 20:  # the worker waits with the opening frame, the queue is full: the next round would wait
            for _ in range(1000):
                gate.release()

    simulate(MORAN, CONFIG, seed=4, ticks=200, sink=CallableSink(write), run="r", progress=progress)
    assert b"".join(map(encode_frame, sink.frames)) == whole
    assert ticks[-1] == 200


def test_pacing_waits_for_the_clock_and_changes_nothing() -> None:
    now = [100.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    whole, unpaced = run()
    paced, summary = run(rate=1000.0, clock=lambda: now[0], sleep=sleep)
    assert paced == whole
    assert sum(slept) == pytest.approx(sum(unpaced.events.values()) / 1000.0)
    slept.clear()
    _, summary = run(speed=0.5, clock=lambda: now[0], sleep=sleep)
    assert sum(slept) == pytest.approx(summary.simulated_s / 0.5, rel=0.1)


def test_a_stop_function_ends_an_endless_run() -> None:
    sink = MemorySink()
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 3

    summary = simulate(MORAN, CONFIG, seed=4, sink=sink, stop=stop)
    assert summary.end_tick == 30
    assert list(check_frames(sink.frames)) == []
