"""How much memory is free, and refusing work that would take too much of it."""

from __future__ import annotations

import os
from pathlib import Path

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
    try:  # not Linux: the free pages where they are counted, else half of all pages
        page = os.sysconf("SC_PAGE_SIZE")
        return page * (os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else os.sysconf("SC_PHYS_PAGES") // 2)
    except (AttributeError, OSError, ValueError):
        return None


def _control_group(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the limit leaves; pages of files that nobody has used lately count as used, but are given up for the asking."""
    try:
        pages = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        used = int((root / "memory.current").read_text()) - int(pages.get("inactive_file", 0))
        return int((root / "memory.max").read_text()) - used
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None
