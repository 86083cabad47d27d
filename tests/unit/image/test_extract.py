"""Unpacking as an ordinary user: what gets out of an image, and what never does."""

import errno
import os
import stat
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from shared.errors import InvalidInputError
from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.making.verify import verify_image
from shared.image.packs.index import PackIndex
from shared.image.reading.extract import extract
from shared.image.recipe import Compression
from tests.support.packing import (
    KEEP_ALL,
    Part,
    build_image,
    directory,
    hard_link,
    member,
    symlink,
    tar_of,
)
from tests.support.planned import write_image
from tests.support.rawtar import END, old_sparse_header, padded

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


HOLE = 256 << 20
HOLE_TAR = old_sparse_header(b"hole", [(0, 5)], HOLE, 5) + padded(b"hello")


def test_a_hole_with_many_names_takes_no_memory(tmp_path: Path) -> None:
    names = [f"link{n}" for n in range(300)]
    links = tar_of(*[hard_link(name, "hole") for name in names])
    image = build_image([HOLE_TAR + links], tmp_path)
    tracemalloc.start()
    try:
        extract(image.path, tmp_path / "out", max_bytes=HOLE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Its list of blocks alone has a quarter of a MiB, once for each name.
    assert peak < 8 << 20
    hole = (tmp_path / "out/hole").stat()
    assert (hole.st_size, hole.st_nlink) == (HOLE, 301)
    assert hole.st_blocks * 512 < 1 << 20
    assert (tmp_path / "out/link7").read_bytes()[:6] == b"hello\0"


def test_holes_count_towards_the_limit(tmp_path: Path) -> None:
    image = build_image([HOLE_TAR + END], tmp_path)
    with pytest.raises(ImageUnsupportedError, match="268,435,455 bytes"):
        extract(image.path, tmp_path / "out", max_bytes=HOLE - 1)


def test_where_a_file_can_have_no_more_names_another_file_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_link = os.link

    def link(first: Path, second: Path, *, follow_symlinks: bool) -> None:
        if first.stat().st_nlink == 2:
            raise OSError(errno.EMLINK, "Too many links")
        real_link(first, second, follow_symlinks=follow_symlinks)

    tar = tar_of(("a", b"one"), *[hard_link(name, "a") for name in "bcd"])
    image = build_image([tar], tmp_path)
    monkeypatch.setattr(os, "link", link)
    extract(image.path, tmp_path / "out", max_bytes=6)
    found = [tmp_path / "out" / name for name in "abcd"]
    assert [path.read_bytes() for path in found] == [b"one"] * 4
    assert [path.stat().st_nlink for path in found] == [2] * 4
    assert found[2].samefile(found[3])


OPEN: list[Part] = [
    directory("./", mode=0o777),
    directory("tmp", mode=0o1777),
    (member("tmp/file", mode=0o666), b"x"),
    member("tmp/pipe", tarfile.FIFOTYPE, mode=0o622),
    (member("tool", mode=0o6775), b"x"),
]


def test_nobody_else_can_write_to_what_is_unpacked(tmp_path: Path) -> None:
    image = build_image([tar_of(*OPEN)], tmp_path)
    old = os.umask(0)
    try:
        extract(image.path, tmp_path / "out")
    finally:
        os.umask(old)
    found = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.lstat().st_mode)
        for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    }
    assert found == {
        "out": 0o755,
        "out/tmp": 0o1755,
        "out/tmp/file": 0o644,
        "out/tmp/pipe": 0o600,
        "out/tool": 0o755,
    }


def test_nobody_else_gets_in_before_all_is_unpacked(tmp_path: Path) -> None:
    image = build_image([tar_of(*OPEN)], tmp_path)
    with pytest.raises(ImageUnsupportedError):
        extract(image.path, tmp_path / "out", max_bytes=1)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def hostile_image(path: Path, names: list[bytes]) -> None:
    """An image such as no layer can lead to: files of these names in its root."""
    index = PackIndex(compression="gzip", block_size=4096, directories=[b""])
    for name in names:
        index.names.append(name)
        for column, value in (("kinds", 6), ("modes", 0o644), ("parents", 0)):
            getattr(index, column).append(value)
        for column in ("uids", "gids", "mtimes", "xattrs", "details"):
            getattr(index, column).append(0)
    write_image(path, index)


@pytest.mark.parametrize("name", [b"..", b".", b"../out", b"/tmp/out", b"a\0b", b"n" * 256])
def test_a_hostile_name_is_refused(tmp_path: Path, name: bytes) -> None:
    hostile_image(tmp_path / "image", [b"good", name])
    with pytest.raises(ImageCorruptError, match="impossible name"):
        extract(tmp_path / "image", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"image", "out"}


def test_damage_is_an_error_of_ours_or_stays_inside_and_verifying_finds_all_of_it(
    tmp_path: Path,
) -> None:
    tar = tar_of(directory("d"), ("d/f", bytes(range(256)) * 40), symlink("l", "d"))
    image = build_image([tar], tmp_path)
    sound = image.path.read_bytes()
    before = {path.name for path in tmp_path.iterdir()}
    tables = image.recipe.tables.offset
    places = [*range(96), *range(tables, tables + image.recipe.tables.length)]
    outs = set()
    for number, place in enumerate(places):
        damaged = bytearray(sound)
        damaged[place] ^= 0x5A
        image.path.write_bytes(damaged)
        with pytest.raises(ImageCorruptError):
            verify_image(image.path, image.recipe)
        outs.add(f"out{number}")
        try:
            extract(image.path, tmp_path / f"out{number}", max_bytes=1 << 20)
        except (ImageCorruptError, ImageUnsupportedError):
            continue
        # Without digests some damage cannot be told from an image: it reads as another tree.
        assert (tmp_path / f"out{number}").is_dir()
    assert {path.name for path in tmp_path.iterdir()} <= before | outs


def test_a_missing_codec_is_named(tmp_path: Path) -> None:
    image = build_image([tar_of(("f", b"x"))], tmp_path)
    script = """
import sys
from pathlib import Path
sys.modules["zstandard"] = None
from shared.errors import MissingDependencyError
from shared.image.reading.extract import extract
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
