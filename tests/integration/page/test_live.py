"""The page of a broker, live, and the page behind a demo's link."""

import asyncio
import os
import urllib.request

from astrocyte.pipeline.page.link import PageLink
from astrocyte.pipeline.page.server.page import Page
from astrocyte.pipeline.page.sources.broker import BrokerSource
from astrocyte.pipeline.page.sources.messages import Newest
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.settings import load_settings
from astrocyte.schemas.topics import mono_topic
from tests.support.logs import T0_US, produce, running
from tests.support.world_log import RUN, births_log, world_messages

LIMIT_S = 120


async def held_until(page, found):
    """What a browser holds as soon as ``found`` says that it is enough."""
    client = page.join()
    async with asyncio.timeout(LIMIT_S):
        while True:
            await client.next_frame()
            if found(page.hub._document):
                return page.hub._document


def newest_of(document):
    """Event time of the newest event that is drawn."""
    return next((run["newest"] for run in document.get("runs", ())), None)


async def test_the_page_of_a_broker_shows_what_is_there_and_what_comes(tmp_path):
    messages = world_messages()
    first, rest = messages[:101], messages[101:]
    with running(tmp_path) as address:
        await produce(address, first, partitions=1)
        page = Page(BrokerSource(load_settings(broker=address)), tick_s=0.05)
        async with page.running():
            await held_until(page, lambda document: newest_of(document) == T0_US + 4_900_000)
            await produce(address, rest, partitions=1)
            document = await held_until(page, lambda document: newest_of(document) == T0_US + 9_900_000)
        (run,) = document["runs"]
        assert (run["name"], run["scenario"]) == (RUN, "cells")
        assert document["traffic"]["messages"]["mono.population_metrics"] >= 50
        assert document["source"]["live"]


async def test_a_broker_that_is_away_is_said_and_tried_again(tmp_path):
    with running(tmp_path) as address:
        pass
    page = Page(BrokerSource(load_settings(broker=address)), tick_s=0.05)
    async with page.running():
        document = await held_until(page, lambda document: document.get("source", {}).get("note"))
    assert address.rpartition(":")[2] in document["source"]["note"]


async def test_the_page_behind_a_link_starts_when_somebody_follows_it(tmp_path):
    settings = load_settings(broker="127.0.0.1:1", page_port=0)
    with (tmp_path / "page.log").open("w") as log, PageLink(settings, os.environ, output=log) as link:
        link.check()
        assert link._child is None
        answer = asyncio.create_task(
            asyncio.to_thread(lambda: urllib.request.urlopen(link.address, timeout=LIMIT_S).read())
        )
        while not answer.done():
            link.check()
            await asyncio.wait([answer], timeout=0.05)
        assert b"<title>Astrocyte</title>" in answer.result()
        child = link._child
    assert child is not None
    assert child.poll() is not None


async def test_births_of_a_broker_are_read_from_where_the_last_look_has_ended(tmp_path):
    topic = mono_topic("evolutionary_events")
    messages = [each for each in read_log(births_log(tmp_path)) if each.topic == topic]
    first, rest = messages[:30], messages[30:]
    with running(tmp_path) as address:
        await produce(address, first, partitions=1)
        frames = BrokerSource(load_settings(broker=address)).frames(RUN, ("evolutionary_events",))

        async def read(wanted):
            """The events that come until there are as many as wanted."""
            found = []
            portions = frames.portions()
            async with asyncio.timeout(LIMIT_S):
                async for portion in portions:
                    found += [event for frame in portion for event in frame.rows()]
                    if len(found) >= wanted:
                        break
            await portions.aclose()
            return found

        before = await read(30 * 24)
        await produce(address, rest, partitions=1)
        after = await read(len(rest) * 24)
    events = [event["cell_id"] for event in before + after]
    assert len(events) == len(messages) * 24
    assert after[0]["timestamp"] > before[-1]["timestamp"]


async def test_the_newest_messages_of_a_topic_are_followed_by_their_offsets(tmp_path):
    messages = [each for each in world_messages() if each.topic == "mono.population_metrics"]
    with running(tmp_path) as address:
        source = BrokerSource(load_settings(broker=address))
        await produce(address, messages[:60], partitions=1)
        found = await source.newest(Newest("mono.population_metrics", 20))
        assert [record.offset for record in found] == list(range(40, 60))
        await produce(address, messages[60:70], partitions=1)
        later = await source.newest(Newest("mono.population_metrics", 20, after={0: 59}))
        assert [record.offset for record in later] == list(range(60, 70))
        assert await source.newest(Newest("mono.population_metrics", 20, after={0: 69})) == []
        before = await source.newest(Newest("mono.population_metrics", 5, messages[30].timestamp_ms))
        assert [record.offset for record in before] == list(range(25, 30))
        assert await source.newest(Newest("absent", 5)) == []
