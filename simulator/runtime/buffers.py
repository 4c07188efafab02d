"""Sizes of a world's buffers: those of ordinary rounds, and those of the rare ticks that need far more.

Each new size is another program, and compiling one takes seconds. So the rounds of a run use one program with buffers
of ordinary size, and a round that overflows is run again tick by tick with the *spill* program, whose buffers hold what
any tick can need. Ordinary sizes change only where they have been wrong for many rounds: they grow after repeated
overflows, shrink after many rounds of far smaller needs, and change once the new program has been compiled in the
background (`wanted`, `compiled`).

Replays terminate: a tick that overflowed is run again by the spill program, and spill sizes only grow.
"""

from __future__ import annotations

from collections.abc import Mapping

from astrocyte.schemas.errors import AstrocyteError

__all__ = ["MOST_SPILLS", "ROUNDS_TO_SHRINK", "BufferStuck", "Buffers", "Sizes", "roomy"]

ROUNDS_TO_SHRINK = 64
"""Initial number of rounds for which a buffer must have been far too large before it is shrunk."""
MOST_ROUNDS_TO_SHRINK = 64 * ROUNDS_TO_SHRINK
MOST_SPILLS = 4
"""Overflows within `ROUNDS_TO_SHRINK` rounds after which ordinary buffers grow: fewer are bursts."""
MOST_REPLAYS = 10
"""Maximum number of replays without a complete round between them. One or two are usual: needs are measured, but an
overflow can hide later ones."""

Sizes = tuple[tuple[str, int], ...]
"""Rows of each buffer, sorted by name."""


class BufferStuck(AstrocyteError):
    """A round that still overflows after all replays: an error in the scenario's step, or in this module."""


