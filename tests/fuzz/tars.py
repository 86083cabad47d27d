"""Layers: a tar's headers, the ways to compress it, and what becomes of it in an image."""

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from services.converter.packing.errors import LayerInvalidError, LayerTooLargeError
from services.converter.packing.limits import MAX_LINK_TARGET, MAX_NAME, MAX_PATH, Limits
from services.converter.packing.stream import LayerDigests, LayerStream
from services.converter.packing.tar_bytes import TarBytes
from services.converter.packing.tar_header import BLOCK
from services.converter.packing.tar_reader import Member, TarReader
from shared.image import kinds
from shared.image.codecs import block_codec
from shared.image.errors import ImageInvalidError, ImageTooLargeError, ImageUnsupportedError
from shared.image.reading.extract import extract
from shared.image.reading.reader import SquashImage
from tests.fuzz.target import Target, require_inside
from tests.support.nasty_tars import CASES
from tests.support.packing import build_image, directory, hard_link, member, symlink, tar_of
from tests.support.rawtar import END, base256, header, long_name, old_sparse_header, padded, pax

_LIMITS: Final = Limits(
    max_bytes=4 << 20, ratio_from=1 << 20, max_entries=500, max_text=1 << 20, max_metadata=1 << 16
)
_CHECKSUM: Final = slice(148, 156)
_CHUNKS: Final = (511, 1 << 20)

Found = list[tuple[Member, bytes]]


def _read(tar: bytes, chunk: int) -> Found | None:
    """All members with what is stored of them; None if the tar is refused."""
    stream = io.BytesIO(tar)
    reader = TarReader(TarBytes(lambda: stream.read(chunk)), _LIMITS)
    found: Found = []
    try:
        for each in reader:
            stored = sum(n for _, n in each.sparse.regions) if each.sparse else each.size
            is_file = each.kind == kinds.FILE
            found.append((each, reader.read(stored) if is_file else b""))
    except (LayerInvalidError, LayerTooLargeError):
        return None
    return found


def _tar(data: bytes) -> None:
    first, *others = (_read(data, chunk) for chunk in _CHUNKS)
    assert all(other == first for other in others), "it depends on how the bytes arrive"
    if first is None:
        return
    for each, content in first:
        require_inside(each.path)
        if each.kind == kinds.HARD_LINK:
            require_inside(each.target)
        assert len(each.path) <= MAX_PATH + MAX_NAME
        assert len(content) <= len(data)
        if each.kind == kinds.SYMLINK:
            assert 0 < len(each.target) <= MAX_LINK_TARGET
        if each.sparse is not None:
            ends = [0, *(offset + length for offset, length in each.sparse.regions)]
            assert ends == sorted(ends)
            assert ends[-1] <= each.size
    if _is_plain(data):
        _compare(first, data)


def _is_plain(data: bytes) -> bool:
    """Only what all readers understand alike: files, directories and links, in POSIX headers."""
    at = 0
    while (block := data[at : at + BLOCK]).strip(b"\0"):
        if block[257:265] != b"ustar\x0000" or block[156:157] not in b"0125" or block[124] & 0x80:
            return False
        if any(byte > 127 for byte in block) or block[345:].strip(b"\0"):
            return False
        size = int(block[124:136].strip(b" \0").partition(b"\0")[0] or b"0", 8)
        # Of links and directories with a size, readers disagree about what follows.
        if size and block[156:157] != b"0":
            return False
        at += BLOCK + size + -size % BLOCK
    # Without its last padding, the standard library leaves the last file out.
    return len(data) % BLOCK == 0


