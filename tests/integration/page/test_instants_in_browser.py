"""Figures at an instant in a real browser: those of the last row until then, in every view, and of when they are."""

import numpy as np
import orjson
import pytest

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import ALERTS, MULTI_EVENTS
from tests.integration.page.test_browser import check, page_of
from tests.support.browser import browser, chromium
from tests.support.logs import T0_US, frame_messages, write_log
from tests.support.world_log import RULES, RUN, WorldLog

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium")

ROWS = 400
"""Of the population, twenty a second; findings come until two seconds after the last."""
ALERTS_AT_S = [*np.linspace(0.5, 20.5, 40), 22.0]
MATCHES = 2_500


def population(row):
    """A saw, so that a mean of neighbours is none of them, with one deep dip."""
    return 109 if row == 206 else 500 + (row * 37) % 400


def finding(topic, number, at_s, body):
    headers = (("ce_simulationid", RUN.encode()),)
    body = {"timestamp": iso_from_us(T0_US + round(at_s * 1e6))} | body
    written_ms = (T0_US + round(at_s * 1e6)) // 1000
    return ConsumedRecord(topic, 0, number, written_ms, None, orjson.dumps(body), headers)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("instants")
    offsets, records = {}, []
    for row in range(ROWS + 1):
        at = np.array([T0_US + row * 50_000])
        columns = {"timestamp": at, "key": [RUN], "total_population": np.array([population(row)])}
        records += frame_messages(Frame.from_columns("population_metrics", RUN, columns, first_seq=row), 1, offsets)
        columns = {"timestamp": at, "key": ["axon"], "type": ["A"], "value": np.array([7.0])}
        records += frame_messages(Frame.from_columns("axon_1", RUN, columns, first_seq=row), 1, offsets)
    alerts = [{"alert_id": f"a-{each}", "rule": "rare", "severity": "critical"} for each in range(len(ALERTS_AT_S))]
    records += [finding(ALERTS, number, ALERTS_AT_S[number], each) for number, each in enumerate(alerts)]
    for number in range(MATCHES):
        match = {"event_id": f"m-{number}", "correlation_rule": "often"}
        records.append(finding(MULTI_EVENTS, number, 21 * number / MATCHES, match))
    records.sort(key=lambda each: each.timestamp_ms)
    (folder / "rules.yaml").write_text(RULES)
    world = WorldLog(write_log(folder / "events.jsonl.zst", records, partitions=1), folder / "rules.yaml")
    with page_of(world) as found:
        yield found


HELD = """(() => {
  const slider = document.querySelector('.track input');
  slider.value = SHARE;
  slider.dispatchEvent(new Event('input'));
  return new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
})()"""
FIGURE = "[...document.querySelectorAll('.chart')].find((e) => e.querySelector('h3').innerText === 'TITLE')"


def figure(title):
    return FIGURE.replace("TITLE", title)


async def hold(tab, share):
    """Hold an instant, and return it in seconds."""
    await tab.run(HELD.replace("SHARE", str(share * 1000)))
    await tab.until("document.querySelector('#state').innerText === 'held'")
    return float((await tab.text(".instant")).split(" s")[0])


@pytest.fixture
async def tab(address):
    async with browser() as new_tab:
        opened = await new_tab()
        await opened.open(address)
        await opened.until("document.querySelector('#state').innerText === 'recorded'")
        yield opened
        check(opened, address)


async def test_the_population_of_an_instant_is_that_of_the_last_row_until_then(tab):
    for share in (0, 0.011, 0.25, 0.4931, 0.5, 0.77):
        at_s = await hold(tab, share)
        row = min(int(at_s / 0.05 + 1e-6), ROWS)
        wanted = f"Population: living cells {population(row)} at"
        await tab.until(f"{figure('Population')}.querySelector('.visually-hidden').innerText.startsWith('{wanted}')")
        assert abs(at_s - share * 22) < 0.2


async def test_the_lowest_and_highest_values_of_a_bucket_are_drawn(tab):
    lines, bands = (f"{figure('Population')}.querySelector('{each}').getBBox().height" for each in (".line", ".range"))
    await tab.until(f"{bands} > 1.2 * {lines}", "the dip to 109, which is the last of no bucket")


async def test_figures_at_the_end_are_the_newest_that_there_are_and_say_of_when(tab):
    spikes = figure("Spikes on axon 1")
    await tab.until(f"{spikes}.querySelector('.when').innerText === 'at 20.000 s'")
    shown = await tab.run(f"{spikes}.querySelector('.legend').innerText")
    assert float(shown.split("A")[1].split()[0]) == pytest.approx(20, abs=1)
    strength = figure("Strength on axon 1")
    assert "100 %" in await tab.run(f"{strength}.querySelector('.legend').innerText")
    # At the held end nothing had come for a second.
    await hold(tab, 1)
    await tab.until(f"{spikes}.querySelector('.legend').innerText.split(/\\s+/)[1] === '0'")


async def test_alerts_are_all_there_beside_many_multi_events_and_what_a_cap_cuts_is_said(tab):
    await tab.run("location.hash = 'findings'")
    await tab.until("document.querySelectorAll('.findings li').length === 41", "all alerts")
    assert (await tab.text(".count")).startswith("41 alerts and 2,500 multi events in all; 41 match")
    times = await tab.run("[...document.querySelectorAll('.findings time')].map((e) => parseFloat(e.innerText))")
    assert times == sorted(times, reverse=True)
    await tab.run(
        "(() => { const kind = document.querySelector('.filters select'); kind.value = 'match';"
        " kind.dispatchEvent(new Event('change')); })()"
    )
    await tab.until("document.querySelector('.count').innerText.includes('2,000 of 2,500 multi events kept')")
    at_s = await hold(tab, 0.5)
    alerts = sum(each < at_s + 0.001 for each in ALERTS_AT_S)
    matches = sum(21 * each / MATCHES < at_s + 0.001 for each in range(MATCHES))
    await tab.until(f"document.querySelector('#badge').innerText === '{alerts}'", "alerts until then")
    wanted = f"{alerts} alerts and {matches:,} multi events up to the shown instant"
    await tab.until(f"document.querySelector('.count').innerText.startsWith('{wanted}')")
    kept = await tab.run("document.querySelector('.count').innerText.split('; ')[1]")
    assert kept.endswith(f" of {matches:,} multi events kept")


async def test_what_does_not_follow_a_held_instant_says_so(tab):
    await hold(tab, 0.5)
    await tab.run("location.hash = 'pipeline'")
    await tab.until("document.querySelector('.panels').innerText.includes('messages in all')")
    await tab.until("[...document.querySelectorAll('.node')].some((e) => e.innerText.includes('messages in all'))")
    await tab.run("document.activeElement.blur()")
    await tab.press("l")
    await tab.until("!document.querySelector('.panels').innerText.includes('in all')")
