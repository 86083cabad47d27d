"""What processes used: from /proc, and from the kernel's accounts of those that have ended."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
# The kernel's number for "the processor time of this whole process, by its scheduler's account".
_SCHEDULER_CLOCK: Final = 2


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor seconds, and bytes that were handed to file systems to be written."""

    cpu: float = 0.0
    written: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.cpu + other.cpu, self.written + other.written)

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.cpu - other.cpu, self.written - other.written)


def usage_of(pids: Iterable[int]) -> Usage:
    """What living processes, and children that they have waited for, have used so far.

    A process that has just ended counts as nothing.
    """
    total = Usage()
    for pid in pids:
        with suppress(OSError, IndexError):
            # Nanoseconds, of ended threads as well; /proc/PID/stat counts in hundredths.
            own = time.clock_gettime((~pid << 3) | _SCHEDULER_CLOCK)
            fields = _stat(pid)
            children = (int(fields[13]) + int(fields[14])) / _TICKS
            total += Usage(own + children, _written(pid))
    return total


def tree_of(roots: Iterable[int]) -> set[int]:
    """The processes and all that descend from them."""
    found: set[int] = set()
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid in found:
            continue
        found.add(pid)
        # The kernel's own lists: to look at all processes would cost what is measured.
        # Any of it may be gone by now, the process itself included.
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):
                    todo += map(int, (task / "children").read_text().split())
    return found


def anonymous_memory(pids: Iterable[int]) -> int:
    """Bytes that the processes allocated: no page cache, no libraries, no mapped files.

    What forked processes still share counts for each: to tell costs 50 times as much time.
    """
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) * 1024
    return total


def _stat(pid: int) -> list[str]:
    """The fields from the state on: the name before them may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _written(pid: int) -> int:
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0
