"""Reading without a mount: walking, looking up, and trees that are none."""

from pathlib import Path

import pytest

from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.kinds import DIRECTORY
from shared.image.merging.budget import MAX_DEPTH
from shared.image.reading import reader
from shared.image.reading.inode import Inode, read_inode
from shared.image.reading.listing import Entry
from shared.image.reading.metadata import LookupTable, Metadata, Stream
from shared.image.reading.reader import SquashImage
from tests.support.packing import build_image, directory, member, symlink, tar_of

ZEROS = bytes(20_000)
LONG_NAMES = [f"a-rather-long-name-for-a-file-{n:06}" for n in range(5000)]


def test_garbage_is_no_image(tmp_path: Path) -> None:
    for content in (b"", b"hsqs", b"\x7fELF" + ZEROS, b"hsqs" + ZEROS):
        (tmp_path / "image").write_bytes(content)
        with pytest.raises(ImageCorruptError):
            SquashImage(tmp_path / "image")


def test_a_shortened_image_is_told_at_once(tmp_path: Path) -> None:
    image = build_image([tar_of(("f", b"x"))], tmp_path)
    with SquashImage(image.path) as opened:
        used = opened.superblock.bytes_used
    with image.path.open("r+b") as file:
        file.truncate(used - 1)
    with pytest.raises(ImageCorruptError, match="shorter"):
        SquashImage(image.path)


def test_everything_that_a_walk_shows_can_be_looked_up(tmp_path: Path) -> None:
    tar = tar_of(
        directory("d/e/f"),
        ("d/e/file", b"content"),
        symlink("d/link", "e"),
        *[(f"big/{name}", b"") for name in LONG_NAMES[::10]],
    )
    with SquashImage(build_image([tar], tmp_path).path) as opened:
        for found in opened.walk():
            assert opened.lookup(found.path) == found
        for missing in (b"x", b"d/x", b"d/e/file/x", b"d/link/file", b"big/a", b"big/z", b"d/."):
            assert opened.lookup(missing) is None


def test_a_name_in_a_large_directory_is_found_by_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = build_image([tar_of(*[(name, b"") for name in LONG_NAMES])], tmp_path)
    read = []
    real = Metadata.raw

    def counted(self: Metadata, position: int, size: int) -> bytes:
        read.append(position)
        return real(self, position, size)

    with SquashImage(image.path) as opened:
        monkeypatch.setattr(Metadata, "raw", counted)
        found = opened.lookup(LONG_NAMES[4321].encode())
        assert found is not None
        by_index = len(read)
        read.clear()
        assert len(list(opened.walk())) == 5001
    # The listing has some 30 metadata blocks, of which the index leaves out all but one or two.
    assert by_index < 12
    assert len(read) > 30


def test_extended_attributes_of_any_inode_are_read(tmp_path: Path) -> None:
    def attributes(**values: str) -> dict[str, str]:
        return {f"SCHILY.xattr.{name.replace('_', '.')}": value for name, value in values.items()}

    tar = tar_of(
        directory(".", pax_headers=attributes(user_root="of the root")),
        (member("file", pax_headers=attributes(user_a="1" * 9000, trusted_b="")), b""),
        symlink("link", "file", pax_headers=attributes(security_c="2")),
        member("pipe", b"6", pax_headers=attributes(trusted_d="3")),
        member("device", b"3", devmajor=1, devminor=3, pax_headers=attributes(security_e="4")),
        ("bare", b""),
    )
    with SquashImage(build_image([tar], tmp_path).path) as opened:
        found = {item.path: dict(opened.xattrs(item.inode)) for item in opened.walk()}
    assert found == {
        b"": {b"user.root": b"of the root"},
        b"bare": {},
        b"device": {b"security.e": b"4"},
        b"file": {b"user.a": b"1" * 9000, b"trusted.b": b""},
        b"link": {b"security.c": b"2"},
        b"pipe": {b"trusted.d": b"3"},
    }


def test_a_directory_in_itself_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = build_image([tar_of(directory("d"))], tmp_path)
    with SquashImage(image.path) as opened:
        again = Entry(b"again", opened.superblock.root, DIRECTORY, 1)
        monkeypatch.setattr(reader, "read_listing", lambda *_: iter([again]))
        with pytest.raises(ImageCorruptError, match="at two places"):
            list(opened.walk())


def test_a_tree_is_read_down_to_its_greatest_depth_and_not_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deepest = "/".join(["d"] * MAX_DEPTH)
    image = build_image([tar_of(directory(deepest))], tmp_path)
    with SquashImage(image.path) as opened:
        assert [found.path for found in opened.walk()][-1] == deepest.encode()
        monkeypatch.setattr(reader, "MAX_DEPTH", MAX_DEPTH - 1)
        with pytest.raises(ImageUnsupportedError, match=f"{MAX_DEPTH - 1} deep"):
            list(opened.walk())


def test_no_more_names_are_read_than_can_be_borne(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = build_image([tar_of(*[(f"f{n}", b"") for n in range(10)])], tmp_path)
    with SquashImage(image.path) as opened:
        monkeypatch.setattr(reader, "MAX_NAMES", 9)
        with pytest.raises(ImageUnsupportedError, match="more than 9 files"):
            list(opened.walk())


def test_a_listing_is_read_no_further_than_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inodes come one by one: an honest directory may have millions of names."""
    image = build_image([tar_of(*[(f"f{n:03}", b"") for n in range(500)])], tmp_path)
    read = []

    def counted(inodes: Stream, ids: LookupTable, block_size: int, reference: int) -> Inode:
        read.append(reference)
        return read_inode(inodes, ids, block_size, reference)

    monkeypatch.setattr(reader, "read_inode", counted)
    with SquashImage(image.path) as opened:
        walk = opened.walk()
        assert [next(walk).path for _ in range(3)] == [b"", b"f000", b"f001"]
    assert len(read) == 3
