"""What junctions joined at an instant, by the decisions of the topic `TOPOLOGY` or of a run of the rules over files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.inputs import Inputs
from astrocyte.pipeline.analysis.offline import OfflineRun
from astrocyte.pipeline.kafka.client import consumer_client, scan
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.times import us_from_iso
from astrocyte.schemas.topics import TOPOLOGY

__all__ = ["KINDS", "JoinedPair", "JunctionState", "decisions_of_broker", "decisions_of_files", "states_at"]

KINDS: Final = ("formed", "dissolved")
"""Of the records of the topic, those that are decisions on junctions."""

Decision = Mapping[str, Any]
"""The body of a record of the topic `TOPOLOGY`."""


class JoinedPair(NamedTuple):
    """Two domains that a junction joins."""

    sender: str
    receiver: str
    since: str
    """Event time, ISO 8601."""
    co_activity: int
    """That with which it formed."""


@dataclass(slots=True)
class JunctionState:
    """The pairs of domains that a junction joins at an instant, in order, and how often it formed and dissolved."""

    joined: list[JoinedPair] = field(default_factory=list)
    formed: int = 0
    dissolved: int = 0


def states_at(decisions: Iterable[Decision], at_us: int | None) -> dict[str, JunctionState]:
    """By junction: its state at an event time, or after all of the decisions.

    They may come in any order, and several times, as a worker that was killed writes them again.
    """
    known = {str(each["decision_id"]): each for each in decisions if each["kind"] in KINDS}
    states: dict[str, JunctionState] = {}
    pairs: dict[str, dict[tuple[str, str], JoinedPair]] = {}
    for time_us, each in sorted(((us_from_iso(each["timestamp"]), each) for each in known.values()), key=_time):
        if at_us is not None and time_us > at_us:
            continue
        name, pair = str(each["junction"]), (str(each["from"]), str(each["to"]))
        state, joined = states.setdefault(name, JunctionState()), pairs.setdefault(name, {})
        if each["kind"] == "formed":
            state.formed += 1
            joined[pair] = JoinedPair(*pair, each["timestamp"], int(each["co_activity"]))
        else:
            state.dissolved += 1
            joined.pop(pair, None)
    for name, state in states.items():
        state.joined = sorted(pairs[name].values())
    return states


def _time(timed: tuple[int, Decision]) -> int:
    return timed[0]


async def decisions_of_broker(broker: str, there: Mapping[str, int]) -> list[Decision]:
    """All decisions of the topic; none where the broker, which has the topics ``there``, does not have it."""
    if TOPOLOGY not in there:
        return []
    async with consumer_client(broker) as client:
        return [body async for records in scan(client, {TOPOLOGY: there[TOPOLOGY]}) for body in _bodies(records)]


def decisions_of_files(
    ruleset: RuleSet, paths: Sequence[str | Path], *, lateness_us: int, clock_tolerance_us: int, domains: int | None
) -> Iterator[Decision]:
    """Those that a recorded log holds, else those that the rules make of the events. Raises InvalidLog, InvalidRule."""
    inputs = Inputs(ruleset, paths, domains=domains)
    if TOPOLOGY in inputs.found.partitions:
        yield from _bodies(record for record in inputs.records() if record.topic == TOPOLOGY)
        return
    run = OfflineRun(ruleset, inputs, lateness_us=lateness_us, clock_tolerance_us=clock_tolerance_us)
    for output in run.run(inputs.records()):
        yield from (orjson.loads(record.value) for record in output.topology)


def _bodies(records: Iterable[ConsumedRecord]) -> Iterator[Decision]:
    for record in records:
        try:
            yield orjson.loads(record.value or b"")
        except orjson.JSONDecodeError as error:
            place = f"{record.topic}[{record.partition}]@{record.offset}"
            raise AstrocyteError(f"{place} is no decision on a junction, but {str(error)[:100]}") from None
