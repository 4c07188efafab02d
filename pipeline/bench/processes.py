"""What a process has used, as Linux says it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["resident_mb", "used_s"]


def used_s(process: int | str = "self") -> float:
    """Processor time of a process so far, in seconds."""
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def resident_mb(process: int | str = "self") -> float:
    """Resident memory of a process, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
