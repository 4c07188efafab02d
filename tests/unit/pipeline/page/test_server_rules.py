"""The routes of the view Rules: what another site cannot ask, and what is there only with ``--write``."""

from io import BytesIO

import pytest

from astrocyte.pipeline.page.rules.bench import RuleBench
from astrocyte.pipeline.page.sources.broker import BrokerSource
from astrocyte.pipeline.settings import load_settings
from tests.support.world_log import RULES, world_log
from tests.unit.pipeline.page.test_server import served

EDITED = RULES.replace("0.5 *", "0.9 *")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return world_log(tmp_path_factory.mktemp("world"))


async def keyed(session):
    """The header that the page sends with its questions."""
    async with session.get("/api/rules") as answer:
        return {"X-Astrocyte-Page": (await answer.json())["key"]}


async def test_the_rules_that_run_are_listed_with_their_text(world):
    async with served(world) as (session, _), session.get("/api/rules") as answer:
        found = await answer.json()
        (file,) = found["files"]
        assert (file["name"], file["text"]) == ("rules", RULES)
        assert [each["name"] for each in file["outline"]] == ["population_collapse"]
        assert (found["write"], found["history"]) == (False, None)


async def test_a_text_is_checked_and_tried(world):
    async with served(world) as (session, _):
        headers = await keyed(session)
        body = {"name": "rules", "text": RULES.replace("within", "wihtin")}
        async with session.post("/api/rules/check", json=body, headers=headers) as answer:
            (problem,) = (await answer.json())["problems"]
            assert (problem["line"], problem["rule"]) == (6, "population_collapse")
        body = {"name": "rules", "text": EDITED}
        async with session.post("/api/rules/try", json=body, headers=headers) as answer:
            found = (await answer.json())["result"]
        (rule,) = found["rules"]
        assert (rule["name"], rule["both"], rule["only_before"], rule["only_after"]) == ("population_collapse", 1, 0, 0)
        question = {"rule": "population_collapse", "match": 0, "after": True}
        async with session.post("/api/rules/why", json=question, headers=headers) as answer:
            why = await answer.json()
        assert why["conditions"][0]["condition"] == "total_population < (0.9 * before.total_population)"
        assert why["conditions"][0]["held"] is True
        assert why["lineage"]["sources"][-1]["offset"] == 60


@pytest.mark.parametrize("path", ["check", "try", "cancel", "why"])
async def test_what_a_page_of_another_site_can_send_is_refused(world, path):
    async with served(world) as (session, _):
        key = await keyed(session)
        body = {"name": "rules", "text": RULES}
        for headers in (
            {},
            {"X-Astrocyte-Page": "guessed"},
            {**key, "Origin": "http://evil.example"},
            {**key, "Origin": "null"},
            {**key, "Sec-Fetch-Site": "cross-site"},
            {**key, "Sec-Fetch-Site": "same-site"},
        ):
            async with session.post(f"/api/rules/{path}", json=body, headers=headers) as answer:
                assert answer.status == 403, headers
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            headers = {**key, "Content-Type": kind}
            async with session.post(f"/api/rules/{path}", data=b"{}", headers=headers) as answer:
                assert answer.status == 403, kind
        async with session.get(f"/api/rules/{path}") as answer:
            assert answer.status == 405


async def test_questions_that_are_none_are_refused(world):
    async with served(world) as (session, _):
        headers = await keyed(session) | {"Content-Type": "application/json"}
        for body, status in (
            (b"{", 400),
            (b"[]", 400),
            (b"{}", 400),
            (b'{"name": "x", "text": "' + b"x" * 1_300_000, 413),
        ):
            async with session.post("/api/rules/check", data=BytesIO(body), headers=headers) as answer:
                assert answer.status == status
        async with session.post("/api/rules/check", json={"name": "../x", "text": ""}, headers=headers) as answer:
            assert answer.status == 422


async def test_without_write_nothing_can_be_published(world):
    async with served(world) as (session, _):
        headers = await keyed(session)
        body = {"name": "rules", "text": RULES, "seen": None}
        async with session.post("/api/rules/publish", json=body, headers=headers) as answer:
            assert answer.status == 404


async def test_with_write_publishing_asks_for_the_same(world):
    settings = load_settings(broker="127.0.0.1:1")
    bench = RuleBench(BrokerSource(settings), [world.rules], settings, write=True)
    async with served(world, bench=bench) as (session, _):
        body = {"name": "rules", "text": RULES, "seen": None}
        async with session.post("/api/rules/publish", json=body) as answer:
            assert answer.status == 403
        async with session.get("/api/rules") as answer:
            assert (await answer.json())["write"] is True
