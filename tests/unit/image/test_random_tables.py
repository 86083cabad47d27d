"""Random packs become tables that pass the full check, and show what the packs say."""

import hashlib
import random
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.image import kinds
from shared.image.kinds import NO_FRAGMENT, RAW_BLOCK
from shared.image.packs.index import PackIndex, Xattrs
from shared.image.reading.check import check
from shared.image.reading.reader import SquashImage
from shared.image.recipe import Compression
from tests.support.planned import write_image
from tests.support.trees import Row, Rows, image_rows

BLOCK: Final = 4096
POOL_BLOCKS: Final = 20
FRAGMENTS: Final = 3
DATA: Final = random.Random(3).randbytes((POOL_BLOCKS + FRAGMENTS) * BLOCK)
LEAVES: Final = [
    *[kinds.FILE] * 6,
    *[kinds.SYMLINK] * 2,
    kinds.FIFO,
    kinds.SOCKET,
    kinds.BLOCK_DEVICE,
    kinds.CHARACTER_DEVICE,
]


@dataclass(slots=True)
class Layer:
    """A pack that grows entry by entry, and the rows that its image must show."""

    chance: random.Random
    compression: Compression
    index: PackIndex = field(init=False)
    expected: Rows = field(default_factory=dict)
    directories: list[bytes] = field(default_factory=lambda: [b""])
    leaves: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.index = PackIndex(compression=self.compression, block_size=BLOCK, directories=[b""])
        for number in range(FRAGMENTS):
            self.index.fragments.extend([(POOL_BLOCKS + number) * BLOCK, RAW_BLOCK | BLOCK])
        self.index.xattr_sets.extend(self._set() for _ in range(5))
        self.expected[b""] = Row("d", 0o755, 0, 0, 0, None, (), 2, b"")

    def add(self, kind: int) -> None:
        parent = self.chance.choice(self.directories[-3:] + self.directories[:1] * 5)
        path, name = self._free_path(parent)
        self._entry(kind, parent, name)
        row = len(self.index.names) - 1
        xattrs = self.chance.choice([0, 0, 0, self.chance.randint(1, 5)])
        self.index.xattrs[row] = xattrs
        detail: object = None
        if kind == kinds.DIRECTORY:
            self.directories.append(path)
            self.index.directories.append(path)
            above = self.expected[parent]
            self.expected[parent] = above._replace(links=above.links + 1)
        elif kind == kinds.FILE:
            detail = self._file(row)
        elif kind == kinds.SYMLINK:
            detail = self.chance.randbytes(self.chance.choice([1, 20, 4095])).replace(b"\0", b"/")
            self._detail(row, self.index.targets, detail)
        elif kind in {kinds.BLOCK_DEVICE, kinds.CHARACTER_DEVICE}:
            major, minor = self.chance.randrange(1 << 12), self.chance.randrange(1 << 20)
            number = minor & 0xFF | major << 8 | (minor & 0xFFF00) << 12
            self.index.details[row] = len(self.index.devices)
            self.index.devices.append(number)
            detail = (major, minor)
        if kind != kinds.DIRECTORY:
            self.leaves.append(path)
        index = self.index
        self.expected[path] = Row(
            "?dflbcps"[kind],
            index.modes[row],
            index.uids[row],
            index.gids[row],
            index.mtimes[row],
            detail,
            tuple(sorted(index.xattr_sets[xattrs - 1])) if xattrs else (),
            2 if kind == kinds.DIRECTORY else 1,
            path,
        )

    def link(self) -> None:
        target = self.chance.choice(self.leaves)
        parent = self.chance.choice(self.directories)
        path, name = self._free_path(parent)
        self._entry(kinds.HARD_LINK, parent, name)
        self._detail(len(self.index.names) - 1, self.index.targets, target)
        self.expected[path] = self.expected[target]
        first = self.expected[target].first_name
        group = [p for p in self.expected if self.expected[p].first_name == first and p]
        for other in group:
            self.expected[other] = self.expected[other]._replace(
                links=len(group), first_name=min(group)
            )

    def _entry(self, kind: int, parent: bytes, name: bytes) -> None:
        index, chance = self.index, self.chance
        index.names.append(name)
        index.kinds.append(kind)
        index.parents.append(index.directories.index(parent))
        index.modes.append(0o777 if kind == kinds.SYMLINK else chance.randrange(0o10000))
        index.uids.append(chance.choice([0, 1000, (1 << 32) - 1, chance.randrange(300)]))
        index.gids.append(chance.choice([0, 1000, 70_000]))
        index.mtimes.append(chance.choice([0, 1_600_000_000, (1 << 32) - 1]))
        index.xattrs.append(0)
        index.details.append(0)

    def _detail(self, row: int, column: list[bytes], value: bytes) -> None:
        self.index.details[row] = len(column)
        column.append(value)

    def _file(self, row: int) -> tuple[int, str]:
        index, chance = self.index, self.chance
        count = chance.choice([0, 0, 0, 1, 2, 7])
        tail = chance.choice([0, 1, 100, BLOCK - 1])
        start = chance.randrange(POOL_BLOCKS - count)
        index.details[row] = len(index.file_sizes)
        index.file_sizes.append(count * BLOCK + tail)
        index.file_starts.append(start * BLOCK)
        index.file_blocks.append(len(index.blocks))
        content = b""
        for _ in range(count):
            if chance.random() < 0.3:
                index.blocks.append(0)
                content += bytes(BLOCK)
            else:
                index.blocks.append(RAW_BLOCK | BLOCK)
                content += DATA[start * BLOCK : (start + 1) * BLOCK]
                start += 1
        fragment, offset = chance.randrange(FRAGMENTS), chance.randrange(BLOCK - tail + 1)
        index.file_fragments.append(fragment if tail else NO_FRAGMENT)
        index.file_fragment_offsets.append(offset if tail else 0)
        begin = (POOL_BLOCKS + fragment) * BLOCK + offset
        content += DATA[begin : begin + tail]
        return len(content), hashlib.sha256(content).hexdigest()

    def _free_path(self, parent: bytes) -> tuple[bytes, bytes]:
        while True:
            length = self.chance.choice([1, 2, 3, 8, 30, 255])
            name = self.chance.randbytes(length).replace(b"/", b"x").replace(b"\0", b"y")
            path = parent + b"/" + name if parent else name
            if path not in self.expected and name not in {b".", b".."}:
                return path, name

    def _set(self) -> Xattrs:
        names = [b"user.a", b"trusted.b", b"security.c", b"user." + b"n" * 250]
        chosen = sorted(self.chance.sample(names, self.chance.randint(1, 4)))
        sizes = (0, 1, 300, 9000)
        return tuple((name, self.chance.randbytes(self.chance.choice(sizes))) for name in chosen)


