"""The view Rules in a browser: a rule is edited, tried and compared by keys alone."""

import json

import pytest

from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.topology.rule_updates import publish_files, published_files
from tests.integration.page.test_browser import check, page_of
from tests.support.browser import browser, chromium
from tests.support.logs import running
from tests.support.world_log import RULES, world_log

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed")

AFTER_FIVE = ' * before.total_population"'


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with page_of(world_log(tmp_path_factory.mktemp("world"))) as found:
        yield found


async def tab_to(tab, script):
    """Press Tab until the focus is where the script says."""
    for _ in range(60):
        await tab.press("Tab")
        if await tab.run(f"(() => {{ const e = document.activeElement; return Boolean({script}); }})()"):
            return
    raise AssertionError(f"never reached by Tab: {script}")


async def test_a_rule_is_edited_tried_and_compared_by_keys_alone(address):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#rules")
        await tab.until("document.querySelector('.numbers').innerText === '1 match, 1 alert'", "counts so far")
        await tab_to(tab, "e.dataset.open === 'rules/population_collapse'")
        await tab.press("Enter")
        await tab.until("document.querySelector('.check-status.good')", "the rule is valid")
        await tab.until("document.querySelectorAll('.automaton .state-node').length === 3", "its automaton")
        assert await tab.run("document.activeElement.tagName") == "TEXTAREA"

        for _ in range(3):
            await tab.press("ArrowUp")
        await tab.press("End")
        for _ in AFTER_FIVE:
            await tab.press("ArrowLeft")
        await tab.press("Backspace")
        await tab.press("<")
        await tab.until("document.querySelector('.problems li')", "the problem")
        assert "rule 'population_collapse': now.where: not an expression" in await tab.text(".problems")
        assert await tab.run("document.querySelector('.gutter .wrong').innerText") == "12"
        assert await tab.run("document.querySelectorAll('.marks i').length") == 1
        assert await tab.run("document.querySelector('textarea').getAttribute('aria-invalid')") == "true"
        await tab.press("Backspace")
        await tab.press("1")
        await tab.until("document.querySelector('.check-status.good') && !document.querySelector('.problems li')")

        await tab.press("Escape")
        await tab_to(tab, "e.innerText === 'Try over the history'")
        await tab.press("Enter")
        await tab.until("document.querySelector('.rule-result')", "the result")
        figures = await tab.run(
            "[...document.querySelectorAll('.parts tbody tr')].map((e) => e.innerText.split(/\\s+/))"
        )
        assert ["matches", "1", "0"] in figures
        assert "only before 1" in (await tab.text(".tabs")).replace("\n", " ")
        await tab_to(tab, "e.matches('.matches')")
        await tab.press("ArrowDown")
        await tab.until("document.querySelector('.why .lineage')", "why the old rule found it")
        assert "total_population < (0.5 * before.total_population)" in await tab.text(".why")

        # The next edit is tried by itself.
        await tab.run("document.querySelector('textarea').focus()")
        await tab.press("Backspace")
        await tab.press("9")
        await tab.until("document.querySelector('.tabs')?.innerText.includes('in both 1')", "the next result")
        assert "edited" in await tab.text(".rule-list")
        check(tab, address)


async def test_tab_indents_and_a_new_rule_begins_from_an_example(address):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#rules")
        await tab.until("document.querySelector('.rule-list li')")
        await tab_to(tab, "e.innerText === 'New rule'")
        await tab.press("Enter")
        await tab.until("document.querySelector('.check-status.good')", "the example is valid")
        await tab.press("Tab")
        text = await tab.run("document.querySelector('textarea').value")
        assert text.endswith("\n  ")
        await tab.press("Tab")
        await tab.press("x")
        await tab.press("Enter")
        text = await tab.run("document.querySelector('textarea').value")
        assert text.endswith("\n    x\n    "), json.dumps(text[-20:])
        assert "new" in await tab.text(".rule-list")
        check(tab, address)


