"""Console sessions of a page: its commands run in order in one shell, and print what the page shows.

A block ``console`` has commands after ``$ `` (continued after ``> ``), each followed by its output, standard error
included. In the output ``...`` stands for any text, alone on a line for any lines. The lines of ``tap`` may come in any
order, since partitions have none. A command that ends in ``&`` goes on; the page shows what it prints once it is ready.
Blocks of other kinds whose first line is a comment with the name of a file are that file.

``python -m tests.support.session PAGE`` prints the page with the output of commands that have none yet.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.kafka import free_port
from tests.support.waiting import wait_until

PORT = "9092"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# ([\w.-]+\.\w+)\n")
_READY_S = 120.0


@dataclass(frozen=True)
class Command:
    """A command, and its output as the page shows it."""

    text: str
    shown: str
    end: int
    """Place in the page behind the command's own lines."""

    @property
    def stays(self) -> bool:
        return self.text.endswith("&")

    @property
    def unordered(self) -> bool:
        return " tap " in self.text


def commands_of(page: str) -> list[Command | tuple[str, str]]:
    """Commands, and files as name and content, in the order of the page."""
    found: list[Command | tuple[str, str]] = []
    for block in _BLOCK.finditer(page):
        kind, body = block.groups()
        if kind == "console":
            for part in re.finditer(r"^\$ ((?:.*\n)(?:> .*\n)*)((?:(?!\$ ).*\n)*)", body, re.MULTILINE):
                text = re.sub(r"^> ", "", part[1], flags=re.MULTILINE).strip()
                found.append(Command(text, part[2], block.start(2) + part.end(1)))
        elif name := _FILE.match(body):
            found.append((name[1], body))
    return found


class Shell:
    """One bash, in a folder, with the project's commands, a free port instead of Kafka's, and no colours."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port, self._jobs = str(port), 0
        self._outputs = Path(tempfile.mkdtemp(prefix="session-"))
        environment = {
            **{name: os.environ[name] for name in os.environ if not name.startswith("ASTROCYTE_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ASTROCYTE_BROKER": f"127.0.0.1:{port}",
            "COLUMNS": "100",
            "PS1": "",
        }
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, command: Command) -> str:
        """Output of the command; of one that goes on, once it has printed what the page shows."""
        text = command.text.replace(PORT, self.port)
        if text.startswith("astrocyte broker"):
            text = text.replace("astrocyte broker", f"astrocyte broker --port {self.port}")
        self._jobs += 1
        output = self._outputs / f"{self._jobs}.txt"
        if command.stays:
            self._say(f"{text[:-1]} > {output} 2>&1 < /dev/null &")

            def printed() -> str:
                return self._shown(output) if output.exists() else ""

            if command.shown:
                wait_until(lambda: matches(command.shown, printed(), among=True), _READY_S, printed)
            return printed()
        self._say(f"{{ {text}\n}} > {output} 2>&1 < /dev/null")
        return self._shown(output)

    def _shown(self, output: Path) -> str:
        return output.read_text().replace(self.port, PORT)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\necho done\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n", "the shell has ended"

    def close(self) -> None:
        """End the shell and everything that it started: all are of its session."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=20)  # until none of them holds the pipe any more
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._outputs)


@contextmanager
def shell(folder: Path) -> Iterator[Shell]:
    """A shell in that folder, with everything that it started ended behind."""
    opened = Shell(folder, free_port())
    try:
        yield opened
    finally:
        opened.close()


def matches(shown: str, printed: str, *, among: bool = False, unordered: bool = False) -> bool:
    """Whether the output is what the page shows; with ``among`` it is somewhere in it."""
    if unordered:
        return sorted(shown.splitlines()) == sorted(printed.splitlines())
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else ".*?".join(map(re.escape, line.split("..."))) + r"\n"
        for line in shown.splitlines()
    )
    if among:
        return re.search(pattern, printed) is not None
    return re.fullmatch(pattern, printed) is not None


def run_page(page: str, folder: Path, check: Callable[[Command, str], None]) -> None:
    """Run the page in a folder; ``check`` gets each command with what it printed."""
    with shell(folder) as opened:
        for each in commands_of(page):
            if isinstance(each, Command):
                check(each, opened.run(each))
            else:
                name, content = each
                (folder / name).write_text(content.replace(PORT, opened.port))


def check_output(command: Command, printed: str) -> None:
    """Fail where the output is not what the page shows."""
    if not command.stays:
        fits = matches(command.shown, printed, unordered=command.unordered)
        assert fits, f"$ {command.text}\nthe page shows:\n{command.shown}\nprinted:\n{printed}"


def filled(page: str, folder: Path) -> str:
    """The page with the output of commands that show none."""
    parts: list[tuple[int, str]] = []

    def keep(command: Command, printed: str) -> None:
        sys.stderr.write(f"$ {command.text}\n{printed}")
        if not command.shown and printed:
            parts.append((command.end, printed))

    run_page(page, folder, keep)
    for place, printed in reversed(parts):
        page = page[:place] + printed + page[place:]
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        work = Path(name) / path.parent.name
        if path.name == "README.md":
            shutil.copytree(path.parent.parent, name, dirs_exist_ok=True)
        else:
            work.mkdir()
        sys.stdout.write(filled(path.read_text(), work))
