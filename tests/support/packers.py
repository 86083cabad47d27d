"""The processes behind an owner of layers, as /proc tells of them."""

from contextlib import suppress
from pathlib import Path

from services.converter.packers.packers import Packers


def nursery(packers: Packers) -> int:
    assert packers._nursery is not None
    return packers._nursery.process.pid


def children(packers: Packers) -> set[int]:
    """The processes that pack a layer now."""
    return set() if packers._nursery is None else children_of(nursery(packers))


def children_of(thread: int) -> set[int]:
    """Of a process the ones that its first thread has started."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return set(map(int, Path(f"/proc/{thread}/task/{thread}/children").read_text().split()))
    return set()


def alive(pid: int) -> bool:
    """Neither gone nor a zombie, which is nothing but a status."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
