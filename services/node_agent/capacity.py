"""What this node has, for whoever looks at the cluster."""

import os
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from shared.events import NodeCache, NodeCapacity


def capacity(cache: NodeCache | None) -> NodeCapacity:
    return NodeCapacity(
        version=version("dray"),
        cpus=os.cpu_count() or 0,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        booted_at=_booted_at(),
        cache=cache,
    )


def _booted_at() -> datetime:
    """By the wall clock, as it is now."""
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    seconds = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    return datetime.fromtimestamp(seconds, UTC)
