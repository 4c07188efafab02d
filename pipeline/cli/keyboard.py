"""Single key presses from a terminal while a program runs; the terminal mode is always restored afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

__all__ = ["decode_keys", "keys"]

_NAMES: Final = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left"}


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
    """Call the action of each key pressed; yields whether standard input is a terminal."""
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
