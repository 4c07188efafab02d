"""The control role: controllers that read metrics and scores, and write ``control.<name>`` topics.

The state of a controller (such as an elite pool or a baseline) is a message in a compacted topic, written together
with the commands that resulted, before the input is acknowledged. Controllers skip rows that they have seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astrocyte.agents.controllers.base import CONTROLLERS, Controller
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.json.reader import KafkaRecord
from astrocyte.schemas.topics import control_topic

__all__ = ["ControlRunner"]


class ControlRunner:
    """All controllers of one worker; each partition of an input has a state of its own."""

    def __init__(self, state_topic: str, controllers: Mapping[str, Controller] | None = None) -> None:
        self._state_topic = state_topic
        self._controllers = dict(CONTROLLERS.items()) if controllers is None else dict(controllers)
        self._states: dict[bytes, Any] = {}

    @property
    def topics(self) -> list[str]:
        """Topics that the controllers read."""
        return sorted({controller.topic for controller in self._controllers.values()})

    @property
    def outputs(self) -> list[str]:
        """Topics that the controllers write."""
        return [control_topic(name) for name in self._controllers]

    def forget(self) -> None:
        """Drop all states after a rebalance; `remember` restores the stored ones."""
        self._states.clear()

    def remember(self, key: bytes | None, value: bytes | None) -> None:
        """Restore the state in one message of the state topic."""
        name = (key or b"").decode(errors="replace").partition("/")[0]
        if key is not None and value is not None and name in self._controllers:
            self._states[key] = self._controllers[name].load(value)

    def step(self, topic: str, partition: int, records: Sequence[KafkaRecord]) -> list[ProducerRecord]:
        """Commands that result from a chunk, and the new states.

        Raises InvalidSettings for a command of another control than the controller's own.
        """
        frames, _ = decode_chunk(topic, partition, records)
        out: list[ProducerRecord] = []
        for name, controller in self._controllers.items():
            if controller.topic != topic:
                continue
            key = f"{name}/{partition}".encode()
            state = before = self._states[key] if key in self._states else controller.initial()
            for item in frames:
                state, commands = controller.step(state, item.frame)
                for command in commands:
                    if command.control != name:
                        raise InvalidSettings(
                            f"controller {name!r}: expected commands of its own control, got one of {command.control!r}"
                        )
                    body = command.model_dump_json().encode()
                    out.append(ProducerRecord(control_topic(name), body, (command.run or "").encode(), 0))
            if state != before:
                self._states[key] = state
                out.append(ProducerRecord(self._state_topic, controller.dump(state), key, 0))
        return out
