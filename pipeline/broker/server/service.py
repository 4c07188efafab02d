"""The broker as a process: serves a data folder until it receives a signal."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable

from astrocyte.pipeline.broker.server.broker import EmbeddedBroker
from astrocyte.pipeline.broker.settings import BrokerSettings

__all__ = ["serve"]

WANTED_DESCRIPTORS = 4096


def serve(
    settings: BrokerSettings, *, on_ready: Callable[[str], None] | None = None, until_stdin_closes: bool = False
) -> None:
    """Run a broker until SIGINT or SIGTERM; ``on_ready`` is called with its address once clients can connect.

    ``until_stdin_closes`` also stops it when the program that holds the other end of its standard input ends. Raises
    BrokerError if it cannot start. Blocks; use EmbeddedBroker inside a running loop.
    """
    _raise_descriptor_limit()
    asyncio.run(_serve(settings, on_ready, until_stdin_closes=until_stdin_closes))


async def _serve(settings: BrokerSettings, on_ready: Callable[[str], None] | None, *, until_stdin_closes: bool) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    fields = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
    async with EmbeddedBroker(**fields) as broker:
        if until_stdin_closes:
            _on_stdin_end(loop, stop.set)
        if on_ready is not None:
            on_ready(broker.address)
        await stop.wait()


def _on_stdin_end(loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
    fd = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(fd, 4096):
            loop.remove_reader(fd)
            ended()

    loop.add_reader(fd, readable)


def _raise_descriptor_limit() -> None:
    """Raise the limit of file descriptors: each connection takes one, and some systems allow 256 by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(WANTED_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
