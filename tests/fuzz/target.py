"""What is fuzzed: a function over bytes, where its inputs begin, what it may raise, and what one input may cost."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["CORPUS", "SEPARATOR", "Check", "Target", "joined", "kept_inputs", "parts"]

CORPUS: Final = Path(__file__).parent / "corpus"
"""A file for each target, with the inputs that are kept: those of findings, and some that reach many places."""
SEPARATOR: Final = b"\x1e\x1f"
"""Between the parts of an input, such as a value and its headers."""

Check = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder that reads what others wrote. ``open`` is called once in a process, and returns what reads one input.

    That raises only ``allowed`` errors; AssertionError is a finding as any other. One input takes at most ``most_s``
    seconds of processor time, and the peak of the process's memory grows by ``most_mb`` at most over all inputs.
    """

    name: str
    open: Callable[[], Check]
    seeds: Callable[[], Iterable[bytes]]
    allowed: tuple[type[BaseException], ...] = ()
    most_s: float = 5.0
    most_mb: int = 1024
    most_bytes: int = 1 << 14
    """Length of an input: what takes longer inputs is a test of its own."""
    in_place: bool = False
    """Formats with offsets: most changes move nothing."""


def parts(data: bytes, most: int) -> list[bytes]:
    """The parts of an input, at least one and at most ``most``."""
    return data.split(SEPARATOR, most - 1)


def joined(*given: bytes) -> bytes:
    """The input of such parts."""
    return SEPARATOR.join(given)


def kept_inputs(name: str) -> list[tuple[bytes, str]]:
    """The inputs of a target that are kept in the repository, each with why."""
    path = CORPUS / f"{name}.jsonl"
    if not path.exists():
        return []
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return [(base64.b64decode(line["input"]), line["why"]) for line in lines]
