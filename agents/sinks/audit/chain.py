"""The audit log's chain: append-only entries, each holding the hash of the one before (seed 003).

An entry's hash covers everything in it and the previous hash, so a changed, removed, added or reordered entry breaks
the chain at a place that `verify` names. Entries cut off at the end leave a shorter chain that is whole: whoever must
know of that keeps the last hash elsewhere and hands it to `verify`. Retention removes entries from the start and says
so in an entry of kind `PURGED`, which anchors the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

import orjson

__all__ = ["GENESIS", "PURGED", "AuditEntry", "Verdict", "append", "export_line", "purge_payload", "verify"]

GENESIS: Final = "0" * 64
"""Previous hash of the first entry."""
PURGED: Final = "audit.purged"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One link. ``timestamp`` is event time in microseconds; ``payload`` the event's JSON, as it was received."""

    entry: int
    timestamp: int
    kind: str
    subject: str | None
    simulation_id: str | None
    event_id: str
    payload: str
    previous_hash: str
    hash: str

    def computed_hash(self) -> str:
        """What `hash` must be."""
        return _digest(
            self.entry,
            self.timestamp,
            self.kind,
            self.subject,
            self.simulation_id,
            self.event_id,
            self.payload,
            self.previous_hash,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of `verify`. ``broken_entry`` is the first entry at which the chain does not hold, or None."""

    entries: int
    last_hash: str
    broken_entry: int | None = None
    reason: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every link holds."""
        return self.broken_entry is None


def append(
    previous: AuditEntry | None,
    *,
    timestamp: int,
    kind: str,
    event_id: str,
    payload: str,
    subject: str | None = None,
    simulation_id: str | None = None,
) -> AuditEntry:
    """The link after ``previous`` (None for the first)."""
    number = 1 if previous is None else previous.entry + 1
    previous_hash = GENESIS if previous is None else previous.hash
    digest = _digest(number, timestamp, kind, subject, simulation_id, event_id, payload, previous_hash)
    return AuditEntry(number, timestamp, kind, subject, simulation_id, event_id, payload, previous_hash, digest)


def verify(entries: Iterable[AuditEntry], *, expected_last_hash: str | None = None) -> Verdict:
    """Walk the chain in order of ``entry``; the first link that does not hold ends the walk."""
    expected, previous_hash, count = 1, GENESIS, 0
    anchor: tuple[int, str] | None = None
    """What a purge must have recorded for the chain to begin where it does."""
    for link in entries:
        if count == 0 and link.entry > 1:
            anchor = (link.entry - 1, link.previous_hash)
            expected, previous_hash = link.entry, link.previous_hash
        reason = _fault(link, expected, previous_hash)
        if reason is not None:
            return Verdict(count, previous_hash, link.entry, reason)
        if anchor is not None and link.kind == PURGED and link.payload == purge_payload(*anchor):
            anchor = None
        expected, previous_hash, count = link.entry + 1, link.hash, count + 1
    if anchor is not None:
        reason = f"entries up to {anchor[0]} are missing, and no entry {PURGED!r} says that retention removed them"
        return Verdict(count, previous_hash, anchor[0] + 1, reason)
    if expected_last_hash is not None and previous_hash != expected_last_hash:
        reason = f"the chain ends with hash {previous_hash[:12]}..., {expected_last_hash[:12]}... was expected"
        return Verdict(count, previous_hash, expected, reason)
    return Verdict(count, previous_hash)


def purge_payload(entry: int, last_hash: str) -> str:
    """Payload of the entry that records the removal of all entries up to ``entry``, whose hash was ``last_hash``."""
    return orjson.dumps({"last_hash": last_hash, "up_to": entry}, option=orjson.OPT_SORT_KEYS).decode()


def export_line(entry: AuditEntry) -> bytes:
    """The entry as one JSON line, with its payload as JSON where it is."""
    document = asdict(entry)
    try:
        orjson.loads(entry.payload)
    except orjson.JSONDecodeError:
        return orjson.dumps(document) + b"\n"
    document["payload"] = orjson.Fragment(entry.payload)
    return orjson.dumps(document) + b"\n"


def _fault(link: AuditEntry, expected: int, previous_hash: str) -> str | None:
    if link.entry != expected:
        return f"entry {expected} is missing; {link.entry} follows {expected - 1}"
    if link.previous_hash != previous_hash:
        return f"entry {link.entry} does not continue entry {link.entry - 1}: that one, or one before it, was replaced"
    if link.computed_hash() != link.hash:
        return f"entry {link.entry} was changed after it was written"
    return None


def _digest(*parts: int | str | None) -> str:
    # As one JSON array: every part has one spelling, and no two lists of parts have the same.
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()