def _compare(found: Found, data: bytes) -> None:
    """With the standard library, where that accepts it too."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            members = archive.getmembers()
            contents = [_content(archive, each) for each in members]
    except (tarfile.TarError, EOFError, ValueError):
        return
    assert len(members) == len(found)
    for (ours, content), theirs, expected in zip(found, members, contents, strict=True):
        names = [name for name in theirs.name.split("/") if name not in {"", "."}]
        if ".." not in names:
            assert ours.path.decode() == "/".join(names)
        assert (ours.mode, ours.uid, ours.gid) == (theirs.mode & 0o7777, theirs.uid, theirs.gid)
        assert ours.kind == kinds.FILE or not theirs.isreg()
        if expected is not None:
            assert content == expected


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes | None:
    file = archive.extractfile(info) if info.isreg() else None
    return file.read() if file else None


def with_checksums(tar: bytes) -> bytes:
    """Makes the sums of all headers right, as far as their sizes lead from one to the next."""
    fixed = bytearray(tar)
    at = 0
    while len(block := fixed[at : at + BLOCK]) == BLOCK:
        if block.strip(b"\0"):
            block[_CHECKSUM] = b" " * 8
            fixed[at : at + BLOCK] = block
            fixed[at + _CHECKSUM.start : at + _CHECKSUM.stop] = b"%06o\0 " % sum(block)
        digits = block[124:136].strip(b" \0")
        size = int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else 0
        at += BLOCK + size + -size % BLOCK
    return bytes(fixed)


def _layer(data: bytes) -> None:
    """A blob, compressed or not, to its end."""
    stream = LayerStream(
        io.BytesIO(data),
        expected=LayerDigests(),
        limits=_LIMITS,
        on_progress=lambda _: None,
        cancelled=threading.Event(),
    )
    parts: list[bytes] = []
    with stream:
        try:
            while chunk := stream.next_chunk():
                parts.append(chunk)
                assert len(chunk) <= 1 << 20
                assert sum(map(len, parts)) <= _LIMITS.max_bytes
            facts = stream.finish()
        except (LayerInvalidError, LayerTooLargeError):
            return
    tar = b"".join(parts)
    assert (facts.blob_size, facts.tar_size) == (len(data), len(tar))
    for magic, expand in _EXPAND.items():
        if data.startswith(magic) and len(tar) < _LIMITS.ratio_from:
            with suppress(OSError, EOFError, zlib.error, lzma.LZMAError, ValueError):
                assert tar in {expand(data), data}


_EXPAND: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\0": lzma.decompress,
}

_BELOW: Final = tar_of(
    directory("d/e"),
    ("d/file", b"text" * 2000),
    hard_link("d/name", "d/file"),
    symlink("d/link", "../d/e"),
    symlink("away", "/../../etc"),
    symlink("round", "round"),
    ("plain", b""),
)


def _stack(data: bytes) -> None:
    """The tar as a layer above another: what it becomes is sound, and leaves its place nowhere."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        try:
            image = build_image([_BELOW, data], root, limits=_LIMITS)
        except (
            *(LayerInvalidError, LayerTooLargeError),
            *(ImageInvalidError, ImageTooLargeError, ImageUnsupportedError),
        ):
            return
        before = sorted(path.name for path in root.iterdir())
        out = root / "out"
        extract(image.path, out / "tree", max_bytes=_LIMITS.max_bytes * 2)
        with SquashImage(image.path) as found:
            paths = {each.path: each.inode.kind for each in found.walk()}
        for path, kind in paths.items():
            require_inside(path)
            if kind in {kinds.FILE, kinds.DIRECTORY, kinds.SYMLINK}:
                assert (out / "tree" / path.decode("utf-8", "surrogateescape")).parent.is_dir()
        assert [path.name for path in out.iterdir()] == ["tree"]
        assert sorted(path.name for path in root.iterdir()) == sorted([*before, "out"])


def _tars() -> list[bytes]:
    return [short(tar) for tar in _whole()]


def short(tar: bytes) -> bytes:
    """Without the many zeros at the end."""
    content = tar.rstrip(b"\0")
    return content + bytes(-len(content) % BLOCK) + END


