"""Ctrl-C and SIGTERM: a command ends within two seconds with what was done, or first finishes what it is at.

Python's signal handlers run on the main thread, between two of its instructions: not while it compiles a world, loads a
library or waits for a device. So a thread reads the signals from a pipe, gives the command time to finish by itself,
and otherwise ends the process. No exception is raised anywhere: it could hit code that cannot be interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

__all__ = ["Stop", "end_after", "end_at_once", "end_now", "ends_on_signal", "interrupted_as_usual", "to_the_end"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_LIMIT_S: Final = 1.7
"""Time from the signal to the end of the process, which leaves a margin to two seconds for a busy machine."""
_RESCUE_S: Final = 0.4
"""Part of it for saving what was done, where the command has not ended by itself."""
_FINISHED: Final = b"\0"
_CLEAN_LINE: Final = "\r\x1b[K\x1b[?25h"
"""To the start of a cleared line, with the cursor shown: a progress bar may be on the terminal."""


_T = TypeVar("_T")
_cut_off: set[asyncio.Task[Any]] = set()
"""Tasks whose caller was cancelled; the event loop itself keeps none from being collected."""


async def to_the_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Result of ``work``, which goes on to its end where the caller is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            _cut_off.add(task)
            task.add_done_callback(_cut_off.discard)
        raise


class Stop:
    """Whether the command is to stop. Made by `ends_on_signal`; without it, nothing ever sets it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._rescue: Callable[[], str] | None = None
        self._finishes = False
        self._otherwise = ""
        self._notice: str | None = None
        self.number: int | None = None
        """The signal that stopped the command."""

    def is_set(self) -> bool:
        """Whether a signal has arrived."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for a signal; returns whether one has arrived."""
        return self._event.wait(timeout_s)

    def guard(self, rescue: Callable[[], str], *, finishes: bool, otherwise: str = "") -> None:
        """From now on there is something to save. Before this call a signal ends the process at once.

        ``rescue`` saves what was done, on another thread, in the time that is left, and returns a text about it;
        ``otherwise`` is that text where it takes too long. With ``finishes`` the command sees the stop and ends by
        itself; ``rescue`` is then called only if that takes too long.
        """
        self._rescue, self._finishes, self._otherwise = rescue, finishes, otherwise

    def finish(self, notice: str) -> None:
        """From now on a signal prints ``notice``, and the command ends by itself, however long that takes.

        A second signal ends the process at once.
        """
        self._notice, self._finishes = notice, True

    def end(self) -> NoReturn:
        """End the process, with the exit status of its signal: 128 and its number. Nothing else may be unwritten."""
        assert self.number is not None
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not sys.exit: that waits for threads, one of which may be compiling a world.
        os._exit(128 + self.number)

    def _received(self, number: int) -> None:
        if self.number is None:
            self.number = number
        self._event.set()

    def _watch(self, reader: int) -> None:
        while (first := os.read(reader, 1)) not in map(_byte, _SIGNALS):
            if first in (_FINISHED, b""):
                return
        self._received(first[0])
        limit_s: float | None = _LIMIT_S - _RESCUE_S
        if self._notice is not None:
            limit_s = None
            _write(self._notice)
        if self._finishes:
            # A second signal, or the end of the time, ends the command at once; its own end writes a zero.
            while select.select([reader], [], [], limit_s)[0]:
                second = os.read(reader, 1)
                if second in (_FINISHED, b""):
                    return
                if second in map(_byte, _SIGNALS):
                    break
        self._end_now()

    def _end_now(self) -> None:
        # What other threads report from now on, such as a broker that is gone, follows from the stop.
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
        said: list[str] = []
        if self._rescue is not None:
            rescue = self._rescue

            def save() -> None:
                with contextlib.suppress(Exception):  # the process ends whatever happens
                    said.append(rescue())

            saving = threading.Thread(target=save, name="rescue", daemon=True)
            saving.start()
            saving.join(_RESCUE_S if self._finishes else _LIMIT_S)
        text = said[0] if said else self._otherwise
        if self._notice is None:  # otherwise its reader asked for this
            _write("astrocyte: stopped" + (f"; {text}" if text else ""))
        os._exit(128 + (self.number or signal.SIGTERM))


def end_after(limit_s: float, notice: str, status: int) -> None:
    """End the process after ``limit_s`` with one line, if it has not ended by itself: whatever then hangs or waits.

    Python waits for threads that are no daemons at its end, and nothing interrupts a function that does not return.
    """
    timer = threading.Timer(limit_s, end_now, (notice, status))
    timer.daemon = True
    timer.start()


def end_now(notice: str, status: int) -> NoReturn:
    """End the process with one line, whatever its threads do."""
    _write(notice)
    os._exit(status)


def _byte(number: int) -> bytes:
    return bytes([number])


def _write(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{_CLEAN_LINE if os.isatty(2) and os.environ.get('TERM') != 'dumb' else ''}{line}\n".encode())


def end_at_once() -> None:
    """From now on Ctrl-C and SIGTERM end the process at once: for a command that is only beginning."""
    for number in _SIGNALS:
        signal.signal(number, _end)


def interrupted_as_usual() -> None:
    """Undo `end_at_once`: Ctrl-C raises KeyboardInterrupt and SIGTERM ends the process, as in every program."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, _frame: object) -> None:
    # No exception: it would be raised anywhere in an import.
    _write("astrocyte: stopped")
    os._exit(128 + number)


@contextlib.contextmanager
def ends_on_signal() -> Iterator[Stop]:
    """Within this context Ctrl-C and SIGTERM end the process, see `Stop`. Only on the main thread; elsewhere nothing.

    A command that finishes by itself calls `Stop.end` as the last thing in the context if `Stop.number` is set.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watching = threading.Thread(target=stop._watch, args=(reader,), name="signals", daemon=True)
    watching.start()
    before_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    # Only with a handler does a signal reach the pipe, so these come last.
    before = {number: signal.signal(number, lambda received, _: stop._received(received)) for number in _SIGNALS}
    try:
        yield stop
    finally:
        if stop.is_set() and not stop._finishes:
            watching.join()  # it ends the process: whatever was raised here follows from the stop
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        os.write(writer, _FINISHED)
        watching.join()
        os.close(writer)
        os.close(reader)
