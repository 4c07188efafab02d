"""Changes of bytes as damage and malice make them, drawn from a random number generator."""

from __future__ import annotations

import random

__all__ = ["mutated"]

NUMBERS = [0, 1, 127, 128, 255]
WORDS = [b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x80", b"\x10\0\0\0", b"\1\0\1\0"]
LONGS = [
    b"\xff" * 7 + b"\x7f",
    b"\xff" * 8,
    b"\0" * 8,
    (1 << 40).to_bytes(8, "little"),
    (1 << 20).to_bytes(8, "little"),
]
PIECES = [
    b"null",
    b"1e400",
    b"-1",
    b"9" * 30,
    b'"',
    b"[" * 300,
    b'{"a":' * 300,
    b"\\ud800",
    b"NaN",
    b"\0",
    b"\xff",
    b"{}",
]


def mutated(data: bytes, rng: random.Random, *, in_place: bool = False) -> bytes:
    """The data with one to eight changes: bits, numbers at their limits, pieces that are lost, repeated or foreign.

    ``in_place``: nothing moves, since formats with offsets are refused at once where it does.
    """
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        if not changed:
            break
        at = rng.randrange(len(changed))
        match rng.randrange(4 if in_place else 7):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at] = rng.choice(NUMBERS)
            case 2:
                at &= ~3
                changed[at : at + 4] = rng.choice(WORDS)
            case 3:
                at &= ~7
                changed[at : at + 8] = rng.choice(LONGS)
            case 4:
                del changed[at : at + rng.randrange(1, 20)]
            case 5:
                changed[at:at] = changed[at : at + rng.randrange(1, 40)]
            case 6:
                changed[at:at] = rng.choice(PIECES)
    return bytes(changed)
