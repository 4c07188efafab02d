"""Whether the workers of a group have the same rule files and settings of event time."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping

from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.settings import Settings

__all__ = ["GroupRules", "digest_of", "other_rules"]

logger = logging.getLogger(__name__)


def digest_of(ruleset: RuleSet, settings: Settings) -> str:
    """Digest of what results depend on: the rules, and the settings of event time."""
    text = ruleset.model_dump_json() + f"/{settings.lateness}/{settings.clock_tolerance}/{settings.consistency}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def other_rules(digests: Mapping[str, int]) -> str | None:
    """What to say of a group whose members have several digests (number of members by digest); None for one or none."""
    if len(digests) < 2:
        return None
    counts = ", ".join(str(count) for count in sorted(digests.values(), reverse=True))
    return (
        f"the workers of the group have {len(digests)} different sets of rule files or of the settings lateness, clock "
        f"tolerance and consistency ({counts} workers): each works by its own, on its own partitions. "
        "This ends once all are replaced where a new version is being rolled out; otherwise start them with the same "
        "files and settings, or in groups of their own (ASTROCYTE_GROUP)"
    )


class GroupRules:
    """Says in the log when the workers of a group begin to have different rule files, and when that ends."""

    def __init__(self) -> None:
        self._said: str | None = None

    def note(self, digests: Mapping[str, int]) -> None:
        """The digests of the members, as each assignment gives them."""
        line = other_rules(digests)
        if line is not None and line != self._said:
            logger.warning("%s", line)
        elif line is None and self._said is not None:
            logger.warning("all workers of the group have the same rule files and settings again")
        self._said = line
