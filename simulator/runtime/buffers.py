"""Sizes of a world's growable buffers: they grow at once, and shrink only where no round can be run again.

Each change of a size compiles the step again, which takes seconds in the middle of a run. So sizes are few (`roomy`),
sizes that were compiled before are reused where they fit, and a buffer that had to grow after it was shrunk doubles
the time until the next shrinking.

Replays terminate: between two snapshots sizes only grow, and each replay makes an overflowed buffer as large as needed.
"""

from __future__ import annotations

from collections.abc import Mapping

from astrocyte.schemas.errors import AstrocyteError

__all__ = ["ROUNDS_TO_SHRINK", "BufferStuck", "Buffers", "Sizes", "roomy"]

ROUNDS_TO_SHRINK = 64
"""Initial number of rounds for which a buffer must have been far too large before it is shrunk."""
MOST_ROUNDS_TO_SHRINK = 64 * ROUNDS_TO_SHRINK
MOST_REPLAYS = 10
"""Maximum number of replays of one round. Needs are measured, so one is usual; an overflow can hide later ones."""

Sizes = tuple[tuple[str, int], ...]
"""Rows of each buffer, sorted by name."""


class BufferStuck(AstrocyteError):
    """A round that still overflows after all replays: an error in the scenario's step, or in this module."""


class Buffers:
    """The sizes with which the next round is run.

    ``initial`` are the minimum sizes. ``rare`` gives the period in ticks of buffers that only few rounds need: between
    those rounds they return to their initial size.
    """

    def __init__(self, scenario: str, initial: Mapping[str, int], *, rare: Mapping[str, int], chunk_ticks: int) -> None:
        self._scenario, self._initial, self._rare = scenario, dict(initial), dict(rare)
        self._far_ticks = ROUNDS_TO_SHRINK * chunk_ticks
        self._sizes = dict(initial)
        self._used: dict[Sizes, None] = {}
        self._shrunk: set[str] = set()
        self._rounds_to_shrink = ROUNDS_TO_SHRINK
        self.restart()

    def restart(self) -> None:
        """Start of another run of the world; sizes are kept."""
        self._overflow_end = self._measured_end = -1
        self._replays = self._rounds = 0
        self._peaks: dict[str, int] = {}

    def take(self) -> Sizes:
        """The sizes, for a round that is to be run now."""
        sizes = tuple(sorted(self._sizes.items()))
        self._used[sizes] = None
        return sizes

    def overflowed(self, first_tick: int, end_tick: int, sizes: Sizes, needs: Mapping[str, int]) -> bool:
        """Whether the round [first_tick, end_tick), run with ``sizes``, needed more; if so, grow for a replay.

        Raises BufferStuck if replays do not help.
        """
        lacking = {name: (size, needs[name]) for name, size in sizes if needs.get(name, 0) > size}
        if not lacking:
            return False
        if end_tick > self._overflow_end:
            self._overflow_end, self._replays = end_tick, 0
        self._replays += 1
        # The effects of the dropped rows are unknown: if they overflow too, allocate more than was measured.
        self._grow({name: count * min(self._replays, 2) for name, count in needs.items()})
        short = {name: both for name, both in lacking.items() if self._sizes[name] < both[1]}
        if short or self._replays > MOST_REPLAYS:
            name, (size, need) = min((short or lacking).items())
            raise BufferStuck(
                f"scenario {self._scenario!r}: buffer {name!r} is too small in ticks {first_tick} to {end_tick - 1} "
                f"after {self._replays} tries: it has {size} rows per tick, {need} are needed. The count that step "
                "passes to ctx.need must not depend on ctx.capacity; if it does not, this is an error of the "
                "simulator"
            )
        return True

    def measured(self, end_tick: int, needs: Mapping[str, int]) -> None:
        """Record the needs of a complete round; grow buffers that are nearly full, which needs no replay yet."""
        if end_tick <= self._measured_end:
            return
        self._measured_end = end_tick
        self._rounds += 1
        for name, count in needs.items():
            self._peaks[name] = max(self._peaks.get(name, 0), count)
        if any(count > self._sizes[name] - self._sizes[name] // 8 for name, count in needs.items()):
            self._grow(needs)

    def shrink(self, tick: int) -> None:
        """Shrink buffers that have long been far too large. Only for a tick before which nothing will be run again."""
        if tick < self._overflow_end:
            return
        wanted = dict(self._sizes)
        for name, every in self._rare.items():
            if -tick % every > self._far_ticks:
                wanted[name] = self._initial[name]
        if self._rounds >= self._rounds_to_shrink:
            for name, most in self._peaks.items():
                if most < wanted[name] // 8:
                    wanted[name] = max(self._initial[name], roomy(most))
            self._rounds, self._peaks = 0, {}
        smaller = {name for name, size in wanted.items() if size < self._sizes[name]}
        if smaller:
            self._shrunk |= smaller - self._rare.keys()
            self._settle(wanted)

    def _grow(self, needs: Mapping[str, int]) -> None:
        """Grow all buffers that are more than half full, not only the full one: each change compiles again."""
        wanted = dict(self._sizes)
        for name, count in needs.items():
            if count > wanted[name] // 2:
                wanted[name] = max(wanted[name], roomy(count))
        grown = {name for name, size in wanted.items() if size > self._sizes[name]}
        if grown & self._shrunk:
            self._rounds_to_shrink = min(2 * self._rounds_to_shrink, MOST_ROUNDS_TO_SHRINK)
        self._shrunk -= grown
        if grown:
            self._settle(wanted)

    def _settle(self, wanted: Mapping[str, int]) -> None:
        """Use ``wanted``, or sizes compiled before that are nowhere smaller and not much larger in sum."""
        known = [
            sizes
            for sizes in self._used
            if all(size >= wanted[name] for name, size in sizes)
            and sum(size for _, size in sizes) <= 2 * sum(wanted.values())
        ]
        best = min(known, key=lambda sizes: sum(size for _, size in sizes), default=None)
        self._sizes = dict(best if best is not None else wanted)


def roomy(count: int) -> int:
    """1.5 times ``count``, rounded up to an eighth of a power of two, so that few sizes are ever compiled."""
    wanted = count + count // 2
    step = max(1 << max(wanted.bit_length() - 3, 0), 32)
    return -(-wanted // step) * step
