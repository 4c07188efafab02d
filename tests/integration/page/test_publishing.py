"""Rules that are published from the page reach the topic, and not where somebody else was faster."""

import asyncio

import pytest

from astrocyte.pipeline.page.rules.bench import RuleBench, TextChanged
from astrocyte.pipeline.page.sources.broker import BrokerSource
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.pipeline.topology.rule_updates import LiveRules, load_live_rules, publish_files, published_files
from astrocyte.schemas.errors import InvalidRule
from tests.support.logs import produce, running
from tests.support.world_log import RULES, world_messages

EDITED = RULES.replace("0.5 *", "0.9 *")


async def test_a_text_is_published_unless_another_one_was_meanwhile(tmp_path):
    rules = tmp_path / "collapse.yaml"
    rules.write_text(RULES)
    with running(tmp_path / "broker") as address:
        settings = load_settings(broker=address, lateness=0)
        bench = RuleBench(BrokerSource(settings), [rules], settings, write=True)
        (file,) = (await bench.listed())["files"]
        assert (file["published"], file["digest"]) == (False, None)
        done = await bench.publish("collapse", EDITED, None)
        assert await published_files(address) == {"collapse": EDITED.encode()}
        live = LiveRules(read_rule_files([rules]))
        await load_live_rules(address, live)
        assert "0.9" in str(live.ruleset.rules[0].seq[1].where), "workers take it"
        (file,) = (await bench.listed())["files"]
        assert (file["published"], file["text"], file["digest"]) == (True, EDITED, done["digest"])

        # Somebody else publishes: what was edited on the old text is not published over it.
        await publish_files(settings, await published_files(address), {"collapse": RULES.encode()})
        with pytest.raises(TextChanged, match="load it anew"):
            await bench.publish("collapse", EDITED, done["digest"])
        assert await published_files(address) == {"collapse": RULES.encode()}
        with pytest.raises(InvalidRule):
            await bench.publish("other", "rules: [", None)
        assert list(await published_files(address)) == ["collapse"]


async def test_the_topics_of_a_broker_are_read_back_as_the_history(tmp_path):
    rules = tmp_path / "collapse.yaml"
    rules.write_text(RULES)
    with running(tmp_path / "broker") as address:
        await produce(address, world_messages(), partitions=1)
        settings = load_settings(broker=address, lateness=0, partitions=1)
        bench = RuleBench(BrokerSource(settings), [rules], settings)
        async with bench.running(), asyncio.timeout(100):
            found = (await bench.trial("collapse", RULES.replace("0.5 *", "0.1 *"), again=False))["result"]
            (rule,) = found["rules"]
            assert (rule["only_before"], rule["only_after"], rule["both"]) == (1, 0, 0)
            assert found["events"] == 100


async def test_a_trial_shows_what_publishing_changes_where_another_published_file_has_the_rule(tmp_path):
    rules = tmp_path / "collapse.yaml"
    rules.write_text(RULES)
    nothing, edited = RULES.replace("0.5 *", "0.01 *"), RULES.replace("0.5 *", "0.6 *")
    with running(tmp_path / "broker") as address:
        await produce(address, world_messages(), partitions=1)
        settings = load_settings(broker=address, lateness=0, partitions=1)
        await publish_files(settings, {}, {"zeal": nothing.encode()})
        bench = RuleBench(BrokerSource(settings), [rules], settings, write=True)
        async with bench.running(), asyncio.timeout(100):
            files = {each["name"]: each for each in (await bench.listed())["files"]}
            (name,) = files["collapse"]["overridden"]
            assert files["collapse"]["overridden"] == {name: "the published file 'zeal'"}
            (rule,) = (await bench.trial("collapse", edited, again=False))["result"]["rules"]
            assert (rule["only_before"], rule["only_after"], rule["both"]) == (0, 1, 0)
            assert (await bench.why(name, 0, after=True))["text"] == edited
            await bench.publish("collapse", edited, None)
            files = {each["name"]: each for each in (await bench.listed())["files"]}
            assert files["zeal"]["overridden"] == {name: "the published file 'collapse'"}
            again = (await bench.trial("collapse", edited, again=False))["result"]
            assert again["rules"] == [], "now it is what runs"
            live = LiveRules(read_rule_files([rules]))
            await load_live_rules(address, live)
            assert "0.6" in str(live.ruleset.rules[0].seq[1].where)
