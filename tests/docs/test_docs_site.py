"""The documentation builds as a site in which every link has a target and nothing is loaded from the network."""

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class _Loaded(HTMLParser):
    """Addresses that a browser fetches by itself when it shows the page: not those of links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in {"script", "img", "iframe", "source", "video", "audio", "embed"}:
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") != "canonical":
            self.found.append(given.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if importlib.util.find_spec("material") is None:
        if os.environ.get("CI"):
            pytest.fail("mkdocs-material is not installed; run: make docs")
        pytest.skip("mkdocs-material is not installed; run: make docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        capture_output=True, text=True, cwd=ROOT, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_of_the_docs_is_a_page_of_the_site(site):
    pages = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    assert pages
    for page in pages:
        assert (site / page).with_suffix(".html").is_file()


def test_no_page_loads_anything_from_the_network(site):
    for page in site.rglob("*.html"):
        parser = _Loaded()
        parser.feed(page.read_text())
        assert parser.found
        assert [address for address in parser.found if re.match(r"(https?:)?//", address)] == [], page.name
        # The theme fetches the library that draws Mermaid from the network as soon as a page has such a drawing.
        assert 'class="mermaid"' not in page.read_text(), page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", sheet.read_text()), sheet.name


def test_scripts_of_this_project_are_not_published(site):
    assert list(site.rglob("*.py")) == []
