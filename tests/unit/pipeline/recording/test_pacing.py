"""The pace of a replay, in virtual time."""

from __future__ import annotations

import asyncio
import math

import pytest

from astrocyte.pipeline.console import decode_keys
from astrocyte.pipeline.recording.replays.pacing import Tempo, parse_rate
from astrocyte.schemas.errors import InvalidSettings


class VirtualClock:
    """A virtual clock: waiting advances it; ``during`` is called once, before the wait with its number."""

    def __init__(self) -> None:
        self.time = 100.0
        self.waits: list[float | None] = []
        self.during: dict[int, object] = {}

    def now(self) -> float:
        return self.time

    async def wait(self, changed: asyncio.Event, seconds: float | None) -> None:
        number = len(self.waits)
        self.waits.append(seconds)
        act = self.during.pop(number, None)
        if act is not None:
            after_s, action = act
            self.time += after_s
            action()
            return
        assert seconds is not None, "paused for ever"
        self.time += seconds


def second(n: float) -> int:
    return round(n * 1_000_000)


async def due_times(tempo: Tempo, clock: VirtualClock, *seconds: float) -> list[float]:
    times = []
    for at in seconds:
        await tempo.until(second(at))
        times.append(round(clock.time - 100, 6))
    return times


async def test_messages_keep_their_original_spacing():
    clock = VirtualClock()
    assert await due_times(Tempo(1.0, clock=clock), clock, 50, 51, 51.5, 60) == [0, 1, 1.5, 10]


async def test_a_rate_divides_the_spacing():
    clock = VirtualClock()
    assert await due_times(Tempo(4.0, clock=clock), clock, 50, 52, 60) == [0, 0.5, 2.5]


async def test_max_waits_for_nothing():
    clock = VirtualClock()
    assert await due_times(Tempo(math.inf, clock=clock), clock, 0, 1e6) == [0, 0]
    assert clock.waits == []


async def test_a_late_message_is_sent_at_once_and_the_next_keep_the_schedule():
    clock = VirtualClock()
    tempo = Tempo(1.0, clock=clock)
    await tempo.until(0)
    clock.time += 5
    assert await due_times(tempo, clock, 1, 2, 7) == [5, 5, 7]


async def test_a_pause_holds_the_message_that_is_waited_for_and_moves_the_rest():
    clock = VirtualClock()
    tempo = Tempo(1.0, clock=clock)
    clock.during = {0: (2.0, tempo.toggle), 1: (30.0, tempo.toggle)}
    assert await due_times(tempo, clock, 0, 10, 11) == [0, 40, 41]
    assert clock.waits[1] is None


async def test_a_step_gives_one_message_while_paused():
    clock = VirtualClock()
    tempo = Tempo(1.0, paused=True, clock=clock)
    clock.during = {0: (1.0, tempo.step), 1: (1.0, tempo.step), 2: (1.0, tempo.toggle)}
    assert await due_times(tempo, clock, 0, 10, 20, 21) == [1, 2, 13, 14]


async def test_a_new_rate_applies_from_now_on():
    clock = VirtualClock()
    tempo = Tempo(1.0, clock=clock)
    clock.during = {0: (2.0, tempo.faster)}
    assert await due_times(tempo, clock, 0, 10, 20) == [0, 6, 11]
    tempo.slower()
    tempo.slower()
    assert tempo.rate == 0.5


async def test_slower_from_max_is_the_original_speed():
    clock = VirtualClock()
    tempo = Tempo(math.inf, clock=clock)
    await tempo.until(0)
    tempo.slower()
    assert tempo.rate == 1.0
    assert await due_times(tempo, clock, 10, 12) == [0, 2]


async def test_a_pause_at_max_stops_and_resumes():
    clock = VirtualClock()
    tempo = Tempo(math.inf, clock=clock)
    tempo.toggle()
    clock.during = {0: (3.0, tempo.toggle)}
    assert await due_times(tempo, clock, 0, 10) == [3, 3]


@pytest.mark.parametrize("text", ["0", "-1", "fast", "nan", "inf", ""])
def test_an_invalid_rate_is_refused(text):
    with pytest.raises(InvalidSettings, match="positive factor"):
        parse_rate(text)


def test_rates_are_factors_or_max():
    assert parse_rate("max") == math.inf
    assert parse_rate("2x") == 2
    assert parse_rate("0.1") == 0.1


def test_keys_of_a_terminal_are_named():
    assert decode_keys(b" \x1b[A\x1b[Bq\x1bOC\x1b[D") == ["space", "up", "down", "q", "right", "left"]
