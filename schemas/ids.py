"""Deterministic 128-bit ids, as UUIDs of version 8 (RFC 9562), computed for whole columns at once.

An event's id is a function of (run, stream, sequence number); a match's id is a function of (rule, version, the
ids of its events, the steps that the events matched). The same input therefore always has the same ids, which makes
every sink idempotent. Ids are carried as ``uint64[n, 2]`` (high word, low word) and become text only where a row
leaves the pipeline.

Ids of events begin with a hash of what numbers the events, a run and stream or a partition, and end with the number.
So those of one producer sort as it wrote its events, in every form in which they travel. Where an id has to be evenly
distributed, as for a sample, use `mixed`.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ROW_BITS",
    "Ids",
    "derived_id",
    "event_ids",
    "format_ids",
    "hash_id",
    "ids_from_bytes",
    "match_ids",
    "mixed",
    "parse_ids",
    "place_ids",
    "producer_word",
]

Ids = NDArray[np.uint64]
"""Shape [n, 2]: the high and the low 64 bits of n ids."""

_VERSION_MASK: Final = np.uint64(0xFFFF_FFFF_FFFF_0FFF)
_VERSION_8: Final = np.uint64(0x8000)
_VARIANT_MASK: Final = np.uint64(0x3FFF_FFFF_FFFF_FFFF)
_VARIANT: Final = np.uint64(0x8000_0000_0000_0000)
_NUMBER_MASK: Final = np.uint64(0x3FFF_FFFF_FFFF_FFFF)
"""The bits of the low word that hold a number."""
_SIGN: Final = np.uint64(1 << 61)
"""Added to sequence numbers, so that negative ones sort before the others."""
ROW_BITS: Final = 24
"""Bits of an id made from a place for the row inside its message; 50 more are for the message's offset."""
_OFFSET_BITS: Final = 62 - ROW_BITS
_HASH_48: Final = np.uint64(0xFFFF_FFFF_FFFF_0000)
_GOLDEN: Final = np.uint64(0x9E37_79B9_7F4A_7C15)
_SECOND: Final = np.uint64(0xD1B5_4A32_D192_ED03)

