"""Sources of a page: what they say of themselves, and what is there before the damage of a log."""

from pathlib import Path

import pytest

from astrocyte.pipeline.page.content.state import PageState
from astrocyte.pipeline.page.sources.broker import BrokerSource
from astrocyte.pipeline.page.sources.log import LogSource
from astrocyte.pipeline.settings import load_settings
from astrocyte.schemas.errors import AstrocyteError
from tests.support.logs import write_log
from tests.support.world_log import world_messages

COMMAND = "astrocyte simulate cells --seconds 60 --realtime"


@pytest.mark.parametrize(("broker", "named"), [("127.0.0.1:9092", ""), ("127.0.0.1:4711", " -b 127.0.0.1:4711")])
def test_the_hint_of_an_empty_broker_sends_events_to_it(broker, named):
    about = BrokerSource(load_settings(broker=broker)).about()
    assert (about["start"], about["again"]) == (COMMAND + named, f"astrocyte page{named}")


def test_a_demo_starts_its_world_itself_and_its_data_are_opened_by_their_folder():
    about = BrokerSource(load_settings(broker="127.0.0.1:4711"), demo=Path("my cells")).about()
    assert (about["demo"], about["again"]) == (True, "astrocyte page 'my cells'")
    assert "start" not in about


class Reader:
    """Takes what a source gives."""

    def __init__(self):
        self.state = PageState()

    async def take(self, change):
        change(self.state)


async def test_what_is_before_the_damage_of_a_log_is_shown(tmp_path):
    log = write_log(tmp_path / "events.jsonl", world_messages()[:60], partitions=1)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:51], b'{"topic": 5}\n', *lines[51:]]))
    reader = Reader()
    with pytest.raises(AstrocyteError):
        await LogSource(log).feed(reader)
    assert reader.state.read == 50
    assert len(reader.state.runs) == 1