class Buffers:
    """The sizes with which the next round is run, and the ticks that are run by the spill program.

    ``initial`` are the minimum sizes, ``largest`` those of the spill program, where a buffer is absent its initial
    size.
    """

    def __init__(self, scenario: str, initial: Mapping[str, int], largest: Mapping[str, int]) -> None:
        self._scenario, self._initial = scenario, dict(initial)
        self._sizes = dict(initial)
        self._spill = {name: max(size, largest.get(name, 0)) for name, size in initial.items()}
        self._ready: dict[Sizes, None] = {}
        self._shrunk: set[str] = set()
        self._rounds_to_shrink = ROUNDS_TO_SHRINK
        self.restart()

    def restart(self) -> None:
        """Start of another run of the world; sizes are kept."""
        self._spill_first = self._spill_end = self._measured_end = -1
        self._replays = self._rounds = self._since_growth = self._spills = self._streak = 0
        self._peaks: dict[str, int] = {}
        self._spilled: dict[str, int] = {}
        self._wanted: Sizes | None = None

    @property
    def spill_end(self) -> int:
        """End of the last ticks that are run by the spill program."""
        return self._spill_end

    # Sizes of the next round

    def take(self) -> Sizes:
        """Ordinary sizes, for a round that is to be run now."""
        sizes = _frozen(self._sizes)
        self._ready[sizes] = None
        return sizes

    def spill_sizes(self) -> Sizes:
        """Sizes of the spill program."""
        return _frozen(self._spill)

    @property
    def may_spill(self) -> bool:
        """Whether the spill program holds more than an ordinary round."""
        return any(size > self._sizes[name] for name, size in self._spill.items())

    def spills(self, tick: int) -> bool:
        """Whether ``tick`` is run by the spill program."""
        return self._spill_first <= tick < self._spill_end

    def turn(self, tick: int) -> int:
        """The next tick after ``tick`` at which the other program takes over; no round crosses it."""
        if tick < self._spill_first:
            return self._spill_first
        return self._spill_end if tick < self._spill_end else 2**62

    # Needs of rounds that were run

    def overflowed(self, first_tick: int, end_tick: int, sizes: Sizes, needs: Mapping[str, int]) -> bool:
        """Whether the round [first_tick, end_tick), run with ``sizes``, needed more; if so, it has to be run again.

        Raises BufferStuck if replays do not help.
        """
        lacking = {name: (size, needs[name]) for name, size in sizes if needs.get(name, 0) > size}
        if not lacking:
            return False
        self._replays += 1
        if self._replays > MOST_REPLAYS:
            name, (size, need) = min(lacking.items())
            raise BufferStuck(
                f"scenario {self._scenario!r}: buffer {name!r} is too small in ticks {first_tick} to {end_tick - 1} "
                f"after {self._replays} tries: it has {size} rows per tick, {need} are needed. The count that step "
                "passes to ctx.need must not depend on ctx.capacity; if it does not, this is an error of the "
                "simulator"
            )
        spilled = self.spills(first_tick)
        if spilled or any(need > self._spill[name] for name, (_, need) in lacking.items()):
            # The effects of the dropped rows are unknown: if they overflow too, allocate more than was measured.
            for name, (_, need) in lacking.items():
                self._spill[name] = max(self._spill[name], roomy(need * min(self._replays, 2)))
        if not spilled:
            # Overflow after overflow: longer and longer runs of the spill program, so that fewer rounds are run twice.
            self._streak = min(2 * self._streak, MOST_SPILLS) if first_tick == self._spill_end else 1
            self._spills += self._streak
            self._spill_first, self._spill_end = first_tick, first_tick + self._streak * (end_tick - first_tick)
        return True

    def measured(self, first_tick: int, end_tick: int, needs: Mapping[str, int]) -> None:
        """Record the needs of a complete round."""
        if end_tick <= self._measured_end:
            return
        self._measured_end, self._replays = end_tick, 0
        spilled = self.spills(first_tick)
        peaks = self._spilled if spilled else self._peaks
        for name, count in needs.items():
            peaks[name] = max(peaks.get(name, 0), count)
        if spilled and end_tick < self._spill_end:
            return  # the ticks of one overflow count as one round
        self._rounds += 1
        self._since_growth += 1
        # One that holds all that the spill program could write will never overflow.
        nearly_full = any(
            self._spill[name] > size and self._peaks.get(name, 0) > size - size // 8
            for name, size in self._sizes.items()
        )
        if nearly_full or self._spills >= MOST_SPILLS:
            self._grow()
        elif self._since_growth >= ROUNDS_TO_SHRINK:
            self._forget_spills()

    # Other ordinary sizes

    def wanted(self) -> Sizes | None:
        """Ordinary sizes that would suit better; None if the present ones do. Their program has to be compiled."""
        return self._wanted

    def compiled(self, sizes: Sizes, tick: int) -> None:
        """The program of these sizes is compiled: use it from ``tick`` on, if it is still wanted.

        Only for a tick before which nothing will be run again.
        """
        self._ready[sizes] = None
        wanted = self._wanted
        # Needs may have grown further meanwhile: what was compiled is better than what is in use.
        if wanted is None or not (sizes == wanted or (self._grows(sizes) and self._grows(wanted))):
            return
        self._sizes = dict(sizes)
        self._wanted = None if sizes == wanted else wanted
        self._spill_end = min(self._spill_end, tick)
        self._rounds, self._peaks = 0, {}
        self._forget_spills()

    def _grows(self, sizes: Sizes) -> bool:
        return all(size >= self._sizes[name] for name, size in sizes)

    def consider_shrinking(self) -> None:
        """Want smaller buffers where they have long been far too large."""
        if self._rounds < self._rounds_to_shrink:
            return
        smaller = {
            name: max(self._initial[name], roomy(most))
            for name, most in self._peaks.items()
            if most < self._sizes[name] // 8 and self._sizes[name] > self._initial[name]
        }
        self._rounds, self._peaks = 0, {}
        if smaller:
            self._shrunk |= smaller.keys()
            self._settle({**self._sizes, **smaller})

    def _grow(self) -> None:
        """Grow all buffers that are more than half full, not only the full one: each change compiles again."""
        needs = dict(self._peaks)
        if self._spills >= MOST_SPILLS:
            for name, count in self._spilled.items():
                needs[name] = max(needs.get(name, 0), count)
        wanted = dict(self._sizes)
        for name, count in needs.items():
            if count > wanted[name] // 2:
                wanted[name] = max(wanted[name], count, min(roomy(count), self._spill[name]))
        grown = {name for name, size in wanted.items() if size > self._sizes[name]}
        if grown & self._shrunk:
            self._rounds_to_shrink = min(2 * self._rounds_to_shrink, MOST_ROUNDS_TO_SHRINK)
        self._shrunk -= grown
        if grown:
            self._settle(wanted)

    def _forget_spills(self) -> None:
        self._since_growth = self._spills = 0
        self._spilled = {}

    def _settle(self, wanted: Mapping[str, int]) -> None:
        """Want ``wanted``, or sizes compiled before that are nowhere smaller and not much larger in sum."""
        known = [
            sizes
            for sizes in self._ready
            if all(size >= wanted[name] for name, size in sizes)
            and sum(size for _, size in sizes) <= 2 * sum(wanted.values())
        ]
        best = min(known, key=lambda sizes: sum(size for _, size in sizes), default=None)
        sizes = best if best is not None else _frozen(wanted)
        self._wanted = sizes if sizes != _frozen(self._sizes) else None


def _frozen(sizes: Mapping[str, int]) -> Sizes:
    return tuple(sorted(sizes.items()))


def roomy(count: int) -> int:
    """1.5 times ``count``, rounded up to an eighth of a power of two, so that few sizes are ever compiled."""
    wanted = count + count // 2
    step = max(1 << max(wanted.bit_length() - 3, 0), 32)
    return -(-wanted // step) * step
