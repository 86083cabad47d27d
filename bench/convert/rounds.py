"""Runs the contenders round by round, each in turn, so that a slow minute hits all alike."""

import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from bench.convert.contenders import CORES, Contender, Source
from bench.convert.limit import Limit, measure_limit
from bench.convert.measure import Measured, RunFailedError, drop_caches

Kind = Literal["cold", "update"]


class Run(BaseModel):
    """One conversion in one round."""

    image: str
    kind: Kind
    contender: str
    round: int
    measured: Measured


class Machine(BaseModel):
    """What the figures were measured on."""

    date: str
    processor: str
    cores: int
    memory: int
    kernel: str
    file_system: str
    python: str
    load: float
    """Processes that wanted to run in the minute before: above 0.2 nothing here is worth much."""
    caches_dropped: bool


class Results(BaseModel):
    """All of one bench run."""

    machine: Machine
    images: list[str]
    """A line about each."""
    contenders: dict[str, str]
    skipped: dict[str, str]
    failed: dict[str, str]
    runs: list[Run]
    limits: dict[str, list[Limit]]


def run_rounds(
    contenders: Sequence[Contender],
    sources: dict[str, tuple[Source, Sequence[str]]],
    *,
    rounds: int,
    directory: Path,
    cold_caches: bool,
    say: Callable[[str], None],
) -> tuple[list[Run], dict[str, list[Limit]], dict[str, str]]:
    """Cold, then the update where there is one; a contender that failed once is left out."""
    runs: list[Run] = []
    limits: dict[str, list[Limit]] = {}
    failed: dict[str, str] = {}
    for number in range(1, rounds + 1):
        for image, (source, tags) in sources.items():
            _prepare(cold_caches=cold_caches)
            limits.setdefault(image, []).append(measure_limit(source, tags[0]))
            say(f"round {number}  {image:6} {'limit':15} {limits[image][-1].seconds:8.2f} s")
            for contender in contenders:
                if contender.name in failed:
                    continue
                try:
                    found = _convert(contender, source, tags, directory, cold_caches=cold_caches)
                except (RunFailedError, OSError, RuntimeError) as exc:
                    failed[contender.name] = str(exc)
                    say(f"round {number}  {image:6} {contender.name:15}   failed: {_last(exc)}")
                    continue
                for kind, measured in found.items():
                    runs.append(
                        Run(
                            image=image,
                            kind=kind,
                            contender=contender.name,
                            round=number,
                            measured=measured,
                        )
                    )
                    say(
                        f"round {number}  {image:6} {contender.name:15} {measured.wall:8.2f} s "
                        f"{measured.cpu:8.2f} CPU s  {kind}"
                    )
    return runs, limits, failed


def _convert(
    contender: Contender,
    source: Source,
    tags: Sequence[str],
    directory: Path,
    *,
    cold_caches: bool,
) -> dict[Kind, Measured]:
    own = directory / contender.name
    shutil.rmtree(own, ignore_errors=True)
    try:
        with contender.session(source, own) as session:
            kinds: tuple[Kind, ...] = ("cold", "update")
            found: dict[Kind, Measured] = {}
            for kind, tag in zip(kinds, tags, strict=False):
                _prepare(cold_caches=cold_caches)
                found[kind] = session.convert(tag)
            return found
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _prepare(*, cold_caches: bool) -> None:
    if cold_caches:
        drop_caches()
    else:
        os.sync()


def this_machine(work: Path, *, caches_dropped: bool) -> Machine:
    """Facts for the report; no names, no paths."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return Machine(
        date=time.strftime("%Y-%m-%d"),
        processor=processor,
        cores=CORES,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        file_system=_file_system(work),
        python=platform.python_version(),
        load=os.getloadavg()[0],
        caches_dropped=caches_dropped,
    )


def _file_system(place: Path) -> str:
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, found = line.split()[:3]
        if place.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def _last(exc: Exception) -> str:
    lines = str(exc).strip().splitlines()
    return lines[-1][:200] if lines else type(exc).__name__
