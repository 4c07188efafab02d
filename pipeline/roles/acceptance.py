"""What validators refuse is refused for every role: no store holds it, and no controller acts upon it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from astrocyte.agents.ingest.letters import row_letter
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.ingest.validate_rows import validate_rows
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.sinks.base import Sourced, SourcedFrame
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.events import DeadLetter

__all__ = ["EVERYTHING", "Acceptance", "Accepted"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """Items without the refused rows, and the dead letters of these."""

    items: list[Sourced] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    """Of streams that no rule reads: no other role writes their dead letters."""
    refused: list[DeadLetter] = field(default_factory=list)
    """Of streams that rules read: the role ``correlate`` writes their dead letters."""


class Acceptance:
    """The validators of a rule set, as the roles apply them that store events or act upon them.

    Only refusals count here: a store holds an event as it came, not as validators change it, and holds what they drop
    by sampling. ``validated`` are the streams that rules read, whose events the domains check as well.
    """

    def __init__(self, ruleset: RuleSet, *, catalog: Catalog = CATALOG) -> None:
        self._validators = Validators(ruleset.validators, catalog=catalog)
        self._catalog = catalog
        self._read = frozenset(make_plan(ruleset, catalog).streams)
        self._judged = self._read | {stream for spec in ruleset.validators for stream in spec.stream}

    def accept(self, items: Sequence[Sourced]) -> Accepted:
        """Items as decoded, without the rows that the validators refuse."""
        accepted = Accepted()
        for item in items:
            accepted.items.append(self._judge(item, accepted) if self._is_judged(item) else item)
        return accepted

    def _is_judged(self, item: Sourced) -> bool:
        # Results of a window that is named as a stream are no events of the stream.
        return (
            isinstance(item, SourcedFrame) and item.frame.stream in self._judged and not item.frame.has("window_start")
        )

    def _judge(self, item: Sourced, accepted: Accepted) -> Sourced:
        assert isinstance(item, SourcedFrame)
        refused = dict(validate_rows(self._validators, item.frame).refused)
        if not refused:
            return item
        letters = accepted.refused if item.frame.stream in self._read else accepted.letters
        letters += [
            row_letter(item, row, reason=reason, stage="validate", catalog=self._catalog)
            for row, reason in sorted(refused.items())
        ]
        return _without(item, sorted(refused))


EVERYTHING: Final = Acceptance(RuleSet())
"""Without rules there is nothing to refuse."""


def _without(item: SourcedFrame, rows: Sequence[int]) -> SourcedFrame:
    """The item without some rows; the others keep their places, and the item the offset that it ends with."""
    kept = np.setdiff1d(np.arange(item.frame.num_rows), np.array(rows, np.int64))
    last = item.offset if item.offsets is None else int(item.offsets.max())
    return replace(item.take(kept), last_offset=max(last, last if item.last_offset is None else item.last_offset))
