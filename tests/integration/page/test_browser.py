"""The page in a real browser: every view shows the data of a recorded world, by keyboard too, and asks nobody else."""

import contextlib
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from tests.support.browser import browser, chromium
from tests.support.world_log import RUN, world_log

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium")


@contextlib.contextmanager
def page_of(world, *options, source=True):
    """Address of the page of a log, or of the broker of the options, served by the command."""
    command = [sys.executable, "-c", "from astrocyte.pipeline.cli.start import main; main()", "page"]
    command += [*([str(world.log)] if source else []), *options, "--rules", str(world.rules), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        assert "page ready at http://127.0.0.1:" in line, line
        yield line.split("page ready at ")[1].split()[0]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        process.stderr.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with page_of(world_log(tmp_path_factory.mktemp("world"))) as found:
        yield found


def check(tab, address):
    """Nothing was complained of, and nothing asked of another host."""
    assert tab.problems == []
    hosts = {urlsplit(url).netloc for url in tab.requests if not url.startswith("data:")}
    assert hosts == {urlsplit(address).netloc}


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
async def test_every_view_shows_what_the_log_holds(address, width, dark):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(address, width=width, dark=dark)
        await tab.until("document.querySelectorAll('.chart .line').length > 5", "charts with lines")
        assert "Population" in await tab.text(".chart")
        await tab.until("document.querySelector('.chart .entry b').innerText === '399'", "the last population")
        await tab.run("location.hash = 'findings'")
        await tab.until("document.querySelectorAll('.findings li').length === 1", "the alert")
        assert "population fell to 360" in await tab.text(".findings")
        await tab.run("location.hash = 'pipeline'")
        await tab.until("[...document.querySelectorAll('.node')].some((e) => e.innerText.includes('100 messages'))")
        assert "expected JSON, got 3 other bytes" in await tab.text(".letters")
        # Content goes over the edge of the window at no width.
        assert await tab.run("document.documentElement.scrollWidth <= innerWidth")
        check(tab, address)


async def test_a_click_on_an_alert_shows_why(address):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#findings")
        await tab.until("document.querySelector('.findings li')")
        await tab.click(".findings li")
        await tab.until("document.querySelector('.why .lineage')", "the lineage")
        why = await tab.text(".why")
        assert "total_population < (0.5 * before.total_population)" in why
        assert "1,059" in why
        assert "mono.population_metrics[0]@60" in why
        assert await tab.run("document.querySelector('.why .verdict').getAttribute('aria-label')") == "held"
        check(tab, address)


async def test_time_is_held_and_moved_by_keys_and_every_view_shows_that_instant(address):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(address)
        await tab.until("document.querySelector('#state').innerText === 'recorded'")
        await tab.press(" ")
        await tab.until("document.querySelector('#state').innerText === 'held'")
        newest = await tab.text(".instant")
        for _ in range(3):
            await tab.press("ArrowLeft")
        await tab.until(f"document.querySelector('.instant').innerText !== {newest!r}")
        # To the beginning by the slider: nothing had collapsed yet.
        await tab.run("document.querySelector('.track input').focus()")
        await tab.press("Home")
        await tab.until("document.querySelector('.chart .entry b').innerText === '1,000'", "the first population")
        await tab.run("location.hash = 'findings'")
        await tab.until("document.querySelector('.findings').hidden", "no finding at that instant")
        await tab.run("document.activeElement.blur()")
        await tab.press("l")
        await tab.until("document.querySelectorAll('.findings li').length === 1")
        check(tab, address)


async def test_everything_is_reached_by_the_keyboard(address):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#findings")
        await tab.until("document.querySelector('.findings li')")
        reached = set()
        for _ in range(25):
            await tab.press("Tab")
            reached.add(
                await tab.run("document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText")
            )
        assert {"World", "Pipeline", "Findings", "Pause", "Step back", "Instant shown", "Speed of playing"} <= reached
        await tab.run("document.querySelector('.findings').focus()")
        await tab.press("ArrowDown")
        await tab.until("document.querySelector('.findings [aria-selected=true]')")
        await tab.until("document.querySelector('.why .lineage')")
        assert RUN in await tab.text(".why")
        check(tab, address)


async def test_what_events_hold_is_never_html(address):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#pipeline")
        await tab.until("document.querySelector('.letters summary')")
        await tab.click(".letters summary")
        await tab.until("document.querySelector('.letters details').open")
        await tab.until("document.querySelector('.letters pre').innerText === '<b>'", "the whole letter")
        check(tab, address)