async def test_with_write_an_edited_rule_is_published_after_a_look_at_the_difference(tmp_path):
    world = world_log(tmp_path)
    with running(tmp_path / "broker") as broker, page_of(world, "--broker", broker, "--write", source=False) as address:
        async with browser() as new_tab:
            tab = await new_tab()
            await tab.open(f"{address}#rules/population_collapse")
            await tab.until("document.querySelector('.check-status.good')")
            await tab.press("Tab")
            await tab.run("document.querySelector('textarea').focus()")
            for _ in range(3):
                await tab.press("ArrowUp")
            await tab.press("End")
            for _ in AFTER_FIVE:
                await tab.press("ArrowLeft")
            await tab.press("Backspace")
            await tab.press("9")
            await tab.until("document.querySelector('.rule-list').innerText.includes('edited')")
            await tab.until("document.querySelector('.check-status.good')")
            await tab.press("Escape")
            await tab_to(tab, "e.innerText === 'Publish …'")
            await tab.press("Enter")
            await tab.until("document.querySelector('.diff .add')", "the difference")
            assert "0.9 * before" in await tab.text(".diff .add")
            assert "0.5 * before" in await tab.text(".diff .gone")
            assert await tab.run("document.activeElement.innerText") == "Publish to the workers"
            await tab.press("Enter")
            await tab.until("document.querySelector('p.good[role=status]')", "it is published")
            await tab.until("document.querySelector('.rule-list').innerText.includes('published')")
            assert "edited" not in await tab.text(".rule-list")
            check(tab, address)
            published = await published_files(broker)
            assert published == {"rules": RULES.replace("0.5 *", "0.9 *").encode()}
            # Another file of the same rule is published later: it is the one in force, and the list says so.
            await publish_files(load_settings(broker=broker), published, {"zeal": RULES.encode()})
            await tab.run("location.reload()")
            line = "not in force: the published file 'zeal' has it"
            await tab.until(f'document.querySelector(".rule-list").innerText.includes("{line}")', line)
            check(tab, address)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
async def test_nothing_goes_over_the_edge_of_the_window(address, width, dark):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#rules/population_collapse", width=width, dark=dark)
        await tab.until("document.querySelector('.check-status.good')")
        await tab.click(".workbench button.main")
        await tab.until("document.querySelector('.result')")
        assert "Nothing has changed" in await tab.text(".result")
        assert await tab.run("document.documentElement.scrollWidth <= innerWidth")
        # Without --write nothing can be published.
        assert await tab.run(
            "![...document.querySelectorAll('button')].some((e) => e.innerText.startsWith('Publish') && e.offsetParent)"
        )
        check(tab, address)


HELD = """window.fetch = ((real) => (path, options) => !String(path).match(/rules.try|near-misses/)
  ? real(path, options)
  : new Promise((_, fail) => options?.signal?.addEventListener("abort", () => fail(new Error("aborted"))))
  )(window.fetch)
"""
"""Trials and searches never answer."""


async def test_what_is_tried_of_an_older_text_is_not_shown_beside_the_problems_of_this_one(address):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#rules")
        await tab.until("document.querySelector('[data-open=\"rules/population_collapse\"]')")
        await tab.run("document.querySelector('[data-open=\"rules/population_collapse\"]').click()")
        await tab.until("document.querySelector('.check-status.good')", "the rule is valid")
        await tab.run(HELD)
        button = "[...document.querySelectorAll('button')].find((e) => e.innerText === '{}')"
        await tab.run(f"{button.format('Try over the history')}.click()")
        await tab.until("document.querySelector('.rules').innerText.includes('Trying …')", "it is tried")
        await tab.run("document.querySelector('textarea').focus()")
        await tab.press("<")
        await tab.until("document.querySelector('.problems li')", "the problem")
        assert "Trying" not in await tab.text(".rules")
        assert await tab.run(f"{button.format('Stop')}.hidden")
        await tab.press("Backspace")
        await tab.until("document.querySelector('.rules').innerText.includes('Trying …')", "the next text is tried")


async def test_a_search_for_near_misses_says_how_long_it_runs_and_can_be_stopped(address):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(f"{address}#findings")
        await tab.until("document.querySelector('.findings li')", "a finding")
        await tab.run("document.querySelector('.findings li').click()")
        await tab.until("document.querySelector('.why .near')", "why")
        await tab.run(HELD)
        await tab.run("document.querySelector('.near').previousElementSibling.click()")
        await tab.until("document.querySelector('.near').innerText.includes('s of at most 120')", "how long it runs")
        await tab.run("document.querySelector('.near button').click()")
        await tab.until("document.querySelector('.near').innerText === 'Stopped.'", "it is stopped")
