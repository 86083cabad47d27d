"""The full check: sound images pass, and each field that lies is found out by name.

The tables of these images are not compressed, so that a field can be changed where it stands.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.reading import check_data
from shared.image.reading.check import check
from shared.image.reading.reader import Found, SquashImage
from shared.image.squashfs.superblock import ABSENT
from tests.support.packing import build_image, directory, hard_link, member, tar_of
from tests.support.planned import Stored

NOISE = os.urandom(4096)
XATTRS = {"SCHILY.xattr.user.a": "1"}
TAR = tar_of(
    directory("d/e"),
    (member("d/file", pax_headers=XATTRS), NOISE + b"tail of the file"),
    ("d/long", NOISE[::-1] * 3),
    hard_link("d/name", "d/file"),
    *[(f"big/a-rather-long-name-{n:04}", b"") for n in range(600)],
    ("small", b"x" * 100),
)


class Patched:
    """An image and where the fields of its inodes and listings are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with SquashImage(path) as image:
            self.superblock = image.superblock
            self._found = {found.path: found for found in image.walk()}

    def found(self, path: bytes) -> Found:
        return self._found[path]

    def inode(self, path: bytes) -> int:
        """Where an inode is in the file: in front of it is the header of its block."""
        reference = self.found(path).inode.reference
        return self.superblock.inode_table + (reference >> 16) + 2 + (reference & 0xFFFF)

    def entry(self, path: bytes) -> int:
        """Where the entry that gives a path is in the file."""
        name = self.found(path).name
        data = self.path.read_bytes()
        packed = struct.pack("<H", len(name) - 1) + name
        return data.index(packed, self.superblock.directory_table) - 6

    def table_block(self, table: int) -> int:
        """Where the rows of a lookup table begin."""
        with self.path.open("rb") as file:
            file.seek(table)
            return int.from_bytes(file.read(8), "little") + 2

    def write(self, position: int, layout: str, value: int) -> None:
        with self.path.open("r+b") as file:
            file.seek(position)
            file.write(struct.pack(f"<{layout}", value))

    def read(self, position: int, layout: str) -> int:
        with self.path.open("rb") as file:
            file.seek(position)
            (value,) = struct.unpack(f"<{layout}", file.read(struct.calcsize(layout)))
        return int(value)


@pytest.fixture
def image(tmp_path: Path) -> Patched:
    return Patched(build_image([TAR], tmp_path, codec=Stored()).path)


def test_a_sound_image_is_counted(image: Patched) -> None:
    report = check(image.path)
    # The root, d, d/e, big; two names of one file.
    assert (report.inodes, report.names, report.directories) == (607, 608, 4)
    assert (report.blocks, report.fragments, report.unused_fragments) == (4, 1, 0)
    assert report.expanded_bytes == 4 * 4096 + len(b"tail of the file") + 100
    assert report.stored_bytes <= report.expanded_bytes
    assert (report.exported, report.odd_directories) == (True, 0)


def number_of_an_inode(image: Patched) -> None:
    image.write(image.inode(b"small") + 12, "I", image.found(b"d/long").inode.number)


def number_in_a_listing(image: Patched) -> None:
    place = image.entry(b"small") + 2
    image.write(place, "h", image.read(place, "h") + 1)


def kind_in_a_listing(image: Patched) -> None:
    image.write(image.entry(b"small") + 4, "H", 6)


def count_of_inodes(image: Patched, count: int) -> None:
    """Without the export table, which would have another size."""
    image.write(4, "I", count)
    image.write(88, "Q", ABSENT)


def number_beyond_all(image: Patched) -> None:
    count_of_inodes(image, 606)


def number_never_used(image: Patched) -> None:
    count_of_inodes(image, 608)


def size_of_the_export_table(image: Patched) -> None:
    image.write(4, "I", 606)


def row_of_the_export_table(image: Patched) -> None:
    rows = image.table_block(image.superblock.export_table)
    image.write(rows + 8 * (image.found(b"small").inode.number - 1), "Q", 0)


def links_of_a_file(image: Patched) -> None:
    image.write(image.inode(b"d/file") + 16 + 24, "I", 3)


def parent_of_a_directory(image: Patched) -> None:
    image.write(image.inode(b"d/e") + 16 + 12, "I", 1)


def owner_that_is_not_there(image: Patched) -> None:
    image.write(image.inode(b"small") + 4, "H", 7)


def attributes_that_are_not_there(image: Patched) -> None:
    image.write(image.inode(b"d/file") + 16 + 36, "I", 1)


