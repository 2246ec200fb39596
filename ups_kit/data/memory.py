"""How much memory there is to take."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that this process could take without pushing anything out: the machine's, or its container's if fewer."""
    found = [_of_machine()]
    with suppress(OSError, ValueError):  # version 2 of control groups; "max" where there is no limit
        limit = int((CGROUP / "memory.max").read_text())
        found.append(limit - int((CGROUP / "memory.current").read_text()) + _reclaimable())
    with suppress(OSError, ValueError):
        limit = int((CGROUP / "memory/memory.limit_in_bytes").read_text())
        found.append(limit - int((CGROUP / "memory/memory.usage_in_bytes").read_text()))
    return max(0, min(found))


def _of_machine() -> int:
    with suppress(OSError):
        known = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
        if known:
            return int(known[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # where the system does not say: half
    return 2**30


def _reclaimable() -> int:
    """Pages of files, which the kernel gives up when memory is asked for."""
    known = re.search(r"^inactive_file (\d+)", (CGROUP / "memory.stat").read_text(), re.MULTILINE)
    return int(known[1]) if known else 0
