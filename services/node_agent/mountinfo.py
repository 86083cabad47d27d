"""What is mounted, as the kernel tells it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared import linux

MOUNTINFO: Final = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    target: Path
    fstype: str
    source: str


def mounts_below(directory: Path) -> list[Mount]:
    """Every mount at or below `directory` (a path without symbolic links), oldest first."""
    lines = MOUNTINFO.read_bytes().splitlines()
    return [found for found in map(_parse, lines) if found.target.is_relative_to(directory)]


def _parse(line: bytes) -> Mount:
    # 36 35 98:0 /root /target ro,noatime optional… - squashfs /dev/loop0 ro
    before, _, after = line.partition(b" - ")
    fstype, source = after.split(b" ")[:2]
    target = linux.unescaped(before.split(b" ")[4])
    return Mount(Path(target), linux.unescaped(fstype), linux.unescaped(source))
