"""The records on the docs page "Events" are those of the models."""

import json
import re
from pathlib import Path

import pytest

from astrocyte.schemas.events import Alert, ControlEvent, DeadLetter, DnaEvent, MonoEvent, MultiEvent

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
MODELS = {
    "A mono event": MonoEvent,
    "A multi event": MultiEvent,
    "An alert": Alert,
    "A dead letter": DeadLetter,
    "The dna envelope": DnaEvent,
    "A control event": ControlEvent,
}
EXAMPLES = {
    section.partition("\n")[0]: re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    for section in PAGE.split("\n## ")
    if "```json" in section
}


def test_every_kind_of_record_has_an_example():
    assert {title: len(found) for title, found in EXAMPLES.items()} == dict.fromkeys(MODELS, 1)


@pytest.mark.parametrize("title", MODELS)
def test_an_example_is_a_record_of_its_kind_with_every_member(title):
    record = json.loads(EXAMPLES[title][0])
    assert json.loads(MODELS[title].model_validate(record).model_dump_json()) == record
