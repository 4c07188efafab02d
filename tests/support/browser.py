"""A headless Chromium, driven by its DevTools protocol over a WebSocket: no driver has to be installed beside it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from astrocyte.pipeline.bench.page.tab import browser_program as chromium
from astrocyte.pipeline.bench.page.tab import running_browser

WAIT_S = 60.0
KEYS = {"Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
        "ArrowDown": 40, "Tab": 9, "Backspace": 8}  # fmt: skip


class Tab:
    """One tab: what it loads, says and shows."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())
        self.problems: list[str] = []
        """Errors and warnings of the console, uncaught exceptions, and violations of the policy."""
        self.requests: list[str] = []
        """Addresses of everything that was asked for."""

    async def _read(self) -> None:
        async for message in self._socket:
            body = json.loads(message.data)
            if "id" in body:
                answer = self._answers.pop(body["id"])
                if "error" in body:
                    answer.set_exception(RuntimeError(body["error"]["message"]))
                else:
                    answer.set_result(body["result"])
                continue
            match body["method"], body["params"]:
                case "Network.requestWillBeSent", params:
                    self.requests.append(params["request"]["url"])
                case "Runtime.exceptionThrown", params:
                    details = params["exceptionDetails"]
                    self.problems.append(details.get("exception", {}).get("description", details["text"]))
                case "Log.entryAdded", params if params["entry"]["level"] in ("error", "warning"):
                    self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
                case "Runtime.consoleAPICalled", params if params["type"] in ("error", "warning", "assert"):
                    self.problems.append(" ".join(str(each.get("value", each)) for each in params["args"]))

    async def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        return await asyncio.wait_for(answer, WAIT_S)

    async def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load an address in a window of that size."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call("Page.navigate", url=url)

    async def resize(self, width: int, height: int) -> None:
        """Change the size of the window."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def run(self, script: str) -> Any:
        """Value of an expression, or of the promise that it gives."""
        found = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"]["exception"]["description"])
        return found["result"].get("value")

    async def until(self, script: str, what: str = "") -> Any:
        """Wait until an expression is true, and return its value."""
        # The page itself looks anew after each of its pictures, so nothing is waited for longer than needed.
        waited = f"""new Promise((resolve) => {{
          const began = performance.now();
          const look = () => {{
            let value = null;
            try {{ value = ({script}); }} catch {{ value = null; }}
            if (value) resolve(typeof value === "object" ? true : value);
            else if (performance.now() - began > {WAIT_S * 900}) resolve(null);
            else setTimeout(look, 30);
          }};
          look();
        }})"""
        for _ in range(20):
            with contextlib.suppress(RuntimeError):  # the page is being loaded
                found = await self.run(waited)
                assert found, f"{what or script}: never, and the page says {await self.text('body')!r:.1500}"
                return found
        raise AssertionError(f"no page was loaded: {what or script}")

    async def text(self, selector: str) -> str:
        """Visible text of the first element that is selected."""
        return await self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    async def press(self, key: str) -> None:
        """Press and release a key."""
        code = KEYS.get(key, ord(key.upper()[0]))
        typed = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        common = {"key": key, "windowsVirtualKeyCode": code, "code": key}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **common, **typed)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def click(self, selector: str) -> None:
        """Click on the middle of the first element that is selected."""
        box = await self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        where = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, **where)

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """Save what is shown as PNG."""
        found = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    async def close(self) -> None:
        """End the reading of messages."""
        await self._socket.close()
        await self._reading


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Callable[[], Any]]:
    """A running Chromium; call what is given to get a new tab."""
    program = chromium()
    assert program is not None
    async with running_browser(program) as devtools, aiohttp.ClientSession() as session:
        tabs: list[Tab] = []

        async def new_tab() -> Tab:
            async with session.put(f"http://{urlsplit(devtools).netloc}/json/new?about:blank") as answer:
                target = await answer.json()
            socket = await session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0)
            tabs.append(Tab(socket))
            return tabs[-1]

        yield new_tab
        for tab in tabs:
            await tab.close()
