"""Rows as a tar: our reader and Python's find in it what was put there."""

import io
import os
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from services.converter.packing.limits import Limits
from services.converter.packing.tar_bytes import TarBytes
from services.converter.packing.tar_reader import TarReader
from shared.image import kinds
from shared.image.tar.row import Row
from shared.image.tar.writer import END, Xattrs, entry, padding, sparse_entry

NAMES = st.binary(min_size=1, max_size=255).map(
    lambda name: name.replace(b"\0", b"0").replace(b"/", b"1").replace(b".", b"2")
)
PATHS = st.lists(NAMES, min_size=1, max_size=6).map(b"/".join)
KINDS = st.sampled_from(
    [
        kinds.DIRECTORY,
        kinds.SYMLINK,
        kinds.HARD_LINK,
        kinds.FIFO,
        kinds.CHARACTER_DEVICE,
        kinds.BLOCK_DEVICE,
    ]
)
U32 = st.integers(0, (1 << 32) - 1)
XATTRS = st.dictionaries(
    st.from_regex(rb"user\.[a-z \n\xff]{1,40}", fullmatch=True), st.binary(max_size=300), max_size=3
).map(lambda found: tuple(sorted(found.items())))


@st.composite
def rows(draw: st.DrawFn) -> Row:
    kind = draw(KINDS)
    device = 0
    if kind in {kinds.CHARACTER_DEVICE, kinds.BLOCK_DEVICE}:
        device = os.makedev(draw(st.integers(0, 4095)), draw(st.integers(0, (1 << 20) - 1)))
    return Row(
        path=draw(PATHS),
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(U32),
        gid=draw(U32),
        mtime=draw(st.integers(-(1 << 62), 1 << 62)),
        changed=0,
        size=0,
        stored=0,
        place=0,
        device=device,
        target=draw(PATHS) if kind in {kinds.SYMLINK, kinds.HARD_LINK} else b"",
    )


def members(tar: bytes) -> TarReader:
    stream = io.BytesIO(tar)
    return TarReader(TarBytes(lambda: stream.read(1000)), Limits())


@given(row=rows(), xattrs=XATTRS)
def test_our_reader_finds_what_was_written(row: Row, xattrs: Xattrs) -> None:
    (found,) = members(entry(row, xattrs) + END)
    assert (found.path, found.kind, found.mode) == (row.path, row.kind, row.mode)
    assert (found.uid, found.gid) == (row.uid, row.gid)
    assert found.mtime == min(max(row.mtime // 1_000_000_000, 0), (1 << 32) - 1)
    assert found.target == row.target
    assert found.device == (os.major(row.device), os.minor(row.device))
    assert tuple(found.xattrs) == xattrs


@given(rows=st.lists(rows(), max_size=5), content=st.binary(max_size=3000))
def test_python_s_reader_finds_the_same(rows: list[Row], content: bytes) -> None:
    file = Row(b"file", kinds.FILE, 0o644, 1, 2, 0, 0, len(content), 0, 0, 0, b"")
    tar = b"".join(map(entry, rows)) + entry(file) + content + padding(len(content)) + END
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8") as found:
        names = [os.fsencode(member.name) for member in found.getmembers()]
        last = found.extractfile(found.getmembers()[-1])
        assert last is not None
        assert last.read() == content
    assert names == [row.path for row in (*rows, file)]


def test_a_file_of_any_size_has_a_header_of_whole_blocks() -> None:
    row = Row(b"huge", kinds.FILE, 0o644, 0, 0, 0, 0, 1 << 40, 0, 0, 0, b"")
    head = entry(row)
    assert len(head) % 512 == 0
    found = next(iter(members(head)))
    assert found.size == 1 << 40


def test_holes_are_a_map() -> None:
    row = Row(b"n" * 150, kinds.FILE, 0o644, 0, 0, 0, 0, 10_000_000, 0, 0, 0, b"")
    regions = [(4096, 5), (9_000_000, 1000)]
    head, rest = sparse_entry(row, regions)
    reader = members(head + b"x" * 1005 + bytes(rest) + END)
    found = next(iter(reader))
    assert found.path == row.path
    assert found.sparse is not None
    assert (found.sparse.size, found.sparse.regions) == (row.size, regions)
    assert reader.read(1005) == b"x" * 1005
