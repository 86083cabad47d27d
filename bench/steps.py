"""A step of a benchmark in a process of its own, so that its peak of memory is its own."""

import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step took, and a word on what it made. `memory` is of the step's own process."""

    wall: float
    cpu: float
    memory: int
    children: int
    """The most memory that one of the processes had that the step started."""
    made: str


def in_own_process(step: Callable[[T], str], place: T) -> Cost:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, step, place).result()


def _measured(step: Callable[[T], str], place: T) -> Cost:
    began, before = time.monotonic(), _cpu()
    made = step(place)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return Cost(time.monotonic() - began, _cpu() - before, _peak_memory(), children, made)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _peak_memory() -> int:
    """Of this program since its start; getrusage's figure may be its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not tell the peak of memory")
