"""Whether domains that say that they are silent have nothing to send to those that wait for them.

A domain that reports silence may be behind with its own input when its report is read: its worker was killed, or is
slow. So each silent group also says how far it had read (`Silence`), again whenever it has read more, and for whom it
does not wait. If after a moment all of them turn out to have read all that there is, nothing that came before that
moment can make them send: no event of theirs is older than what had been read here by then. (On proving by counts of
messages that a distributed computation is at rest: Mattern 1987, "Algorithms for distributed termination detection".)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from astrocyte.agents.accounting import DomainOutput
from astrocyte.agents.event_time.sources import Supposed
from astrocyte.schemas.topics import TopicPartition

if TYPE_CHECKING:
    from astrocyte.agents.domain import Domain

__all__ = ["Silence", "Waited", "prove", "read_by", "silences", "suppositions"]

Waited = tuple[str, str]
"""A topic, and the origin of what somebody waits for there."""


class Silence(NamedTuple):
    """A group of a domain that has reported that it is silent."""

    origin: str
    topics: tuple[str, ...]
    """Topics whose readers wait for it."""
    read: tuple[tuple[str, int, int], ...]
    """Topic, partition and offset before which it has processed everything: all that may make it send."""
    unawaited: tuple[Waited, ...]
    """For whom it does not wait, as these are silent, too."""


def silences(domain: Domain, read: Mapping[str, Sequence[tuple[str, int, int]]]) -> list[Silence]:
    """The silent groups of a domain; ``read`` says by topic how far the domain has come with it."""
    found = []
    for lane in domain.lanes:
        if lane.promises is not None and lane.promises.silent:
            places = sorted({place for topic in lane.topics for place in read.get(topic, ())})
            unawaited = sorted((source.topic, source.origin) for source in lane.watermarks.reported)
            topics = tuple(lane.promises.topics)
            found.append(Silence(lane.promises.origin, topics, tuple(places), tuple(unawaited)))
    return found


def read_by(waited: Iterable[Waited], known: Mapping[Waited, Silence]) -> dict[TopicPartition, int] | None:
    """How far all of these, and for whom they do not wait, have read; None where one has not said so."""
    found: dict[TopicPartition, int] = {}
    seen: set[Waited] = set()
    todo = [*waited]
    while todo:
        each = todo.pop()
        if each in seen:
            continue
        seen.add(each)
        if (silence := known.get(each)) is None:
            return None
        for topic, partition, offset in silence.read:
            place = TopicPartition(topic, partition)
            found[place] = min(found.get(place, offset), offset)
        todo += silence.unawaited
    return found


def suppositions(domain: Domain) -> dict[int, Supposed]:
    """By the number of the group: how far event time is in a domain once the silence of others is proven."""
    found = {number: lane.watermarks.suppose() for number, lane in enumerate(domain.lanes)}
    return {number: supposed for number, supposed in found.items() if supposed is not None}


def prove(domain: Domain, number: int, supposed: Supposed) -> DomainOutput:
    """What was supposed of a group is proven: event time goes on, unless one of the silent was heard of since."""
    output, lane = DomainOutput(), domain.lanes[number]
    if lane.watermarks.prove(supposed):
        domain.advance(lane, output)
    return output
