"""Your own controllers: classes with state, functions without, and the role that runs them."""

from typing import Any

import numpy as np
import orjson
import pytest

from astrocyte import Controller, Frame, encode_frame, register_controller
from astrocyte.agents.controllers.base import CONTROLLERS
from astrocyte.pipeline.roles.control import ControlRunner
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.events import ControlEvent
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.testing import check_controller


class Counter(Controller):
    """Reports how many rows it has seen."""

    stream = "room_stats"

    def initial(self) -> Any:
        return {"rows": 0}

    def step(self, state: Any, frame: Frame) -> tuple[Any, list[ControlEvent]]:
        state = {"rows": state["rows"] + frame.num_rows}
        return state, [ControlEvent(control="test_counter", timestamp="1970-01-01T00:00:01Z", values=state)]


class Forgetful(Counter):
    """Stores only part of its state."""

    def load(self, data: bytes) -> Any:
        return {"rows": 0}


def frame(rows: int = 2) -> Frame:
    columns = {"timestamp": np.arange(rows) + 1_000_000, "key": ["k"] * rows, "mean": np.full(rows, 25.0)}
    return Frame.from_columns("room_stats", "run-1", columns)


def cool(found: Frame) -> Any:
    return [{"heating": 0.0} for row in found.rows() if row["mean"] > 24][:1]


def run(runner: ControlRunner, offset: int) -> list[tuple[str, Any]]:
    records = [RawRecord(offset, 0, None, encode_frame(frame()))]
    return [(each.topic, orjson.loads(each.value)) for each in runner.step("metrics.room_stats", 0, records)]


def test_a_registered_class_is_run_with_its_state_and_continues_from_the_stored_one():
    runner = ControlRunner("state", {"test_counter": Counter()})
    assert runner.topics == ["metrics.room_stats"]
    assert runner.outputs == ["control.test_counter"]
    (_, command), (_, state) = run(runner, 0)
    assert (command["values"], state) == ({"rows": 2}, {"rows": 2})
    other = ControlRunner("state", {"test_counter": Counter()})
    other.remember(b"test_counter/0", orjson.dumps(state))
    assert run(other, 1)[0][1]["values"] == {"rows": 4}


def test_a_function_gives_values_and_they_become_commands_of_its_name():
    register_controller("test_cooler", cool, stream="room_stats")
    controller = CONTROLLERS.get("test_cooler")
    (command,) = check_controller(controller, [frame()])
    assert (command.control, command.run, command.values) == ("test_cooler", "run-1", {"heating": 0.0})
    assert [topic for topic, _ in run(ControlRunner("state", {"test_cooler": controller}), 0)] == [
        "control.test_cooler"
    ]


def test_a_command_of_another_control_is_an_error():
    reason = "'mine': expected commands of its own control, got one of 'test_counter'"
    with pytest.raises(InvalidSettings, match=reason):
        run(ControlRunner("state", {"mine": Counter()}), 0)


def test_check_controller_finds_a_state_that_does_not_survive():
    assert len(check_controller(Counter(), [frame(), frame()])) == 2
    with pytest.raises(AssertionError, match="check dump and load"):
        check_controller(Forgetful(), [frame()])


def test_an_object_that_is_not_a_controller_is_refused():
    with pytest.raises(InvalidSettings, match="expected a Controller, or a function and stream"):
        register_controller("test_nothing", cool)
