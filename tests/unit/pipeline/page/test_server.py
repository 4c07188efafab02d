"""The page over HTTP: files, the stream of changes, who may ask, and what a browser may do."""

import asyncio
import contextlib
import json
import re

import aiohttp
import pytest
from aiohttp import web

from astrocyte.pipeline.page.listening import listening
from astrocyte.pipeline.page.rules.bench import RuleBench
from astrocyte.pipeline.page.server.app import make_app
from astrocyte.pipeline.page.server.files import static_files
from astrocyte.pipeline.page.server.inquiry import Inquiry
from astrocyte.pipeline.page.server.page import Page
from astrocyte.pipeline.page.server.security import COOKIE, Access
from astrocyte.pipeline.page.sources.log import LogSource
from astrocyte.pipeline.settings import load_settings
from astrocyte.schemas.errors import InvalidSettings
from tests.support.logs import T0_US
from tests.support.world_log import RUN, world_log

TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return world_log(tmp_path_factory.mktemp("world"))


@contextlib.asynccontextmanager
async def served(world, *, token=None, bench=None):
    source, settings = LogSource(world.log), load_settings(lateness=0)
    page = Page(source, tick_s=0.05)
    bench = bench or RuleBench(source, [world.rules], settings)
    app = make_app(page, Inquiry(source, [world.rules], settings), Access("127.0.0.1", token), bench)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listener = listening("127.0.0.1", 0)
    await web.SockSite(runner, listener).start()
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{listener.getsockname()[1]}", cookie_jar=jar) as session:
        try:
            yield session, page
        finally:
            await runner.cleanup()


async def events(answer):
    """The events of a stream: kind and content."""
    kind = ""
    async for line in answer.content:
        if line.startswith(b"event: "):
            kind = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            yield kind, json.loads(line[6:])


async def read_until_complete(session):
    """What a browser holds once the log was read."""
    held = {}
    async with session.get("/api/stream") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        async for kind, body in events(answer):
            held = {} if kind == "snapshot" else held
            held |= body.get("set", {})
            if held.get("source", {}).get("complete"):
                return held
    raise AssertionError("the stream has ended")


async def test_every_answer_forbids_what_the_page_does_not_need(world):
    async with served(world) as (session, _):
        for path in ("/", "/static/app.js", "/api/stream", "/api/lineage?id=x", "/nothing"):
            async with session.get(path) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "aiohttp" not in answer.headers["Server"]


async def test_a_browser_gets_the_world_of_a_log(world):
    async with served(world) as (session, page):
        held = await read_until_complete(session)
        assert [run["name"] for run in held["runs"]] == [RUN]
        assert held["source"]["kind"] == "log"
        # Another one gets all of it at once.
        assert (await read_until_complete(session))["runs"] == held["runs"]
        assert page.state.read == 204


async def test_a_page_that_nobody_opens_reads_nothing(world):
    async with served(world) as (session, page):
        async with session.get("/") as answer:
            assert answer.status == 200
        assert page.state.read == 0


async def test_the_stream_is_refused_to_more_browsers_than_are_meant(world, monkeypatch):
    monkeypatch.setattr("astrocyte.pipeline.page.server.app.MOST_CLIENTS", 1)
    async with served(world) as (session, _), session.get("/api/stream") as first:
        await anext(events(first))
        async with session.get("/api/stream") as second:
            assert second.status == 503


async def test_a_lineage_leads_to_offsets_and_shows_the_conditions_with_their_values(world):
    async with served(world) as (session, page):
        await read_until_complete(session)
        alert = page.state.document()["findings/alerts"].items[0]
        async with session.get("/api/lineage", params={"id": alert["event"]}) as answer:
            found = await answer.json()
        last = found["lineage"]["sources"][-1]
        assert (last["step"], last["topic"], last["event"]["value"]) == ("now", "mono.population_metrics", None)
        (condition,) = found["conditions"]
        assert (condition["step"], condition["held"]) == ("now", True)
        assert condition["values"]["total_population"] == 360
        assert condition["values"]["before.total_population"] == 1059


