"""Reading without a mount: extraction as an ordinary user, hostile images, missing codecs."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from shared.errors import InvalidInputError
from shared.image.codecs import block_codec
from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.kinds import ALIGNMENT
from shared.image.pack_index import PackIndex
from shared.image.reader import SquashImage, extract
from shared.image.recipe import Compression
from shared.image.tables import build_tables
from shared.image.tree import Layer, Tree
from tests.support.packing import (
    KEEP_ALL,
    build_image,
    directory,
    hard_link,
    member,
    symlink,
    tar_of,
)

ZEROS = bytes(20_000)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_a_tree_is_extracted_as_it_is(tmp_path: Path, compression: Compression) -> None:
    tar = tar_of(
        directory("d", mode=0o555, mtime=1000),
        ("d/file", b"content"),
        (member("d/secret", mode=0o4000, mtime=2000), b"readable by its owner"),
        ("d/holes", b"x" + ZEROS + b"y"),
        hard_link("d/again", "d/file"),
        symlink("d/link", "/etc/passwd"),
        symlink("d/odd", "a//b/../c"),
        member("d/pipe", tarfile.FIFOTYPE),
        member("d/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    )
    options = KEEP_ALL.model_copy(update={"compression": compression})
    extract(build_image([tar], tmp_path, options).path, tmp_path / "out")
    found = tmp_path / "out/d"
    assert {path.name for path in found.iterdir()} == {
        "file",
        "secret",
        "holes",
        "again",
        "link",
        "odd",
        "pipe",
    }
    assert (found / "file").read_bytes() == b"content"
    assert (found / "again").samefile(found / "file")
    assert (found / "holes").read_bytes() == b"x" + ZEROS + b"y"
    assert str((found / "link").readlink()) == "/etc/passwd"
    assert (found / "pipe").is_fifo()
    assert found.stat().st_mode & 0o7777 == 0o755
    assert (found / "secret").stat().st_mode & 0o7777 == 0o400
    assert (found.stat().st_mtime, (found / "secret").stat().st_mtime) == (1000, 2000)


def test_extraction_stops_at_its_limit(tmp_path: Path) -> None:
    image = build_image([tar_of(("f", ZEROS))], tmp_path)
    with pytest.raises(ImageUnsupportedError, match="larger"):
        extract(image.path, tmp_path / "out", max_bytes=len(ZEROS) - 1)


def test_extraction_needs_a_directory_of_its_own(tmp_path: Path) -> None:
    image = build_image([tar_of(("f", b"x"))], tmp_path)
    with pytest.raises(InvalidInputError, match="not empty"):
        extract(image.path, tmp_path)


def hostile_image(path: Path, names: list[bytes]) -> None:
    """An image such as no layer can lead to: files of these names in its root."""
    index = PackIndex(compression="gzip", block_size=4096, directories=[b""])
    for name in names:
        index.names.append(name)
        for column, value in (("kinds", 6), ("modes", 0o644), ("parents", 0)):
            getattr(index, column).append(value)
        for column in ("uids", "gids", "mtimes", "xattrs", "details"):
            getattr(index, column).append(0)
    tree = Tree()
    tree.apply(Layer(index, ALIGNMENT, 0))
    tables = build_tables(
        tree.root,
        fragments=b"",
        position=ALIGNMENT,
        codec=block_codec("gzip"),
        compression="gzip",
        block_size=4096,
    )
    image = tables.superblock.pack().ljust(ALIGNMENT, b"\0") + tables.blob
    path.write_bytes(image)


@pytest.mark.parametrize("name", [b"..", b".", b"../out", b"/tmp/out", b"a\0b", b"n" * 256])
def test_a_hostile_name_is_refused(tmp_path: Path, name: bytes) -> None:
    hostile_image(tmp_path / "image", [b"good", name])
    with pytest.raises(ImageCorruptError, match="impossible name"):
        extract(tmp_path / "image", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"image", "out"}


def test_garbage_is_no_image(tmp_path: Path) -> None:
    for content in (b"", b"hsqs", b"\x7fELF" + ZEROS, b"hsqs" + ZEROS):
        (tmp_path / "image").write_bytes(content)
        with pytest.raises(ImageCorruptError):
            SquashImage(tmp_path / "image")


def test_a_damaged_image_is_an_error_and_never_anything_else(tmp_path: Path) -> None:
    tar = tar_of(directory("d"), ("d/f", bytes(range(256)) * 40), symlink("l", "d"))
    image = build_image([tar], tmp_path)
    sound = image.path.read_bytes()
    tables = image.recipe.tables.offset
    places = [*range(32, 96), *range(tables, tables + image.recipe.tables.length, 3)]
    noticed = 0
    for number, place in enumerate(places):
        damaged = bytearray(sound)
        damaged[place] ^= 0x5A
        image.path.write_bytes(damaged)
        try:
            extract(image.path, tmp_path / f"out{number}", max_bytes=1 << 20)
        except (ImageCorruptError, ImageUnsupportedError):
            noticed += 1
    assert noticed > len(places) // 2


def test_a_missing_codec_is_named(tmp_path: Path) -> None:
    image = build_image([tar_of(("f", b"x"))], tmp_path)
    script = """
import sys
from pathlib import Path
sys.modules["zstandard"] = None
from shared.errors import MissingDependencyError
from shared.image.reader import extract
try:
    extract(Path(sys.argv[1]), Path(sys.argv[2]))
except MissingDependencyError as exc:
    print(exc)
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(image.path), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "zstandard" in result.stdout
    assert "dray[codecs]" in result.stdout
