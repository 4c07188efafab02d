"""Every view of the page, with what opens in it, light and dark: nothing violates WCAG 2 A and AA by axe-core."""

import pytest

from tests.integration.page.test_browser import check, page_of
from tests.integration.page.test_tail_in_browser import ROWS, TOPIC
from tests.support.axe import axe_or_skip, no_violation, violations
from tests.support.browser import browser, chromium
from tests.support.world_log import WorldLog, births_log, world_log

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium")

EDIT = """(() => { const e = document.querySelector('textarea'); e.value = e.value.replace('0.5', '0.9');
  e.dispatchEvent(new Event('input')); })()"""
TRY = "[...document.querySelectorAll('button')].find((e) => e.innerText === 'Try over the history')"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    axe_or_skip()
    with page_of(world_log(tmp_path_factory.mktemp("world"))) as found:
        yield found


@pytest.fixture(scope="module")
def births(tmp_path_factory):
    axe_or_skip()
    folder = tmp_path_factory.mktemp("births")
    with page_of(WorldLog(births_log(folder), world_log(folder).rules)) as found:
        yield found


THEMES = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])


@THEMES
async def test_the_world(address, dark):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(address, dark=dark)
        await tab.until("document.querySelectorAll('.chart .line').length > 5", "charts with lines")
        await no_violation(tab, "the world")
        await tab.press(" ")
        await tab.until("document.querySelector('#state').innerText === 'held'")
        await no_violation(tab, "the world at a held instant")
        check(tab, address)


@THEMES
async def test_findings_and_why(address, dark):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#findings", dark=dark)
        await tab.until("document.querySelector('.findings li')")
        await no_violation(tab, "findings")
        await tab.click(".findings li")
        await tab.until("document.querySelector('.why .lineage')", "the lineage")
        await no_violation(tab, "why")


@THEMES
async def test_the_pipeline_with_messages_and_letters(address, dark):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#pipeline", dark=dark)
        await tab.until("document.querySelector('.letters summary')")
        await no_violation(tab, "the pipeline")
        await tab.click(".letters summary")
        await tab.until("document.querySelector('.letters details').open")
        await tab.run(f"{TOPIC}.click()")
        await tab.until(f"{ROWS} === 100", "the newest messages")
        await tab.click(".tail summary")
        await tab.until("document.querySelector('.tail details').open")
        await no_violation(tab, "messages and a letter")


@THEMES
async def test_rules_and_a_problem_in_one(address, dark):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#rules", dark=dark)
        await tab.until("document.querySelector('.numbers').innerText === '1 match, 1 alert'", "counts so far")
        await no_violation(tab, "rules")
        await tab.click("[data-open='rules/population_collapse']")
        await tab.until("document.querySelectorAll('.automaton .state-node').length === 3", "its automaton")
        await no_violation(tab, "a rule")
        await tab.press("<")
        await tab.until("document.querySelector('.problems li')", "the problem")
        await no_violation(tab, "a problem")
        await tab.press("Backspace")
        await tab.run(EDIT)
        await tab.until("document.querySelector('.check-status.good') && !document.querySelector('.problems li')")
        await tab.run(f"{TRY}.click()")
        await tab.until("document.querySelector('.rule-result')", "the result")
        await no_violation(tab, "a result")


@THEMES
async def test_the_tree_and_an_individual(births, dark):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{births}#tree", dark=dark)
        await tab.until("document.querySelector('.count').innerText.startsWith('64 cells live')", "all births")
        await no_violation(tab, "the tree")
        await tab.run("document.querySelector('canvas.tree').focus()")
        await tab.press("n")
        await tab.until("document.querySelector('.individual .attempts li')", "the events")
        await no_violation(tab, "an individual")


async def test_a_violation_is_found(address):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(address)
        await tab.until("document.querySelector('.chart')")
        await tab.run("document.querySelector('#run').parentNode.replaceWith(document.querySelector('#run'))")
        await tab.run("document.querySelector('#run').hidden = false")
        assert [each.partition(",")[0] for each in await violations(tab)] == ["select-name"]
