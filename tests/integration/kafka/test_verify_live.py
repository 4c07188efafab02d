"""``verify`` over a broker: what a role has committed is due, the rest may still come, and no group is joined."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.verify import verify
from astrocyte.pipeline.kafka.client import admin_client
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.settings import load_settings
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.times import us_from_iso
from astrocyte.schemas.topics import ALERTS, MULTI_EVENTS
from tests.support.logs import T0_US, produce, running, write_log
from tests.support.pair_log import PAIR, SECOND, in_frames, spikes, with_outputs


@pytest.fixture
def records(tmp_path):
    """Events of 12 rounds in which eight keys meet, and the multi events and alerts of the rule ``pair``."""
    (tmp_path / "pair.yaml").write_text(PAIR)
    plain = write_log(tmp_path / "plain.jsonl.zst", in_frames(spikes()))
    return list(read_log(with_outputs(load_rules(PAIR), plain, tmp_path / "log.jsonl.zst")))


def settings_of(address, folder):
    return load_settings(broker=address, rules=(folder / "pair.yaml",), partitions=2, lateness="1s", group="mine")


async def commit(address, records, limit):
    """Commit as the role ``correlate`` does that has processed the messages before an offset."""
    places = {TopicPartition(each.topic, each.partition) for each in records if each.topic.startswith("mono.")}
    consumer = AIOKafkaConsumer(bootstrap_servers=address, group_id="mine-correlate", enable_auto_commit=False)
    await consumer.start()
    consumer.assign(places)
    await consumer.commit(dict.fromkeys(places, limit))
    await consumer.stop()


async def committed(address):
    async with admin_client(address) as admin:
        groups = {group[0] for group in await admin.list_consumer_groups()}
        return groups, await admin.list_consumer_group_offsets("mine-correlate")


def verified(address, folder):
    return verify(settings_of(address, folder), where=("topics",), now_us=0)


def place(done, topic):
    return next(each for each in done.places if each.name == f"topic {topic}")


def test_what_is_committed_is_due_and_the_rest_may_still_come(records, tmp_path):
    with running(tmp_path / "broker") as address:
        mono = [each for each in records if each.topic.startswith("mono.")]
        made = [each for each in records if not each.topic.startswith("mono.")]
        asyncio.run(produce(address, mono))
        with pytest.raises(InvalidSettings, match="no worker of group 'mine'"):
            verified(address, tmp_path)
        # Ten of twelve rounds are processed; the results of the first eight are there, of which an alert is missing.
        asyncio.run(commit(address, records, 10))
        eighth_us = T0_US + 8 * 3 * SECOND
        early = [each for each in made if us_from_iso(orjson.loads(each.value)["timestamp"]) < eighth_us]
        gone = [each for each in early if each.topic == ALERTS][40]
        asyncio.run(produce(address, [each for each in early if each != gone]))
        before = asyncio.run(committed(address))
        done = verified(address, tmp_path)
        multi, alerts = place(done, MULTI_EVENTS), place(done, ALERTS)
        assert multi.found == 64
        assert 0 < multi.lost <= 16 <= multi.waiting
        assert multi.lost + multi.waiting == 32
        assert alerts.lost == multi.lost + 1
        assert alerts.unexpected == multi.unexpected == 0
        assert asyncio.run(committed(address)) == before


def test_a_system_that_has_processed_everything_is_equal(records, tmp_path):
    with running(tmp_path / "broker") as address:
        asyncio.run(produce(address, records))
        asyncio.run(commit(address, records, 12))
        done = verified(address, tmp_path)
        assert done.holds, done.differences
        assert place(done, MULTI_EVENTS).found == place(done, MULTI_EVENTS).expected == 96
        assert done.events["received"] == 192


def test_a_worker_that_has_not_begun_is_waited_for(records, tmp_path):
    with running(tmp_path / "broker") as address, ThreadPoolExecutor(1) as pool:
        asyncio.run(produce(address, records))
        with pytest.raises(InvalidSettings, match=r"has processed anything on .* within 1 s"):
            verify(settings_of(address, tmp_path), where=("topics",), wait_s=1.0, now_us=0)
        waiting = pool.submit(verify, settings_of(address, tmp_path), where=("topics",), wait_s=60.0, now_us=0)
        asyncio.run(commit(address, records, 12))
        done = waiting.result()
        assert done.holds, done.differences
        assert place(done, MULTI_EVENTS).found == 96
