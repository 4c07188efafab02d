"""Offsets that are committed although no state, store or input goes with them: deleted, or not restored."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from astrocyte.agents.sinks.base import Positioned, Sink
from astrocyte.schemas.errors import AstrocyteError

__all__ = ["InputReset", "LostState", "SnapshotsLost", "refuse_reset", "report_empty_store", "report_reset"]

logger = logging.getLogger(__name__)


class SnapshotsLost(AstrocyteError):
    """A role would begin with an empty state behind input that counts as processed, so its results would be wrong."""


class InputReset(AstrocyteError):
    """A partition goes on before what a role has processed, so its new events would be taken for processed ones."""


@dataclass(frozen=True, slots=True)
class LostState:
    """What a role does where the states in ``topic`` are gone: refuse, or go on with an empty one and say so."""

    topic: str
    policy: Literal["refuse", "empty"] = "refuse"

    def found(self, what: str, committed: Mapping[str, int]) -> None:
        """``what`` has no state, and offsets of its topics are committed. Raises SnapshotsLost."""
        some = ", ".join(f"{topic} {offset}" for topic, offset in sorted(committed.items())[:3])
        more = f" and {len(committed) - 3} more" if len(committed) > 3 else ""
        if self.policy == "empty":
            logger.warning(
                "%s: no state in the topic %s goes with the committed offsets (%s%s); it goes on there with an empty "
                "state, as ASTROCYTE_LOST_STATE=empty says: matches and windows with earlier events are missing",
                what, self.topic, some, more,
            )  # fmt: skip
            return
        raise SnapshotsLost(
            f"{what}: offsets are committed ({some}{more}), and the topic {self.topic} holds no state that goes with "
            "them: it was deleted, made anew or not restored with the others. With an empty state, matches and windows "
            "with earlier events would be missing or wrong. Restore the topic; or delete the offsets of the consumer "
            "group, to process everything again; or start once with ASTROCYTE_LOST_STATE=empty, to go on from here "
            "(docs/operations.md, Lost snapshots)"
        )

    def damaged(self, what: str, reason: str) -> None:
        """The state of ``what`` is there and cannot be restored. Raises SnapshotsLost."""
        if self.policy == "empty":
            logger.warning(
                "%s: its state in the topic %s cannot be restored (%s); it goes on at the committed offsets with an "
                "empty state, as ASTROCYTE_LOST_STATE=empty says: matches and windows with earlier events are missing",
                what, self.topic, reason,
            )  # fmt: skip
            return
        raise SnapshotsLost(
            f"{what}: its state in the topic {self.topic} cannot be restored: {reason}. Restore the topic; or delete "
            "it and the offsets of the consumer group, to process everything again; or start once with "
            "ASTROCYTE_LOST_STATE=empty, to go on from here with an empty state (docs/operations.md, Lost snapshots)"
        )


def refuse_reset(place: tuple[str, int], expected: int, first: int) -> None:
    """A partition that a state belongs to goes on at ``first``, before ``expected``. Raises InputReset."""
    raise InputReset(
        f"{_begins_anew(place, expected, first)}. This role has taken all before {expected}, so new events "
        "would be taken for old ones. Restore the topic; or start the roles with another ASTROCYTE_GROUP, and without "
        "the topics keyed.* where the topic is copied, to process all that is there (docs/operations.md, Lost topics)"
    )


def report_reset(place: tuple[str, int], expected: int, first: int) -> None:
    """The same for a role without a state: it reads what is there, and says so."""
    logger.warning("%s: all that is there now is read", _begins_anew(place, expected, first))


def _begins_anew(place: tuple[str, int], expected: int, first: int) -> str:
    return (
        f"{place[0]}[{place[1]}]: offset {expected} was to be read next, and the partition goes on at {first}: its "
        "topic was deleted and made anew, or has lost its end"
    )


async def report_empty_store(sink: Sink, role: str, group: str, committed: Mapping[Any, int | None]) -> None:
    """Say that rows are missing where the group has read topics and the store holds nothing of this sink."""
    done = {tp: offset for tp, offset in committed.items() if offset}
    if done and isinstance(sink, Positioned) and await sink.holds_nothing():
        logger.warning(
            "%s: the group %s has read %s partitions up to offsets such as %s of %s[%s], and the store holds nothing "
            "of this sink: it is new or was emptied, and lacks these rows. To write them again, as far as topics hold "
            "them, stop the role and delete the group %s (docs/operations.md, Lost files and databases)",
            role, group, len(done), *next((offset, *tp) for tp, offset in sorted(done.items())), group,
        )  # fmt: skip
