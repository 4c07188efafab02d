"""What the page does with rules: lists those that run, checks, tries and publishes rule files."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from astrocyte.pipeline.kafka.client import BrokerUnavailable
from astrocyte.pipeline.page.rules.check import MOST_TEXT, check_text, outline
from astrocyte.pipeline.page.rules.in_force import InForce, file_label
from astrocyte.pipeline.page.rules.trials import Trials
from astrocyte.pipeline.page.sources.broker import BrokerSource
from astrocyte.pipeline.page.sources.source import Source
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.overrides import Origins, published_label
from astrocyte.pipeline.topology.plan import checked_plan, make_plan
from astrocyte.pipeline.topology.rule_updates import publish_files, published_files
from astrocyte.schemas.errors import AstrocyteError, InvalidRule, InvalidSettings

__all__ = ["RuleBench", "TextChanged"]

_MOST_BYTES: Final = 1 << 30
"""Bytes of messages of a broker that are read back."""
_NO_HISTORY: Final = (
    "a database holds what was found, not the events in their order, so rules cannot be run over it again: open the "
    "page of the recorded log, or of the broker"
)
_NAME: Final = 100
_PUBLISHED_S: Final = 5.0


class TextChanged(AstrocyteError):
    """Somebody else has published a text of that name since it was read."""


class RuleBench:
    """The rules of one page. ``write`` allows to publish; raises InvalidSettings where there is no broker for it."""

    def __init__(
        self,
        source: Source,
        rule_files: Sequence[Path],
        settings: Settings,
        *,
        since_us: int | None = None,
        write: bool = False,
    ) -> None:
        self.write = write
        self._broker = settings.broker if isinstance(source, BrokerSource) else None
        if write and self._broker is None:
            raise InvalidSettings(
                "--write publishes rules to the workers of a broker, and this page is of a recording; leave it out, "
                "or open the page of the broker: astrocyte page --write"
            )
        self._files = tuple(rule_files)
        self._settings = settings
        self._publishing = asyncio.Lock()
        self._published: dict[str, str] = {}
        self._read_s = -_PUBLISHED_S
        self._tried: tuple[InForce, InForce] | None = None
        self.figures: Callable[[str, Mapping[str, Any]], object] = lambda _name, _values: None
        """Called with what the page shows of trials."""
        messages: dict[str, Any] | None = None
        if self._broker is not None:
            inputs = make_plan(InForce.of_files(rule_files).ruleset()).inputs
            messages = {"broker": self._broker, "since_us": since_us, "domains": settings.partitions,
                        "inputs": list(inputs), "most_bytes": _MOST_BYTES}  # fmt: skip
        elif source.logs:
            messages = {"log": str(source.logs[0])}
        config = {"messages": messages, "lateness_us": settings.lateness,
                  "clock_tolerance_us": settings.clock_tolerance}  # fmt: skip
        self._trials = (
            None if messages is None else Trials(config, lambda values: self.figures("rules/history", values))
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ends the process of the trials."""
        try:
            yield
        finally:
            if self._trials is not None:
                await self._trials.close()

    async def listed(self) -> dict[str, Any]:
        """The rule files in force, what they hold, and what can be done with them. Raises AstrocyteError."""
        problem = ""
        try:
            in_force = await self._in_force(now=True)
        except BrokerUnavailable as error:
            in_force, problem = InForce.of_files(self._files), str(error)
        names = sorted({*in_force.files, *in_force.published})
        origins = in_force.origins()
        return {
            "files": [self._about(in_force, name, origins) for name in names],
            "write": self.write,
            "history": _NO_HISTORY if self._trials is None else None,
            "problem": problem,
        }

    async def check(self, name: str, text: str) -> dict[str, Any]:
        """What `check_text` says of a text. Raises AstrocyteError."""
        _refuse_odd(name, text)
        in_force = await self._in_force()
        return await asyncio.to_thread(check_text, in_force, name, text)

    async def trial(self, name: str, text: str, *, again: bool) -> dict[str, Any]:
        """What the text finds in the history, beside what the rules in force do. ``again`` reads the history anew."""
        _refuse_odd(name, text)
        if self._trials is None:
            return {"unavailable": _NO_HISTORY}
        if again:
            await self._trials.close()
        in_force = await self._in_force(now=True)
        found = await self._trials.run(in_force, after := in_force.with_text(name, text), name)
        if "result" in found:
            self._tried = in_force, after
        return found

    async def why(self, rule: str, match: int, *, after: bool) -> dict[str, Any]:
        """One match of the last trial, and the ``text`` of the rule file that it is of."""
        if self._trials is None or self._tried is None:
            return {"failed": _NO_HISTORY if self._trials is None else "no rules have been tried yet"}
        tried = self._tried[after]
        return await self._trials.why(rule, match, after=after) | {"text": tried.text_of(rule) or ""}

    async def cancel(self) -> None:
        """Stop a trial."""
        if self._trials is not None:
            await self._trials.cancel()

    async def publish(self, name: str, text: str, seen: str | None) -> dict[str, Any]:
        """Publish a text as `rules publish` does; ``seen`` is the `digest` of the published text that was edited.

        Raises TextChanged where another one is published meanwhile, InvalidRule, and BrokerUnavailable.
        """
        _refuse_odd(name, text)
        assert self.write
        assert self._broker is not None
        async with self._publishing:
            published = await published_files(self._broker)
            _refuse_changed(name, published.get(name), seen)
            checked_plan(InForce({}, {name: text}).checked(name))
            await publish_files(self._settings, published, {name: text.encode()})
            # Kafka cannot compare and set: whoever published at the same moment is found afterwards.
            _refuse_changed(name, (await published_files(self._broker)).get(name), digest(text.encode()))
        return {"published": name, "digest": digest(text.encode())}

    async def _in_force(self, *, now: bool = False) -> InForce:
        """What runs; what is published is asked of the broker at most every `_PUBLISHED_S` while one types."""
        if self._broker is not None and (now or time.monotonic() - self._read_s > _PUBLISHED_S):
            found = await published_files(self._broker)
            self._published = {name: text.decode("utf-8", "replace") for name, text in found.items()}
            self._read_s = time.monotonic()
        broker = self._broker is not None
        return await asyncio.to_thread(InForce.of_files, self._files, self._published, publishes=broker)

    def _about(self, in_force: InForce, name: str, origins: Origins) -> dict[str, Any]:
        text = in_force.text(name) or ""
        is_published = name in in_force.published
        label, beneath = published_label(name) if is_published else file_label(name), file_label(name)
        return {
            "name": name,
            "text": text,
            "published": is_published,
            "digest": digest(text.encode()) if is_published else None,
            "outline": outline(text),
            "overridden": {of[1]: labels[-1] for of, labels in origins.items() if label in labels[:-1]},
            # Of a published file, what its name stands for in the settings and only there stays in force.
            "beneath": [of[1] for of, labels in origins.items() if is_published and labels[-1] == beneath],
        }


def digest(text: bytes) -> str:
    """What differs for different content."""
    return hashlib.sha256(text).hexdigest()


def _refuse_changed(name: str, text: bytes | None, seen: str | None) -> None:
    if (None if text is None else digest(text)) != seen:
        raise TextChanged(
            f"somebody else has published {name!r} meanwhile; load it anew, look at the difference and publish again"
        )


def _refuse_odd(name: str, text: str) -> None:
    if not name or len(name) > _NAME or any(char in name for char in "/\\\0\n"):
        raise InvalidRule(f"expected the name of a rule file, of at most {_NAME} characters without / and \\")
    if len(text) > MOST_TEXT:
        raise InvalidRule(f"expected at most {MOST_TEXT:,} characters, got {len(text):,}; divide the rules among files")