_UUID: Final = re.compile(
    r"(?:evt_dna_[0-9]+_)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32})",
    re.IGNORECASE | re.ASCII,
)
"""A UUID, also as the dna envelope writes the id of an event."""
_UUID_LENGTH: Final = 36
_HYPHENS: Final = [8, 13, 18, 23]
_DIGITS: Final = [place for place in range(_UUID_LENGTH) if place not in _HYPHENS]
_HEX_VALUES: Final = np.full(128, 255, np.uint8)
"""Value of each ASCII character as a hexadecimal digit; 255 for any other character."""
_HEX_VALUES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_HEX_VALUES[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of splitmix64 (Steele, Lea and Flood 2014), a bijection of 64-bit words."""
    x = x ^ (x >> np.uint64(30))
    x = x * np.uint64(0xBF58_476D_1CE4_E5B9)
    x = x ^ (x >> np.uint64(27))
    x = x * np.uint64(0x94D0_49BB_1331_11EB)
    return x ^ (x >> np.uint64(31))


def _stamp(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> Ids:
    ids = np.empty((len(high), 2), np.uint64)
    ids[:, 0] = (high & _VERSION_MASK) | _VERSION_8
    ids[:, 1] = (low & _VARIANT_MASK) | _VARIANT
    return ids


def _add(digest: hashlib.blake2b, part: str) -> None:
    # Length prefixes make ("ab", "c") and ("a", "bc") differ.
    data = part.encode()
    digest.update(len(data).to_bytes(8, "big") + data)


def _words(*parts: str) -> NDArray[np.uint64]:
    """Two words that hash the parts."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        _add(digest, part)
    return np.frombuffer(digest.digest(), ">u8").astype(np.uint64)


@lru_cache(4096)
def _prefix(*parts: str) -> np.uint64:
    """A word of 48 bits that hash the parts, before 16 bits that are zero."""
    return np.uint64(_words(*parts)[0] & _HASH_48)


def hash_id(*parts: str) -> uuid.UUID:
    """The id of a tuple of strings, such as a topic, partition and offset."""
    words = _words(*parts)
    return uuid.UUID(bytes=_stamp(words[:1], words[1:])[0].astype(">u8").tobytes())


@lru_cache(4096)
def producer_word(run: str, stream: str) -> int:
    """High word of the ids of a run's events in a stream: by it their producers sort."""
    return int(_stamp(_words(run, stream)[:1], np.zeros(1, np.uint64))[0, 0])


def event_ids(run: str, stream: str, sequence: NDArray[np.int64]) -> Ids:
    """Ids of the events with the given sequence numbers of one run and stream; shape [n, 2].

    They sort as the numbers do, which are between -2**61 and 2**61.
    """
    number = np.asarray(sequence, np.int64).view(np.uint64)
    with np.errstate(over="ignore"):
        low = (number + _SIGN) & _NUMBER_MASK
    return _stamp(np.full(len(low), producer_word(run, stream), np.uint64), low)


def place_ids(topic: str, partition: int, offsets: NDArray[np.int64], rows: NDArray[np.int64] | Literal[0] = 0) -> Ids:
    """Ids of events without an id of their own, made of where they stand; shape [n, 2].

    ``rows`` are their numbers inside their messages, below ``2**ROW_BITS``. Those of one partition sort by offset and
    row, so its events keep their order.
    """
    offset = np.asarray(offsets, np.int64).view(np.uint64)
    row = np.asarray(rows, np.int64).view(np.uint64)
    high = _prefix(topic, str(partition)) | (offset >> np.uint64(_OFFSET_BITS))
    return _stamp(high, ((offset << np.uint64(ROW_BITS)) & _NUMBER_MASK) | row)


def derived_id(text: str, *parts: str) -> str:
    """An id that is a function of another one and the parts. Ids with the same parts sort as those they are made of."""
    own = _UUID.fullmatch(text)
    if own is None:
        return str(hash_id(*parts, text))
    return str(uuid.UUID(int=uuid.UUID(own[1]).int ^ (int(_prefix(*parts)) << 64)))


def mixed(ids: Ids) -> NDArray[np.uint64]:
    """64 evenly distributed bits of each id."""
    with np.errstate(over="ignore"):
        return _mix(_mix(ids[:, 0]) ^ (ids[:, 1] * _GOLDEN))


def match_ids(
    rule: str,
    version: str,
    ids: Ids,
    steps: NDArray[np.integer],
    offsets: NDArray[np.integer],
) -> Ids:
    """Ids of the matches of one rule, from their events in step order.

    ``ids`` [k, 2] and ``steps`` [k] list the events of all matches one after another; match i owns the rows
    ``offsets[i]:offsets[i + 1]``. Returns shape [m, 2]. The steps are part of the hash: the same events divided
    differently among the steps are different matches.
    """
    offsets = np.asarray(offsets, np.int64)
    count = len(offsets) - 1
    lengths = np.diff(offsets)
    first, second = _words(rule, version)
    high = np.full(count, first, np.uint64)
    low = np.full(count, second, np.uint64)
    step_words = np.asarray(steps).astype(np.uint64)
    with np.errstate(over="ignore"):
        # Ids of one producer differ in few bits: each word of the result depends on all bits of every id.
        one, two = mixed(ids), _mix(ids[:, 1] + ids[:, 0] * _SECOND)
        for position in range(int(lengths.max(initial=0))):
            rows = np.flatnonzero(lengths > position)
            source = offsets[rows] + position
            step = step_words[source] * _GOLDEN
            high[rows] = _mix((high[rows] ^ one[source]) + step)
            low[rows] = _mix((low[rows] ^ two[source]) + high[rows])
    return _stamp(high, low)


def ids_from_bytes(data: bytes | memoryview) -> Ids:
    """Ids from concatenated 16-byte big-endian values; shape [n, 2]."""
    return np.frombuffer(data, ">u8").astype(np.uint64).reshape(-1, 2)


def format_ids(ids: Ids) -> list[str]:
    """Canonical text of each id, ``xxxxxxxx-xxxx-8xxx-xxxx-xxxxxxxxxxxx``."""
    text = np.ascontiguousarray(ids).astype(">u8").tobytes().hex()
    words = (text[i : i + 32] for i in range(0, len(text), 32))
    return [f"{w[:8]}-{w[8:12]}-{w[12:16]}-{w[16:20]}-{w[20:]}" for w in words]


def parse_ids(strings: Sequence[str]) -> Ids:
    """Ids of strings; shape [n, 2].

    A UUID is taken as it is, also in the form of the dna envelope (``evt_dna_<ms>_<uuid>``). Any other string is
    hashed whole: ``req_<uuid>`` and ``evt_<uuid>`` are two ids.
    """
    canonical = _canonical_ids(strings)
    if canonical is not None:
        return canonical
    values = bytearray()
    for text in strings:
        own = _UUID.fullmatch(text)
        values += hash_id(text).bytes if own is None else bytes.fromhex(own[1].replace("-", ""))
    return ids_from_bytes(bytes(values))


def _canonical_ids(strings: Sequence[str]) -> Ids | None:
    """Ids of strings that are all UUIDs of 32 hexadecimal digits and four hyphens, in a vectorised pass, else None."""
    joined = "".join(strings)
    if len(joined) != _UUID_LENGTH * len(strings) or not joined.isascii():
        return None
    letters = np.frombuffer(joined.encode(), np.uint8).reshape(-1, _UUID_LENGTH)
    if not (letters[:, _HYPHENS] == ord("-")).all():
        return None
    digits = _HEX_VALUES[letters[:, _DIGITS]]
    if (digits > 15).any() or any(len(text) != _UUID_LENGTH for text in strings):
        return None
    return ids_from_bytes((digits[:, ::2] << 4 | digits[:, 1::2]).tobytes())
