"""What Linux says about a process: signals that it handles, libraries that it has loaded, memory, its descendants."""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "descendants",
    "descriptors",
    "handles",
    "has_loaded",
    "is_running",
    "memory_bytes",
    "peak_memory_bytes",
    "role_of",
    "workers_of",
]


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


def peak_memory_bytes(pid: int) -> int:
    """Largest resident set so far; 0 of a process that is gone."""
    return _status_bytes(pid, "VmHWM:")


def memory_bytes(pid: int) -> int:
    """Resident set; 0 of a process that is gone."""
    return _status_bytes(pid, "VmRSS:")


def _status_bytes(pid: int, name: str) -> int:
    return sum(int(line.split()[1]) << 10 for line in _read(pid, "status").splitlines() if line.startswith(name))


def descriptors(pid: int) -> int:
    """Number of open files, sockets and pipes; 0 of a process that is gone."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


def role_of(pid: int) -> str:
    """Role of a worker process, by its environment; ``worker`` where it has several or none."""
    role = _environment(pid).get("ASTROCYTE_ROLES", "worker")
    return "worker" if "," in role else role


def workers_of(group: str, broker: str) -> dict[int, str]:
    """Processes that run one role of a group of workers at a broker, with the role."""
    mine = {"ASTROCYTE_GROUP": group, "ASTROCYTE_BROKER": broker}.items()
    found = {pid: role_of(pid) for pid in _pids() if mine <= _environment(pid).items()}
    return {pid: role for pid, role in found.items() if role != "worker" and is_running(pid)}


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environment(pid: int) -> dict[str, str]:
    return dict(each.partition("=")[::2] for each in _read(pid, "environ").split("\0"))


def _parent(pid: int) -> int:
    # The name of the program, in parentheses, may hold blanks.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields and fields[0] != "Z" else 0


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended."""
    return _parent(pid) > 0


def descendants(pid: int) -> set[int]:
    """Processes that ``pid`` has started, and those that they have started."""
    parents = {each: _parent(each) for each in _pids()}
    found: set[int] = set()
    new = {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found