def random_layer(seed: int, entries: int, compression: Compression) -> Layer:
    layer = Layer(random.Random(seed), compression)
    for _ in range(entries):
        chance = layer.chance.random()
        if chance < 0.1 and len(layer.directories) < 60:
            layer.add(kinds.DIRECTORY)
        elif chance < 0.2 and layer.leaves:
            layer.link()
        else:
            layer.add(layer.chance.choice(LEAVES))
    return layer


def check_layer(layer: Layer, path: Path) -> None:
    write_image(path, layer.index, DATA)
    report = check(path)
    assert report.names == len(layer.expected)
    assert (report.exported, report.odd_directories) == (True, 0)
    assert image_rows(path) == layer.expected


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 1 << 32), st.integers(0, 60), st.sampled_from(["zstd", "gzip"]))
def test_the_tables_of_a_random_pack_say_what_it_says(
    tmp_path: Path, seed: int, entries: int, compression: Compression
) -> None:
    check_layer(random_layer(seed, entries, compression), tmp_path / "image")


@pytest.mark.parametrize("seed", range(4))
def test_squashfs_tools_agree_about_a_large_random_pack(tmp_path: Path, seed: int) -> None:
    """Large enough for directories with an index, and runs that inode blocks and numbers end."""
    layer = random_layer(seed, 1500, "gzip")
    check_layer(layer, tmp_path / "image")
    with SquashImage(tmp_path / "image") as image:
        assert list(image.index(image.root().inode))
    if shutil.which("unsquashfs") is None:
        pytest.skip("unsquashfs is missing: install squashfs-tools")
    command: list[str | Path] = ["unsquashfs", "-lls", "-d", "", tmp_path / "image"]
    listed = subprocess.run(command, check=True, capture_output=True).stdout
    assert all(path in listed for path in layer.expected)


def test_data_behind_4_gib_are_found(tmp_path: Path) -> None:
    """A file of blocks there, one that ends in a fragment there, and one that is larger itself."""
    block, far = 1 << 20, 5 << 30
    data = random.Random(5).randbytes(2 * block)
    index = PackIndex(compression="zstd", block_size=block, directories=[b""])
    index.fragments.extend([far + block, RAW_BLOCK | block])
    holes = 4 << 10
    for name, size, blocks in (
        (b"blocks", block, [RAW_BLOCK | block]),
        (b"large", (holes + 1) * block + 5, [0] * holes + [RAW_BLOCK | block]),
        (b"tail", 5, []),
    ):
        index.names.append(name)
        index.kinds.append(kinds.FILE)
        index.details.append(len(index.file_sizes))
        for column in (index.modes, index.uids, index.gids, index.mtimes, index.xattrs):
            column.append(0)
        index.parents.append(0)
        index.file_sizes.append(size)
        index.file_starts.append(far)
        index.file_blocks.append(len(index.blocks))
        index.blocks.extend(blocks)
        index.file_fragments.append(0 if size % block else NO_FRAGMENT)
        index.file_fragment_offsets.append(7 if size % block else 0)
    write_image(tmp_path / "image", index, data, data_at=far)
    assert check(tmp_path / "image").expanded_bytes == 2 * block
    with SquashImage(tmp_path / "image") as image:
        found = {item.name: list(image.data(item.inode)) for item in image.walk() if item.name}
    tail = data[block + 7 : block + 12]
    assert found[b"blocks"] == [(0, data[:block])]
    assert found[b"large"] == [(holes * block, data[:block]), ((holes + 1) * block, tail)]
    assert found[b"tail"] == [(0, tail)]
