"""Console: progress bars, signals, closed pipes, key presses, and printing of results."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

import typer

from astrocyte.schemas.errors import AstrocyteError, redacted

__all__ = [
    "counted",
    "decode_keys",
    "disk_may_fill",
    "interruptible",
    "keys",
    "live_terminal",
    "number_text",
    "pipe_may_close",
    "print_json",
    "printable",
    "progress_bar",
    "say",
    "short",
    "size_text",
]

_NAMES: Final = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left"}

Move = Callable[[int, int | None], None]


@contextlib.contextmanager
def interruptible() -> Iterator[asyncio.Event]:
    """Yields an event that the first Ctrl-C or SIGTERM sets; a second one interrupts as usual."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupted(number: int) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    installed = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, interrupted, number)
            installed.append(number)
    try:
        yield stop
    finally:
        for number in installed:
            loop.remove_signal_handler(number)


def live_terminal() -> bool:
    """Whether standard error is a terminal on which a line can be drawn again."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def _ignore_progress(_done: int, _total: int | None) -> None:
    pass


@contextlib.contextmanager
def progress_bar(verb: str, shown: Callable[[], str] | None = None) -> Iterator[Move]:
    """Progress bar on stderr, shown on a terminal after two seconds of work; yields ``move(done, total)``."""
    if not live_terminal():
        yield _ignore_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(verb, total=None)
    began = time.monotonic()
    moved_at = 0.0

    def move(done: int, total: int | None) -> None:
        nonlocal moved_at
        now = time.monotonic()
        if now - moved_at < 0.1:
            return
        moved_at = now
        if now - began > 2 and not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total, description=f"{verb} {shown()}" if shown else verb)

    try:
        yield move
    finally:
        bar.stop()


@contextlib.contextmanager
def pipe_may_close() -> Iterator[None]:
    """End the command with status 0 when the reader of its output has closed the pipe (``| head``)."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


@contextlib.contextmanager
def disk_may_fill(path: str) -> Iterator[None]:
    """Report a full disk or an unwritable folder in one line. Raises AstrocyteError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AstrocyteError(
            f"{path} cannot be written: {error.strerror}; what was recorded so far is in {path}.partial"
        ) from None


def size_text(count: int) -> str:
    """Bytes with a unit."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


def printable(text: str, *, lines: bool = False) -> str:
    """The text with escapes for what would move the cursor, change the screen or the order of the letters.

    With ``lines`` line ends and tabs stay.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode() for char in text
    )


def short(text: str, most: int = 60) -> str:
    """A name or value, `printable`, in at most ``most`` characters."""
    text = printable(text[: most + 1])
    return text if len(text) <= most else text[: max(1, most - 3)] + "..."


def say(text: str) -> None:
    """Write one line for the user, on stderr, without passwords; names and values in it are made `printable`."""
    sys.stderr.write(printable(redacted(text), lines=True) + "\n")


def print_json(body: dict[str, Any]) -> None:
    """Write one JSON object as a line on stdout."""
    sys.stdout.write(json.dumps(body) + "\n")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with a noun: ``1 duplicate``, ``2,000 duplicates``; ``plural``: where it is not the noun and an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def number_text(value: float) -> str:
    """A number for the screen: six digits, or all of them where six would cut its whole part (a time in seconds)."""
    return repr(value).removesuffix(".0") if 999_999.5 <= abs(value) < 1e16 else f"{value:.6g}"


def decode_keys(data: bytes) -> list[str]:
    """Names of the keys that a terminal sent as bytes: ``up down right left space``, else the character."""
    found = []
    # Some terminals send arrows in application mode.
    data = data.replace(b"\x1bO", b"\x1b[")
    while data:
        name = _NAMES.get(data[:3])
        if name is not None:
            found.append(name)
            data = data[3:]
        else:
            found.append("space" if data[:1] == b" " else data[:1].decode("latin-1"))
            data = data[1:]
    return found


@contextlib.asynccontextmanager
async def keys(actions: Mapping[str, Callable[[], None]]) -> AsyncIterator[bool]:
    """Call the action of each key pressed; yields whether standard input is a terminal.

    The mode of the terminal is restored afterwards.
    """
    if not sys.stdin.isatty():
        yield False
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def pressed() -> None:
        for name in decode_keys(os.read(descriptor, 64)):
            action = actions.get(name)
            if action is not None:
                action()

    try:
        tty.setcbreak(descriptor)  # Ctrl-C still interrupts
        loop.add_reader(descriptor, pressed)
        yield True
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
