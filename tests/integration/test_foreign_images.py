"""Images that other tools made: our reader sees the very tree that they were made of."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from shared.image.errors import ImageUnsupportedError
from shared.image.reading.check import check
from shared.image.reading.reader import SquashImage
from tests.support.squashfs import is_root
from tests.support.trees import Rows, image_rows, mount_rows

RANDOM = random.Random(7)
# Larger than any value is kept with its name where several sets of attributes have it.
LONG_VALUE = RANDOM.randbytes(900)
OPTIONS = [
    "-comp gzip -Xwindow-size 10 -Xstrategy filtered,huffman_only",
    "-comp lzma",
    "-comp xz",
    "-comp xz -Xbcj x86,arm,powerpc -Xdict-size 100% -b 1M",
    "-comp lz4",
    "-comp lz4 -Xhc -b 4K",
    "-comp zstd -Xcompression-level 22 -b 1M",
    "-noI -noD -noF -noX",
    "-noI",
    "-noId",
    "-noD",
    "-noF",
    "-noX",
    "-no-fragments",
    "-always-use-fragments",
    "-no-exports",
    "-no-duplicates",
    "-no-sparse",
    "-no-hardlinks",
    "-no-xattrs",
    # Not with blocks of 4 KiB: mksquashfs 4.5.1 then damages some of its images, for kernels too.
    "-tailends",
    "-b 8K -comp zstd",
    "-nopad",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of every kind of inode one at least; devices only for root."""
    root = tmp_path_factory.mktemp("tree")
    (root / "empty").mkdir()
    (root / "deep/er/still").mkdir(parents=True)
    (root / "large").mkdir()
    for number in range(2000):
        (root / f"large/a-rather-long-name-{number:05}").touch()
    noise = RANDOM.randbytes(1_300_000)
    program = Path("/bin/ls").read_bytes()
    for size in (0, 1, 4095, 4096, 4097, 131_071, 131_072, 131_073, 1_300_000):
        (root / f"noise{size}").write_bytes(noise[:size])
        (root / f"deep/text{size}").write_bytes((b"all work and no play " * 65_000)[:size])
    (root / "program").write_bytes(program)
    (root / "deep/er/duplicate").write_bytes(program)
    with (root / "holes").open("wb") as file:
        file.write(b"x")
        file.seek(2_000_000)
        file.write(b"y")
        file.truncate(5_000_000)
    with (root / "hole").open("wb") as file:
        file.truncate(3_000_000)
    os.link(root / "noise1", root / "deep/er/still/hard")
    (root / "link").symlink_to("deep/er/../x")
    (root / os.fsdecode(b"not\xffutf-8")).write_bytes(b"name")
    os.mkfifo(root / "pipe")
    os.setxattr(root, "user.root", b"of the root")
    os.setxattr(root / "noise1", "user.long", LONG_VALUE)
    os.setxattr(root / "deep", "user.long", LONG_VALUE)
    os.setxattr(root / "deep", "user.empty", b"")
    os.setxattr(root / "noise1300000", "user.long", LONG_VALUE)
    os.setxattr(root / "noise1300000", "user.other", b"1")
    if is_root():
        os.mknod(root / "character", 0o20640, os.makedev(5, 300))
        os.mknod(root / "block", 0o60640, os.makedev(259, 70_000))
        os.mknod(root / "socket", 0o140600)
        os.chown(root / "noise4096", 1000, 4_000_000_000)
        os.setxattr(root / "link", "trusted.link", b"l", follow_symlinks=False)
        os.setxattr(root / "pipe", "security.pipe", b"p")
        os.setxattr(root / "block", "trusted.block", LONG_VALUE)
        (root / "noise4095").chmod(0o6755)
    os.utime(root / "noise0", (0, 0))
    os.utime(root / "deep", (4_000_000_000, 4_000_000_000))
    return root


