"""Pictures in space in a real browser: drawn, closed and opened, and at the held instant."""

import numpy as np
import pyarrow as pa
import pytest

from astrocyte.schemas.frames import Frame
from tests.integration.page.test_browser import check, page_of
from tests.support.axe import axe_or_skip, no_violation
from tests.support.browser import browser, chromium
from tests.support.logs import T0_US, frame_messages, write_log
from tests.support.world_log import WorldLog, world_log

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium")

LABEL = "document.querySelector('canvas.scene').getAttribute('aria-label')"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Twenty kernels that walk for ten seconds, of which ten retire in the last one."""
    folder = tmp_path_factory.mktemp("kernels")
    random = np.random.default_rng(1)
    places, offsets, messages = random.normal(size=(20, 8)), {}, []
    for tick in range(100):
        places += random.normal(size=(20, 8)) * 0.03
        columns = {
            "timestamp": np.full(20, T0_US + tick * 100_000), "key": ["kernels-1"] * 20,
            "type": ["retired" if tick == 99 and each < 10 else "updated" for each in range(20)],
            "kernel_id": np.arange(20), "phi": np.full(20, 0.5), "regime": ["linear"] * 20,
            "basin_coordinates": pa.array(places.astype(np.float32).tolist(), pa.list_(pa.float32())),
        }  # fmt: skip
        messages += frame_messages(Frame.from_columns("kernel_geometry", "kernels-1", columns), 1, offsets)
    log = write_log(folder / "kernels.jsonl.zst", messages, partitions=1)
    with page_of(WorldLog(log, world_log(folder).rules)) as found:
        yield found


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
async def test_the_basin_shows_the_kernels_of_the_held_instant(address, width, dark):
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(address, width=width, dark=dark)
        await tab.until(f"{LABEL}.includes('living kernels 10')", "those that did not retire")
        await tab.run("document.querySelector('.track input').focus()")
        await tab.press("Home")
        await tab.until(f"{LABEL}.includes('living kernels 20')", "those of the beginning")
        await tab.run("document.querySelector('.scene-panel button').focus()")
        await tab.press("Enter")
        await tab.until("document.querySelector('canvas.scene').offsetParent === null", "closed")
        assert await tab.run("document.documentElement.scrollWidth <= innerWidth")
        check(tab, address)


@pytest.mark.parametrize("dark", [False, True])
async def test_pictures_are_accessible(address, dark):
    axe_or_skip()
    async with browser() as new_tab:
        tab = await new_tab()
        await tab.open(address, dark=dark)
        await tab.until(f"{LABEL}.includes('living kernels 10')")
        await no_violation(tab, "the basin")
