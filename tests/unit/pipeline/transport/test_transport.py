"""The transport's parts that need no broker."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import SimpleNamespace

import faust
import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.pipeline.kafka.client import BrokerUnavailable
from astrocyte.pipeline.topology.group_rules import GroupRules
from astrocyte.pipeline.transport.assignor import DomainAssignor, note_of
from astrocyte.pipeline.transport.chunk import Chunk, ChunkMessage, ack_handle
from astrocyte.pipeline.transport.client_log import StateLog, limit_client_log
from astrocyte.pipeline.transport.commits import CommitTracker
from astrocyte.pipeline.transport.consumer import Consumer
from astrocyte.pipeline.transport.options import TransportOptions, configure, options_of
from astrocyte.pipeline.transport.transport import TP, Transport, app_settings


def test_transport_is_registered_under_its_name():
    found = {point.name: point for point in entry_points(group="faust.transports")}
    assert found["astrocyte"].load() is Transport


def test_faust_takes_the_settings_and_finds_the_transport(tmp_path):
    app = faust.App("settings-test", datadir=tmp_path, **app_settings("127.0.0.1:1,127.0.0.1:2", topic_partitions=3))
    app.finalize()
    assert isinstance(app.transport, Transport)
    assert [url.port for url in app.conf.broker_consumer] == [1, 2]
    assert app.conf.topic_partitions == 3
    assert app.conf.stream_wait_empty is False
    assert app.conf.agent_supervisor.__name__ == "CrashingSupervisor"
    assert app.conf.broker_session_timeout <= app.conf.broker_request_timeout


def test_options_belong_to_their_app(tmp_path):
    one, two = (faust.App(f"options-{n}", datadir=tmp_path, **app_settings()) for n in "ab")
    configure(one, TransportOptions(revoke_timeout_s=1.0))
    assert options_of(one).revoke_timeout_s == 1.0
    assert options_of(two) == TransportOptions()


def message_of(delivery) -> ChunkMessage:
    tp = TP("t", 0)
    return ChunkMessage("t", 0, 5, 0.0, 0, (), None, b"", None, 0, 0, tp, generation_id=1, delivery=delivery)


def test_setting_acked_as_fausts_compiled_iterator_does_acknowledges_the_delivery():
    tracker: CommitTracker[str] = CommitTracker()
    tracker.assign("p", 5)
    message = message_of(tracker.delivered("p", 5, 9))
    assert not message.acked
    assert tracker.committable("p") is None
    message.acked = True
    assert tracker.committable("p") == 9


async def test_a_state_that_the_broker_does_not_give_now_is_asked_for_again():
    place = TP("t", 0)

    async def committed(partitions):
        return dict.fromkeys(partitions, 5)

    async def away(_committed):
        raise BrokerUnavailable("it restarts")

    consumer = SimpleNamespace(
        options=TransportOptions(on_assigned=away), _thread=SimpleNamespace(committed=committed),
        tracker=CommitTracker(), log=logging.getLogger(__name__),
    )  # fmt: skip
    await Consumer._place(consumer, {place}, 1)
    assert place not in consumer.tracker  # so that the next round positions it


async def test_what_a_snapshot_holds_is_committed_also_before_a_first_commit():
    held, empty, fresh = TP("t", 0), TP("t", 1), TP("u", 0)

    async def committed(partitions):
        return dict.fromkeys(partitions)

    async def place(wanted):
        return {tp: offset or 0 for tp, offset in wanted.items()}

    consumer = SimpleNamespace(
        options=TransportOptions(on_assigned=lambda _committed: {held: 8, empty: 0}), tracker=CommitTracker(),
        _thread=SimpleNamespace(committed=committed, place=place), _current=lambda _generation: True,
        ends=SimpleNamespace(interrupt=lambda _partitions: None), log=logging.getLogger(__name__),
    )  # fmt: skip
    await Consumer._place(consumer, {held, empty, fresh}, 1)
    assert [consumer.tracker.committable(tp) for tp in (held, empty, fresh)] == [8, None, None]


def test_event_of_another_transport_has_no_delivery():
    with pytest.raises(TypeError, match="astrocyte://"):
        ack_handle(SimpleNamespace(message=message_of(None)))


def test_chunk_knows_its_offsets():
    chunk = Chunk("t", 2, tuple(SimpleNamespace(offset=offset) for offset in (3, 4, 7)), 9, 20)
    assert (chunk.first_offset, chunk.last_offset, chunk.next_offset, len(chunk)) == (3, 7, 9, 3)
    assert [record.offset for record in chunk] == [3, 4, 7]


@dataclass
class Cluster:
    """What an assignor sees of a cluster."""

    counts: dict[str, int] = field(default_factory=dict)

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self.counts[topic])) if topic in self.counts else None


def assign(counts: dict[str, int], members: dict[str, set[str]]) -> dict[str, dict[str, list[int]]]:
    metadata = {member: DomainAssignor.metadata(topics) for member, topics in members.items()}
    found = DomainAssignor.assign(Cluster(counts), metadata)
    return {member: dict(assignment.assignment) for member, assignment in found.items()}


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 4))
def test_every_partition_number_goes_as_a_whole_to_one_member_and_evenly(members, partitions, topics):
    names = [f"t{n}" for n in range(topics)]
    found = assign(dict.fromkeys(names, partitions), {f"m{n}": set(names) for n in range(members)})
    numbers = [{tuple(given.get(name, [])) for name in names} for given in found.values()]
    assert all(len(kinds) == 1 for kinds in numbers)
    assert sorted(number for (kind,) in numbers for number in kind) == list(range(partitions))
    loads = [len(kind) for (kind,) in numbers]
    assert max(loads) - min(loads) <= 1


def test_topic_that_a_member_does_not_read_goes_to_one_that_does():
    found = assign({"a": 4, "b": 4}, {"m0": {"a"}, "m1": {"a", "b"}})
    assert found == {"m0": {"a": [0, 2]}, "m1": {"a": [1, 3], "b": [0, 1, 2, 3]}}


def test_topic_that_does_not_exist_yet_is_left_out():
    assert assign({"a": 1}, {"m": {"a", "later"}}) == {"m": {"a": [0]}}


def assign_with_notes(members: dict[str, type[DomainAssignor]]) -> None:
    """One assignment of a group whose members have these assignors; what each is sent goes over the wire."""
    joined = {
        member: ConsumerProtocolMemberMetadata.decode(own.metadata({"a"}).encode()) for member, own in members.items()
    }
    found = DomainAssignor.assign(Cluster({"a": 2}), joined)
    for member, own in members.items():
        own.on_assignment(ConsumerProtocolMemberAssignment.decode(found[member].encode()))


def test_a_group_whose_workers_have_different_rules_is_informed_once_and_when_it_ends(caplog):
    groups = [GroupRules() for _ in range(3)]
    assignors = [DomainAssignor.with_note("new" if n else "old", group.note) for n, group in enumerate(groups)]
    former = DomainAssignor  # a worker of a version without notes
    with caplog.at_level(logging.INFO):
        assign_with_notes({"a": assignors[1], "b": assignors[2], "d": former})
        assert not caplog.records
        for _ in range(2):
            assign_with_notes(dict(zip("abcd", [*assignors, former], strict=True)))
        assert len(caplog.records) == 3  # one of each worker
        assert all("2 different sets of rule files" in record.getMessage() for record in caplog.records)
        assert all("(2, 1 workers)" in record.getMessage() for record in caplog.records)
        caplog.clear()
        assign_with_notes({"a": assignors[1], "b": assignors[2]})
    assert ["the same rule files and settings again" in record.getMessage() for record in caplog.records] == [
        True,
        True,
    ]


def test_the_note_of_a_member_is_read_from_what_the_broker_describes():
    assert note_of(DomainAssignor.with_note("1f", None).metadata(["a"]).encode()) == "1f"
    assert [note_of(DomainAssignor.metadata(["a"]).encode()), note_of(b""), note_of(b"\xff")] == ["", "", ""]


def test_state_of_the_broker_is_logged_once_per_change(caplog):
    state = StateLog("worker", "127.0.0.1:9")
    with caplog.at_level(logging.WARNING, "astrocyte.broker_state"):
        state.back()
        for _ in range(3):
            state.away("refused")
        state.back()
        state.back()
    assert [record.getMessage().split(" (")[0].split(" after")[0] for record in caplog.records] == [
        "worker: the broker at 127.0.0.1:9 is unavailable",
        "worker: the broker at 127.0.0.1:9 is available again",
    ]


def test_aiokafka_repeats_no_warning_and_leaves_lost_connections_to_us(caplog):
    limit_client_log()
    logger = logging.getLogger("aiokafka.conn")
    with caplog.at_level(logging.INFO, "aiokafka"):
        for number in range(3):
            logger.warning("a warning of %s", number)
            logger.error("Unable connect to %s", number)
            logger.info("news")
    assert [record.getMessage() for record in caplog.records] == ["a warning of 0", "news", "news", "news"]
