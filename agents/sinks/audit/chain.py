"""The hash chain of the audit log: append-only entries, each with the hash of the previous one.

An entry's hash covers all its fields and the previous hash, so a changed, removed, added or reordered entry breaks the
chain at an entry that `verify` names. Removing entries at the end leaves a valid shorter chain: to detect it, keep the
last hash elsewhere and pass it to `verify`. Retention deletes entries from the start and records this in an entry of
kind `PURGED`, from which the rest is verified.
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
    """One entry. ``timestamp`` is event time in microseconds; ``payload`` the event's JSON, unchanged."""

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
        """The value that `hash` must have."""
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
    """Result of `verify`. ``broken_entry`` is the first entry at which the chain is broken, or None."""

    entries: int
    last_hash: str
    broken_entry: int | None = None
    reason: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the chain is intact."""
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
    """The entry after ``previous`` (None for the first)."""
    number = 1 if previous is None else previous.entry + 1
    previous_hash = GENESIS if previous is None else previous.hash
    digest = _digest(number, timestamp, kind, subject, simulation_id, event_id, payload, previous_hash)
    return AuditEntry(number, timestamp, kind, subject, simulation_id, event_id, payload, previous_hash, digest)


def verify(entries: Iterable[AuditEntry], *, expected_last_hash: str | None = None) -> Verdict:
    """Verify the chain; ``entries`` are in order of ``entry``. Stops at the first broken entry."""
    expected, previous_hash, count = 1, GENESIS, 0
    anchor: tuple[int, str] | None = None
    """(entry, hash) that a purge must have recorded if the chain does not begin at entry 1."""
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
        reason = f"entries up to {anchor[0]} are missing, and no entry {PURGED!r} records that retention removed them"
        return Verdict(count, previous_hash, anchor[0] + 1, reason)
    if expected_last_hash is not None and previous_hash != expected_last_hash:
        reason = f"the chain ends with hash {previous_hash[:12]}...; expected {expected_last_hash[:12]}..."
        return Verdict(count, previous_hash, expected, reason)
    return Verdict(count, previous_hash)


def purge_payload(entry: int, last_hash: str) -> str:
    """Payload of the entry that records the removal of all entries up to ``entry``, whose hash was ``last_hash``."""
    return orjson.dumps({"last_hash": last_hash, "up_to": entry}, option=orjson.OPT_SORT_KEYS).decode()


def export_line(entry: AuditEntry) -> bytes:
    """The entry as one JSON line; a payload that is JSON is embedded as JSON."""
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
        return f"entry {link.entry} does not continue entry {link.entry - 1}: that one, or an earlier one, was replaced"
    if link.computed_hash() != link.hash:
        return f"entry {link.entry} was changed after it was written"
    return None


def _digest(*parts: int | str | None) -> str:
    # One JSON array: each part has only one encoding, and different lists of parts have different encodings.
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()
