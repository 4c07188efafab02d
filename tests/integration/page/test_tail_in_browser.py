"""Messages of a topic and dead letters in a real browser: filters, errors at their place, and the held instant."""

import pytest

from tests.integration.page.test_browser import check, page_of
from tests.support.browser import browser, chromium
from tests.support.world_log import world_log

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium")

ROWS = "document.querySelectorAll('.tail li').length"
TOPIC = "[...document.querySelectorAll('.panel button.link')].find((e) => e.innerText === 'mono.population_metrics')"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with page_of(world_log(tmp_path_factory.mktemp("world"))) as found:
        yield found


async def write(tab, text):
    await tab.run(f"(() => {{ const e = document.querySelector('.tail-panel input'); e.value = {text!r};"
                  " e.dispatchEvent(new Event('input')); })()")  # fmt: skip


async def test_a_click_on_a_topic_shows_its_messages_and_a_filter_those_that_are_wanted(address):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#pipeline")
        await tab.until(TOPIC)
        await tab.run(f"{TOPIC}.focus()")
        await tab.press("Enter")
        await tab.until(f"{ROWS} === 100", "the newest messages")
        assert "total_population=399" in await tab.text(".tail li")
        await write(tab, "total_population < 365 and total_population > 300")
        await tab.until(f"{ROWS} === 5", "those for which the expression holds")
        await write(tab, "total_population >")
        await tab.until("!document.querySelector('.tail-panel .error').hidden", "the error")
        lines = (await tab.text(".tail-panel .error")).split("\n")
        assert lines[1].startswith(" " * 17 + "^ ")
        await write(tab, "")
        await tab.until(f"{ROWS} === 100 && document.querySelector('.tail-panel .error').hidden")
        # The beginning of the run.
        await tab.run("document.querySelector('.track input').focus()")
        await tab.press("Home")
        await tab.until(f"{ROWS} < 10", "the messages up to the held instant")
        assert "total_population=100" in await tab.text(".tail li")
        await tab.click(".tail summary")
        await tab.until("document.querySelector('.tail details pre').innerText.includes('\"total_population\": 100')")
        check(tab, address)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
async def test_dead_letters_are_filtered_and_opened_whole(address, width, dark):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#pipeline", width=width, dark=dark)
        await tab.until("document.querySelectorAll('.letters li').length === 1")
        search = "document.querySelector('[aria-label=\"Filters of dead letters\"] input')"
        await tab.run(f"{search}.value = 'nothing such'; {search}.dispatchEvent(new Event('input'))")
        await tab.until("document.querySelectorAll('.letters li').length === 0")
        await tab.run(f"{search}.value = 'expected json'; {search}.dispatchEvent(new Event('input'))")
        await tab.until("document.querySelectorAll('.letters li').length === 1")
        await tab.click(".letters summary")
        await tab.until("document.querySelector('.letters pre')?.innerText === '<b>'")
        assert "mono.cells[0]@7" in await tab.text(".letters .whole")
        assert await tab.run("document.documentElement.scrollWidth <= innerWidth")
        check(tab, address)
