"""Reading without a mount: images that are none, and trees that are none."""

from pathlib import Path

import pytest

from shared.image import reader
from shared.image.budget import MAX_DEPTH
from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.inode_reader import Inode, Metadata, read_inode
from shared.image.reader import SquashImage
from shared.image.superblock import Superblock
from tests.support.packing import build_image, directory, tar_of

ZEROS = bytes(20_000)


def test_garbage_is_no_image(tmp_path: Path) -> None:
    for content in (b"", b"hsqs", b"\x7fELF" + ZEROS, b"hsqs" + ZEROS):
        (tmp_path / "image").write_bytes(content)
        with pytest.raises(ImageCorruptError):
            SquashImage(tmp_path / "image")


def test_a_directory_in_itself_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = build_image([tar_of(directory("d"))], tmp_path)
    with SquashImage(image.path) as opened:
        root = opened.superblock.root
        monkeypatch.setattr(reader, "read_listing", lambda *_: iter([(b"again", root)]))
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
        with pytest.raises(ImageUnsupportedError, match="255 deep"):
            list(opened.walk())


def test_a_listing_is_read_no_further_than_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inodes come one by one: an honest directory may have millions of names."""
    image = build_image([tar_of(*[(f"f{n:03}", b"") for n in range(500)])], tmp_path)
    read = []

    def counted(metadata: Metadata, superblock: Superblock, reference: int) -> Inode:
        read.append(reference)
        return read_inode(metadata, superblock, reference)

    monkeypatch.setattr(reader, "read_inode", counted)
    with SquashImage(image.path) as opened:
        walk = opened.walk()
        assert [next(walk).path for _ in range(3)] == [b"", b"f000", b"f001"]
    assert len(read) == 3