def prefix_of_an_attribute(image: Patched) -> None:
    start = image.read(image.superblock.xattr_table, "Q")
    image.write(start + 2, "H", 3)


def size_of_an_attribute(image: Patched) -> None:
    start = image.read(image.superblock.xattr_table, "Q")
    image.write(start + 2 + 4 + 1, "I", 1 << 17)


def fragment_that_is_not_there(image: Patched) -> None:
    image.write(image.inode(b"small") + 16 + 4, "I", 1)


def tail_behind_its_fragment(image: Patched) -> None:
    image.write(image.inode(b"small") + 16 + 8, "I", 4000)


def tail_longer_than_its_fragment(image: Patched) -> None:
    image.write(image.inode(b"small") + 16 + 8, "I", 3000)


def blocks_outside_of_the_data(image: Patched) -> None:
    image.write(image.inode(b"d/long") + 16, "I", 0)


def blocks_that_overlap(image: Patched) -> None:
    place = image.inode(b"d/long") + 16
    image.write(place, "I", image.read(place, "I") - 8)


def block_of_another_size(image: Patched) -> None:
    """Stored as it is, and too short for a whole block."""
    image.write(image.inode(b"d/long") + 16 + 16, "I", 1 << 24 | 4095)


def block_with_unknown_bits(image: Patched) -> None:
    image.write(image.inode(b"d/long") + 16 + 16, "I", 1 << 25 | 4096)


def block_that_cannot_be_expanded(image: Patched) -> None:
    """Noise was stored as it is."""
    image.write(image.inode(b"d/long") + 16 + 16, "I", 4096)


def more_holes_than_there_are(image: Patched) -> None:
    image.write(image.inode(b"d/file") + 16 + 16, "Q", 1)


def point_of_an_index(image: Patched) -> None:
    """The directory's name there is the same as before, only the position is not."""
    place = image.inode(b"big") + 16 + 24
    image.write(place, "I", image.read(place, "I") + 1)


def name_of_an_index(image: Patched) -> None:
    image.write(image.inode(b"big") + 16 + 24 + 12 + 5, "B", ord("x"))


def order_of_names(image: Patched) -> None:
    image.write(image.entry(b"small") + 8, "B", ord("a"))


def length_of_a_listing(image: Patched) -> None:
    place = image.inode(b"d") + 16 + 8
    image.write(place, "H", image.read(place, "H") - 1)


LIES: list[tuple[Callable[[Patched], None], str]] = [
    (number_of_an_inode, "do not agree"),
    (number_in_a_listing, "do not agree"),
    (kind_in_a_listing, "do not agree"),
    (number_beyond_all, "no inode number 607"),
    (number_never_used, "607 inodes, and says 608"),
    (size_of_the_export_table, "table of inode numbers of the wrong size"),
    (row_of_the_export_table, "/small: the export table"),
    (links_of_a_file, "another number of names"),
    (parent_of_a_directory, "/d/e: it has another parent"),
    (owner_that_is_not_there, "owner 7"),
    (attributes_that_are_not_there, "attribute set 1"),
    (prefix_of_an_attribute, "unknown kind"),
    (size_of_an_attribute, "impossible size"),
    (fragment_that_is_not_there, "/small: fragment 1"),
    (tail_behind_its_fragment, "/small: its end is behind"),
    (tail_longer_than_its_fragment, "3100 are expected"),
    (blocks_outside_of_the_data, "/d/long: a block at 0"),
    (blocks_that_overlap, "two blocks in one place"),
    (block_of_another_size, "4096 are expected|two blocks"),
    (block_with_unknown_bits, "/d/long: a block at"),
    (block_that_cannot_be_expanded, "cannot be expanded|two things|two blocks"),
    (more_holes_than_there_are, "/d/file: more of it"),
    (point_of_an_index, "/big: "),
    (name_of_an_index, "/big: its index"),
    (order_of_names, "out of order"),
    (length_of_a_listing, "longer than it says"),
]


@pytest.mark.parametrize(("lie", "reason"), LIES)
def test_a_lie_is_found_out(image: Patched, lie: Callable[[Patched], None], reason: str) -> None:
    lie(image)
    with pytest.raises(ImageCorruptError, match=reason):
        check(image.path)


def test_what_a_check_may_cost_is_bounded(image: Patched, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("_MAX_BLOCKS", 3), ("_MAX_LISTED", 3), ("_MAX_EXPANDED", 5000)):
        with monkeypatch.context() as patch:
            patch.setattr(check_data, name, limit)
            with pytest.raises(ImageUnsupportedError, match="more than"):
                check(image.path)
