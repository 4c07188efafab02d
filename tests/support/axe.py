"""axe-core in a tab of the tests' browser: what a page violates of WCAG 2, levels A and AA.

The library comes from npm once, into a cache folder outside the repository; no page that is served ever loads it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests.support.browser import Tab

__all__ = ["axe_or_skip", "no_violation", "violations"]

VERSION = "4.14.1"
LEVELS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")


class AxeUnavailable(RuntimeError):
    """npm is absent, or does not get the library."""


@cache
def axe_source() -> str:
    """The library's text, fetched the first time. Raises AxeUnavailable."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astrocyte-tests"
    kept = folder / "axe-core" / VERSION / "axe.min.js"
    if not kept.exists():
        if shutil.which("npm") is None:
            raise AxeUnavailable("npm not found")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as work:
            done = subprocess.run(
                ["npm", "pack", "--silent", f"axe-core@{VERSION}"],
                cwd=work, check=False, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            if done.returncode:
                raise AxeUnavailable(f"npm pack axe-core@{VERSION} failed: {done.stderr[-500:]}")
            with tarfile.open(next(Path(work).glob("*.tgz"))) as archive:
                archive.extract("package/axe.min.js", work, filter="data")
            Path(work, "package/axe.min.js").replace(kept)
    return kept.read_text()


def axe_or_skip() -> None:
    """Skip the test where axe-core cannot be had; in CI, where it can, let it fail."""
    try:
        axe_source()
    except AxeUnavailable as error:
        if os.environ.get("CI") and shutil.which("npm"):
            raise
        pytest.skip(f"no axe-core: {error}")


async def violations(tab: Tab) -> list[str]:
    """Rules that the page violates as it is now, with the first element and what axe says of it."""
    # Given to the browser by its protocol, which the page's own policy does not concern.
    await tab.run(f"{axe_source()}; true")
    options = {"runOnly": {"type": "tag", "values": LEVELS}, "resultTypes": ["violations"]}
    found = await tab.run(f"axe.run(document, {json.dumps(options)}).then((found) => JSON.stringify(found.violations))")
    return [
        f"{rule['id']}, {len(rule['nodes'])} elements, the first {' '.join(map(str, node['target']))}: "
        f"{node['failureSummary']}"
        for rule in json.loads(found)
        for node in rule["nodes"][:1]
    ]


async def no_violation(tab: Tab, where: str) -> None:
    """Fail with what the page violates; ``where`` says what it shows."""
    found = await violations(tab)
    assert found == [], "\n\n".join([where, *found])