async def test_near_misses_of_a_rule_that_the_page_does_not_know_are_refused_in_words(world):
    async with (
        served(world) as (session, _),
        session.get("/api/near-misses", params={"rule": "another"}) as answer,
    ):
        assert "another" in (await answer.json())["unavailable"]


async def test_a_search_for_near_misses_ends_once_its_browser_has_left(world, monkeypatch):
    started, ended = asyncio.Event(), asyncio.Event()

    async def search(*_arguments, **_settings):
        started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    monkeypatch.setattr("astrocyte.pipeline.page.server.inquiry.near_misses", search)
    async with served(world) as (session, _), asyncio.timeout(10):
        asked = asyncio.ensure_future(session.get("/api/near-misses", params={"rule": "population_collapse"}))
        await started.wait()
        assert not ended.is_set()
        asked.cancel()
        await ended.wait()


async def test_the_newest_messages_of_a_topic_are_shown_as_tap_shows_them(world):
    async with served(world) as (session, _):
        topic = {"topic": "mono.population_metrics"}
        async with session.get("/api/tail", params=topic) as answer:
            found = await answer.json()
        assert found["looked"] == 100
        assert len(found["events"]) == 100
        newest = found["events"][0]
        assert newest["place"] == "mono.population_metrics[0]@99+0"
        assert "total_population=399" in newest["line"]
        assert found["after"] == {"0": 99}
        where = topic | {"where": "total_population < 365 and total_population > 300"}
        async with session.get("/api/tail", params=where) as answer:
            populations = [
                json.loads(each["value"])["metadata"]["total_population"] for each in (await answer.json())["events"]
            ]
        assert populations == [364, 363, 362, 361, 360]
        at = topic | {"at": str(T0_US + 2_000_000)}
        async with session.get("/api/tail", params=at) as answer:
            found = await answer.json()
        assert "total_population=1020 " in found["events"][0]["line"]


async def test_an_expression_that_is_none_is_refused_at_its_place(world):
    async with served(world) as (session, _):
        for where, position, reason in (("value >", 6, "missing after"), ("x = 3", 2, "write ==")):
            async with session.get("/api/tail", params={"topic": "mono.x", "where": where}) as answer:
                found = await answer.json()
            assert found["position"] == position
            assert reason in found["refused"]
        absent = {"topic": "mono.population_metrics", "where": "total_popluation > 1"}
        async with session.get("/api/tail", params=absent) as answer:
            found = await answer.json()
        assert found["events"] == []
        assert "did you mean total_population" in found["absent"][0].replace("'", "")


async def test_a_dead_letter_is_opened_whole(world):
    async with served(world) as (session, _):
        await read_until_complete(session)
        async with session.get("/api/letter", params={"id": "letter-1"}) as answer:
            found = await answer.json()
        assert (found["payload"], found["stage"], found["place"]) == ("<b>", "decode", "mono.cells[0]@7")
        async with session.get("/api/letter", params={"id": "letter-2"}) as answer:
            assert answer.status == 422
            assert "letter-2" in (await answer.json())["error"]


async def test_what_is_no_number_is_refused_in_words(world):
    wrong = (("tree?at=now", "at"), ("tree?width=0", "width"), ("tree?from=9&to=1&top=0&bottom=1", "window"),
             ("individual?id=x", "id"), ("scene?kind=plan", "plan"), ("tail?topic=x&after=[]", "after"))  # fmt: skip
    async with served(world) as (session, _):
        for path, name in wrong:
            async with session.get(f"/api/{path}") as answer:
                assert answer.status == 422
                assert name in (await answer.json())["error"]


async def test_what_cannot_be_answered_is_said_in_words(world):
    async with served(world) as (session, _), session.get("/api/lineage", params={"id": "no-such-event"}) as answer:
        assert answer.status == 422
        assert "no multi event" in (await answer.json())["error"]


