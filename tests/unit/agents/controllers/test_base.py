"""Your own controllers: classes with state, functions without, and the role that runs them."""

import re
from typing import Any

import numpy as np
import orjson
import pytest

from astrocyte import Controller, Frame, encode_frame, register_controller
from astrocyte.agents.controllers import base
from astrocyte.agents.controllers.base import CONTROLLERS
from astrocyte.pipeline.roles.control import ControlRunner
from astrocyte.schemas.errors import InvalidSettings, PluginError
from astrocyte.schemas.events import ControlEvent
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.registry import Registry
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
    with pytest.raises(PluginError, match=reason):
        run(ControlRunner("state", {"mine": Counter()}), 0)


def test_check_controller_finds_a_state_that_does_not_survive():
    assert len(check_controller(Counter(), [frame(), frame()])) == 2
    with pytest.raises(AssertionError, match="check dump and load"):
        check_controller(Forgetful(), [frame()])


def test_an_object_that_is_not_a_controller_is_refused():
    with pytest.raises(InvalidSettings, match="expected a Controller, or a function and stream"):
        register_controller("test_nothing", cool)


class Wrong(Controller):
    """Returns ``found`` from each step."""

    stream = "room_stats"
    found: Any = None

    def step(self, state: Any, frame: Frame) -> Any:
        return self.found


class InPlace(Counter):
    """Counts in the state that it is given."""

    def step(self, state: Any, frame: Frame) -> tuple[Any, list[ControlEvent]]:
        state["rows"] = 5
        return state, []


class Appends(InPlace):
    """Adds to a list in its state, and returns the same object."""

    def initial(self) -> Any:
        return {"rows": []}

    def step(self, state: Any, frame: Frame) -> tuple[Any, list[ControlEvent]]:
        state["rows"].append(1)
        return state, []


class NoStream(Controller):
    """Says not what it reads."""

    def step(self, state: Any, frame: Frame) -> tuple[Any, list[ControlEvent]]:
        return state, []


@pytest.mark.parametrize("kind", [InPlace, Appends])
def test_check_controller_finds_a_state_that_is_changed_in_place(kind: Any):
    with pytest.raises(AssertionError, match=r"changed its state in place, from .* it must return a new one"):
        check_controller(kind(), [frame()])


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, r"controller 'Wrong' returned None; expected the next state and a list of commands"),
        ({}, r"returned {} of type dict; expected the next state"),
        (({}, {"open": 1.0}), r"returned {'open': 1.0} of type dict; expected a list of commands"),
        (({}, [{"open": 1.0}]), r"returned {'open': 1.0} of type dict; expected commands that self.command"),
        (({}, None), r"returned None; expected a list of commands beside the next state"),
    ],
)
def test_what_a_step_may_not_return_is_named_by_the_check_and_is_a_dead_letter_in_the_role(found: Any, message: str):
    wrong = Wrong()
    wrong.found = found
    with pytest.raises(AssertionError, match=message):
        check_controller(wrong, [frame()])
    letters = run(ControlRunner("state", {"Wrong": wrong}), 0)
    assert [(topic, letter["stage"], letter["row"]) for topic, letter in letters] == [
        ("dead_letters", "control", 0),
        ("dead_letters", "control", 1),
    ]
    assert all(re.search(message, letter["reason"]) for _, letter in letters)


def test_a_controller_without_an_input_is_named_before_anything_is_read():
    with pytest.raises(AssertionError, match="controller 'NoStream': NoStream has no stream; set stream = "):
        check_controller(NoStream(), [frame()])
    with pytest.raises(PluginError, match="controller 'mine': NoStream has no stream"):
        ControlRunner("state", {"mine": NoStream()})


def test_the_check_names_a_controller_as_it_is_registered(monkeypatch: pytest.MonkeyPatch):
    registry = Registry("controller", group="no.such.group", of=Controller)
    monkeypatch.setattr(base, "CONTROLLERS", registry)
    vent = register_controller("vent", lambda _frame: 5, stream="room_stats")
    register_controller("heating", Wrong)
    for controller, name in ((vent, "vent"), (Wrong, "heating"), (Wrong(), "heating")):
        with pytest.raises(AssertionError, match=f"controller '{name}' returned"):
            check_controller(controller, [frame()])


def test_check_controller_finds_a_value_that_is_no_number():
    with pytest.raises(
        AssertionError, match=r"a command has the values {'heating': nan}; expected finite numbers, text"
    ):
        check_controller(lambda _frame: [{"heating": float("nan")}], [frame()])


class NotJson(Controller):
    """Its state holds a set, which JSON does not."""

    stream = "room_stats"

    def step(self, state: Any, frame: Frame) -> tuple[Any, list[ControlEvent]]:
        return {"seen": {1}}, []


def test_a_state_that_cannot_be_stored_is_named_by_the_check_and_in_the_role():
    message = r"dump\(\) of controller '{}', for the state {{'seen': \{{1\}}}}, raised TypeError: Type is not JSON"
    with pytest.raises(AssertionError, match=message.format("NotJson")):
        check_controller(NotJson(), [frame()])
    with pytest.raises(PluginError, match=message.format("mine")):
        run(ControlRunner("state", {"mine": NotJson()}), 0)


def test_check_controller_takes_a_function_and_a_class():
    assert [command.values for command in check_controller(cool, [frame()])] == [{"heating": 0.0}]
    assert len(check_controller(Counter, [frame()])) == 1


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (5, "controller 'returns' returned 5 of type int; expected the values of its commands"),
        ({"open": 1.0}, r"returned {'open': 1.0} of type dict; expected the values of its commands \(mappings\)"),
        ([1.0], "returned 1.0 of type float; .* this is one of them"),
    ],
)
def test_a_function_that_returns_no_values_of_commands_is_named(found: Any, message: str):
    def returns(_frame: Frame) -> Any:
        return found

    with pytest.raises(AssertionError, match=message):
        check_controller(returns, [frame()])
