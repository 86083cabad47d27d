"""Images near the limits of squashfs, made of indexes alone: the kernel must read them."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from shared.image import kinds
from shared.image.codecs import block_codec
from shared.image.packs.index import PackIndex
from shared.image.planning.plan import plan_image
from shared.image.recipe import ImageConfig, PackOptions, Recipe
from tests.support.mounts import mounted
from tests.support.noise import noise
from tests.support.packing import source_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
]
ROOT = Path(__file__).parents[2]
BLOCK = 131_072
GIB = 1 << 30


def new_index() -> PackIndex:
    return PackIndex(compression="zstd", block_size=BLOCK, data_sha256="d" * 64, directories=[b""])


class Data(NamedTuple):
    """Where the data of a file are: blocks, and 1,000 bytes in a fragment if it has one."""

    start: int = 0
    sizes: tuple[int, ...] = ()
    fragment: int | None = None


EMPTY = Data()


def add(
    index: PackIndex, name: bytes, kind: int, *, parent: int = 0, owner: int = 0, data: Data = EMPTY
) -> None:
    index.names.append(name)
    index.kinds.append(kind)
    index.modes.append(0o755 if kind == kinds.DIRECTORY else 0o640)
    index.uids.append(owner)
    index.gids.append(owner + 1)
    index.mtimes.append(len(index.names))
    index.xattrs.append(0)
    index.parents.append(parent)
    index.details.append(0)
    if kind == kinds.FILE:
        index.details[-1] = len(index.file_sizes)
        index.file_sizes.append(len(data.sizes) * BLOCK + 1000 * (data.fragment is not None))
        index.file_starts.append(data.start)
        index.file_blocks.append(len(index.blocks))
        index.file_fragments.append(kinds.NO_FRAGMENT if data.fragment is None else data.fragment)
        index.file_fragment_offsets.append(0)
        index.blocks.extend(data.sizes)


def planned(index: PackIndex) -> tuple[Recipe, bytes]:
    return plan_image(
        [("a" * 64, index)],
        options=PackOptions(keep_owners=True),
        max_dead_share=1,
        config=ImageConfig(),
        source=source_of(1),
        codec=block_codec("zstd"),
        open_pack=lambda key: Path(key).open("rb"),
        cancelled=threading.Event(),
    )


def written(path: Path, index: PackIndex, data: dict[int, bytes]) -> Path:
    """The image as a sparse file, in which only the tables and `data` are."""
    recipe, tables = planned(index)
    with path.open("wb") as file:
        file.truncate(recipe.size)
        file.write(bytes.fromhex(recipe.superblock))
        for position, content in data.items():
            file.seek(recipe.segments[0].offset + position)
            file.write(content)
        file.seek(recipe.tables.offset)
        file.write(tables)
    return path


def test_data_beyond_four_gigabytes_are_found(tmp_path: Path) -> None:
    index = new_index()
    far = {at: noise(BLOCK, at % 1000) for at in (5 * GIB + 77, 4 * GIB - 4096, 9 * GIB)}
    ends = noise(5000)
    for number, at in enumerate(far):
        data = Data(start=at, sizes=(BLOCK | kinds.RAW_BLOCK,), fragment=0)
        add(index, b"f%d" % number, kinds.FILE, data=data)
    index.fragments.extend((7 * GIB + 1, len(ends) | kinds.RAW_BLOCK))
    index.data_length = 9 * GIB + BLOCK
    image = written(tmp_path / "image", index, {**far, 7 * GIB + 1: ends})
    with mounted(image, tmp_path / "mnt") as root:
        for number, content in enumerate(far.values()):
            assert (root / f"f{number}").read_bytes() == content + ends[:1000]


def test_a_directory_may_have_a_hundred_thousand_names(tmp_path: Path) -> None:
    index = new_index()
    index.directories.append(b"crowd")
    add(index, b"crowd", kinds.DIRECTORY)
    names = [b"%s-%06d" % (b"a name of some length", number) for number in range(120_000)]
    for number, name in enumerate(names):
        add(index, name, kinds.FIFO if number % 3 else kinds.FILE, parent=1)
    image = written(tmp_path / "image", index, {})
    with mounted(image, tmp_path / "mnt") as root:
        crowd = root / "crowd"
        with os.scandir(os.fsencode(crowd)) as found:
            seen = {item.name: item.inode() for item in found}
        assert set(seen) == set(names)
        for number in range(0, len(names), 997):
            status = (crowd / names[number].decode()).lstat()
            assert status.st_ino == seen[names[number]]
            assert status.st_mtime == number + 2
            assert stat.S_ISFIFO(status.st_mode) == bool(number % 3)
        assert not (crowd / "a name of some length-9").exists()


def test_all_owners_that_squashfs_has_room_for(tmp_path: Path) -> None:
    index = new_index()
    # The root has one of its own, and each of the others two: 65,535.
    for number in range(32_767):
        add(index, b"%d" % number, kinds.FIFO, owner=1000 + 2 * number)
    image = written(tmp_path / "image", index, {})
    with mounted(image, tmp_path / "mnt") as root:
        for number in range(0, 32_767, 501):
            status = (root / str(number)).lstat()
            assert (status.st_uid, status.st_gid) == (1000 + 2 * number, 1001 + 2 * number)
        assert (root / "32766").lstat().st_gid == 66_533


MEASURE = """
import resource, sys
from shared.image import kinds
from tests.integration.test_large_images import add, new_index, planned
index = new_index()
index.directories += [b"d%d" % n for n in range(1000)]
for number in range(300_000):
    add(index, b"file-%d" % number, kinds.FILE, parent=1 + number % 1000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
recipe, _ = planned(index)
print(recipe.inodes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_planning_takes_little_memory_for_each_file() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, check=True
    )
    inodes, kibibytes = map(int, result.stdout.split())
    assert inodes == 301_001
    # Beside the index: numbers, references, the tree's dictionaries, and the tables.
    assert kibibytes * 1024 < 350 * inodes
