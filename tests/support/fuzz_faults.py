"""A target of which every kind of finding can be had, for tests of the fuzzer: python -m tests.support.fuzz_faults."""

from __future__ import annotations

import os
import signal

from tests.fuzz import child
from tests.fuzz.target import Check, Target


def _open() -> Check:
    held = []

    def check(data: bytes) -> None:
        if data.startswith(b"raise"):
            raise KeyError(data)
        if data.startswith(b"refuse"):
            raise ValueError(data)
        if data.startswith(b"segfault"):
            os.kill(os.getpid(), signal.SIGSEGV)
        while data.startswith(b"hang"):
            pass
        if data.startswith(b"grow"):
            held.append(bytearray(os.urandom(1) * (35 << 20)))

    return check


def _targets(_engine: str) -> dict[str, Target]:
    names = ("raise", "refuse", "segfault", "hang", "grow")
    return {
        name: Target(name, _open, lambda name=name: [name.encode()], (ValueError,), most_s=0.5, most_mb=30)
        for name in names
    }


if __name__ == "__main__":
    child.main(_targets)
