"""Disk images that lie: errors of ours that say so, bounded work, no path out of the tree."""

import re
import shutil
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.converter.packing.limits import Limits
from shared.errors import DrayError
from shared.formats import DiskFormat
from shared.image.tar.row import Row
from tests.support.disks import MIB, converted, file_system, patched, run
from tests.support.tree_jobs import Jobs

SMALL = Limits(max_bytes=64 * MIB, ratio_from=MIB)
PROTO = """/stand/boot
0 0
d--755 0 0
etc d--755 0 0
nameXname ---644 1 2 {file}
QZ ---644 1 2 {file}
first1 ---644 1 2 {file}
first2 l--777 0 0 first1
$
$
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """One of each kind, to be damaged and mended."""
    place = tmp_path_factory.mktemp("lies")
    tree = place / "tree"
    (tree / "etc").mkdir(parents=True)
    for name in ("nameXname", "QZ", "first1", "large"):
        (tree / "etc" / name).write_bytes(name.encode() * 2000)
    (tree / "etc/first2").symlink_to("first1")
    (tree / "etc/long").symlink_to("x" * 200)
    many: tuple[object, ...] = ("-b", 1024, "-O", "^metadata_csum", "-d", tree)
    found = {"ext4": file_system(place / "ext4", "ext4", *many, size=2 * MIB)}
    listed = place / "listed"
    listed.write_text(PROTO.format(file=tree / "etc/large"))
    found["xfs"] = file_system(place / "xfs", "xfs", "-p", listed)
    old = ("-m", "crc=0,finobt=0", "-i", "sparse=0", "-p", listed)
    found["xfs of version 4"] = file_system(place / "xfs4", "xfs", *old)
    found["qcow2"] = converted(found["ext4"], place / "qcow2", "qcow2", "-o", "cluster_size=4096")
    packed: tuple[str, ...] = ("-c", "-o", "cluster_size=4096")
    found["packed"] = converted(found["ext4"], place / "packed", "qcow2", *packed)
    found["vmdk"] = converted(found["ext4"], place / "vmdk", "vmdk")
    packed = ("-o", "subformat=streamOptimized")
    found["stream"] = converted(found["ext4"], place / "stream", "vmdk", *packed)
    yield found
    shutil.rmtree(place)


FORMATS: dict[str, DiskFormat] = {
    "ext4": "ext4",
    "xfs": "xfs",
    "xfs of version 4": "xfs",
    "qcow2": "qcow2",
    "packed": "qcow2",
    "vmdk": "vmdk",
    "stream": "vmdk",
}


def rows_of(path: Path, format_: DiskFormat) -> list[Row]:
    """Of what it says to be; all of it read."""
    with Jobs(path, disk=format_) as jobs:
        found = [row for part in jobs.listed(SMALL) for row in jobs.rows(part)]
        jobs.read_all()
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_not_damaged_is_read(images: dict[str, Path], name: str) -> None:
    rows = {row.path: row for row in rows_of(images[name], FORMATS[name])}
    assert rows[b"etc/nameXname"].size in {18_000, 10_000}
    assert rows[b"etc/first2"].target == b"first1"
    assert not any(path.startswith(b"/") for path in rows)


def refused(path: Path, format_: DiskFormat, message: str) -> None:
    with pytest.raises(DrayError, match=message):
        rows_of(path, format_)


def test_names_that_were_lost_are_not_taken_for_none(images: dict[str, Path]) -> None:
    """What a copy lost is zeros."""
    path = images["ext4"]
    name = re.search(rb"\x09.nameXname", path.read_bytes(), re.DOTALL)
    assert name is not None
    block = name.start() // 1024 * 1024
    work = partial(refused, path, "ext4", "impossible length")
    patched(path, [(block, bytes(1024))], work)


@pytest.mark.parametrize("name", ["ext4", "xfs", "xfs of version 4"])
@pytest.mark.parametrize(
    ("there", "instead", "message"),
    [
        (b"nameXname", b"name/name", "impossible name"),
        (b"nameXname", b"name\0name", "impossible name"),
        (b"first1", b"first2", "twice"),
    ],
)
def test_names_lead_nowhere(
    images: dict[str, Path], name: str, there: bytes, instead: bytes, message: str
) -> None:
    path = images[name]
    data = path.read_bytes()
    places = [found.start() for found in re.finditer(re.escape(there), data)]
    # Of a symlink's target, which has no length before it, a like one is no lie.
    changes = [(at, instead) for at in places if data[at - 2 : at] != b"\0\0"]
    patched(path, changes, lambda: refused(path, FORMATS[name], message))


@pytest.mark.parametrize("name", ["ext4", "xfs"])
def test_a_name_of_dots_is_no_name(images: dict[str, Path], name: str) -> None:
    path = images[name]
    before = b"\2\1" if name == "ext4" else b""
    names = re.finditer(re.escape(before + b"QZ"), path.read_bytes())
    changes = [(found.start() + len(before), b"..") for found in names]
    rows: list[Row] = []
    patched(path, changes, lambda: rows.extend(rows_of(path, FORMATS[name])))
    assert b"etc/nameXname" in {row.path for row in rows}
    assert all(b".." not in row.path.split(b"/") for row in rows)


DEBUGFS = {
    "a directory in itself": ("link / /etc/loop", "stands in two places"),
    "a directory in two": ("link /lost+found /etc/again", "stands in two places"),
    "an inode that is free": ("sif /etc/large mode 0", "no known kind"),
    "an inode beyond the last": ("sif /etc/large bmap[0] 99999999", "ends before"),
    "no map": ("sif /etc/large block[0] 0", "broken map"),
    "a map that is too deep": ("sif /etc/large block[1] 0x70004", "broken map"),
    "a link to too much": ("sif /etc/long size 5000", "link to 5,000 bytes"),
    "a link to nothing": ("sif /etc/long size 0", "broken link"),
    "a file for no disk": ("sif /etc/large size 0x7000000000", "not allowed"),
    "a directory for no disk": ("sif /etc size 0x70000000", "larger than the disk"),
    "attributes nowhere": ("sif /etc/large file_acl 77777777", "ends before"),
    "attributes in data": ("sif /etc/large file_acl 1", "broken attributes"),
    "an encrypted file": ("sif /etc/large flags 0x80800", "encrypted"),
}


@pytest.mark.parametrize("lie", DEBUGFS)
def test_lies_about_inodes(images: dict[str, Path], tmp_path: Path, lie: str) -> None:
    request, message = DEBUGFS[lie]
    copy = tmp_path / "copy"
    shutil.copy(images["ext4"], copy)
    run("debugfs", "-w", "-R", request, copy)
    refused(copy, "ext4", message)


XFS_DB = {
    "a directory in itself": ("etc", "u3.sfdir3.list[0].inumber.i4 {top}", "stands in two places"),
    "an inode beyond the last": ("etc", "u3.sfdir3.list[0].inumber.i4 4000000000", "names block"),
    "an inode that is free": ("etc/QZ", "core.mode 0", "no known kind"),
    "a file in its inode": ("etc/QZ", "core.format 1", "where none can be"),
    "a device": ("etc/QZ", "core.mode 020644", "device without a number"),
    "more parts than there is room": ("etc/QZ", "core.nextents 4000", "out of its block"),
    "a part elsewhere": ("etc/QZ", "u3.bmx[0].startblock 16000000", "names block"),
    "a link to nothing": ("etc/first2", "core.size 0", "broken link"),
    "a link to too much": ("etc/first2", "core.size 4000", "broken link"),
    "a directory for no disk": ("etc", "core.size 0x70000000", "larger than the disk"),
}


@pytest.mark.parametrize("lie", XFS_DB)
def test_lies_about_inodes_of_an_xfs(images: dict[str, Path], tmp_path: Path, lie: str) -> None:
    name, change, message = XFS_DB[lie]
    copy = tmp_path / "copy"
    shutil.copy(images["xfs"], copy)
    inodes = {row.path.decode(): row.place for row in rows_of(copy, "xfs")}
    write = f"write -d {change.format(top=inodes[''])}"
    run("xfs_db", "-x", "-c", f"inode {inodes[name]}", "-c", write, copy)
    refused(copy, "xfs", message)


SUPERBLOCKS = {
    "ext4": {
        "blocks of 4 TiB": (1024 + 24, struct.pack("<I", 32), "impossible blocks"),
        "more blocks than the file": (1024 + 4, b"\xff\xff\xff\x7f", "ends before"),
        "no inodes in a group": (1024 + 40, bytes(4), "contradicts itself"),
        "odd inodes": (1024 + 88, struct.pack("<H", 200), "contradicts itself"),
        "no groups": (1024 + 32, bytes(4), "contradicts itself"),
        "a feature of tomorrow": (1024 + 98, b"\x80", "not known here"),
        "compressed": (1024 + 96, b"\x01", "compressed"),
        "errors": (1024 + 58, b"\x03", "not unmounted, or has errors"),
    },
    "xfs": {
        "blocks of 2 GiB": (120, b"\x1f", "contradicts itself"),
        "more blocks than the file": (8, struct.pack(">Q", 1 << 40), "contradicts itself"),
        "no groups": (88, bytes(4), "contradicts itself"),
        "a root elsewhere": (56, struct.pack(">Q", 1 << 50), "names block"),
        "a root that is none": (56, struct.pack(">Q", 5), "there is no inode 5"),
        "a feature of tomorrow": (216, b"\x80", "not known here"),
        "to be repaired": (219, b"\x13", "needs repair"),
        "a log elsewhere": (48, bytes(8), "log on another disk"),
        "not made": (126, b"\x01", "never made"),
    },
    "qcow2": {
        "a version of tomorrow": (7, b"\x04", "version 4"),
        "clusters of 4 GiB": (23, b"\x20", "impossible clusters"),
        "a disk of 1 EiB": (24, b"\x10", "no room"),
        "a list elsewhere": (40, b"\x10", "ends before"),
        "corrupt": (79, b"\x02", "corrupt"),
    },
    "vmdk": {
        "grains of 2 TiB": (20, b"\xff" * 8, "contradicts itself"),
        "a disk of 1 EiB": (18, b"\x01", "too many tables"),
        "a list elsewhere": (60, b"\x10", "ends before"),
        "a version of tomorrow": (4, b"\x09", "cannot be read"),
    },
}


@pytest.mark.parametrize(
    ("name", "lie"), [(n, lie) for n, all_ in SUPERBLOCKS.items() for lie in all_]
)
def test_lies_at_the_beginning(images: dict[str, Path], name: str, lie: str) -> None:
    at, data, message = SUPERBLOCKS[name][lie]
    path = images[name]
    patched(path, [(at, data)], lambda: refused(path, FORMATS[name], message))


VALUES = st.one_of(
    st.sampled_from([0, 1, 2, 0xFF, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([1, 2, 4, 8]), VALUES), min_size=1, max_size=4
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.parametrize("name", FORMATS)
@given(changes=CHANGES)
def test_any_damage_is_an_error_of_ours_or_another_tree(
    images: dict[str, Path], name: str, changes: list[tuple[float, int, int]]
) -> None:
    path = images[name]
    places = interesting(path)
    order: Literal["big", "little"] = "big" if FORMATS[name] in {"xfs", "qcow2"} else "little"
    wanted = []
    for share, width, value in changes:
        at = places[int(share * (len(places) - 1))]
        wanted.append((at, (value % (1 << 8 * width)).to_bytes(width, order)))

    def look() -> None:
        with suppress(DrayError):
            for row in rows_of(path, FORMATS[name]):
                assert not {b"..", b".", b""} & set(row.path.split(b"/")) or not row.path

    patched(path, wanted, look)


def interesting(path: Path) -> list[int]:
    """Where there is something, in its first MiB: that is no content of a file."""
    if path not in PLACES:
        data = path.read_bytes()[:MIB]
        words = range(0, len(data) - 8, 2)
        PLACES[path] = [
            at for at in words if any(data[at : at + 2]) and b"X" not in data[at : at + 30]
        ]
    return PLACES[path]


PLACES: dict[Path, list[int]] = {}
