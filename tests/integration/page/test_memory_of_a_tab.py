"""The memory of a page in a browser, as the benchmark of a live page measures it."""

import pytest

from astrocyte.pipeline.bench.page.tab import browser_program, open_tab

pytestmark = pytest.mark.skipif(browser_program() is None, reason="Chromium is not installed: apt-get install chromium")


async def test_what_scripts_keep_counts_and_what_they_dropped_does_not():
    async def held_mb(script):
        async with open_tab(browser_program(), f"data:text/html,<script>{script}</script>") as tab:
            return await tab.heap_mb()

    # Numbers of eight bytes, two million of them.
    made = "Array.from({length: 2e6}, (_, at) => at %2B 0.5)"
    kept, dropped = await held_mb(f"window.kept = {made}"), await held_mb(f"{made}.length")
    assert 14 < kept - dropped < 40
    assert 0 < dropped < 10
