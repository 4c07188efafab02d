"""Dead letters of a broker: listing them, and sending them again after what refused them was mended."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.dead_letters import letters_of_broker, message_of, retry
from astrocyte.pipeline.roles.output_records import letter_record
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import LETTER_HEADER, OFFSET_HEADER, ROW_HEADER, RawRecord
from astrocyte.schemas.topics import DEAD_LETTERS, RETRIES
from tests.support.logs import produce, read_topics, running, write_log

TOPIC = "mono.orders"
REFUSING = load_rules(
    """
validators: [{stream: orders, where: "amount > 10"}]
rules: [{name: big, seq: [{as: a, stream: orders}]}]
"""
)
MENDED = load_rules("rules: [{name: big, seq: [{as: a, stream: orders}]}]")


@pytest.fixture
def broker(tmp_path):
    with running(tmp_path / "broker") as address:
        yield address


def domain_of(rules) -> Domain:
    engine = Engine(rules, validated=True)
    validators = Validators(rules.validators)
    return Domain(0, [DomainGroup("key", engine, {"orders": TOPIC})], topics=[TOPIC], validators=validators)


def fed(rules, records) -> DomainOutput:
    domain = domain_of(rules)
    output = domain.feed(TOPIC, records)
    output.extend(domain.mark_all_idle())
    output.extend(domain.flush())
    return output


def orders(amounts) -> list[RawRecord]:
    """JSON records without ids of their own, then a frame."""
    records = [
        RawRecord(offset, 1_772_359_200_000 + offset, b"k", orjson.dumps({"amount": amount}), [("source", b"till")])
        for offset, amount in enumerate(amounts)
    ]
    columns = {
        "timestamp": np.arange(3) + 1_772_359_300_000_000,
        "key": ["k"] * 3,
        "amount": np.array([1.0, 20.0, 2.0]),
    }
    frame = Frame.from_columns("orders", "run", columns)
    return [*records, RawRecord(len(records), 1_772_359_300_000, None, encode_frame(frame))]


def sources_of(output: DomainOutput) -> list[str]:
    return sorted(event for record in output.multi_events for event in orjson.loads(record.value)["source_events"])


async def refuse(broker: str, records) -> list[DeadLetter]:
    """Send records and the dead letters that a worker makes of them."""
    letters = fed(REFUSING, records).dead_letters
    sent = [ConsumedRecord(TOPIC, 0, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in records]
    for number, letter in enumerate(letters):
        record = letter_record(letter, 0)
        sent.append(ConsumedRecord(DEAD_LETTERS, 0, number, 1_772_360_000_000, record.key, record.value))
    await produce(broker, sent, partitions=1)
    return letters


async def messages(broker: str) -> list[RawRecord]:
    """All messages of the topic, as a worker reads them."""
    return [
        RawRecord(each.offset, each.timestamp_ms, each.key, each.value, list(each.headers))
        for each in sorted(await read_topics(broker, TOPIC), key=lambda each: each.offset)
    ]


async def test_after_a_retry_the_mended_rules_find_what_they_would_have_found_and_nothing_twice(broker):
    records = orders([5, 50, 7])
    letters = await refuse(broker, records)
    assert [(letter.offset, letter.row) for letter in letters] == [(0, None), (2, None), (3, 0), (3, 2)]
    found = await letters_of_broker(broker)
    result = await retry(broker, [each.letter for each in found.found])
    assert [letter.letter_id for letter in result.sent] == [letter.letter_id for letter in letters]

    again = (await messages(broker))[len(records) :]
    assert [record.headers[0] for record in again] == [(LETTER_HEADER, letter.letter_id.encode()) for letter in letters]
    assert [dict(record.headers)[OFFSET_HEADER] for record in again] == [b"0", b"2", b"3", b"3"]
    refused_first = fed(REFUSING, records)
    retried = fed(MENDED, again)
    assert sorted(sources_of(refused_first) + sources_of(retried)) == sources_of(fed(MENDED, records))

    second = await retry(broker, [each.letter for each in found.found])
    assert (second.sent, second.before) == ([], 4)
    assert len(await messages(broker)) == len(records) + 4


async def test_a_letter_that_is_refused_again_keeps_the_id_of_its_event(broker):
    records = orders([5])[:1]
    await refuse(broker, records)
    found = await letters_of_broker(broker)
    await retry(broker, [each.letter for each in found.found])
    again = (await messages(broker))[1:]
    (letter,) = fed(REFUSING, again).dead_letters
    assert letter.letter_id != found.found[0].letter.letter_id
    message = message_of(letter)
    third = RawRecord(9, 0, message.key, message.value, list(message.headers))
    assert sources_of(fed(MENDED, [third])) == sources_of(fed(MENDED, records))


def test_a_message_that_cannot_be_decoded_twice_keeps_the_offset_of_its_first_time():
    headers = [(LETTER_HEADER, b"first"), (OFFSET_HEADER, b"3"), ("source", b"till")]
    (letter,) = domain_of(MENDED).feed(TOPIC, [RawRecord(9, 0, b"k", b"no json", headers)]).dead_letters
    message = message_of(letter)
    assert message.headers == (
        (LETTER_HEADER, letter.letter_id.encode()), (OFFSET_HEADER, b"3"), ("source", b"till")
    )  # fmt: skip


KILLED = """
import asyncio, os, signal, sys
from aiokafka import AIOKafkaProducer
from astrocyte.pipeline.recording import dead_letters
broker, topic, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
dead_letters._BATCH = 3
send, sent = AIOKafkaProducer.send, 0

