"""The page whose server ends, that asks for a token, or that has little to show, in a real browser."""

import contextlib

import orjson
import pytest

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.schemas.times import iso_from_us
from tests.integration.page.test_browser import page_of
from tests.integration.page.test_tree_in_browser import COUNT, PIXELS
from tests.support.browser import browser, chromium
from tests.support.logs import T0_US, produce, running, write_log
from tests.support.world_log import WorldLog, births_log, world_log, world_messages

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium")
NOTICE = "document.querySelector('#notice').innerText"


async def test_the_tree_stays_when_the_server_ends(tmp_path):
    world = WorldLog(births_log(tmp_path), world_log(tmp_path).rules)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(page_of(world))
        async with browser() as new_tab:
            tab = await new_tab()
            await tab.open(f"{address}#tree")
            await tab.until(f"{COUNT}.startsWith('64 cells live') && !{COUNT}.includes('reading')", "all births")
            stack.close()
            await tab.until(f"{NOTICE}.includes('what was shown stays')")
            assert f"astrocyte page {world.log}" in await tab.run(NOTICE)
            await tab.click(".check input")
            await tab.until(f"{COUNT}.includes('does not answer')")
            assert await tab.run(PIXELS) > 5000
            assert await tab.run("document.querySelector('.left .empty').hidden")
            # A view that was not open before has nothing to show, and says that alone.
            await tab.run("location.hash = 'findings'")
            await tab.run("location.hash = 'tree'")
            await tab.until("document.querySelector('.left .empty').innerText.includes('does not answer')")
            assert await tab.run(COUNT) == ""


async def test_a_wrong_token_is_said_and_the_right_one_leads_to_the_page(tmp_path, monkeypatch):
    monkeypatch.setenv("ASTROCYTE_PAGE_TOKEN", "abc")
    with page_of(world_log(tmp_path)) as address:
        async with browser() as new_tab:
            tab = await new_tab()
            await tab.open(address)
            for token in ("no", "abc"):
                await tab.until("document.activeElement?.name === 'token'")
                assert await tab.run("getComputedStyle(document.querySelector('.error')).display") == (
                    "none" if token == "no" else "block"
                )
                for each in token:
                    await tab.press(each)
                await tab.press("Enter")
                await tab.until("location.search === '?wrong'" if token == "no" else "document.querySelector('.top')")
            assert await tab.run("location.href") == address


async def test_a_damaged_log_without_a_world_is_not_said_to_be_read_on(tmp_path):
    log = write_log(tmp_path / "events.jsonl", world_messages()[:1], partitions=1)
    log.write_bytes(log.read_bytes() + b'{"topic": 5}\n' + log.read_bytes().splitlines(keepends=True)[-1])
    with page_of(WorldLog(log, world_log(tmp_path).rules)) as address:
        async with browser() as new_tab:
            tab = await new_tab()
            await tab.open(address)
            await tab.until("document.querySelector('#state').innerText === 'cannot be read'")
            await tab.until("document.querySelector('.empty').innerText.includes('the 1 message before the damage')")


async def test_an_empty_broker_says_how_it_gets_events_and_a_run_without_a_name_can_be_chosen(tmp_path):
    world = world_log(tmp_path)
    with running(tmp_path / "broker") as broker, page_of(world, "--broker", broker, source=False) as address:
        async with browser() as new_tab:
            tab = await new_tab()
            await tab.open(address)
            hint = f"astrocyte simulate cells --seconds 60 --realtime -b {broker}"
            await tab.until(f"document.querySelector('.empty pre').innerText === {hint!r}")
            at = [T0_US + number * 1_000_000 for number in range(8)]
            logins = [
                ConsumedRecord("mono.logins", 0, number, us // 1000, b"a", orjson.dumps({"timestamp": iso_from_us(us)}))
                for number, us in enumerate(at)
            ]
            await produce(broker, logins, partitions=1)
            await tab.until("document.querySelector('.chart .visually-hidden').innerText.includes('events 1 at')")
            assert await tab.run("document.querySelector('#run').selectedOptions[0].innerText") == "events of no run"
            await tab.run("location.hash = 'tree'")
            await tab.until("document.querySelector('.left .empty').innerText.includes('No births so far')")
            assert await tab.run(COUNT) == ""
