"""Damaged and hostile images: reading ends in an error of ours, soon, and in little memory.

Most of the images have tables that are not compressed, so that damage gets to where it matters.
"""

import os
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.image.codecs import BlockCodec, block_codec
from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.reading.check import check
from shared.image.reading.reader import SquashImage
from shared.image.squashfs.metadata import MetadataWriter, lookup_table, pack_starts
from shared.image.squashfs.superblock import ABSENT, Superblock
from tests.support.packing import KEEP_ALL, build_image, directory, hard_link, member, symlink
from tests.support.packing import tar_of as tar
from tests.support.planned import Stored
from tests.support.reading import read_everything

OURS = (ImageCorruptError, ImageUnsupportedError)
XATTRS = {"SCHILY.xattr.user.a": "1" * 40, "SCHILY.xattr.trusted.b": "2"}
TAR = tar(
    directory("d/e"),
    (member("d/file", pax_headers=XATTRS), os.urandom(5000) + bytes(9000) + b"text" * 3000),
    hard_link("d/name", "d/file"),
    symlink("d/link", "file"),
    member("d/device", b"3", devmajor=5, devminor=300),
    *[(f"big/{n:03}-{'long name' * 20}", b"") for n in range(60)],
    ("small", b"x" * 100),
)
# What makes fields lie: limits, signs, and values that lead elsewhere in a small image.
VALUES = st.one_of(
    st.sampled_from([0, 1, 2, 3, 7, 96, 255, 256, 4095, 4096, 8191, 8192, 8194, 0x8000, 0xFFFF]),
    st.sampled_from([1 << 24, (1 << 24) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]),
    st.sampled_from([1 << 32, 1 << 48, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)


@pytest.fixture(scope="module", params=["zstd", "gzip", "stored"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "stored":
        return build_image([TAR], root, codec=Stored()).path.read_bytes()
    options = KEEP_ALL.model_copy(update={"compression": request.param})
    return build_image([TAR], root, options).path.read_bytes()


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytearray], None]:
    """Some changes: fields overwritten, parts copied elsewhere, the end cut off."""
    changes = []
    for _ in range(draw(st.integers(1, 4))):
        in_superblock = draw(st.integers(0, 4)) == 0
        place, source = draw(st.floats(0, 1)), draw(st.floats(0, 1))
        width = draw(st.sampled_from([1, 2, 4, 8]))
        sort = draw(st.sampled_from(["write", "write", "write", "copy", "flip", "cut"]))
        changes.append((in_superblock, place, source, width, sort, draw(VALUES)))

    def damage(image: bytearray) -> None:
        # All that is worth it: the superblock, some data and the tables.
        first = max(0, Superblock.unpack(bytes(image)).inode_table - 600)
        for in_superblock, place, source, width, sort, value in changes:
            start, end = (0, 96) if in_superblock else (first, len(image))
            at = start + int(place * (end - start - 8))
            if sort == "write":
                image[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
            elif sort == "flip":
                image[at] ^= 1 << value % 8
            elif sort == "copy":
                begin = start + int(source * (end - start - 8))
                image[at : at + 4 * width] = image[begin : begin + 4 * width]
            elif at > 96:
                del image[at:]

    return damage


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(damage=damages())
def test_damage_of_any_kind_ends_in_an_error_of_ours_or_in_another_tree(
    sound: bytes, tmp_path: Path, damage: Callable[[bytearray], None]
) -> None:
    image = bytearray(sound)
    with suppress(IndexError):  # an earlier change has cut that place off
        damage(image)
    (tmp_path / "image").write_bytes(image)
    with suppress(*OURS):
        read_everything(tmp_path / "image")


def test_every_single_byte_of_the_tables_may_be_wrong(sound: bytes, tmp_path: Path) -> None:
    superblock = Superblock.unpack(sound)
    places = [*range(96), *range(superblock.inode_table, superblock.bytes_used)]
    path = tmp_path / "image"
    refused = 0
    # A step that visits all kinds of fields, and leaves the test quick.
    for place in places[:96] + places[96 :: max(1, len(places) // 200)]:
        image = bytearray(sound)
        image[place] ^= 0xA5
        path.write_bytes(image)
        try:
            read_everything(path)
        except OURS:
            refused += 1
    assert refused > 100


class Handmade:
    """An image of inodes and listings that a test writes by hand."""

    def __init__(self, codec: BlockCodec) -> None:
        self._codec = codec
        self._inodes = MetadataWriter(codec)
        self._directories = MetadataWriter(codec)
        self.count = 0

    def inode(self, kind: int, detail: bytes) -> int:
        """The reference of a new inode."""
        self.count += 1
        common = struct.pack("<HHHHII", kind, 0o755, 0, 0, 0, self.count)
        return self._inodes.write(common + detail)

    def empty_file(self) -> int:
        return self.inode(2, struct.pack("<IIII", 0, 0xFFFFFFFF, 0, 0))

    def directory(self, listing: int, size: int) -> int:
        detail = struct.pack("<IIHHI", listing >> 16, 2, size + 3, listing & 0xFFFF, 1)
        return self.inode(1, detail)

    def extended_directory(self, listing: int, size: int) -> int:
        start, offset = listing >> 16, listing & 0xFFFF
        detail = struct.pack("<IIIIHHI", 2, size + 3, start, 1, 0, offset, 0xFFFFFFFF)
        return self.inode(8, detail)

    def listing(self, *runs: tuple[int, list[bytes]], kind: int = 2) -> tuple[int, int]:
        """A listing of runs, each of one inode's names; returns where it is and its size."""
        data = b""
        for reference, names in runs:
            data += struct.pack("<IIi", len(names) - 1, reference >> 16, 1)
            for name in names:
                data += struct.pack("<HhHH", reference & 0xFFFF, 0, kind, len(name) - 1) + name
        return self._directories.write(data), len(data)

    def metadata(self, data: bytes) -> None:
        """Bytes behind the latest inode, such as its list of blocks."""
        self._inodes.write(data)

    def write(self, path: Path, root: int) -> None:
        position = 96
        inodes = self._inodes.finish()
        directories = self._directories.finish() or b"\1\x80\0"
        ids_at = position + len(inodes) + len(directories)
        ids, starts = lookup_table(self._codec, bytes(4), ids_at)
        id_table = ids_at + len(ids)
        superblock = Superblock(
            inodes=self.count,
            block_size=1 << 20,
            fragments=0,
            compression="zstd",
            flags=0,
            ids=1,
            root=root,
            bytes_used=id_table + 8,
            id_table=id_table,
            xattr_table=ABSENT,
            inode_table=position,
            directory_table=position + len(inodes),
            fragment_table=ABSENT,
            export_table=ABSENT,
        )
        blob = inodes + directories + ids + pack_starts(starts)
        path.write_bytes(superblock.pack() + blob)


@pytest.fixture
def handmade() -> Handmade:
    return Handmade(block_codec("zstd"))


def test_a_handmade_image_is_read(handmade: Handmade, tmp_path: Path) -> None:
    listing = handmade.listing((handmade.empty_file(), [b"file"]))
    handmade.write(tmp_path / "image", handmade.directory(*listing))
    with SquashImage(tmp_path / "image") as image:
        assert [found.path for found in image.walk()] == [b"", b"file"]


def test_directories_in_a_circle_are_found_out(handmade: Handmade, tmp_path: Path) -> None:
    """The root lists a directory whose listing is the root's."""
    inner = handmade.directory(0, 12 + 9)
    listing = handmade.listing((inner, [b"d"]), kind=1)
    handmade.write(tmp_path / "image", handmade.directory(*listing))
    with (
        SquashImage(tmp_path / "image") as image,
        pytest.raises(ImageCorruptError, match="at two places"),
    ):
        list(image.walk())


def test_a_listing_that_many_directories_share_does_not_take_for_ever(
    handmade: Handmade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some kilobytes that show a million files: 1,000 directories with 1,000 names each."""
    monkeypatch.setattr("shared.image.reading.reader.MAX_NAMES", 10_000)
    file = handmade.empty_file()
    runs = [(file, [b"%06d" % (256 * run + n) for n in range(256)]) for run in range(4)]
    listing = handmade.listing(*runs)
    shared = [handmade.directory(*listing) for _ in range(1000)]
    runs = [(directory, [b"%04d" % n]) for n, directory in enumerate(shared)]
    handmade.write(tmp_path / "image", handmade.directory(*handmade.listing(*runs, kind=1)))
    assert (tmp_path / "image").stat().st_size < 40_000
    with SquashImage(tmp_path / "image") as image:
        walk = image.walk()
        with pytest.raises(ImageUnsupportedError, match="more than 10,000 files"):
            for _ in walk:
                pass


def test_a_file_of_impossible_size_takes_neither_time_nor_memory(
    handmade: Handmade, tmp_path: Path
) -> None:
    """All of it holes, and its list of blocks goes on to the end of the table and beyond."""
    detail = struct.pack("<QQQIIII", 0, (1 << 63) - 1, 0, 1, 0xFFFFFFFF, 0, 0xFFFFFFFF)
    file = handmade.inode(9, detail)
    handmade.metadata(bytes(1 << 20))
    listing = handmade.listing((file, [b"file"]))
    handmade.write(tmp_path / "image", handmade.directory(*listing))
    tracemalloc.start()
    try:
        with SquashImage(tmp_path / "image") as image:
            found = image.lookup(b"file")
            assert found is not None
            with pytest.raises(ImageCorruptError, match="behind a table's end"):
                list(image.data(found.inode))
        with pytest.raises(OURS):
            check(tmp_path / "image")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_listing_that_says_it_is_huge_ends_with_its_table(
    handmade: Handmade, tmp_path: Path
) -> None:
    handmade.listing((handmade.empty_file(), [b"file"]))
    root = handmade.extended_directory(0, 0xFFFFFFFF - 3)
    handmade.write(tmp_path / "image", root)
    with pytest.raises(ImageCorruptError):
        check(tmp_path / "image")
