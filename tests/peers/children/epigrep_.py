"""epigrep: a batch over all events, which are sorted by partition before, as it asks for."""

from __future__ import annotations

from typing import Any

from epigrep import Event, Pattern, match
from protocol import arguments, match_hash, records, serve

GIVEN = arguments()
# Its bounds are closed.
PATTERN = Pattern.event("0").then("1", within=int(GIVEN["within"]) - 1).build()


def prepare(data: bytes) -> tuple[list[int], list[Any]]:
    """Ids and events in the order of partition and time; an index of a match is a place in it."""
    rows = sorted((str(key), t, at, str(kind)) for at, (t, key, kind, _) in enumerate(records(data)))
    return [at for _, _, at, _ in rows], [Event(key, t, kind) for key, t, _, kind in rows]


def run(state: object, events: tuple[list[int], list[Any]]) -> tuple[int, int]:
    ids, given = events
    found = match(PATTERN, given, assume_sorted=True)
    return len(found), sum(match_hash(ids[index] for index in each.indices) for each in found)


if __name__ == "__main__":
    serve(prepare, run)
