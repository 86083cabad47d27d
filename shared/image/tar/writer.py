"""Rows as a tar that nothing but they decide: the same files are always the same bytes.

The plainest headers that can say it; pax records where they cannot: long paths, large numbers,
attributes, and the maps of sparse files (format 1.0).
"""

import os
from collections.abc import Iterable, Iterator
from typing import Final

from shared.image import kinds
from shared.image.tar.row import Row

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
_FLAGS: Final = {
    kinds.FILE: b"0",
    kinds.HARD_LINK: b"1",
    kinds.SYMLINK: b"2",
    kinds.CHARACTER_DEVICE: b"3",
    kinds.BLOCK_DEVICE: b"4",
    kinds.DIRECTORY: b"5",
    kinds.FIFO: b"6",
}
_PIECE: Final = 1 << 20
_MAX_NAME: Final = 100
_MAX_ID: Final = 0o7777777
_MAX_SIZE: Final = 0o77777777777
_MAX_TIME: Final = 0xFFFFFFFF
_SECOND: Final = 1_000_000_000
_BLANKS: Final = 8 * ord(" ")

Xattrs = tuple[tuple[bytes, bytes], ...]
Regions = list[tuple[int, int]]
"""The offsets and lengths of what is no hole."""


def entry(row: Row, xattrs: Xattrs = ()) -> bytes:
    """All but the content, which follows, and its padding."""
    size = row.size if row.kind == kinds.FILE else 0
    records = _records(row, size, xattrs)
    header = _header(row.path, row, size)
    return _extension(row, records) + header if records else header


def sparse_entry(row: Row, regions: Regions, xattrs: Xattrs = ()) -> tuple[bytes, int]:
    """As `entry`, with the map of what is not hole; also the padding behind the regions' bytes."""
    numbers = [len(regions), *(number for region in regions for number in region)]
    text = b"".join(b"%d\n" % number for number in numbers)
    text += bytes(-len(text) % BLOCK)
    data = sum(length for _, length in regions)
    size = len(text) + data
    records = _records(row, size, xattrs)
    records[b"GNU.sparse.major"] = b"1"
    records[b"GNU.sparse.minor"] = b"0"
    records[b"GNU.sparse.name"] = row.path
    records[b"GNU.sparse.realsize"] = b"%d" % row.size
    return _extension(row, records) + _header(row.path, row, size) + text, -data % BLOCK


def gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, in fewer pieces."""
    waiting: list[bytes] = []
    length = 0
    for piece in pieces:
        waiting.append(piece)
        length += len(piece)
        if length >= _PIECE:
            yield b"".join(waiting)
            waiting, length = [], 0
    yield b"".join(waiting)


def padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _records(row: Row, size: int, xattrs: Xattrs) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    if len(row.path) > _MAX_NAME:
        records[b"path"] = row.path
    if len(row.target) > _MAX_NAME:
        records[b"linkpath"] = row.target
    if size > _MAX_SIZE:
        records[b"size"] = b"%d" % size
    if row.uid > _MAX_ID:
        records[b"uid"] = b"%d" % row.uid
    if row.gid > _MAX_ID:
        records[b"gid"] = b"%d" % row.gid
    for name, value in sorted(xattrs):
        records[b"SCHILY.xattr." + name] = value
    return records


def _extension(row: Row, records: dict[bytes, bytes]) -> bytes:
    text = b"".join(_record(key, value) for key, value in records.items())
    header = _header(b"", row, len(text), b"x")
    return header + text + bytes(-len(text) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """Its length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while (total := len(rest) + len(str(length))) != length:
        length = total
    return b"%d" % length + rest


def _header(path: bytes, row: Row, size: int, flag: bytes = b"") -> bytes:
    flag = flag or _FLAGS[row.kind]
    fields = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        row.mode & 0o7777,
        row.uid if row.uid <= _MAX_ID else 0,
        row.gid if row.gid <= _MAX_ID else 0,
        size if size <= _MAX_SIZE else 0,
        min(max(row.mtime // _SECOND, 0), _MAX_TIME),
    )
    name = path[:_MAX_NAME] or b"./"
    link = b"" if flag == b"x" else row.target[:_MAX_NAME]
    device = b""
    if row.kind in kinds.DEVICES:
        device = b"%07o\0%07o\0" % (os.major(row.device), os.minor(row.device))
    total = sum(name) + sum(fields) + _BLANKS + sum(flag) + sum(link) + _MAGIC_SUM + sum(device)
    return b"%s%s%06o\0 %s%s%s%s%s%s" % (
        name.ljust(100, b"\0"),
        fields,
        total,
        flag,
        link.ljust(100, b"\0"),
        _MAGIC,
        bytes(64),
        device.ljust(16, b"\0"),
        bytes(167),
    )


_MAGIC: Final = b"ustar\x0000"
_MAGIC_SUM: Final = sum(_MAGIC)
