"""Trials of rules, from the side of the page: its process is started at the first one and asked over pipes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from astrocyte.pipeline.page.rules.in_force import InForce

__all__ = ["Trials"]

_LINE: Final = 64 << 20
"""Bytes of one answer at most."""
_WHY_S: Final = 20.0


class Trials:
    """One trial at a time: a newer one takes the place of an older one, which is then answered as ``superseded``.

    ``said`` is called with what the process does, for the page. `close` ends it.
    """

    def __init__(self, config: Mapping[str, Any], said: Callable[[Mapping[str, Any]], object]) -> None:
        self._config = config
        self._said = said
        self._child: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._number = 0
        self._trial: tuple[int, asyncio.Future[dict[str, Any]]] | None = None
        self._questions: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def run(self, before: InForce, after: InForce, name: str) -> dict[str, Any]:
        """What the rules ``after`` find and ``before`` did not, and the other way round, or why that is not known.

        ``name`` is the text that differs.
        """
        self._number += 1
        number = self._number
        if self._trial is not None:
            self._end_trial({"superseded": True})
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._trial = (number, answer)
        body = {"op": "try", "number": number, "name": name, "before": before.as_json(), "after": after.as_json()}
        self._said({"state": "trying"})
        await self._send(body)
        return await answer

    async def why(self, rule: str, match: int, *, after: bool) -> dict[str, Any]:
        """One match of the last trial with its events."""
        self._number += 1
        number = self._number
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        try:
            await self._send({"op": "why", "question": number, "rule": rule, "match": match, "after": after})
            async with asyncio.timeout(_WHY_S):
                return await answer
        except TimeoutError:
            return {"failed": "the process that tries rules is busy; ask again"}
        finally:
            self._questions.pop(number, None)

    async def cancel(self) -> None:
        """Stop the trial that runs."""
        if self._trial is not None:
            self._end_trial({"superseded": True})
            await self._send({"op": "cancel"})

    async def close(self) -> None:
        """End the process; the next trial starts another one, which reads the history again."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        if self._reading is not None:
            await self._reading

    async def _send(self, body: Mapping[str, Any]) -> None:
        async with self._starting:
            if self._child is None or self._child.returncode is not None:
                self._child = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "astrocyte.pipeline.page.rules.trial",
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE,
                )  # fmt: skip
                self._reading = asyncio.create_task(self._read(self._child))
                assert self._child.stdin is not None
                self._child.stdin.write(orjson.dumps(self._config) + b"\n")
            stdin = self._child.stdin
        assert stdin is not None
        with contextlib.suppress(ConnectionError):
            stdin.write(orjson.dumps(body) + b"\n")
            await stdin.drain()

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        with contextlib.suppress(ValueError):  # a line that is too long
            while line := await child.stdout.readline():
                self._take(orjson.loads(line))
        self._end_trial({"failed": "the process that tries rules has ended; the log of the page says why"})
        for answer in self._questions.values():
            if not answer.done():
                answer.set_result({"failed": "the trial has ended; try the rules again"})

    def _take(self, answer: dict[str, Any]) -> None:
        if "question" in answer:
            question = self._questions.get(answer["question"])
            if question is not None and not question.done():
                question.set_result(answer)
            return
        if self._trial is None or answer.get("number") != self._trial[0]:
            return
        if "progress" in answer:
            self._said({"state": "reading", "messages": answer["progress"]})
        else:
            self._end_trial(answer)

    def _end_trial(self, answer: dict[str, Any]) -> None:
        trial, self._trial = self._trial, None
        if trial is not None and not trial[1].done():
            trial[1].set_result(answer)
            self._said({"state": "idle"})
