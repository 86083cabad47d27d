"""Disks by real tools become what the kernel shows of them, whatever they are wrapped in."""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.converter.disks.errors import (
    DiskDamagedError,
    DiskUncleanError,
    DiskUnsupportedError,
)
from services.converter.disks.looks import look_of_disk
from shared.formats import DISK_FORMATS, DiskFormat
from tests.support.disks import (
    MIB,
    converted,
    empty,
    file_system,
    filled,
    need,
    partitioned,
    rows_in,
    run,
    tar_in,
)
from tests.support.dray_convert import dray_convert
from tests.support.mounts import assert_same, mounted
from tests.support.squashfs import is_root
from tests.support.tree_files import add_socket, as_squashfs_has_it, rich_tree
from tests.support.tree_jobs import Jobs
from tests.support.trees import image_rows, mount_rows

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not is_root(), reason="mounting needs root"),
]

MADE = {
    "ext4": ("ext4", ("-b", 4096)),
    "ext2 of small blocks": ("ext4", ("-O", "^has_journal,^extent,^64bit,^dir_index", "-b", 1024)),
    "ext4 of many features": (
        "ext4",
        ("-O", "inline_data,bigalloc,ea_inode,meta_bg,^resize_inode", "-I", 512, "-b", 1024),
    ),
    "xfs": ("xfs", ()),
    "xfs of large directories": (
        "xfs",
        ("-n", "size=16384", "-i", "size=512", "-m", "bigtime=0", "-b", "size=1024"),
    ),
}
DISK = "label: gpt\nstart=1MiB,size=1MiB,type=U\nstart=2MiB,size=4MiB,type=L\nstart=6MiB,type=L\n"
WRAPPED: dict[str, tuple[DiskFormat, str, tuple[object, ...]]] = {
    "qcow2": ("qcow2", "qcow2", ()),
    "qcow2 of version 2": ("qcow2", "qcow2", ("-o", "compat=0.10,cluster_size=4096")),
    "qcow2 by zlib": ("qcow2", "qcow2", ("-c",)),
    "qcow2 by zstd": ("qcow2", "qcow2", ("-c", "-o", "compression_type=zstd")),
    "qcow2 of large clusters": ("qcow2", "qcow2", ("-o", "cluster_size=2M")),
    "vmdk": ("vmdk", "vmdk", ()),
    "vmdk of an OVA": ("vmdk", "vmdk", ("-o", "subformat=streamOptimized")),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disks")


@pytest.fixture(scope="module")
def root(place: Path) -> Iterator[Path]:
    """A small file system that looks like a machine's root."""
    tree = place / "tree"
    for name in ("etc", "usr/bin", "var"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/os-release").write_text("NAME=disk\n")
    (tree / "usr/bin/noise").write_bytes(random.Random(7).randbytes(300_000))
    (tree / "usr/bin/text").write_bytes(b"text " * 60_000)
    yield file_system(place / "root.ext4", "ext4", "-d", tree, size=8 * MIB)
    shutil.rmtree(tree)


@pytest.fixture(scope="module")
def disk(place: Path, root: Path) -> Path:
    """With something else, and what only looks like data, before the root."""
    data = file_system(place / "data.ext4", "ext4", size=2 * MIB)
    return partitioned(place / "disk", DISK, {2: data, 6: root}, size=16 * MIB)


def looks_like(path: Path) -> DiskFormat | None:
    with path.open("rb") as file:
        return look_of_disk(file.fileno())


def odd_files(root: Path, kind: str) -> None:
    """What each kind has several ways to keep."""
    dice = random.Random(5)
    with (root / "pieces").open("wb") as file:
        for number in range(400):
            file.seek(number * 16384)
            file.write(b"%06d" % number * 200)
        file.truncate(7_000_000)
    with (root / "set aside").open("w+b") as file:
        file.write(b"x" * 5000)
        os.posix_fallocate(file.fileno(), 0, 300_000)
    for length in (1, 59, 60, 61, 155, 156, 157, 900, 1023):
        (root / f"link{length}").symlink_to("l" * length)
    attributes = root / "attributes"
    attributes.write_bytes(b"")
    for size in (0, 1, 40, 300, 400):
        os.setxattr(attributes, f"user.of{size}", dice.randbytes(size))
    os.setxattr(root / "pieces", "user.one", b"1")
    if kind == "xfs":
        for number in range(120):
            os.setxattr(root / "pieces", f"user.{number:03}{'n' * 60}", dice.randbytes(60))
        os.setxattr(attributes, "trusted.large", dice.randbytes(60_000))
    (root / "inline").mkdir()
    for number in range(4):
        (root / f"inline/{number}").write_bytes(b"n" * number * 60)
    add_socket(root / "inline/socket")


@pytest.mark.parametrize("name", MADE)
def test_a_file_system_shows_what_the_kernel_shows_of_it(tmp_path: Path, name: str) -> None:
    kind, options = MADE[name]
    image = file_system(tmp_path / "image", kind, *options, size=96 * MIB)
    with filled(image, kind) as top:
        odd_files(top, kind)
        if name in {"ext4", "xfs"}:
            for name_of_layers in rich_tree(top / "rich").rglob(".wh.*"):
                name_of_layers.unlink()  # which only the importer knows to be a file's
        else:
            (top / "many").mkdir()
            for number in range(700):
                (top / f"many/{number:04}{'name' * 20}").touch()
    with mounted(image, tmp_path / "at", kind=kind) as top:
        expected = as_squashfs_has_it(mount_rows(top))
    del expected[b"inline/socket"]
    format_ = looks_like(image)
    assert format_ == kind
    found = rows_in(image, format_, tmp_path)
    assert_same(found, expected)


def test_a_directory_of_short_and_long_inode_numbers_has_all_its_names(tmp_path: Path) -> None:
    """From 2 TiB on, an XFS has numbers that need more than 32 bits."""
    image = file_system(tmp_path / "image", "xfs", "-K", "-l", "size=16m", size=3 << 40)
    with filled(image, "xfs") as top:
        for number in range(8):
            (top / f"directory{number}/below").mkdir(parents=True)
            (top / f"directory{number}/file").touch()
    with mounted(image, tmp_path / "at", kind="xfs") as top:
        numbers = {path.stat().st_ino >> 32 > 0 for path in top.iterdir()}
        expected = as_squashfs_has_it(mount_rows(top))
    assert numbers == {False, True}
    assert_same(rows_in(image, "xfs", tmp_path), expected)


def test_holes_stay_holes(tmp_path: Path) -> None:
    kinds: tuple[DiskFormat, ...] = ("ext4", "xfs")
    for kind in kinds:
        image = file_system(tmp_path / kind, kind)
        with filled(image, kind) as top, (top / "holes").open("wb") as file:
            file.seek(1 << 30)
            file.write(b"end")
        with Jobs(image, disk=kind) as jobs:
            assert len(jobs.read_all()) < MIB
            assert jobs.listing is not None
            assert jobs.listing.size < MIB


@pytest.mark.parametrize("name", WRAPPED)
def test_a_disk_is_the_same_in_every_wrapping(
    tmp_path: Path, disk: Path, root: Path, name: str
) -> None:
    format_, kind, options = WRAPPED[name]
    wrapped = converted(disk, tmp_path / "wrapped", kind, *options)
    assert looks_like(wrapped) == format_
    assert tar_in(wrapped, format_) == tar_in(root, "ext4") != b""


@pytest.mark.parametrize(
    ("table", "at", "partition"),
    [
        (DISK, 6, 3),
        ("label: dos\nstart=1MiB,size=1MiB,type=82\nstart=6MiB,type=83\n", 6, 2),
        (
            (
                "label: dos\nstart=1MiB,size=1MiB,type=c\nstart=2MiB,type=5\n"
                "start=3MiB,size=1MiB,type=83\nstart=5MiB,type=83\n"
            ),
            5,
            6,
        ),
    ],
)
def test_the_root_is_found_among_partitions(
    tmp_path: Path, root: Path, table: str, at: int, partition: int
) -> None:
    disk = partitioned(tmp_path / "disk", table, {at: root}, size=16 * MIB)
    assert looks_like(disk) == "disk"
    assert tar_in(disk, "disk") == tar_in(root, "ext4")
    with Jobs(disk, disk="disk") as jobs:
        jobs.listed()
        assert jobs.listing is not None
        assert jobs.listing.notes == (f"of the disk only partition {partition} is taken (ext)",)


def test_of_two_roots_the_one_whose_type_says_so_is_taken(tmp_path: Path, root: Path) -> None:
    other = file_system(tmp_path / "other", "ext4", size=4 * MIB)
    with filled(other, "ext4") as top:
        (top / "etc").mkdir()
        (top / "bin").symlink_to("usr/bin")
    typed = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
    table = f"label: gpt\nstart=1MiB,size=4MiB,type=L\nstart=6MiB,type={typed}\n"
    disk = partitioned(tmp_path / "disk", table, {1: other, 6: root}, size=16 * MIB)
    assert tar_in(disk, "disk") == tar_in(root, "ext4")
    untyped = table.replace(typed, "L")
    disk = partitioned(tmp_path / "disk", untyped, {1: other, 6: root}, size=16 * MIB)
    assert tar_in(disk, "disk") == tar_in(other, "ext4")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_system_in_use_is_refused_and_the_way_out_works(tmp_path: Path, kind: str) -> None:
    image, copy = file_system(tmp_path / "image", kind), tmp_path / "copy"
    with filled(image, kind) as top:
        (top / "file").write_text("text")
        os.sync()
        shutil.copy(image, copy)
    with pytest.raises(DiskUncleanError, match="not unmounted"):
        tar_in(copy, "disk")
    if kind == "ext4":
        run("e2fsck", "-fy", copy, ended=1)  # something was mended
    else:
        with filled(copy, kind):
            pass
    assert tar_in(copy, "disk") == tar_in(image, "disk")


def test_disks_that_need_other_files_are_never_followed(tmp_path: Path, root: Path) -> None:
    need("qemu-img")
    made = ("qemu-img", "create", "-q")
    run(*made, "-f", "qcow2", "-F", "raw", "-b", root, tmp_path / "over")
    run(*made, "-f", "qcow2", "-o", f"data_file={tmp_path}/data", tmp_path / "outside", "8M")
    secret = ("--object", "secret,id=s,data=abc", "-o", "encrypt.format=aes,encrypt.key-secret=s")
    run(*made, "-f", "qcow2", *secret, tmp_path / "secret", "8M")
    run(*made, "-f", "qcow2", "-o", "extended_l2=on", tmp_path / "parts", "8M")
    for subformat in ("monolithicFlat", "twoGbMaxExtentSparse"):
        run(
            *made,
            "-f",
            "vmdk",
            "-o",
            f"subformat={subformat}",
            tmp_path / f"{subformat}.vmdk",
            "8M",
        )
    run(*made, "-f", "vmdk", tmp_path / "base.vmdk", "8M")
    run(*made, "-f", "vmdk", "-F", "vmdk", "-b", tmp_path / "base.vmdk", tmp_path / "delta.vmdk")
    lacking: tuple[tuple[str, DiskFormat, str], ...] = (
        ("over", "qcow2", "backing file"),
        ("outside", "qcow2", "data in another file"),
        ("secret", "qcow2", "encrypted"),
        ("parts", "qcow2", "clusters in parts"),
        ("monolithicFlat.vmdk", "vmdk", "only a description"),
        ("twoGbMaxExtentSparse.vmdk", "vmdk", "only a description"),
        ("twoGbMaxExtentSparse-s001.vmdk", "vmdk", "a part of a disk"),
        ("delta.vmdk", "vmdk", "differs from another file"),
    )
    for name, format_, message in lacking:
        with pytest.raises(DiskUnsupportedError, match=message):
            tar_in(tmp_path / name, format_)


def test_what_a_file_is_counts_and_not_what_its_bytes_pretend(tmp_path: Path, disk: Path) -> None:
    """The owner of a raw disk writes its first bytes: to have a file read that they name."""
    wrapped = converted(disk, tmp_path / "wrapped", "qcow2")
    for format_ in DISK_FORMATS:
        if format_ != "qcow2":
            with pytest.raises(DiskUnsupportedError):
                tar_in(wrapped, format_)
    with pytest.raises(DiskUnsupportedError, match="no qcow2 image"):
        tar_in(disk, "qcow2")
    with pytest.raises(DiskUnsupportedError, match="no xfs file system"):
        tar_in(disk, "xfs")


@pytest.mark.parametrize("format_", ["ext4", "disk", "qcow2", "vmdk"])
def test_a_disk_that_ends_too_early_is_damaged(
    tmp_path: Path, disk: Path, root: Path, format_: DiskFormat
) -> None:
    image = tmp_path / "image"
    if format_ in {"qcow2", "vmdk"}:
        converted(disk, image, format_)
    else:
        shutil.copy(root if format_ == "ext4" else disk, image)
    size = image.stat().st_size
    os.truncate(image, size // 2)
    with pytest.raises((DiskDamagedError, DiskUnsupportedError), match="ends before"):
        tar_in(image, format_)


def test_what_else_a_disk_has_is_named(tmp_path: Path, root: Path) -> None:
    table = "label: gpt\n" + "size=1MiB\n" * 5
    disk = partitioned(tmp_path / "disk", table, {}, size=8 * MIB)
    marks = ((0, b"LUKS\xba\xbe"), (512, b"LABELONE"), (65600, b"_BHRfS_M"), (82, b"FAT32   "))
    with disk.open("r+b") as file:
        for number, (at, mark) in enumerate(marks, 1):
            file.seek(number * MIB + at)
            file.write(mark)
    with pytest.raises(DiskUnsupportedError) as caught:
        tar_in(disk, "disk")
    wanted = "1: encrypted (LUKS); 2: a part of LVM; 3: btrfs; 4: FAT; 5: none that is known"
    assert wanted in str(caught.value)
    for kind, what in (("vdi", "VDI"), ("vhdx", "VHDX"), ("vpc", "VHD")):
        other = converted(root, tmp_path / kind, kind)
        with pytest.raises(DiskUnsupportedError, match=f"a {what} image: convert it"):
            tar_in(other, "disk")
    with pytest.raises(DiskUnsupportedError, match="neither a file system"):
        tar_in(empty(tmp_path / "empty", MIB), "disk")


def test_dray_finds_out_what_a_disk_is_and_reads_it_confined(
    tmp_path: Path, disk: Path, root: Path
) -> None:
    dray = dray_convert(tmp_path)
    wrapped = converted(disk, tmp_path / "disk.qcow2", "qcow2", "-c")
    out = tmp_path / "out.squashfs"
    done = dray(wrapped, out)
    assert done.returncode == 0, done.stderr
    assert "only partition 3 is taken" in done.stderr
    rows = image_rows(out)
    assert rows[b"usr/bin/text"].detail == _digest_of(root, b"usr/bin/text", tmp_path)
    os.truncate(wrapped, 1 * MIB // 8)
    broken = dray(wrapped, out)
    assert broken.returncode == 1
    assert "[disk_damaged]" in broken.stderr


def _digest_of(root: Path, path: bytes, scratch: Path) -> object:
    return rows_in(root, "ext4", scratch / "rows")[path].detail
