"""Control messages of a run and the ticks from which they apply, so that a replay is identical."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from astrocyte.schemas.errors import AstrocyteError
from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.event_spec import HostRow
from astrocyte.simulator.scenario import Scenario

__all__ = ["CONTROLS_STREAM", "Control", "ControlSource", "Plan"]

CONTROLS_STREAM = "simulation_controls"
"""Stream of all control messages: applied ones with the tick from which they apply, refused ones with the reason."""


@dataclass(frozen=True, slots=True)
class Control:
    """A message of ``control.<name>`` that applies from ``tick`` on; ``error`` is the reason if it was refused."""

    tick: int
    name: str
    message: Mapping[str, Any]
    error: str | None = None

    def row(self) -> HostRow:
        """Its record in the `CONTROLS_STREAM`."""
        values = {
            "tick": self.tick,
            "control": self.name,
            "message": _text(self.message),
            "error": self.error,
        }
        return HostRow(CONTROLS_STREAM, self.tick, "refused" if self.error else "applied", values)


ControlSource = Callable[[], Iterable[tuple[str, Any]]]
"""Returns the (name, message) pairs received since the last call; must not block."""


class Plan:
    """The params of each tick: those of the config, changed by controls.

    ``scheduled`` controls apply from their own tick. Messages of ``source`` apply from the next chunk's first tick,
    which is recorded: scheduling the recorded controls repeats the run. A refused message changes nothing.
    """

    def __init__(
        self,
        scenario: Scenario,
        config: ScenarioConfig,
        *,
        scheduled: Sequence[Control] = (),
        source: ControlSource | None = None,
        on_refused: Callable[[Control], None] | None = None,
    ) -> None:
        self._scenario, self._config, self._source, self._on_refused = scenario, config, source, on_refused
        self._horizon = -1
        self._ticks = [0]
        self._params: list[Any] = [scenario.params(config)]
        self.controls: list[Control] = []
        """All controls so far, refused ones included, by tick."""
        for control in sorted(scheduled, key=lambda entry: entry.tick):
            self._take(control.tick, control.name, control.message)

    def params(self, tick: int) -> Any:
        """Params from ``tick`` on. Reads the source when the run reaches a tick for the first time."""
        if tick > self._horizon:
            self._horizon = tick
            for name, message in self._source() if self._source else ():
                self._take(tick, name, message)
        return self._params[bisect_right(self._ticks, tick) - 1]

    def stop(self, tick: int) -> int:
        """The next tick after ``tick`` at which params are known to change."""
        after = bisect_right(self._ticks, tick)
        return self._ticks[after] if after < len(self._ticks) else 2**62

    def _take(self, tick: int, name: str, message: Any) -> None:
        at = bisect_right(self._ticks, tick)
        try:
            if not isinstance(message, Mapping):
                raise AstrocyteError(f"expected a JSON object, got {type(message).__name__}")
            changed = self._scenario.control(self._config, self._params[at - 1], name, message)
        except Exception as error:  # noqa: BLE001  a message of another program must not end the run
            kept = message if isinstance(message, Mapping) else {"value": message}
            cause = str(error) if isinstance(error, AstrocyteError) else f"{type(error).__name__}: {error}"
            self._record(Control(tick, name, kept, f"control.{name} at tick {tick} refused: {cause}"))
            return
        self._record(Control(tick, name, dict(message)))
        self._ticks.insert(at, tick)
        self._params.insert(at, changed)
        # Params of later scheduled controls were computed without this one: compute them again, in order.
        if at + 1 < len(self._ticks):
            self._replay(at)

    def _replay(self, at: int) -> None:
        accepted = [control for control in self.controls if control.error is None]
        accepted.sort(key=lambda control: control.tick)
        for number, control in enumerate(accepted, 1):
            if number > at:
                before = self._params[number - 1]
                self._params[number] = self._scenario.control(self._config, before, control.name, control.message)

    def _record(self, control: Control) -> None:
        ticks = [known.tick for known in self.controls]
        self.controls.insert(bisect_right(ticks, control.tick), control)
        if control.error and self._on_refused is not None:
            self._on_refused(control)


def _text(message: Mapping[str, Any]) -> str:
    return json.dumps(message, sort_keys=True, default=repr)
