"""The control role: controllers that read metrics and scores, and write ``control.<name>`` topics.

The state of a controller (such as an elite pool or a baseline) is a message in a compacted topic, written together
with the commands that resulted, before the input is acknowledged. Controllers skip rows that they have seen.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astrocyte.agents.controllers.base import CONTROLLERS, Controller, check_made, dumped, stepped
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.faults import apart, reason_of
from astrocyte.agents.ingest.letters import row_letter
from astrocyte.agents.ingest.unused.counts import Unused
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.pipeline.roles.acceptance import EVERYTHING, Acceptance
from astrocyte.pipeline.roles.output_records import letter_record
from astrocyte.pipeline.roles.refusals import LetterLimit
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import PluginError
from astrocyte.schemas.events import ControlEvent, DeadLetter
from astrocyte.schemas.json.reader import KafkaRecord
from astrocyte.schemas.topics import control_topic

__all__ = ["ControlRunner"]

logger = logging.getLogger(__name__)


class ControlRunner:
    """All controllers of one worker; each partition of an input has a state of its own.

    ``partitions`` is the number of those of the dead letters; by default they are those of the inputs. Raises
    PluginError for a controller that names no input.
    """

    def __init__(
        self,
        state_topic: str,
        controllers: Mapping[str, Controller] | None = None,
        *,
        partitions: int | None = None,
        limit: LetterLimit | None = None,
        acceptance: Acceptance = EVERYTHING,
    ) -> None:
        self.acceptance = acceptance
        """What is refused from the next chunk on."""
        self._partitions = partitions
        self.unused = Unused()
        """Dead letters: rows on which a controller raised, and messages that cannot be read."""
        self._limit = limit or LetterLimit("control", 1.0)
        self._counted = (0, 0)
        self._state_topic = state_topic
        self._controllers = dict(CONTROLLERS.items()) if controllers is None else dict(controllers)
        for name, controller in self._controllers.items():
            check_made(name, controller)
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
            try:
                self._states[key] = self._controllers[name].load(value)
            except Exception as error:  # noqa: BLE001  a method of the user's, over what an earlier version wrote
                logger.error("controller %r begins anew: its state cannot be read: %s", name, error)
                reason_of(f"loading the state of controller {name!r}", error)

    def step(self, topic: str, partition: int, records: Sequence[KafkaRecord]) -> list[ProducerRecord]:
        """Commands that result from a chunk, and the new states; dead letters of rows on which a controller raises.

        Raises PluginError for a command of another control than the controller's own, and for a state that cannot be
        stored.
        """
        frames, letters = decode_chunk(topic, partition, records)
        accepted = self.acceptance.accept(frames)
        frames = [item for item in accepted.items if isinstance(item, SourcedFrame)]
        letters = letters + accepted.letters
        for letter in accepted.refused:
            self.unused.add_letter(letter)
        out: list[ProducerRecord] = []
        for name, controller in self._controllers.items():
            if controller.topic != topic:
                continue
            key = f"{name}/{partition}".encode()
            state = before = self._states[key] if key in self._states else controller.initial()
            for item in frames:
                state, commands = _stepped(name, controller, state, item, letters)
                for command in commands:
                    if command.control != name:
                        raise PluginError(
                            f"controller {name!r}: expected commands of its own control, got one of {command.control!r}"
                        )
                    body = command.model_dump_json().encode()
                    out.append(ProducerRecord(control_topic(name), body, (command.run or "").encode(), 0))
            if state != before:
                self._states[key] = state
                out.append(ProducerRecord(self._state_topic, dumped(name, controller, state), key, 0))
        for letter in letters:
            self.unused.add_letter(letter)
        rows = sum(item.frame.num_rows for item in frames)
        self._counted = (rows + len(letters), len(letters))
        to = partition if self._partitions is None else partition % self._partitions
        return out + [letter_record(letter, to) for letter in letters]

    def check_limit(self) -> None:
        """Raises TooManyDeadLetters if the last steps made too many."""
        self._limit.count(*self._counted)


def _stepped(
    name: str, controller: Controller, state: Any, sourced: SourcedFrame, letters: list[DeadLetter]
) -> tuple[Any, list[ControlEvent]]:
    """State and commands after one frame. A row on which the controller raises is a dead letter and changes nothing.

    A controller returns its new state and leaves the old one as it was, so a step that raised can be repeated in parts.
    """
    frame = sourced.frame
    commands: list[ControlEvent] = []

    def attempt(first: int, last: int) -> None:
        nonlocal state
        part = frame if last - first == frame.num_rows else frame.take(np.arange(first, last))
        state, found = stepped(name, controller, state, part)
        commands.extend(found)

    def refuse(row: int, error: Exception) -> None:
        reason = reason_of(f"controller {name!r}", error)
        if frame.num_rows:
            letters.append(row_letter(sourced, row, reason=reason, stage="control", catalog=CATALOG))

    apart(frame.num_rows, attempt, refuse)
    return state, commands