def _whole() -> list[bytes]:
    return [
        tar_of(
            directory("d"),
            ("d/file", b"abc"),
            symlink("d/link", "../x"),
            hard_link("again", "d/file"),
            member("pipe", tarfile.FIFOTYPE),
            member("dev", tarfile.CHRTYPE, devmajor=1, devminor=3),
        ),
        tar_of(("./a/../../b", b"x" * 600), dialect=tarfile.USTAR_FORMAT),
        tar_of(("long/" * 50 + "name", b"x"), dialect=tarfile.GNU_FORMAT),
        tar_of((member("p", pax_headers={"SCHILY.xattr.user.a": "1", "mtime": "-1.5"}), b"x")),
        pax((b"mtime", b"1"), (b"path", b"g"), flag=b"g") + header(b"f") + END,
        pax((b"size", b"3"), (b"path", b"../../x")) + header(b"f") + padded(b"abc") + END,
        long_name(b"/abs/name") + long_name(b"target", b"K") + header(b"x", b"1") + END,
        old_sparse_header(b"s", [(n * 512, 2) for n in range(6)], 4096, 12)
        + padded(b"x" * 12)
        + END,
        pax((b"GNU.sparse.map", b"0,1,4,1"), (b"GNU.sparse.size", b"9"))
        + header(b"f", size=2)
        + padded(b"ab")
        + END,
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9"))
        + header(b"f", size=514)
        + padded(b"2\n0\n1\n4\n1\n")
        + padded(b"ab")
        + END,
        header(b"u", uid=base256(1 << 40, 8), size=base256(0, 12)) + END,
        header(b"d/.wh..wh..opq") + header(b".wh.plain") + header(b".wh..wh.plnk/1.2") + END,
        header(b"away/x") + header(b"d/link/y") + header(b"round/z") + header(b"d/name/q") + END,
    ]


def _nasty() -> list[bytes]:
    """What the tests of layers know as hard to get right, as far as it is small."""
    layers = (layer for case in CASES.values() for layer in case.layers)
    return [*_tars(), *(layer for layer in layers if len(layer) <= 4096)]


def _blobs() -> list[bytes]:
    tar = short(tar_of(("a", b"b" * 2000)))
    zstd = block_codec("zstd").compress(tar)
    skippable = b"\x52\x2a\x4d\x18\x02\0\0\0ab"
    zipped = gzip.compress(tar, mtime=0)
    named = io.BytesIO()
    with gzip.GzipFile("name", "wb", fileobj=named, mtime=0) as file:
        file.write(tar)
    bomb: Sequence[bytes] = [gzip.compress(bytes(3 << 20), mtime=0), lzma.compress(bytes(2 << 20))]
    return [
        tar,
        *(zipped, zipped + zipped, zipped + b"\0\0trailing", named.getvalue()),
        *(zstd, skippable + zstd, zstd + skippable + zstd, zstd + b"x"),
        *(
            bz2.compress(tar),
            bz2.compress(tar) * 2,
            lzma.compress(tar),
            lzma.compress(tar) + bytes(4),
        ),
        *bomb,
    ]


_FLAGS: Final = (b"ustar\x0000", b"ustar  \0", *(bytes([flag]) for flag in b"0123457SxgLKVD"))
_TAR_WORDS: Final = (
    *_FLAGS,
    *(b"../", b"/", b"./", b"//", b".wh.", b".wh..wh..opq", b".wh..wh.plnk/", b"\0", b" "),
    *(
        b"path=",
        b"linkpath=",
        b"size=",
        b"GNU.sparse.map=",
        b"GNU.sparse.major=",
        b"GNU.sparse.name=",
    ),
    *(b"SCHILY.xattr.", b"mtime=", b"11 path=..\n", b"\x80" + b"\xff" * 7, b"\xff" * 12),
    *(bytes(BLOCK), header(b"f"), header(b"d", b"5"), header(b"l", b"2", link=b".."), END),
)

TARGETS: Final = {
    "tar": Target(
        _tar, _nasty, words=_TAR_WORDS, repair=with_checksums, largest=8192, examples=100
    ),
    "layer": Target(
        _layer,
        _blobs,
        words=(b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"),
        examples=60,
    ),
    "stack": Target(
        _stack, _tars, words=_TAR_WORDS, repair=with_checksums, largest=8192, examples=30
    ),
}
