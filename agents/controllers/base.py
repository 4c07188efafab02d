"""The contract of a controller, and the registry: from metrics and scores to commands on ``control.<name>``.

::

    @register_controller("thermostat", stream="room_stats")     # the results of a window of that name
    def thermostat(frame):
        for row in frame.rows():
            if row["final"] and row["mean"] > 24:
                yield {"heating": 0.0}                          # one command with these values

A controller with state is a subclass of `Controller`. Commands hold absolute values, so that repeating one after a
crash has no effect.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, ClassVar, Final, Literal

import orjson

from astrocyte.schemas.errors import InvalidSettings, PluginError, plugin_raised, shown_object, wrong_return
from astrocyte.schemas.events import ControlEvent
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.registry import Registry, described, takes
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import metrics_topic, mono_topic

__all__ = [
    "CONTROLLERS",
    "Controller",
    "check_made",
    "dumped",
    "function_controller",
    "name_of",
    "register_controller",
    "stepped",
]


class Controller(ABC):
    """A pure step function over frames. All state is passed to `step`; no clock is read.

    ``stream`` is its input. It is registered under the name of its control, to which all its commands go.
    """

    stream: str
    source: ClassVar[Literal["window", "stream"]] = "window"
    """Whether ``stream`` is a window, whose results it reads, or a stream of mono events."""

    @property
    def topic(self) -> str:
        """The topic that it reads."""
        return metrics_topic(self.stream) if self.source == "window" else mono_topic(self.stream)

    def initial(self) -> Any:
        """State before the first frame; a value that can be compared with ``==``."""
        return None

    @abstractmethod
    def step(self, state: Any, frame: Frame) -> tuple[Any, list[ControlEvent]]:
        """Next state and commands. Rows that were processed before (repeated after a crash) should have no effect."""

    def command(self, control: str, frame: Frame, values: Mapping[str, Any]) -> ControlEvent:
        """A command for the run of the frame, at the time of its newest row."""
        at = iso_from_us(int(frame.timestamps().max()))
        return ControlEvent(control=control, timestamp=at, run=frame.run, values=dict(values))

    def dump(self, state: Any) -> bytes:
        """Serialise the state; JSON by default."""
        return orjson.dumps(state)

    def load(self, data: bytes) -> Any:
        """The state that `dump` serialised."""
        return orjson.loads(data)


@dataclass(frozen=True, slots=True)
class _Function(Controller):
    """A controller without state, from a function of a frame."""

    definition: Callable[[Frame], Iterable[Mapping[str, Any]] | None]
    name: str
    stream: str
    reads: Literal["window", "stream"]

    @property
    def topic(self) -> str:
        return metrics_topic(self.stream) if self.reads == "window" else mono_topic(self.stream)

    def step(self, state: Any, frame: Frame) -> tuple[Any, list[ControlEvent]]:
        if frame.stream != self.stream or not frame.num_rows:
            return state, []
        found = self.definition(frame)
        expected = "the values of its commands (mappings), returned as a list or yielded"
        if isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable | None):
            raise wrong_return(f"controller {self.name!r}", found, expected)
        commands = []
        for values in found or ():
            if not isinstance(values, Mapping):
                raise wrong_return(f"controller {self.name!r}", values, f"{expected}; this is one of them")
            commands.append(self.command(self.name, frame, values))
        return state, commands


def function_controller(definition: Callable[[Frame], Any], stream: str) -> Controller:
    """The controller that a function of a frame is when it is registered for the window ``stream``."""
    return _Function(definition, name_of(definition), stream, "window")


def name_of(controller: object) -> str:
    """What errors call a controller, its class or its function: its registered name, else that of the definition."""
    for name, made in CONTROLLERS.items():
        if isinstance(made, _Function):
            if controller is made or controller is made.definition:
                return name
        elif type(made) in (controller, type(controller)):
            return name
    kind = controller if isinstance(controller, FunctionType | type) else type(controller)
    return str(getattr(controller, "name", kind.__name__))


def check_made(name: str, controller: Controller) -> None:
    """Raise PluginError for a controller without an input."""
    if not isinstance(getattr(controller, "stream", None), str):
        raise PluginError(
            f"controller {name!r}: {type(controller).__name__} has no stream; set stream = '...' in the class, the "
            "window (or, with source = 'stream', the stream) that it reads"
        )


def dumped(name: str, controller: Controller, state: Any) -> bytes:
    """A state as `Controller.dump` serialises it. Raises PluginError for one that it cannot."""
    try:
        found = controller.dump(state)
    except Exception as error:
        raise plugin_raised(f"dump() of controller {name!r}, for the state {shown_object(state)},", error) from error
    if not isinstance(found, bytes):
        raise wrong_return(f"dump() of controller {name!r}", found, "bytes")
    return found


def stepped(name: str, controller: Controller, state: Any, frame: Frame) -> tuple[Any, list[ControlEvent]]:
    """State and commands of one step. Raises PluginError where the controller returns anything else."""
    found = controller.step(state, frame)
    if not isinstance(found, tuple) or len(found) != 2:
        raise wrong_return(f"controller {name!r}", found, "the next state and a list of commands, (state, [...])")
    after, commands = found
    if isinstance(commands, str | bytes | Mapping) or not isinstance(commands, Iterable):
        raise wrong_return(f"controller {name!r}", commands, "a list of commands beside the next state")
    commands = list(commands)
    for command in commands:
        if not isinstance(command, ControlEvent):
            raise wrong_return(
                f"controller {name!r}", command, "commands that self.command(control, frame, values) makes"
            )
    return after, commands


def _check(name: str, made: Controller) -> None:
    stream = getattr(made, "stream", None)
    if not isinstance(stream, str) or not stream:
        raise InvalidSettings(
            f"controller {name!r}: stream is {stream!r}; expected the name of the window or stream that it reads"
        )
    source = made.reads if isinstance(made, _Function) else made.source
    if source not in ("window", "stream"):
        raise InvalidSettings(f"controller {name!r}: source is {source!r}; expected window or stream")
    if isinstance(made, _Function) and not takes(made.definition, 1):
        raise InvalidSettings(f"controller {name!r}: expected a function of a frame, got {described(made.definition)}")


CONTROLLERS: Final[Registry[Controller]] = Registry(
    "controller",
    group="astrocyte.controllers",
    shipped={
        "difficulty": "astrocyte.agents.controllers.difficulty:DifficultyController",
        "ga": "astrocyte.agents.controllers.genetic:GeneticController",
    },
    of=Controller,
    check=_check,
)
"""Controllers by the name of their control."""


def register_controller(
    name: str,
    controller: Controller | type[Controller] | Callable[[Frame], Any] | None = None,
    *,
    stream: str | None = None,
    source: Literal["window", "stream"] = "window",
) -> Any:
    """Register a controller for the role ``control``; its commands go to ``control.<name>``. Without one a decorator.

    A function of a frame returns or yields the values of its commands as mappings; ``stream`` is then the window (or,
    with ``source="stream"``, the stream) that it reads. Raises InvalidSettings.
    """

    def add(given: Any) -> Any:
        if isinstance(given, Controller) or (isinstance(given, type) and issubclass(given, Controller)):
            CONTROLLERS.register(name, given)
            return given
        if not callable(given) or stream is None:
            raise InvalidSettings(
                f"controller {name!r} is a {type(given).__name__}; expected a Controller, or a function and stream=..."
            )
        CONTROLLERS.register(name, _Function(given, name, stream, source))
        return given

    return add if controller is None else add(controller)