def require(tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is missing: install {package}")


def mksquashfs(tree: Path, path: Path, options: str) -> None:
    require("mksquashfs", "squashfs-tools")
    fixed = ["-quiet", "-no-progress", "-noappend"]
    command: list[str | Path] = ["mksquashfs", tree, path, *fixed, *options.split()]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if "is not supported" in result.stderr + result.stdout:
        pytest.skip(f"this mksquashfs cannot do {options}: install one that can")
    assert result.returncode == 0, result.stderr


def comparable(rows: Rows, *, xattrs: bool = True, hard_links: bool = True) -> Rows:
    """Without what file systems count as they like: the links of directories."""
    found = {}
    for path, row in rows.items():
        if row.kind == "d":
            found[path] = row._replace(links=0)
        elif hard_links:
            found[path] = row
        else:
            found[path] = row._replace(links=1, first_name=path)
    if xattrs:
        return found
    return {path: row._replace(xattrs=()) for path, row in found.items()}


@pytest.mark.parametrize("options", OPTIONS)
def test_an_image_by_mksquashfs_shows_the_tree(tree: Path, tmp_path: Path, options: str) -> None:
    mksquashfs(tree, tmp_path / "image", options)
    report = check(tmp_path / "image")
    assert report.exported == ("-no-exports" not in options)
    assert not report.odd_directories
    flags = {
        "xattrs": "-no-xattrs" not in options,
        "hard_links": "-no-hardlinks" not in options,
    }
    expected = comparable(mount_rows(tree), **flags)
    assert comparable(image_rows(tmp_path / "image"), **flags) == expected


@pytest.mark.parametrize("options", ["-comp gzip", "-comp xz -b 4K", "-noI"])
def test_every_path_is_found_in_an_image_by_mksquashfs(
    tree: Path, tmp_path: Path, options: str
) -> None:
    mksquashfs(tree, tmp_path / "image", options)
    with SquashImage(tmp_path / "image") as image:
        for found in image.walk():
            assert image.lookup(found.path) == found
            assert image.exported(found.inode.number) == found.inode.reference
            assert image.lookup(found.path + b"~") is None


@pytest.mark.parametrize("compressor", ["gzip", "lzma", "xz", "lz4", "zstd"])
@pytest.mark.parametrize(
    ("tool", "package"), [("tar2sqfs", "squashfs-tools-ng"), ("sqfstar", "squashfs-tools")]
)
def test_an_image_made_of_a_tar_shows_the_tree(
    tree: Path, tmp_path: Path, tool: str, package: str, compressor: str
) -> None:
    require(tool, package)
    image = tmp_path / "image"
    options = ["--xattrs", "--xattrs-include=*", "--format=posix"]
    tar = subprocess.run(
        ["tar", "-C", tree, *options, "-c", "."], check=True, capture_output=True
    ).stdout
    option = "-c" if tool == "tar2sqfs" else "-comp"
    command: list[str | Path] = [tool, option, compressor, image]
    subprocess.run(command, input=tar, check=True, capture_output=True)
    assert check(image).directories == 6
    # What a tar or the tool leaves out is no matter of ours: sockets, the root's own attributes.
    expected = comparable(mount_rows(tree))
    found = comparable(image_rows(image))
    for path in (b"", b"socket"):
        expected.pop(path, None)
        found.pop(path, None)
    assert found == expected


def test_an_image_that_was_appended_to_shows_both_trees(tree: Path, tmp_path: Path) -> None:
    mksquashfs(tree / "deep", tmp_path / "image", "-comp gzip")
    more = tmp_path / "more"
    more.mkdir()
    (more / "added").write_bytes(b"later")
    appending: list[str | Path] = ["mksquashfs", more, tmp_path / "image", "-quiet", "-no-progress"]
    subprocess.run(appending, check=True, capture_output=True)
    check(tmp_path / "image")
    rows = image_rows(tmp_path / "image")
    assert {b"er/duplicate", b"text131073", b"added"} <= rows.keys()


def test_an_image_by_lzo_is_refused_with_advice(tree: Path, tmp_path: Path) -> None:
    mksquashfs(tree / "deep/er", tmp_path / "image", "-comp lzo")
    with pytest.raises(ImageUnsupportedError, match="unsquashfs"):
        check(tmp_path / "image")