async def test_another_name_is_refused(world):
    async with served(world) as (session, _):
        async with session.get("/", headers={"Host": "evil.example:8470"}) as answer:
            assert answer.status == 421
        for host in ("localhost:1", "127.0.0.1", "[::1]:8470"):
            async with session.get("/", headers={"Host": host}) as answer:
                assert answer.status == 200


async def test_without_the_token_there_is_only_the_form(world):
    async with served(world, token=TOKEN) as (session, _):
        for path in ("/api/stream", "/api/lineage?id=x", "/static/app.js", "/nothing"):
            async with session.get(path) as answer:
                assert answer.status == 401
        for wrong in ("", "x", TOKEN + "x", "tökén"):
            async with session.get("/api/lineage", headers={"Authorization": f"Bearer {wrong}"}) as answer:
                assert answer.status == 401
        async with session.get("/", headers={"Accept": "text/html"}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/login")


async def test_the_form_takes_the_token_and_the_cookie_does_not_tell_it(world):
    async with served(world, token=TOKEN) as (session, _):
        async with session.post("/login", data={"token": "wrong"}, allow_redirects=False) as answer:
            assert (answer.headers["Location"], answer.cookies) == ("/login?wrong", {})
        said = [await (await session.get(path)).text() for path in ("/login", "/login?wrong")]
        assert ['role="alert" hidden' in each for each in said] == [True, False]
        assert "That is not the token of this page." in said[1]
        async with session.post("/login", data={"token": TOKEN}, allow_redirects=False) as answer:
            cookie = answer.cookies[COOKIE]
            assert (cookie["httponly"], cookie["samesite"]) == (True, "Strict")
            assert TOKEN not in cookie.value
        async with session.get("/static/app.js") as answer:
            assert answer.status == 200
        async with session.get("/login?wrong", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/")
    async with (
        served(world, token=TOKEN) as (session, _),
        session.get("/", cookies={COOKIE: cookie.value}, allow_redirects=False) as answer,
    ):
        assert answer.status == 401, "a cookie of another process"


async def test_a_bearer_token_is_taken_too(world):
    bearer = {"Authorization": f"bearer {TOKEN}"}
    async with served(world, token=TOKEN) as (session, _), session.get("/static/app.js", headers=bearer) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_beyond_loopback_a_token_is_needed(host):
    with pytest.raises(InvalidSettings, match="ASTROCYTE_PAGE_TOKEN"):
        Access(host, None)
    assert Access(host, TOKEN).needs_token


async def test_a_file_that_the_browser_has_is_not_sent_again(world):
    async with served(world) as (session, _):
        async with session.get("/static/page.css") as answer:
            tag = answer.headers["ETag"]
        async with session.get("/static/page.css", headers={"If-None-Match": tag}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")


@pytest.mark.parametrize("path", ["/static/../settings.py", "/static/%2e%2e/__init__.py", "/static/", "/static/x.js"])
async def test_only_the_files_of_the_page_are_served(world, path):
    async with served(world) as (session, _), session.get(path) as answer:
        assert answer.status == 404


def test_files_hold_no_script_or_style_that_the_policy_forbids_and_name_no_other_host():
    files = static_files()
    assert {"index.html", "login.html", "app.js", "page.css", "charts/lines.js", "views/world.js"} <= files.keys()
    for name, file in files.items():
        text = file.body.decode()
        assert not re.search(r"(?<!www\.w3\.org/2000)https?://(?!www\.w3\.org/2000/svg)", text), name
        assert "innerHTML" not in text
        assert "eval(" not in text
        if name.endswith(".html"):
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=)", text), name


def test_a_port_that_is_taken_is_an_error_with_what_to_do():
    listener = listening("127.0.0.1", 0)
    with pytest.raises(InvalidSettings, match="--port"):
        listening("127.0.0.1", listener.getsockname()[1])
    listener.close()