async def counted(self, *arguments, **options):
    global sent
    future = await send(self, *arguments, **options)
    sent += (arguments[0] if arguments else options["topic"]) == topic
    if sent > most:
        await future
        os.kill(os.getpid(), signal.SIGKILL)
    return future

AIOKafkaProducer.send = counted

async def main():
    found = await dead_letters.letters_of_broker(broker)
    await dead_letters.retry(broker, [each.letter for each in found.found])

asyncio.run(main())
"""


@pytest.mark.parametrize(("topic", "most"), [(TOPIC, 0), (TOPIC, 4), (RETRIES, 0), (RETRIES, 5)])
async def test_a_retry_that_is_killed_is_completed_by_the_next_which_loses_and_repeats_nothing(broker, topic, most):
    records = orders(range(10))
    letters = await refuse(broker, records)
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", KILLED, broker, topic, str(most)],
        env=os.environ,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    result = await retry(broker, letters)
    assert len(result.sent) + result.before == len(letters)
    again = (await messages(broker))[len(records) :]
    assert sorted(record.headers[0][1].decode() for record in again) == sorted(each.letter_id for each in letters)
    assert (await retry(broker, letters)).sent == []


@pytest.mark.parametrize(("topic", "most"), [(TOPIC, 2), (RETRIES, 0), (RETRIES, 4)])
async def test_a_message_with_letters_of_several_events_is_sent_once_also_by_a_retry_that_is_killed(
    broker, topic, most
):
    letters = [
        DeadLetter(letter_id=f"{offset}-{row}", reason="r", stage=stage, topic=TOPIC, partition=0, offset=offset,
                   row=row, payload_b64="MSwyLDM=")
        for offset in range(6) for row, stage in ((0, "decode"), (2, "validate"))
    ]  # fmt: skip
    sent = [letter_record(letter, 0) for letter in letters]
    first = [ConsumedRecord(TOPIC, 0, 0, 1_772_360_000_000, b"k", b"1,2,3")]
    numbered = enumerate(sent)
    dead = [ConsumedRecord(DEAD_LETTERS, 0, n, 1_772_360_000_000, each.key, each.value) for n, each in numbered]
    await produce(broker, [*first, *dead], partitions=1)
    command = [sys.executable, "-c", KILLED, broker, topic, str(most)]
    killed = await asyncio.to_thread(subprocess.run, command, env=os.environ, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    result = await retry(broker, letters)
    assert len(result.sent) + result.before == len(letters)
    again = [dict(record.headers) for record in (await messages(broker))[1:]]
    assert sorted(headers[LETTER_HEADER] for headers in again) == [b"%d-0,%d-2" % (n, n) for n in range(6)]
    assert {headers[ROW_HEADER] for headers in again} == {b"0,2"}


async def test_results_and_absent_places_cannot_be_sent_and_say_why(broker):
    letters = [
        DeadLetter(letter_id="a", reason="r", stage="emit", topic=TOPIC, partition=0, offset=1),
        DeadLetter(letter_id="b", reason="r", stage="decode", topic="mono.gone", partition=0, offset=1),
        DeadLetter(letter_id="c", reason="r", stage="late", topic=TOPIC, partition=0, offset=1, row=2),
    ]
    result = await retry(broker, letters)
    assert result.sent == []
    reasons = {letter.letter_id: reason for letter, reason in result.refused}
    assert reasons["a"].startswith("it is a result of a rule")
    assert reasons["b"] == "the broker has no partition 0 of topic 'mono.gone'"
    assert reasons["c"] == "it does not hold the event"


def run(*arguments: str):
    result = CliRunner().invoke(app, ["dead-letters", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


async def test_the_commands_list_show_and_retry_by_filters(broker):
    letters = await refuse(broker, orders([5, 50, 7]))
    listed = await asyncio.to_thread(run, "ls", "-b", broker, "--topic", "mono.*", "--reason", "AMOUNT IS 7")
    (line,) = listed.stdout.splitlines()
    assert line.startswith(f"2026-03-01T10:13:20Z      {letters[1].letter_id[:8]}  mono.orders[0]@2")
    assert "1 of 4 dead letters" in listed.stderr
    assert (await asyncio.to_thread(run, "ls", "-b", broker, "--key", "nobody")).stdout == ""
    none = await asyncio.to_thread(run, "ls", "-b", broker, "--stage", "clock")
    assert none.stdout == ""
    assert "there are letters of the stages: " in none.stderr
    assert "and of the topics: mono.orders (4)" in none.stderr
    nothing = await asyncio.to_thread(run, "retry", "-b", broker, "--topic", "mono.order")
    assert "and of the topics: mono.orders (4)" in nothing.stderr
    with pytest.raises(InvalidSettings, match="no dead letter has the id '999'"):
        await asyncio.to_thread(run, "retry", "-b", broker, "999", letters[1].letter_id)
    shown = await asyncio.to_thread(run, "show", "-b", broker, letters[1].letter_id[:10])
    assert "header     source: till" in shown.stdout or "payload    " in shown.stdout
    assert '"amount":7' in shown.stdout
    with pytest.raises(InvalidSettings, match="no letters selected"):
        await asyncio.to_thread(run, "retry", "-b", broker)
    planned = await asyncio.to_thread(run, "retry", "-b", broker, "--all", "--dry-run")
    assert "4 letters would be sent" in planned.stderr
    done = await asyncio.to_thread(run, "retry", "-b", broker, letters[1].letter_id, "--json")
    assert json.loads(done.stdout)["sent"] == [letters[1].letter_id]
    body = [
        json.loads(line) for line in (await asyncio.to_thread(run, "ls", "-b", broker, "--json")).stdout.splitlines()
    ]
    assert [each["retried"] for each in body] == [False, True, False, False]
    again = await asyncio.to_thread(run, "retry", "-b", broker, "--all")
    assert "3 letters sent; 1 were sent before; 0 cannot be sent" in again.stderr


def test_control_characters_of_letters_do_not_reach_the_terminal(tmp_path: Path):
    letter = DeadLetter(
        letter_id="abc", reason="no \x1b[2J here", stage="decode", topic=TOPIC, partition=1, offset=7,
        headers=(("\x1b[2J", ""),),
    )  # fmt: skip
    record = ConsumedRecord(DEAD_LETTERS, 0, 0, 1000, b"k", letter.model_dump_json().encode())
    path = str(write_log(tmp_path / "log.jsonl", [record]))
    for shown in (run("ls", "--log", path).stdout, run("show", "abc", "--log", path).stdout):
        assert "no \\x1b[2J here" in shown
        assert "\x1b" not in shown


def test_letters_of_a_recorded_log_are_listed_and_other_messages_of_the_topic_counted(tmp_path: Path):
    letter = DeadLetter(
        letter_id="abc", reason="not JSON", stage="decode", topic=TOPIC, partition=1, offset=7,
        payload_b64=b64encode(b"\xff\x00").decode(),
    )  # fmt: skip
    value = letter.model_dump_json().encode()
    records = [
        ConsumedRecord(DEAD_LETTERS, 0, 0, 1000, b"k", value),
        ConsumedRecord(DEAD_LETTERS, 0, 1, 1000, b"k", b"no letter"),
        ConsumedRecord(DEAD_LETTERS, 0, 2, 1000, b"k", value),
        ConsumedRecord(TOPIC, 0, 2, 1000, b"k", b"{}"),
    ]
    path = write_log(tmp_path / "log.jsonl", records)
    result = run("ls", "--log", str(path))
    assert "mono.orders[1]@7" in result.stdout
    assert "1 of 1 dead letters, 1 messages of the topic are no dead letters" in result.stderr
    assert "payload    2 bytes: ff 00" in run("show", "abc", "--log", str(path)).stdout
    with pytest.raises(InvalidSettings, match="no dead letter has the id 'x'"):
        run("show", "x", "--log", str(path))
