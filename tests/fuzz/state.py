"""Snapshots: the parts of which a state topic consists, their bytes, and the state that is restored from them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import zstandard

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.state.snapshots import SnapshotDamaged, SnapshotParts, pack_state, parts_of, unpack_state
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.json.reader import RawRecord
from tests.fuzz.target import Check, Target, joined, parts
from tests.support import mutants

__all__ = ["TARGETS"]

RULES = (
    mutants.RULES
    + """
windows: [{name: w, from: A, every: 10s, by: key, select: {n: "count()", m: mean(x)}}]
"""
)


@cache
def _ruleset():
    return load_rules(RULES)


def _domain() -> Domain:
    ruleset = _ruleset()
    groups = [DomainGroup("key", Engine(ruleset, validated=True), {"A": "mono.A"})]
    return Domain(0, groups, topics=["mono.A"], decoders=Decoders(Contracts(ruleset.streams)))


@cache
def _snapshot() -> bytes:
    domain = _domain()
    values = [
        b'{"timestamp": "2023-11-14T22:13:%02dZ", "x": %d, "s": "text%d", "key": "k%d"}' % (n, n, n % 4, n % 2)
        for n in range(12)
    ]
    domain.feed("mono.A", [RawRecord(n, mutants.TIME_MS, b"k", value) for n, value in enumerate(values)])
    return pack_state({"format": 1, "domain": domain.snapshot()})


def _open_bytes() -> Check:
    def check(data: bytes) -> None:
        assert isinstance(unpack_state(data), dict)

    return check


def _open_body() -> Check:
    """The bytes before they are compressed, which a checksum protects only from accidents."""
    compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
    domain = _domain()

    def check(data: bytes) -> None:
        state = unpack_state(compressor.compress(data))
        try:
            domain.restore(state["domain"])
        except MemoryError:
            raise
        except Exception:
            return

    return check


def _open_parts() -> Check:
    def check(data: bytes) -> None:
        found = SnapshotParts()
        given = parts(data, 9)
        for key, value in zip(given[::2], given[1::2], strict=False):
            found.add(key, value or None)
        newest = found.newest("correlate/0")
        assert newest is None or isinstance(newest[1], bytes)

    return check


def _part_seeds() -> Iterator[bytes]:
    for number in (1, 2):
        yield joined(*(each for pair in parts_of("correlate/0", number % 2, number, b"x" * 20, "w") for each in pair))
    first, second = (parts_of("correlate/0", number % 2, number, b"y", "w")[0] for number in (3, 4))
    yield joined(*first, *second)


def _body() -> bytes:
    return zstandard.ZstdDecompressor().decompress(_snapshot())


TARGETS = [
    Target("snapshot", _open_bytes, lambda: [_snapshot(), pack_state({"a": [1, b"x"]})], (AstrocyteError,)),
    Target("snapshot-body", _open_body, lambda: [_body()], (AstrocyteError,), most_bytes=1 << 17, in_place=True),
    Target("snapshot-parts", _open_parts, _part_seeds, (SnapshotDamaged,)),
]
