"""Rule files that are published and removed by the command."""

import asyncio
import logging

import pytest
from typer.testing import CliRunner

from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.topology.rule_updates import LiveRules, follow_rules
from astrocyte.schemas.errors import InvalidRule, InvalidSettings
from astrocyte.schemas.topics import RULES
from tests.support.broker import EmbeddedBroker, make_batch
from tests.support.logs import produce, running
from tests.support.waiting import eventually

BASE = "rules: [{name: one, within: 1s, seq: [{as: a, stream: axon_1}]}]"


def test_removing_a_rule_file_that_is_not_published_is_refused_with_those_that_are(tmp_path):
    (tmp_path / "mine.yaml").write_text(BASE)

    def publish(broker: str, *arguments: str) -> str:
        result = CliRunner().invoke(app, ["rules", "publish", *arguments, "-b", broker])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stderr

    with running(tmp_path / "data") as broker:
        with pytest.raises(InvalidSettings, match="no rule file 'mine' is published; published are none"):
            publish(broker, "--remove", "mine")
        publish(broker, str(tmp_path / "mine.yaml"))
        with pytest.raises(InvalidSettings, match="no rule file 'mien' is published; published are mine; did you mean"):
            publish(broker, "--remove", "mien")
        assert "mine: removed" in publish(broker, "--remove", "mine")
        with pytest.raises(InvalidSettings, match="published are none"):
            publish(broker, "--remove", "mine")


def test_what_is_published_can_be_listed(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        BASE + "\nwindows: [{name: rate, from: axon_1, every: 1s, select: {n: count()}}]"
    )
    (tmp_path / "gone.yaml").write_text(BASE)

    def publish(broker: str, *arguments: str) -> tuple[str, str]:
        result = CliRunner().invoke(app, ["rules", "publish", *arguments, "-b", broker], catch_exceptions=False)
        return result.stdout, result.stderr

    with running(tmp_path / "data") as broker:
        assert publish(broker, "--list") == ("", "no rule file is published\n")
        publish(broker, str(tmp_path / "mine.yaml"), str(tmp_path / "gone.yaml"))
        publish(broker, "--remove", "gone")
        assert publish(broker, "--list") == ("mine: rules one; windows rate\n", "")
        hostile = ConsumedRecord("rules", 0, 0, 0, b"\xff\x1b[2J" + b"x" * 5000, b"rules: 5 " * 2000)
        asyncio.run(produce(broker, [hostile]))
        listed = publish(broker, "--list")[0].splitlines()
        assert [line[:5] for line in listed] == ["mine:", "\ufffd\\x1b"]
        assert max(map(len, listed)) < 700
        with pytest.raises(InvalidSettings, match="--list changes nothing"):
            publish(broker, "--list", "--remove", "mine")


def test_a_file_that_contradicts_a_published_one_is_not_published(tmp_path):
    (tmp_path / "a.yaml").write_text("rules: [{name: one, seq: [{as: a, stream: A}]}]")
    (tmp_path / "z.yaml").write_text(
        "streams: [{name: Z, topic: mono.A}]\nrules: [{name: x, seq: [{as: a, stream: Z}]}]"
    )

    def publish(broker: str, *arguments: str) -> str:
        result = CliRunner().invoke(app, ["rules", "publish", *arguments, "-b", broker])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    with running(tmp_path / "data") as broker:
        publish(broker, str(tmp_path / "a.yaml"))
        with pytest.raises(InvalidRule, match="'z' cannot run with what is published: streams 'Z' and 'A' both read"):
            publish(broker, str(tmp_path / "z.yaml"))
        assert publish(broker, "--list") == "a: rules one\n"
        publish(broker, "--remove", "a", str(tmp_path / "z.yaml"))
        assert publish(broker, "--list") == "z: rules x\n"


async def test_rules_are_followed_once_the_broker_is_there(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "astrocyte.pipeline.topology.rule_updates")
    async with EmbeddedBroker(tmp_path, port=0) as broker:
        port = broker.port
        published = broker.topics.create(RULES, 1).logs[0]
        published.append(make_batch([BASE.encode()], keys=[b"before"]))
        await broker.maintenance.flush()
    changes = follow_rules(f"127.0.0.1:{port}", LiveRules(RuleSet()), 1)
    following = asyncio.ensure_future(anext(changes))
    await eventually(lambda: "rules are not followed now" in caplog.text, what="an attempt without a broker")
    async with EmbeddedBroker(tmp_path, port=port) as broker:
        broker.topics.get(RULES).logs[0].append(make_batch([BASE.replace("one", "two").encode()], keys=[b"mine"]))
        await broker.maintenance.flush()
        change = await asyncio.wait_for(following, 30)
        await changes.aclose()
    assert [rule.name for rule in change.ruleset.rules] == ["two"]


def test_the_commands_say_which_of_several_published_files_a_rule_is_from(tmp_path):
    for name in ("first", "second"):
        (tmp_path / f"{name}.yaml").write_text(BASE.replace("1s", f"{len(name)}s"))
    first, second = (str(tmp_path / f"{name}.yaml") for name in ("first", "second"))

    def run(*arguments: str) -> list[str]:
        result = CliRunner().invoke(app, ["rules", *arguments], catch_exceptions=False)
        return result.stderr.splitlines()

    with running(tmp_path / "data") as broker:
        assert run("publish", first, "-b", broker) == ["first: published"]
        line = "rule 'one' is that of the published file 'second', and not that of the published file 'first'"
        assert run("check", second, "-b", broker) == [f"once published: {line}"]
        assert run("publish", second, "-b", broker) == ["second: published", f"in force: {line}"]
        assert f"in force: {line}" in run("publish", "--list", "-b", broker)
        assert run("publish", "--remove", "second", "-b", broker) == [
            "second: removed", "in force: rule 'one' is that of the published file 'first' again"
        ]  # fmt: skip
