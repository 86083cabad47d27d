"""The tar reader: nasty tars one by one, then random ones against the standard library."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.converter.packing.errors import LayerInvalidError
from services.converter.packing.limits import Limits
from services.converter.packing.tar_bytes import TarBytes
from services.converter.packing.tar_reader import Member, TarReader
from shared.image import kinds
from tests.support.packing import Part, directory, hard_link, member, symlink, tar_of
from tests.support.rawtar import (
    END,
    base256,
    header,
    long_name,
    octal,
    old_sparse_header,
    padded,
    pax,
)

FIVE = padded(b"hello")
POSIX_PREFIX = b"d" * 150
LONG = b"l" * 200 + b"/" + b"n" * 200


def read_all(tar: bytes, chunk: int = 1 << 20) -> list[tuple[Member, bytes]]:
    def chunks() -> Iterator[bytes]:
        for at in range(0, len(tar), chunk):
            yield tar[at : at + chunk]

    pieces = chunks()
    reader = TarReader(TarBytes(lambda: next(pieces, b"")), Limits())
    found = []
    for entry in reader:
        stored = sum(length for _, length in entry.sparse.regions) if entry.sparse else entry.size
        content = reader.read(stored) if entry.kind == kinds.FILE else b""
        found.append((entry, content))
    return found


def only(tar: bytes) -> Member:
    ((entry, _),) = read_all(tar)
    return entry


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"./a/b", b"a/b"),
        (b"/a", b"a"),
        (b"a//b", b"a/b"),
        (b"a/./b", b"a/b"),
        (b"a/../b", b"b"),
        (b"../../a", b"a"),
        (b"a/..", b""),
        (b"..a/...", b"..a/..."),
        (b".hidden", b".hidden"),
        (b"a/.hidden/b.", b"a/.hidden/b."),
        (b"\xff\xfe\x01", b"\xff\xfe\x01"),
    ],
)
def test_names_stay_below_the_root(name: bytes, path: bytes) -> None:
    assert only(header(name) + END).path == path


def test_a_slash_marks_a_directory_only_where_there_is_no_flag_for_one() -> None:
    for flag, kind in ((b"\0", kinds.DIRECTORY), (b"0", kinds.FILE)):
        entry = only(header(b"d/", flag, magic=bytes(8)) + END)
        assert (entry.kind, entry.path) == (kind, b"d")


def test_a_posix_prefix_goes_in_front_and_gnus_times_do_not() -> None:
    assert only(header(b"n", tail=POSIX_PREFIX) + END).path == POSIX_PREFIX + b"/n"
    assert only(header(b"n", magic=b"ustar  \0", tail=b"12345670") + END).path == b"n"
    star = POSIX_PREFIX[:100].ljust(131, b"\0") + b"01234567 7654321".ljust(32, b"\0") + b"tar\0"
    assert only(header(b"n", tail=star) + END).path == POSIX_PREFIX[:100] + b"/n"


def test_long_names_of_gnu() -> None:
    tar = long_name(LONG) + long_name(LONG, b"K") + header(b"short", b"2") + header(b"next") + END
    (first, _), (second, _) = read_all(tar)
    assert (first.path, first.target) == (LONG, LONG)
    assert second.path == b"next"


def test_pax_records_count_for_one_entry_and_global_ones_until_taken_back() -> None:
    tar = (
        pax((b"mtime", b"7"), flag=b"g")
        + pax((b"path", LONG), (b"uid", b"4000000000"), (b"mtime", b"-1.5"))
        + header(b"x")
        + header(b"y")
        + pax((b"mtime", b""))
        + header(b"z", mtime=octal(9, 12))
        + END
    )
    (first, _), (second, _), (third, _) = read_all(tar)
    assert (first.path, first.uid, first.mtime) == (LONG, 4_000_000_000, 0)
    assert (second.path, second.uid, second.mtime) == (b"y", 0, 7)
    assert third.mtime == 9


def test_the_size_of_a_pax_header_wins() -> None:
    tar = pax((b"size", b"5")) + header(b"f", size=0) + FIVE + header(b"g") + END
    (first, content), (second, _) = read_all(tar)
    assert (first.size, content, second.path) == (5, b"hello", b"g")


@pytest.mark.parametrize(
    ("field", "mtime"),
    [
        (octal(1_600_000_000, 12), 1_600_000_000),
        (b"    123 456 "[:8] + bytes(4), 0o123),
        (bytes(12), 0),
        (base256(1_600_000_000, 12), 1_600_000_000),
        (base256(1 << 40, 12), 0xFFFFFFFF),
        (base256(-1, 12), 0),
        (base256(-(1 << 40), 12), 0),
    ],
)
def test_numbers_in_all_notations(field: bytes, mtime: int) -> None:
    if field.strip(b"\0 ").count(b" "):
        with pytest.raises(LayerInvalidError):
            only(header(b"f", mtime=field) + END)
    else:
        assert only(header(b"f", mtime=field) + END).mtime == mtime


def test_owners_beyond_octal() -> None:
    entry = only(header(b"f", uid=base256(3_000_000, 8), gid=base256(-2, 8)) + END)
    assert (entry.uid, entry.gid) == (3_000_000, -2)


def test_a_checksum_of_signed_characters_is_accepted() -> None:
    assert only(header(b"\xe9t\xe9", signed=True) + END).path == b"\xe9t\xe9"


def test_sizes_of_links_and_directories_mean_nothing() -> None:
    tar = header(b"d", b"5", size=5) + header(b"l", b"1", size=9, link=b"./x") + header(b"f") + END
    assert [entry.path for entry, _ in read_all(tar)] == [b"d", b"l", b"f"]


def test_the_archives_label_is_no_entry() -> None:
    assert only(header(b"label", b"V", size=5) + FIVE + header(b"f") + END).path == b"f"


def test_contiguous_files_are_files() -> None:
    ((entry, content),) = read_all(header(b"f", b"7", size=5) + FIVE + END)
    assert (entry.kind, content) == (kinds.FILE, b"hello")


@pytest.mark.parametrize("end", [b"", bytes(512), END, END + bytes(8192), END + b"anything"])
def test_every_end_of_a_tar(end: bytes) -> None:
    assert only(header(b"f", size=5) + FIVE + end).path == b"f"


@pytest.mark.parametrize("chunk", [1, 512, 1 << 20])
@pytest.mark.parametrize("padding", [0, 1, 506, 507])
def test_the_last_files_padding_may_be_missing(padding: int, chunk: int) -> None:
    tar = header(b"f", size=5) + b"hello" + bytes(padding)
    ((entry, content),) = read_all(tar, chunk)
    assert (entry.path, content) == (b"f", b"hello")


def test_a_tar_of_nothing_is_empty() -> None:
    assert read_all(b"") == read_all(END) == []


REGIONS = [(offset, 600) for offset in range(1000, 40_000, 1300)]
DATA = bytes(range(1, 251)) * (600 * len(REGIONS) // 250)
REAL_SIZE = 50_000
MAP = [number for region in REGIONS for number in region]


def sparse_tars() -> dict[str, bytes]:
    count = b"%d" % len(REGIONS)
    size = b"%d" % REAL_SIZE
    old = [
        pair
        for offset, length in REGIONS
        for pair in (
            (b"GNU.sparse.offset", b"%d" % offset),
            (b"GNU.sparse.numbytes", b"%d" % length),
        )
    ]
    lines = padded(b"".join(b"%d\n" % number for number in (len(REGIONS), *MAP)))
    body = padded(DATA)
    return {
        "gnu": old_sparse_header(b"f", REGIONS, REAL_SIZE, len(DATA)) + body,
        "0.0": pax((b"GNU.sparse.size", size), (b"GNU.sparse.numblocks", count), *old)
        + header(b"f", size=len(DATA))
        + body,
        "0.1": pax(
            (b"GNU.sparse.size", size),
            (b"GNU.sparse.name", b"f"),
            (b"GNU.sparse.map", b",".join(b"%d" % number for number in MAP)),
        )
        + header(b"GNUSparseFile.1/f", size=len(DATA))
        + body,
        "1.0": pax(
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", b"f"),
            (b"GNU.sparse.realsize", size),
        )
        + header(b"GNUSparseFile.1/f", size=len(lines) + len(DATA))
        + lines
        + body,
    }


@pytest.mark.parametrize("dialect", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files_of_every_format(dialect: str) -> None:
    tar = sparse_tars()[dialect] + header(b"next", size=5) + FIVE + END
    (entry, content), (following, behind) = read_all(tar, chunk=700)
    assert entry.sparse is not None
    assert (entry.path, entry.size, entry.sparse.size) == (b"f", REAL_SIZE, REAL_SIZE)
    assert entry.sparse.regions == REGIONS
    assert content == DATA
    assert (following.path, behind) == (b"next", b"hello")


INVALID = {
    "ends in a header": header(b"f")[:300],
    "ends in a file": header(b"f", size=5) + b"he",
    "wrong checksum": header(b"f")[:-1] + b"x" + END,
    "goes on after zeros": header(b"f") + bytes(512) + header(b"g"),
    "no number": header(b"f", size=b"12345678abc\0") + END,
    "negative size": header(b"f", size=base256(-5, 12)) + END,
    "negative header": header(b"f", b"x", size=base256(-5, 12)) + END,
    "huge header": header(b"f", b"L", size=1 << 30) + END,
    "path too long": long_name(b"a/" * 2100) + header(b"f") + END,
    "name too long": long_name(b"n" * 256) + header(b"f") + END,
    "NUL in a path": pax((b"path", b"a\0b")) + header(b"f") + END,
    "empty symlink": header(b"f", b"2") + END,
    "long symlink": long_name(b"t" * 4096, b"K") + header(b"f", b"2") + END,
    "pax without a length": header(b"p", b"x", size=5) + FIVE + header(b"f") + END,
    "pax that is too long": header(b"p", b"x", size=8) + padded(b"99 a=bc\n") + header(b"f") + END,
    "pax without an equals sign": header(b"p", b"x", size=6) + padded(b"6 abc\n") + header(b"f"),
    "pax with a zero length": header(b"p", b"x", size=6) + padded(b"0 a=b\n") + header(b"f"),
    "pax size of words": pax((b"size", b"many")) + header(b"f") + END,
    "pax size of many digits": pax((b"size", b"9" * 5000)) + header(b"f") + END,
    "sparse beyond its end": old_sparse_header(b"f", [(0, 600)], 500, 600) + padded(DATA[:600]),
    "sparse and overlapping": old_sparse_header(b"f", [(0, 9), (5, 9)], 99, 18) + padded(DATA[:18]),
    "sparse with other data": old_sparse_header(b"f", [(0, 600)], 900, 512) + padded(DATA[:512]),
    "sparse map of words": pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,x"))
    + header(b"f"),
    "sparse map of odd length": pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,1,2"))
    + header(b"f"),
    "sparse map without end": pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9"))
    + header(b"f", size=512)
    + padded(b"9" * 512),
    "sparse map of millions": pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9"))
    + header(b"f", size=512)
    + padded(b"9999999\n"),
    "sparse pairs that do not alternate": pax(
        (b"GNU.sparse.offset", b"0"), (b"GNU.sparse.offset", b"1"), (b"GNU.sparse.size", b"9")
    )
    + header(b"f"),
}


@pytest.mark.parametrize("case", INVALID)
def test_a_tar_that_makes_no_sense_is_refused(case: str) -> None:
    with pytest.raises(LayerInvalidError):
        read_all(INVALID[case])


NAMES = st.text("abc./é-", min_size=1, max_size=160).filter(lambda name: name.strip("./"))
PARTS: st.SearchStrategy[Part] = st.one_of(
    st.tuples(NAMES.filter(lambda name: not name.endswith("/")), st.binary(max_size=1500)),
    st.builds(directory, NAMES, uid=st.integers(0, 1 << 40), mtime=st.integers(-9, 1 << 34)),
    st.builds(symlink, NAMES, NAMES),
    st.builds(hard_link, NAMES, NAMES),
    st.builds(lambda name: member(name, tarfile.FIFOTYPE), NAMES),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(PARTS, max_size=6),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.sampled_from([1, 511, 513, 1 << 20]),
)
def test_random_tars_read_like_the_standard_librarys(
    parts: list[Part], dialect: int, chunk: int
) -> None:
    tar = tar_of(*parts, dialect=dialect)
    found = read_all(tar, chunk)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        expected = archive.getmembers()
        assert len(found) == len(expected)
        for (entry, content), info in zip(found, expected, strict=True):
            name = info.name.encode("utf-8", "surrogateescape")
            assert entry.path == b"/".join(clean(name))
            assert (entry.uid, entry.mode) == (info.uid, info.mode)
            assert entry.mtime == min(max(int(info.mtime), 0), 0xFFFFFFFF)
            if info.isreg():
                file = archive.extractfile(info)
                assert file is not None
                assert content == file.read()
            elif info.issym():
                assert entry.target == info.linkname.encode()


def clean(name: bytes) -> list[bytes]:
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in {b"", b"."}:
            parts.append(part)
    return parts


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_tars_are_read_or_refused(data: st.DataObject) -> None:
    tar = bytearray(
        data.draw(st.sampled_from(sorted([*sparse_tars().values(), *INVALID.values()])))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        tar[data.draw(st.integers(0, len(tar) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        tar = bytearray(with_checksum(bytes(tar)))
    with suppress(LayerInvalidError):
        for entry, _ in read_all(bytes(tar) + END):
            assert not entry.path.startswith(b"/")
            assert not {b"", b".", b".."} & set(entry.path.split(b"/")) or not entry.path


def with_checksum(tar: bytes) -> bytes:
    """Make the first header pass, or nearly all damage would end at its checksum."""
    plain = tar[:148] + b" " * 8 + tar[156:512]
    return tar[:148] + b"%06o\0 " % sum(plain) + tar[156:]
