"""What Linux says about a process: signals that it handles, libraries that it has loaded, its descendants."""

from __future__ import annotations

from pathlib import Path

__all__ = ["descendants", "handles", "has_loaded", "is_running"]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


def handles(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for the signal."""
    masks = [line.split()[1] for line in _read(pid, "status").splitlines() if line.startswith("SigCgt")]
    return bool(masks) and bool(int(masks[0], 16) >> (number - 1) & 1)


def has_loaded(pid: int, library: str) -> bool:
    """Whether a file with ``library`` in its path is mapped into the process."""
    return library in _read(pid, "maps")


def _parent(pid: int) -> int:
    # The name of the program, in parentheses, may hold blanks.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields and fields[0] != "Z" else 0


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended."""
    return _parent(pid) > 0


def descendants(pid: int) -> set[int]:
    """Processes that ``pid`` has started, and those that they have started."""
    parents = {int(path.name): _parent(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
    found: set[int] = set()
    new = {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found
