"""Workers of one group that were started with different rule files notice it, say so, and say when it ends."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from astrocyte.pipeline.roles.health import group_health
from astrocyte.pipeline.roles.worker import environment_of, worker_command
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.pipeline.transport.assignor import DomainAssignor
from tests.support.brokers import own_embedded  # noqa: F401  fixture
from tests.support.worker import wait_until

RULES = "rules: [{{name: r, seq: [{{as: a, stream: axon_1, where: 'value > {}'}}]}}]"
DIFFER = "2 different sets of rule files"


class Worker:
    """A correlate role with its log."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(worker_command(), env=environment_of(settings), stdout=out, stderr=out)

    def says(self, text: str) -> bool:
        return text in self.log.read_text()

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(30) == 0


async def members_of(broker: str, group: str, notes: list[str], reported: list[dict[str, int]]) -> dict[str, Any]:
    """What health says while a group has a member with each of the notes, once every member was reported of all."""
    consumers = [
        AIOKafkaConsumer(
            "mono.axon_1",
            bootstrap_servers=broker,
            group_id=f"{group}-correlate",
            partition_assignment_strategy=[DomainAssignor.with_note(note, lambda found: reported.append(dict(found)))],
        )
        for note in notes
    ]
    settings = load_settings(broker=broker, group=group, roles=("correlate",))
    async with AsyncExitStack() as stack:
        for consumer in consumers:
            await stack.enter_async_context(consumer)
        async with asyncio.timeout(30):
            while reported.count(dict(Counter(notes))) < len(notes):
                await asyncio.gather(*(consumer.getmany(timeout_ms=50) for consumer in consumers))
            while (found := (await group_health(settings))["correlate"])["state"] != "Stable":
                await asyncio.gather(*(consumer.getmany(timeout_ms=50) for consumer in consumers))
    return found


@pytest.mark.parametrize(("notes", "differ"), [(["1f", "2e"], True), (["1f", "1f"], False)])
def test_health_says_whether_the_members_of_a_group_have_the_same_rules(
    own_embedded: Any,  # noqa: F811
    notes: list[str],
    differ: bool,
) -> None:
    asyncio.run(make_topics(load_settings(broker=own_embedded.address, partitions=2), ["mono.axon_1"]))
    found = asyncio.run(members_of(own_embedded.address, "g", notes, []))
    assert found["members"] == 2
    assert [DIFFER in line for line in found["rules"]] == ([True] if differ else [])


@pytest.mark.soak
def test_two_rule_files_in_one_group_are_noticed_by_the_workers_and_by_health(
    own_embedded: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(RULES.format(1))
    two.write_text(RULES.format(2))
    settings = {
        path: load_settings(broker=own_embedded.address, rules=(str(path),), roles=("correlate",), partitions=2)
        for path in (one, two)
    }
    asyncio.run(make_topics(settings[one], mono_topics(("axon_1",))))

    def health() -> dict[str, Any]:
        return asyncio.run(group_health(settings[one]))["correlate"]

    workers = [Worker(settings[path], tmp_path / f"{path.stem}.log") for path in (one, two)]
    try:
        wait_until(lambda: all(worker.says(DIFFER) for worker in workers), 120, workers[0].log.read_text)
        wait_until(lambda: health()["rules"], 60)
        assert health()["members"] == 2
        assert DIFFER in health()["rules"][0]
        # The second is replaced by one with the rules of the first, as at the end of a rolling deployment.
        workers.pop().end()
        workers.append(Worker(settings[one], tmp_path / "third.log"))
        wait_until(lambda: workers[0].says("the same rule files and settings again"), 120, workers[0].log.read_text)
        wait_until(lambda: health()["members"] == 2 and health()["state"] == "Stable", 60)
        assert health()["rules"] == []
        assert not workers[1].says(DIFFER)
    finally:
        for worker in workers:
            worker.end()
