"""The view Tree in a real browser: drawn, moved by keys and pointer, at any instant, and one individual of it."""

import pytest

from tests.integration.page.test_browser import check, page_of
from tests.support.browser import browser, chromium
from tests.support.world_log import RUN, WorldLog, births_log, world_log

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium")

COUNT = "document.querySelector('.count').innerText"
PIXELS = """(() => { const c = document.querySelector('canvas.tree');
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i] > 0) n++; return n; })()"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("births")
    with page_of(WorldLog(births_log(folder), world_log(folder).rules)) as found:
        yield found


async def opened(new_tab, address, **how):
    tab = await new_tab()
    await tab.open(f"{address}#tree", **how)
    await tab.until(f"{COUNT}.startsWith('64 cells live') && !{COUNT}.includes('reading')", "all births")
    return tab


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
async def test_the_tree_of_the_living_is_drawn(address, width, dark):
    async with browser() as new_tab:
        tab = await opened(new_tab, address, width=width, dark=dark)
        await tab.until(f"{PIXELS} > 5000", "lines on the canvas")
        assert "664 were born or named" in await tab.run(COUNT)
        assert await tab.run("document.documentElement.scrollWidth <= innerWidth")
        check(tab, address)


async def test_a_click_on_a_line_shows_who_it_is_with_ancestors_and_events(address):
    async with browser() as new_tab:
        tab = await opened(new_tab, address)
        await tab.run("document.querySelector('canvas.tree').focus()")
        for _ in range(6):
            await tab.press("+")
        await tab.click("canvas.tree")
        await tab.press("n")  # wherever the pointer was, some line is chosen now
        await tab.until("document.querySelector('.individual h2').innerText !== 'Who?'")
        await tab.until("document.querySelector('.individual .attempts li')", "the events")
        assert "birth evolutionary_events" in await tab.text(".individual")
        ancestor = await tab.text(".individual button.link")
        await tab.click(".individual button.link")
        await tab.until(f"document.querySelector('.individual h2').innerText === {ancestor!r}")
        assert await tab.run("location.hash") == f"#tree/{ancestor}"
        check(tab, address)


async def test_the_tree_shows_the_held_instant_and_keys_of_the_canvas_do_not_move_time(address):
    async with browser() as new_tab:
        tab = await opened(new_tab, address)
        await tab.press(" ")
        await tab.run("document.querySelector('.track input').focus()")
        for _ in range(3):
            await tab.press("Home")
        await tab.until(f"{COUNT}.includes('live at 0.000 s')", "the tree of the beginning")
        held = await tab.text(".instant")
        await tab.run("document.querySelector('canvas.tree').focus()")
        for key in ("ArrowLeft", "ArrowDown", ">", "<", "0", "Escape"):
            await tab.press(key)
        assert await tab.text(".instant") == held
        await tab.press("l")
        await tab.until(f"{COUNT}.startsWith('64 cells live')")
        check(tab, address)


async def test_lines_that_died_out_are_shown_when_asked_for(address):
    async with browser() as new_tab:
        tab = await opened(new_tab, address)
        await tab.click(".check input")
        await tab.until(f"{COUNT}.includes('664 are in the tree')", "everyone")
        assert RUN in await tab.run("document.querySelector('#run').value")
        check(tab, address)


async def test_lines_are_coloured_by_a_trait_of_the_genome(address):
    async with browser() as new_tab:
        tab = await opened(new_tab, address)
        # The lines of the eight founders whose genomes are sampled have died out.
        await tab.click(".filters input[type=checkbox]")
        await tab.run("(() => { const e = document.querySelector('.filters select'); e.value = 'metabolism';"
                      " e.dispatchEvent(new Event('change')); })()")  # fmt: skip
        await tab.until("/^0.\\d+ to 0.\\d+$/.test(document.querySelector('.tree-key').innerText.trim())", "its range")
        assert "without a sampled genome has the colour of its nearest ancestor" in await tab.run(COUNT)
        check(tab, address)
