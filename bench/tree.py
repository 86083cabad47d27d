"""`python -m bench.tree`: what importing a tree costs per inode and per GB, step by step.

Two trees are made up: one of small files, where inodes cost, and one of large files, where bytes
do. Each is listed, read as a tar that nobody keeps, converted as `dray convert dir:` does, and
converted again unchanged. From both follows what a tree of any size costs on this machine; by
default that of a CVMFS repository of 892 GB and 10,116,157 inodes. A parallel file system adds its
own latency, which the readers hide as far as there are enough of them.
"""

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.steps import Cost, in_own_process
from services.converter.conversion import Conversion, ImageOrder
from services.converter.layers import LayerPacker
from services.converter.packers.packers import Packers
from services.converter.packing.limits import Limits
from services.converter.registries import Registries
from services.converter.registry.platforms import parse_platform
from services.converter.registry.transport import open_session
from services.converter.sources.bare import LIMITS
from services.converter.sources.open import READERS, opened
from services.converter.sources.origin import FileOrigin
from services.converter.trees.jobs import Listing, ListOrder, ReadOrder, list_tree, read_tree
from services.converter.trees.parts import LEAST_WEIGHT, PARTS
from shared.deadline import Deadline
from shared.image.recipe import PackOptions
from shared.logging import configure_logging
from shared.progress import Part
from shared.settings.site import LogSettings
from shared.states import State
from shared.store.store import PackStore

GB: Final = 1_000_000_000
MB: Final = 1_000_000
FILES_PER_DIRECTORY: Final = 100
MOST_BYTES: Final = 1900
LARGE_BYTES: Final = 64 << 20
DAY: Final = 86400.0
PARALLEL: Final = 2


@dataclass(frozen=True, slots=True)
class Place:
    """One tree, and what is made of it."""

    work: Path
    files: int
    gigabytes: float

    @property
    def tree(self) -> Path:
        return self.work / "tree"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.tree",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--files", type=int, default=1_000_000, help="small ones (default 1000000)")
    parser.add_argument("--gigabytes", type=float, default=8.0, help="of large files (default 8)")
    parser.add_argument(
        "--work", type=Path, default=Path(".bench/tree"), help="default: .bench/tree; removed"
    )
    parser.add_argument("--inodes", type=int, default=10_116_157, help="to extrapolate to")
    parser.add_argument("--size", type=float, default=892.0, help="in GB, to extrapolate to")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    many = Place(work / "many", arguments.files, 0)
    large = Place(work / "large", 0, arguments.gigabytes)
    print("| tree | step | wall s | CPU s | own MB | largest child MB | |")
    print("|---|---|---|---|---|---|---|")
    try:
        per_inode = _costs("small files", many, arguments.files)
        per_gb = _costs("large files", large, arguments.gigabytes)
        # Before the trees are removed, which may take as long as making them.
        _extrapolate(per_inode, per_gb, arguments.inodes, arguments.size)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


def _extrapolate(
    per_inode: "dict[str, _Rate]", per_gb: "dict[str, _Rate]", inodes: int, size: float
) -> None:
    print(
        f"\nFor {inodes:,} inodes and {size:,.0f} GB on this machine:\n"
        "| step | us per inode | s per GB | hours | CPU hours |\n|---|---|---|---|---|"
    )
    for step, one in per_inode.items():
        other = per_gb[step]
        wall = one.wall * inodes + other.wall * size
        cpu = one.cpu * inodes + other.cpu * size
        print(
            f"| {step} | {one.wall * 1e6:.1f} | {other.wall:.2f} | {wall / 3600:.2f} "
            f"| {cpu / 3600:.2f} |"
        )
    planner = per_inode["convert"].memory
    print(
        f"Planning takes {planner:,.0f} bytes of memory per inode: "
        f"{planner * inodes / GB:.1f} GB; listing {per_inode['list'].memory:,.0f} bytes.",
        flush=True,
    )


@dataclass(frozen=True, slots=True)
class _Rate:
    """Per inode, or per GB."""

    wall: float
    cpu: float
    memory: float


def _costs(called: str, place: Place, count: float) -> dict[str, _Rate]:
    place.work.mkdir(parents=True)
    steps: Sequence[Callable[[Place], str]] = (_make, _idle, _list, _read, _convert, _convert_again)
    found = {}
    idle = 0
    for step in steps:
        cost = in_own_process(step, place)
        name = step.__name__.removeprefix("_").replace("_", " ")
        if name == "idle":
            idle = cost.memory
            continue
        _print(called, name, cost)
        if name != "make":
            memory = max(0, cost.memory - idle) / count
            found[name] = _Rate(cost.wall / count, cost.cpu / count, memory)
    return found


