"""The control role: controllers that read metrics and scores, and write ``control.<name>`` topics.

A controller's long memory (an elite pool, a baseline) is a message in a compacted topic, written together with the
wishes that it led to, and before the input is acknowledged. Controllers pass over rows that they have seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from astrocyte.agents.controllers.controllers import (
    DifficultyController,
    DifficultyState,
    GeneticController,
    GeneticState,
)
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.pipeline.transport.producer import Outgoing
from astrocyte.schemas.events import ControlEvent
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import KafkaRecord
from astrocyte.schemas.topics import control_topic, metrics_topic, mono_topic

__all__ = ["CONTROLLERS", "ControlRunner", "Controller"]


class Controller(Protocol):
    """A pure step over frames (`agents.controllers.controllers`)."""

    def step(self, state: Any, frame: Frame) -> tuple[Any, list[ControlEvent]]:
        """Next state and wishes."""


@dataclass(frozen=True, slots=True)
class Wired:
    """A controller, the topic it reads and how its state is read back."""

    controller: Controller
    topic: str
    initial: Any
    from_bytes: Any


_DIFFICULTY: Final = DifficultyController()
_GENETIC: Final = GeneticController()
CONTROLLERS: Final[Mapping[str, Wired]] = {
    "difficulty": Wired(_DIFFICULTY, metrics_topic(_DIFFICULTY.stream), DifficultyState(), DifficultyState.from_bytes),
    "ga": Wired(_GENETIC, mono_topic(_GENETIC.stream), GeneticState(), GeneticState.from_bytes),
}
"""The shipped controllers by the name of their control."""


class ControlRunner:
    """All controllers of one worker; each partition of an input has a state of its own."""

    def __init__(self, state_topic: str) -> None:
        self._state_topic = state_topic
        self._states: dict[bytes, Any] = {}

    def forget(self) -> None:
        """Drop all states, because partitions have moved; `remember` brings back those that are kept."""
        self._states.clear()

    def remember(self, key: bytes | None, value: bytes | None) -> None:
        """Take over one message of the state topic."""
        name = (key or b"").decode(errors="replace").partition("/")[0]
        if key is not None and value is not None and name in CONTROLLERS:
            self._states[key] = CONTROLLERS[name].from_bytes(value)

    def step(self, topic: str, partition: int, records: Sequence[KafkaRecord]) -> list[Outgoing]:
        """Wishes that a chunk leads to, and the states after it."""
        frames, _ = decode_chunk(topic, partition, records)
        out: list[Outgoing] = []
        for name, wired in CONTROLLERS.items():
            if wired.topic != topic:
                continue
            key = f"{name}/{partition}".encode()
            state = before = self._states.get(key, wired.initial)
            for item in frames:
                state, wishes = wired.controller.step(state, item.frame)
                out += [
                    Outgoing(control_topic(wish.control), wish.model_dump_json().encode(), (wish.run or "").encode(), 0)
                    for wish in wishes
                ]
            if state != before:
                self._states[key] = state
                out.append(Outgoing(self._state_topic, state.to_bytes(), key, 0))
        return out
