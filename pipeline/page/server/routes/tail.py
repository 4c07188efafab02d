"""Newest messages of a topic as ``astrocyte tap`` shows them, and whole dead letters."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from astrocyte.agents.expressions.nodes import ExpressionError
from astrocyte.pipeline.page.content.findings import letter_id_of
from astrocyte.pipeline.page.content.state import PageState
from astrocyte.pipeline.page.server.page import Page
from astrocyte.pipeline.page.server.routes.answers import answered
from astrocyte.pipeline.page.server.routes.posts import posted, text_of
from astrocyte.pipeline.page.server.routes.queries import at_of
from astrocyte.pipeline.page.server.security import Access
from astrocyte.pipeline.page.sources.broker import BrokerSource
from astrocyte.pipeline.page.sources.messages import Newest
from astrocyte.pipeline.recording.dead_letters import Retried, message_of
from astrocyte.pipeline.recording.tap import Event, Selector, columns_line, json_line
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.events import DeadLetter

__all__ = ["add_tail_routes"]

MOST_MESSAGES: Final = 200
"""Messages that are looked at for one answer."""
MOST_EVENTS: Final = 100
_MOST_CHARACTERS: Final = 4_000
_MOST_PAYLOAD: Final = 64 << 10
_MOST_BODY: Final = 4 << 10


def add_tail_routes(app: web.Application, page: Page, access: Access, *, write: bool) -> None:
    """Let the application answer for messages and dead letters, which it sends again only with ``write``."""
    turn = asyncio.Lock()
    source = page.source

    async def tail(request: web.Request) -> web.Response:
        """The newest events of a topic for which an expression holds."""
        async with turn:
            return await answered(_tail(page, request.query))

    async def letter(request: web.Request) -> web.Response:
        """One dead letter, whole, and the key with which it can be sent again."""
        return await answered(_whole(page, request.query.get("id", ""), access.page_key if write else None))

    app.router.add_get("/api/tail", tail)
    app.router.add_get("/api/letter", letter)
    if write and isinstance(source, BrokerSource):
        send_again = source.send_again

        async def retry(request: web.Request) -> web.Response:
            """Send a letter again."""
            body = await posted(request, access, most_bytes=_MOST_BODY)
            return await answered(_retried(page, text_of(body, "id"), send_again))

        app.router.add_post("/api/letter/retry", retry)


async def _tail(page: Page, query: Mapping[str, str]) -> dict[str, Any]:
    try:
        selector = Selector(query.get("where") or None)
    except ExpressionError as error:
        return {"refused": error.reason, "position": error.position}
    at_us = at_of(query)
    until_ms = None if at_us is None else at_us // 1000 + 1
    after = _offsets(query.get("after", ""))
    records = await page.source.newest(Newest(query.get("topic", ""), MOST_MESSAGES, until_ms, after))
    events = await asyncio.to_thread(_selected, selector, records)
    for record in records:
        after[record.partition] = max(after.get(record.partition, -1), record.offset)
    return {"events": events, "looked": len(records), "after": after, "absent": selector.absent()}


def _offsets(text: str) -> dict[int, int]:
    """Offsets by partition, as the answer before gave them."""
    if not text:
        return {}
    try:
        return {int(partition): int(offset) for partition, offset in orjson.loads(text).items()}
    except (orjson.JSONDecodeError, ValueError, AttributeError, TypeError):
        raise InvalidSettings(f"after: expected a JSON object of offsets by partition, got {text[:60]!r}") from None


def _selected(selector: Selector, records: list[Any]) -> list[dict[str, Any]]:
    """The newest events of the messages, the newest first."""
    found: list[dict[str, Any]] = []
    for record in reversed(records):
        own = list(selector([record]))
        found += [_shown(event) for event in reversed(own[-(MOST_EVENTS - len(found)) :])]
        if len(found) >= MOST_EVENTS:
            break
    return found


def _shown(event: Event) -> dict[str, Any]:
    record = event.record
    place = f"{record.topic}[{record.partition}]@{record.offset}" + ("" if event.row is None else f"+{event.row}")
    body = json_line(event).decode("utf-8", "replace").rstrip("\n")
    return {
        "place": place,
        "t": record.timestamp_ms,
        "line": columns_line(event).decode("utf-8", "replace").rstrip("\n"),
        "value": body[:_MOST_CHARACTERS] + (" …" if len(body) > _MOST_CHARACTERS else ""),
    }


async def _retried(
    page: Page, letter_id: str, send_again: Callable[[DeadLetter], Awaitable[Retried]]
) -> dict[str, Any]:
    result = await send_again(await _letter(page, letter_id))
    return {"sent": bool(result.sent), "refused": next((why for _, why in result.refused), None)}


async def _letter(page: Page, letter_id: str) -> DeadLetter:
    """A letter that the page keeps. Raises InvalidSettings where it keeps it no longer."""

    def find(state: PageState) -> bytes | None:
        kept = state.findings.letters.since(0)
        return next((record.value for record in reversed(kept) if letter_id_of(record) == letter_id), None)

    value = await page.ask(find)
    if value is None:
        raise InvalidSettings(
            f"the letter {letter_id!r} is not among the newest that the page keeps; see astrocyte dead-letters show"
        )
    return DeadLetter.model_validate_json(value)


async def _whole(page: Page, letter_id: str, key: str | None) -> dict[str, Any]:
    letter = await _letter(page, letter_id)
    message = message_of(letter)
    return {
        "id": letter.letter_id,
        "reason": letter.reason,
        "stage": letter.stage,
        "place": letter.place,
        "timestamp": letter.timestamp,
        "key": _text(letter.key_b64),
        "headers": [[name, _text(body)] for name, body in letter.headers],
        "payload": _text(letter.payload_b64),
        "retry": message if isinstance(message, str) else None,
        "page_key": key,
    }


def _text(data: str | None) -> str | None:
    """Base64 as text, where it is text, else as hexadecimal digits."""
    if data is None:
        return None
    raw = b64decode(data)
    cut = raw[:_MOST_PAYLOAD]
    more = f" … ({len(raw):,} bytes)" if len(raw) > len(cut) else ""
    try:
        return cut.decode() + more
    except UnicodeDecodeError:
        return cut[:1024].hex(" ") + (f" … ({len(raw):,} bytes)" if len(raw) > 1024 else "")
