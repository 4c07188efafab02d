"""A tab of Chromium, without a window, that shows a page, and the memory of its scripts by the DevTools protocol."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from itertools import count
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp

from astrocyte.pipeline.roles.parent import killed_with_parent

__all__ = ["Tab", "browser_program", "open_tab", "running_browser"]

_START_S: Final = 60.0
_ANSWER_S: Final = 30.0
_MESSAGE_BYTES: Final = 16 << 20
_BLOCK_BYTES: Final = 1 << 16


def browser_program() -> str | None:
    """Chromium or Chrome, where it is installed."""
    programs = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    return next((program for program in programs if program is not None), None)


class Tab:
    """One tab; see https://chromedevtools.github.io/devtools-protocol/ for what it is asked."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._session = ""

    async def show(self, address: str) -> None:
        """Open the address."""
        target = await self._ask("Target.createTarget", url="about:blank")
        attached = await self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        await self._ask("Performance.enable")
        await self._ask("Page.navigate", url=address)

    async def heap_mb(self) -> float:
        """Memory in use by the scripts of the page, in MiB, after what nothing refers to was collected."""
        await self._ask("HeapProfiler.collectGarbage")
        metrics = (await self._ask("Performance.getMetrics"))["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == "JSHeapUsedSize")) / (1 << 20)

    async def _ask(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(request | ({"sessionId": self._session} if self._session else {}))
        async with asyncio.timeout(_ANSWER_S):
            while True:
                answer = await self._socket.receive_json()
                if answer.get("id") != number:
                    continue  # an event that nobody waits for
                if "error" in answer:
                    raise RuntimeError(f"Chromium refused {method}: {answer['error'].get('message')}")
                result: dict[str, Any] = answer["result"]
                return result


@contextlib.asynccontextmanager
async def open_tab(program: str, address: str) -> AsyncIterator[Tab]:
    """A tab that shows the address, in a browser of its own which ends with the context."""
    async with (
        running_browser(program) as devtools,
        aiohttp.ClientSession() as session,
        session.ws_connect(devtools, max_msg_size=_MESSAGE_BYTES) as socket,
    ):
        tab = Tab(socket)
        await tab.show(address)
        yield tab


@contextlib.asynccontextmanager
async def running_browser(program: str) -> AsyncIterator[str]:
    """Address of the DevTools (``ws://``) of a browser without a window, which ends with the context."""
    with TemporaryDirectory(prefix="astrocyte-tab-", ignore_cleanup_errors=True) as folder:
        command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-sync",
            "--hide-scrollbars", "--force-color-profile=srgb", "--window-size=1280,900", "--remote-debugging-port=0",
            f"--user-data-dir={folder}", "about:blank",
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *killed_with_parent(command),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "HOME": folder},
        )
        draining: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(_START_S):
                devtools = await _devtools(process)
            draining = asyncio.create_task(_drain(process))
            yield devtools
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it has children
            await process.wait()
            if draining is not None:
                draining.cancel()


async def _devtools(process: asyncio.subprocess.Process) -> str:
    """Address of the browser's DevTools, which it says when it has started."""
    assert process.stderr is not None
    said = b""
    async for line in process.stderr:
        said += line
        _, found, address = line.decode(errors="replace").partition("DevTools listening on ")
        if found:
            return address.strip()
    raise RuntimeError(f"Chromium ended at its start: {said.decode(errors='replace')[-2000:]}")


async def _drain(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    while await process.stderr.read(_BLOCK_BYTES):
        pass
