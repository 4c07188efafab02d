"""A dead letter is sent again from the page, if it may write, once, and not for a page of another site."""

import aiohttp
import pytest

from astrocyte.pipeline.kafka.client import ensure_topics
from tests.integration.page.test_browser import check, page_of
from tests.support.browser import browser, chromium
from tests.support.logs import produce, read_topics, running
from tests.support.world_log import dead_letter, world_log

OPEN = "document.querySelector('.letters details')"
PRESSED = "[...document.querySelectorAll('.letters button')].find((each) => each.innerText === {!r})"
SAID = "document.querySelector('.letters [role=status]').innerText"


@pytest.fixture
async def broker(tmp_path):
    """A broker with a dead letter, and the topic from which it came."""
    with running(tmp_path / "broker") as address:
        await produce(address, [dead_letter()], partitions=1)
        await ensure_topics(address, {"mono.cells": 1})
        yield address


async def letter_of(session):
    """The whole letter, once the page has read it."""
    async with session.get("/api/stream") as stream:  # somebody looks, so the page reads
        async for _ in stream.content:
            async with session.get("/api/letter", params={"id": "letter-1"}) as answer:
                body = await answer.json()
                if "error" not in body:
                    return body
    raise AssertionError("the page ended")


async def test_only_a_page_that_may_write_sends_again_and_only_for_itself(tmp_path, broker):
    world = world_log(tmp_path)
    with page_of(world, "--broker", broker, source=False) as address:
        async with aiohttp.ClientSession(address) as session:
            letter = await letter_of(session)
            assert letter["page_key"] is None
            async with session.post("/api/letter/retry", json={"id": letter["id"]}) as answer:
                assert answer.status == 404
    with page_of(world, "--broker", broker, "--write", source=False) as address:
        async with aiohttp.ClientSession(address) as session:
            letter = await letter_of(session)
            key = {"X-Astrocyte-Page": letter["page_key"]}
            for headers in ({}, {"X-Astrocyte-Page": "guessed"}, {**key, "Origin": "http://evil.example"}):
                async with session.post("/api/letter/retry", json={"id": letter["id"]}, headers=headers) as answer:
                    assert answer.status == 403
            async with session.post("/api/letter/retry", json={"id": "none"}, headers=key) as answer:
                assert "not among the newest" in (await answer.json())["error"]
            assert await read_topics(broker, "mono.cells") == []
            for sent in (True, False):
                async with session.post("/api/letter/retry", json={"id": letter["id"]}, headers=key) as answer:
                    assert await answer.json() == {"sent": sent, "refused": None}
    (record,) = await read_topics(broker, "mono.cells")
    assert record.value == b"<b>"


@pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium")
async def test_a_letter_is_sent_again_by_two_presses_of_keys(tmp_path, broker):
    with page_of(world_log(tmp_path), "--broker", broker, "--write", source=False) as address:
        async with browser() as new_tab:
            tab = await new_tab()
            await tab.open(f"{address}#pipeline")
            await tab.until(OPEN)
            await tab.run(f"{OPEN}.open = true")
            await tab.until(PRESSED.format("Send again …"))
            await tab.run(f"{PRESSED.format('Send again …')}.focus()")
            await tab.press("Enter")
            await tab.press("Enter")
            await tab.until(f"{SAID}.startsWith('Sent.')", "the answer")
            check(tab, address)
    (record,) = await read_topics(broker, "mono.cells")
    assert record.value == b"<b>"
