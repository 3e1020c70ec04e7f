"""How much memory is free, and refusing work that would take too much of it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import ClassVar

from .errors import MemoryLimitError

__all__ = ["free_bytes", "require"]


def free_bytes() -> int | None:
    """Memory that this process may still take, in bytes, within its container's limit; None where the system does not tell."""
    known = [value for value in (_available(), _control_group()) if value is not None]
    return min(known, default=None)


def require(needed: int, what: str, instead: str, *, force: bool = False) -> None:
    """Refuse to take more than half of the free memory, unless forced.

    Raises:
        MemoryLimitError: with the number of bytes and ``instead``, the way around.
    """
    free = free_bytes()
    if force or free is None or needed <= free // 2:
        return
    raise MemoryLimitError(
        f"{what} needs {needed / 1e9:.2f} GB, more than half of the {free / 1e9:.2f} GB that are free. {instead} force=True does it anyway."
    )


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    if sys.platform == "win32":
        return _windows()
    try:  # neither Linux nor Windows: the free pages where they are counted, else half of all pages
        page = os.sysconf("SC_PAGE_SIZE")
        return page * (os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else os.sysconf("SC_PHYS_PAGES") // 2)
    except (AttributeError, OSError, ValueError):
        return None


def _windows() -> int | None:
    """Free physical memory, as ``GlobalMemoryStatusEx`` tells it."""
    status = _MemoryStatus(ctypes.sizeof(_MemoryStatus))
    known = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]  # there is none elsewhere
    return int(status.free) if known else None


class _MemoryStatus(ctypes.Structure):
    """``MEMORYSTATUSEX`` of the Windows API."""

    _fields_: ClassVar = [
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("total", "free", "pages", "free_pages", "addresses", "free_addresses", "extended")),
    ]


def _control_group(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the limit leaves; pages of files that nobody has used lately count as used, but are given up for the asking."""
    known = [_left(root, "memory.max", "memory.current", "inactive_file")]  # version 2, then version 1
    known.append(_left(root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
    return next((value for value in known if value is not None), None)


def _left(group: Path, limit: str, used: str, unused: str) -> int | None:
    try:
        pages = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int((group / limit).read_text()) - int((group / used).read_text()) + int(pages.get(unused, 0))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None
