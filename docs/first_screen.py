"""The picture of the README, of a real demo: ``python -m docs.first_screen`` in the folder of the repository.

The page is photographed by Chromium while the demo runs; what the demo writes to a terminal becomes a drawing.
"""

# ruff: noqa: INP001, ASYNC110 - a script, not a package, which looks at a terminal anew until it shows what is waited for
from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import tempfile
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.text import Text

from tests.support.browser import browser

FOLDER = Path(__file__).parent / "img"
COLUMNS = 112
SCENARIO = "cells"
SECONDS = 30
"""Simulated seconds of the demo: so long that the page has a history to show."""
_SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 -12 {terminal_width} {terminal_height}">
<title>astrocyte demo in a terminal</title>
<style>
text {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
<rect x="-16" y="-12" width="100%" height="100%" rx="8" fill="#292929"/>
<g clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


class Terminal:
    """A demo on a terminal of its own, and what it has written so far."""

    def __init__(self, folder: Path) -> None:
        self.written = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        self._theirs, self._folder = theirs, folder

    async def run(self) -> None:
        """Run the demo to its end."""
        program = "import sys; sys.argv[0] = 'astrocyte'; from astrocyte.pipeline.cli.app import main; main()"
        command = [sys.executable, "-c", program, "demo", "--scenario", SCENARIO, "--seconds", str(SECONDS)]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=self._folder, stdin=self._theirs, stdout=self._theirs, stderr=self._theirs,
            env=os.environ | {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}, start_new_session=True,
        )  # fmt: skip
        os.close(self._theirs)
        loop = asyncio.get_running_loop()
        try:
            with contextlib.suppress(OSError):  # the last one that held the terminal has ended
                while part := await loop.run_in_executor(None, os.read, self._ours, 65_536):
                    self.written += part
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    @property
    def text(self) -> str:
        """Everything so far."""
        return self.written.decode(errors="replace")

    async def until(self, pattern: str) -> re.Match[str]:
        """The first place at which the pattern is found."""
        while (found := re.search(pattern, self.text)) is None:
            await asyncio.sleep(0.2)
        return found

    def screen(self) -> list[str]:
        """Lines that stay: of a line that was drawn again and again only the last state."""
        kept = re.sub(r"\x1b\[\?\d+[hl]|\x1b\[\d*[AGJ]", "", self.text).replace("\r\n", "\n")
        lines = [re.split(r"\r|\x1b\[2K", line)[-1] for line in kept.split("\n")]
        drawn_again = re.compile(rf"\W*{SCENARIO}: .*[━╸]")
        lines = [line for line in lines if not drawn_again.match(re.sub(r"\x1b\[[\d;]*m", "", line))]
        return [line for line, after in zip(lines, [*lines[1:], ""], strict=True) if line.strip() or after.strip()]


async def photograph(terminal: Terminal, new_tab: Callable[[], Any]) -> None:
    """Save the page of the running demo."""
    address = (await terminal.until(r"while this runs: (http://\S+?/)\s"))[1]
    tab = await new_tab()
    await tab.open(address, width=1280, height=860)
    await terminal.until(rf"{SCENARIO}: (?:2[2-9]|30) of {SECONDS} s")
    await tab.until("document.querySelectorAll('.chart .line').length > 5", "charts")
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        await tab.picture(Path(file.name))
        # A palette of 256 colours: charts have few, and the file has a third of the size.
        Image.open(file.name).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            FOLDER / "page.png", optimize=True
        )


def draw(lines: list[str]) -> None:
    """Save the lines of the terminal as a drawing."""
    console = Console(record=True, width=COLUMNS + 3, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115, PTH123
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    drawn = console.export_svg(title="astrocyte demo", code_format=_SVG, unique_id="terminal")
    drawn = re.sub(r'viewBox="-16 -12 (\S+) (\S+)"', _with_margins, drawn)
    (FOLDER / "terminal.svg").write_text(re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE))


def _with_margins(found: re.Match[str]) -> str:
    return f'viewBox="-16 -12 {float(found[1]) + 16:.1f} {float(found[2]) + 24:.1f}"'


async def main() -> None:
    """Run a demo, and save both pictures."""
    with tempfile.TemporaryDirectory() as folder:
        terminal = Terminal(Path(folder))
        async with browser() as new_tab:
            running = asyncio.create_task(terminal.run())
            try:
                await photograph(terminal, new_tab)
                await running
            finally:
                running.cancel()
        draw(terminal.screen())


if __name__ == "__main__":
    asyncio.run(main())