def _print(called: str, name: str, cost: Cost) -> None:
    print(
        f"| {called} | {name} | {cost.wall:.1f} | {cost.cpu:.1f} | {cost.memory / MB:,.0f} "
        f"| {cost.children / MB:,.0f} | {cost.made} |",
        flush=True,
    )


def _idle(_: Place) -> str:
    """What a process has that only imports what the steps need."""
    return "nothing"


def _make(place: Place) -> str:
    """Small files of text, no two equal; and large ones of which half can be compressed."""
    dice = random.Random(1)
    pattern = " ".join(str(dice.random()) for _ in range(100_000)).encode()
    groups = -(-place.files // FILES_PER_DIRECTORY)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(_fill, place, group, pattern) for group in range(groups)]:
            done.result()
    count = round(place.gigabytes * GB / LARGE_BYTES)
    place.tree.mkdir(exist_ok=True)
    for number in range(count):
        half = os.urandom(1 << 20) + (pattern * 2)[: 1 << 20]
        with (place.tree / f"large{number:05}").open("wb") as file:
            for _ in range(LARGE_BYTES // len(half)):
                file.write(half)
                half = half[4096:] + half[:4096]
    for path in (place.tree, *place.tree.iterdir()):
        os.utime(path, (0, 0))
    return f"{place.files:,} small files, {count:,} of {LARGE_BYTES >> 20} MiB"


def _fill(place: Place, group: int, pattern: bytes) -> None:
    directory = place.tree / f"{group // 100:03}" / f"{group % 100:02}"
    directory.mkdir(parents=True)
    first = group * FILES_PER_DIRECTORY
    for file in range(first, min(first + FILES_PER_DIRECTORY, place.files)):
        size = 100 + file * 7919 % (MOST_BYTES - 100)
        start = file * 3571 % (len(pattern) - MOST_BYTES)
        content = (b"%d\n" % file + pattern[start : start + size])[:size]
        (directory / f"file{file:07}.txt").write_bytes(content)


@contextmanager
def _listed(place: Place) -> Iterator[tuple[int, int, Listing]]:
    order = ListOrder(
        scope="",
        threads=READERS,
        limits=Limits(),
        max_rows=LIMITS.max_nodes,
        least_weight=LEAST_WEIGHT,
    )
    tree = os.open(place.tree, os.O_RDONLY | os.O_DIRECTORY)
    reading, writing = os.pipe()
    with tempfile.TemporaryFile(dir=place.work) as spool:
        fds = (tree, spool.fileno(), writing)
        answer = list_tree(order.model_dump_json().encode(), fds)
        yield tree, spool.fileno(), Listing.model_validate_json(answer)
    for fd in (tree, reading, writing):
        os.close(fd)


def _list(place: Place) -> str:
    with _listed(place) as (_, _, listing):
        return f"{listing.rows:,} rows, {listing.parts_start / MB:,.0f} MB of spool"


def _read(place: Place) -> str:
    """The listing is part of its time, and is what was measured before."""
    with _listed(place) as (tree, spool, listing), Path(os.devnull).open("wb") as nobody:
        text = os.pread(spool, listing.parts_length, listing.parts_start)
        parts = PARTS.validate_json(text)
        for part in parts:
            order = ReadOrder(start=part.start, length=part.length, threads=READERS)
            read_tree(order.model_dump_json().encode(), (tree, spool, nobody.fileno()))
    return f"{len(parts)} parts"


class _Watcher:
    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}

    def expect(self, parts: dict[str, Part]) -> None:
        self.parts = parts

    def enter(self, stage: State, whole: Part | None = None) -> None:
        pass


def _convert(place: Place) -> str:
    return asyncio.run(_converted(place))


def _convert_again(place: Place) -> str:
    return asyncio.run(_converted(place))


async def _converted(place: Place) -> str:
    """As far as the recipe: weaving copies, and is measured by bench.million."""
    configure_logging(LogSettings(format="console", level="error"))
    deadline = Deadline.after(DAY)
    store = PackStore(place.work / "store")
    watcher = _Watcher()
    async with open_session() as http, Packers() as packers:
        packer = LayerPacker(store=store, packers=packers, limits=Limits())
        async with opened(
            FileOrigin(place.tree, "dir"),
            Registries(http, {}),
            place.work,
            Limits(),
            deadline,
        ) as source:
            order = ImageOrder(source, parse_platform("linux/amd64"), PackOptions(), 1.0)
            recipe = await Conversion(store, packer, PARALLEL).recipe(order, watcher, deadline)
    reused = sum(part.cached for part in watcher.parts.values())
    return (
        f"{recipe.inodes:,} inodes, {recipe.size / MB:,.0f} MB, "
        f"{len(watcher.parts)} parts ({reused} re-used)"
    )


if __name__ == "__main__":
    sys.exit(main())
