"""The records on the docs page "Events" are those of the models."""

import io
import json
import re
from pathlib import Path

import pytest
import yaml

from astrocyte import load_rules
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import DECODERS, Decoders
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.events import Alert, ControlEvent, DeadLetter, DnaEvent, MonoEvent, MultiEvent
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.times import iso_from_us

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
MODELS = {
    "A mono event": MonoEvent,
    "A multi event": MultiEvent,
    "An alert": Alert,
    "A dead letter": DeadLetter,
    "The dna envelope": DnaEvent,
    "A control event": ControlEvent,
}
TEXT_NUMBERS = "Numbers that are written as text"
EXAMPLES = {
    section.partition("\n")[0]: re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    for section in PAGE.split("\n## ")
    if "```json" in section and not section.startswith(("Decoders", TEXT_NUMBERS))
}


def test_every_kind_of_record_has_an_example():
    assert {title: len(found) for title, found in EXAMPLES.items()} == dict.fromkeys(MODELS, 1)


@pytest.mark.parametrize("title", MODELS)
def test_an_example_is_a_record_of_its_kind_with_every_member(title):
    record = json.loads(EXAMPLES[title][0])
    assert json.loads(MODELS[title].model_validate(record).model_dump_json()) == record


DECODER_SECTIONS = {
    section.partition("\n")[0]: section
    for section in re.split(r"\n### ", PAGE.partition("\n## Decoders")[2].partition("\n## ")[0])[1:]
}
MESSAGE_SECTIONS = DECODER_SECTIONS | {TEXT_NUMBERS: PAGE.partition(f"\n## {TEXT_NUMBERS}\n")[2].partition("\n## ")[0]}
"""Sections with a declaration, messages, and the events that they are."""


def test_every_shipped_decoder_has_a_section():
    assert set(DECODER_SECTIONS) == {name for name, _ in DECODERS.items() if not name.startswith("test")}


def _bytes(value, schema=None):
    if value is None or isinstance(value, str):
        return None if value is None else value.encode()
    if schema is None:
        return json.dumps(value).encode()
    fastavro = pytest.importorskip("fastavro", reason="the extra avro is not installed")
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema["definition"]), value)
    return b"\0" + schema["id"].to_bytes(4, "big") + stream.getvalue()


@pytest.mark.parametrize("name", sorted(MESSAGE_SECTIONS.keys() - {"arrow"}))
def test_the_example_of_a_section_gives_the_events_that_the_page_shows(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schemas").mkdir()
    (declared,) = re.findall(r"```yaml\n(.*?)```", MESSAGE_SECTIONS[name], re.DOTALL)
    *messages, expected = map(json.loads, re.findall(r"```json\n(.*?)```", MESSAGE_SECTIONS[name], re.DOTALL))
    for message in messages:
        if "schema" in message:
            path = tmp_path / "schemas" / f"{message['schema']['id']}.avsc"
            path.write_text(json.dumps(message["schema"]["definition"]))
    streams = load_rules(yaml.safe_load(declared)).streams
    decoders = Decoders(Contracts(streams))
    records = [
        RawRecord(
            offset, 1000, _bytes(message["key"]), _bytes(message["value"], message.get("schema")),
            [(header, text.encode()) for header, text in message.get("headers", {}).items()],
        )
        for offset, message in enumerate(messages)
    ]  # fmt: skip
    frames, letters = decode_chunk(decoders.contracts.topic_of(streams[0].name), 0, records, decoders=decoders)
    assert letters == []
    events = [
        row | {"timestamp": iso_from_us(row["timestamp"])} for item in frames for row in item.frame.event_fields()
    ]
    assert events == expected


def test_the_example_of_a_declaration_is_one():
    (declared,) = re.findall(
        r"```yaml\n(.*?)```", PAGE.partition("## Declaring a stream")[2].partition("\n## ")[0], re.DOTALL
    )
    (stream,) = load_rules(yaml.safe_load(declared)).streams
    assert stream.types == {"amount": "float64", "discount": "float64", "note": "string"}
    assert not stream.is_partitioned
