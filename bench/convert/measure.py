"""Measures one conversion: time, processors, memory, disk.

What runs as commands is measured in a child process of ours that inherits every orphan, so that
the kernel's account of its ended children covers the whole tree, to the microsecond. What runs
inside of services is measured as the difference of what their processes used.
"""

import ctypes
import os
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydantic import BaseModel

from bench.convert.processes import Usage, anonymous_memory, tree_of, usage_of

# Often at first, since some runs are short; then seldom, since looking costs time as well.
SAMPLE_SECONDS: Final = (0.01, 0.2)
SAMPLES_PER_RUN: Final = 10
LONGEST_SECONDS: Final = 3600
"""A conversion that takes longer is ended, and counts as failed."""
_PR_SET_CHILD_SUBREAPER: Final = 36
_SECTOR: Final = 512
_DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")


class Measured(BaseModel):
    """One conversion. Bytes and seconds; disk is what the file system lost while it ran."""

    wall: float
    cpu: float
    registry_cpu: float | None
    memory: int
    disk_peak: int
    disk_kept: int
    written: int
    output: int


class RunFailedError(Exception):
    """A conversion failed; the message is the end of what it said."""


def drop_caches() -> bool:
    """Have nothing of the disk in memory; false where that is not allowed."""
    os.sync()
    try:
        _DROP_CACHES.write_text("3")
    except OSError:
        return False
    return True


@dataclass(slots=True)
class Watch:
    """Samples memory of process trees and space of a file system while something runs."""

    roots: Sequence[int]
    place: Path
    registry: int | None
    with_roots: bool = True
    """Whether the roots' own memory counts, or only that of what they started."""
    memory: int = 0
    _used_before: int = 0
    _most_used: int = 0
    _registry_before: Usage = field(default_factory=Usage)
    _began: float = 0.0
    wall: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._used_before = self._most_used = _used(self.place)
        self._registry_before = self._registry_usage()
        self._thread = threading.Thread(target=self._sample, name="watch", daemon=True)
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.wall = time.monotonic() - self._began
        self._stop.set()
        assert self._thread is not None
        self._thread.join()
        self._look()

    def result(self, usage: Usage, output: int, wall: float | None = None) -> Measured:
        registry = self._registry_usage() - self._registry_before
        return Measured(
            wall=self.wall if wall is None else wall,
            cpu=usage.cpu,
            registry_cpu=registry.cpu if self.registry is not None else None,
            memory=self.memory,
            disk_peak=max(0, self._most_used - self._used_before),
            disk_kept=max(0, _used(self.place) - self._used_before),
            written=usage.written,
            output=output,
        )

    def _sample(self) -> None:
        least, most = SAMPLE_SECONDS
        pause = least
        while not self._stop.wait(pause):
            self._look()
            elapsed = time.monotonic() - self._began
            pause = min(most, max(least, elapsed / SAMPLES_PER_RUN))

    def _look(self) -> None:
        pids = tree_of(self.roots) - (set() if self.with_roots else set(self.roots))
        self.memory = max(self.memory, anonymous_memory(pids))
        self._most_used = max(self._most_used, _used(self.place))

    def _registry_usage(self) -> Usage:
        return usage_of([] if self.registry is None else [self.registry])


def measure_commands(
    work: Callable[[], None], output: Callable[[], int], place: Path, registry: int | None
) -> Measured:
    """Run `work`, whose commands count and whose own Python does not."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as answers:
        child = os.fork()
        if child == 0:
            os.close(reading)
            _run_as_child(work, writing)
        os.close(writing)
        with Watch([child], place, registry, with_roots=False) as watch:
            try:
                said = answers.read().decode(errors="replace")
            finally:
                with suppress(ProcessLookupError):  # it and what it started, if it is not done
                    os.killpg(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
    if status != 0:
        raise RunFailedError(said.strip() or f"the measuring child ended with status {status}")
    wall, cpu, written = said.split()
    return watch.result(Usage(float(cpu), int(written)), output(), float(wall))


def _run_as_child(work: Callable[[], None], answers: int) -> None:
    """Never returns."""
    status = 1
    try:
        os.setsid()
        signal.alarm(LONGEST_SECONDS)
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        began = time.monotonic()
        work()
        wall = time.monotonic() - began
        with suppress(ChildProcessError):
            while True:  # what was left in the background counts as well
                os.wait()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        written = used.ru_oublock * _SECTOR
        os.write(answers, f"{wall} {used.ru_utime + used.ru_stime} {written}".encode())
        status = 0
    except BaseException:  # noqa: BLE001 - told to the parent, who raises it
        os.write(answers, traceback.format_exc()[-6000:].encode())
    finally:
        os._exit(status)


@contextmanager
def measuring_services(
    pids: Sequence[int], place: Path, registry: int | None, output: Callable[[], int]
) -> Iterator[list[Measured]]:
    """Measure what running services do meanwhile; the result is in the list afterwards."""
    results: list[Measured] = []
    before = usage_of(tree_of(pids))
    with Watch(pids, place, registry) as watch:
        yield results
    used = usage_of(tree_of(pids)) - before
    results.append(watch.result(used, output()))


def _used(place: Path) -> int:
    facts = os.statvfs(place)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize
