"""Tiny layers that would take much memory: everything that is kept of a layer is counted."""

import time
import tracemalloc
from pathlib import Path

import pytest

from services.converter.packing import LayerInvalidError, LayerTooLargeError, Limits
from services.converter.packing.tar_bytes import TarBytes
from services.converter.packing.tar_reader import TarReader
from shared.image.merging.budget import MAX_DEPTH
from shared.image.packs.pack import read_index
from tests.support.packing import (
    Part,
    directory,
    hard_link,
    member,
    pack,
    symlink,
    tar_of,
)
from tests.support.rawtar import END, header, padded, pax, record

DEEP = "a/b/c/d/e/"


@pytest.mark.parametrize(
    ("parts", "entries"),
    [
        ([("f", b"")], 1),
        ([(f"{DEEP}f", b"")], 6),
        ([(f"{DEEP}f", b""), (f"{DEEP}g", b""), ("a/b/x", b"")], 8),
        ([directory("a"), directory("a/b"), ("a/b/f", b""), directory("a/b")], 4),
        ([directory("a/b/c"), ("a/b/c/f", b"")], 4),
        ([(".wh.f", b""), ("d/.wh..wh..opq", b"")], 2),
    ],
)
def test_directories_that_only_paths_name_count_as_entries(
    tmp_path: Path, parts: list[Part], entries: int
) -> None:
    tar = tar_of(*parts)
    pack(tar, tmp_path / "p", limits=Limits(max_entries=entries))
    with pytest.raises(LayerTooLargeError, match=f"more than {entries - 1} files and directories"):
        pack(tar, tmp_path / "q", limits=Limits(max_entries=entries - 1))
    assert not (tmp_path / "q").exists()


LONG = "n" * 200
XATTRS = {f"SCHILY.xattr.user.{LONG[:20]}{n}": "v" * 200 for n in range(20)}
TEXTS: dict[str, list[Part]] = {
    "names": [(f"{n}{LONG}", b"") for n in range(40)],
    "directories": [(f"{n}{LONG}/f", b"") for n in range(20)],
    "implicit directories": [("/".join([LONG] * 9) + "/f", b"")],
    "described directories": [directory(f"{n}{LONG}") for n in range(20)],
    "symlinks": [symlink(f"{n}", LONG * 2) for n in range(20)],
    "hard links": [("f", b""), *[hard_link(f"l{n}", f"{LONG}/{LONG}") for n in range(20)]],
    "whiteouts": [(f"{LONG}/.wh.{n}", b"") for n in range(40)],
    "opaque marks": [(f"{n}{LONG}/.wh..wh..opq", b"") for n in range(40)],
    "xattrs": [(member("f", pax_headers=XATTRS), b"")],
}


@pytest.mark.parametrize("case", TEXTS)
def test_all_text_that_is_kept_counts(tmp_path: Path, case: str) -> None:
    tar = tar_of(*TEXTS[case])
    pack(tar, tmp_path / "p")
    with pytest.raises(LayerTooLargeError, match="names, paths, link targets and attributes"):
        pack(tar, tmp_path / "q", limits=Limits(max_text=7000))


def test_a_path_has_so_many_parts_at_most(tmp_path: Path) -> None:
    deep = "/".join(["d"] * MAX_DEPTH)
    pack(tar_of((deep, b"")), tmp_path / "p")
    with pytest.raises(
        LayerInvalidError, match=f"{MAX_DEPTH + 1} parts, and {MAX_DEPTH} are allowed"
    ):
        pack(tar_of((f"{deep}/f", b"")), tmp_path / "q")
    with pytest.raises(LayerInvalidError, match=f"{MAX_DEPTH + 1} parts"):
        pack(tar_of(hard_link("f", f"{deep}/f")), tmp_path / "q")


def test_a_thousand_deep_paths_are_refused_before_they_are_remembered(tmp_path: Path) -> None:
    layer = b"".join(
        pax((b"path", b"%d/" % n + b"/".join([b"0123456789abcde"] * 255))) + header(b"x")
        for n in range(3000)
    )
    tracemalloc.start()
    try:
        with pytest.raises(LayerTooLargeError):
            pack(layer + END, tmp_path / "p", limits=Limits(max_text=16 << 20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20


def test_attributes_in_a_global_header_are_nobodys(tmp_path: Path) -> None:
    records = [(b"SCHILY.xattr.user.%d" % n, b"v" * 50) for n in range(300)]
    tar = pax(*records, flag=b"g") + b"".join(header(b"f%d" % n) for n in range(100))
    tar += pax((b"SCHILY.xattr.user.own", b"mine")) + header(b"g") + END
    key = pack(tar, tmp_path / "p").key
    assert read_index(tmp_path / "p", key).xattr_sets == [((b"user.own", b"mine"),)]


def test_many_global_records_cost_entries_nothing() -> None:
    records = [record(b"comment.%d" % n, b"x") for n in range(30_000)]
    data = b"".join([*records, record(b"mtime", b"7")])
    tar = header(b"pax", b"g", size=len(data)) + padded(data)
    tar += b"".join(header(b"f%d" % n) for n in range(3000)) + END
    pieces = iter([tar])
    started = time.process_time()
    members = list(TarReader(TarBytes(lambda: next(pieces, b"")), Limits()))
    assert time.process_time() - started < 2
    assert [len(members), {entry.mtime for entry in members}] == [3000, {7}]


def test_more_attributes_than_linux_could_list_are_refused(tmp_path: Path) -> None:
    names = {f"SCHILY.xattr.user.{LONG}{n}": "v" for n in range(320)}
    with pytest.raises(LayerInvalidError, match="too many extended attributes"):
        pack(tar_of((member("f", pax_headers=names), b"")), tmp_path / "p")
