"""Every way in which a layer's blob may be compressed, and what must not come of it."""

import bz2
import gzip
import hashlib
import io
import lzma
import random
import resource
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from services.converter.packing import (
    Compressors,
    LayerDigests,
    LayerInvalidError,
    LayerMismatchError,
    LayerTooLargeError,
    Limits,
    pack_layer,
)
from services.converter.packing.expand import CHUNK, expanded
from shared.image.errors import WorkCancelledError
from tests.support.packing import KEEP_ALL, pack, tar_of

RANDOM = random.Random(3)
TAR = tar_of(
    *[(f"f{n}", RANDOM.randbytes(900) + b"text " * RANDOM.randrange(3000)) for n in range(300)]
)
THIRD = len(TAR) // 3
PARTS = [TAR[:THIRD], TAR[THIRD : 2 * THIRD], TAR[2 * THIRD :]]
GARBAGE = b"what no decompressor knows" * 9


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def skippable(data: bytes) -> bytes:
    return b"\x5a\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def zstd_raw(data: bytes, *, window_log: int = 17, dictionary: int = 0) -> bytes:
    """A frame whose header says what we want; its one block is stored."""
    descriptor = 1 if dictionary else 0
    head = bytes([descriptor, (window_log - 10) << 3]) + bytes([dictionary] * descriptor)
    return zstandard.FRAME_HEADER + head + ((len(data) << 3) | 1).to_bytes(3, "little") + data


def xz_with_dictionary(data: bytes, bits: int) -> bytes:
    """As if a dictionary of that size had been used; 40 bits mean 4 GiB."""
    blob = bytearray(lzma.compress(data))
    length = 4 * (blob[12] + 1)
    assert blob[14:16] == b"\x21\x01"
    blob[16] = bits
    checked = bytes(blob[12 : 12 + length - 4])
    blob[12 + length - 4 : 12 + length] = zlib.crc32(checked).to_bytes(4, "little")
    return bytes(blob)


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}

SAME = {
    "plain": TAR,
    **{name: compress(TAR) for name, compress in COMPRESSIONS.items()},
    **{
        f"several of {name}": b"".join(map(compress, PARTS))
        for name, compress in COMPRESSIONS.items()
    },
    **{
        f"{name}, then garbage": compress(TAR) + GARBAGE
        for name, compress in COMPRESSIONS.items()
        if name != "zstd"
    },
    **{
        f"{name}, then half a magic": compress(TAR) + compress(b"")[:1]
        for name, compress in COMPRESSIONS.items()
        if name != "zstd"
    },
    "gzip with a name and more in its header": (
        b"\x1f\x8b\x08\x1c"
        + bytes(6)
        + b"\x03\0abc"
        + b"n" * 5000
        + b"\0"
        + b"c" * 9000
        + b"\0"
        + gzip.compress(TAR, mtime=0)[10:]
    ),
    "gzip, one for each block": b"".join(
        gzip.compress(TAR[at : at + 512], 1) for at in range(0, len(TAR), 512)
    ),
    "gzip, with empty ones": gzip.compress(b"") * 50 + gzip.compress(TAR) + gzip.compress(b""),
    "gzip and zeros between": b"".join(gzip.compress(part) + bytes(700) for part in PARTS),
    "xz and zeros between": b"".join(lzma.compress(part) + bytes(8) for part in PARTS),
    "zstd with frames to skip": skippable(b"") * 99
    + zstd(PARTS[0])
    + skippable(skippable(zstd(TAR)))
    + zstd(PARTS[1] + PARTS[2])
    + skippable(bytes(99_999)),
    "zstd of unknown size": zstandard.ZstdCompressor(
        write_content_size=False, write_checksum=True
    ).compress(TAR),
    "zstd with the largest window": b"".join(
        zstd_raw(TAR[at : at + 100_000], window_log=27) for at in range(0, len(TAR), 100_000)
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_the_tar_is_the_same(tmp_path: Path, case: str) -> None:
    blob = SAME[case]
    expected = LayerDigests(blob=sha256(blob), diff_id=sha256(TAR), size=len(blob))
    summary = pack(blob, tmp_path / "p", expected=expected)
    assert (summary.entries, summary.tar_size, summary.blob_size) == (300, len(TAR), len(blob))


EMPTY = bytes(1024)
NOTHING = {
    "no bytes at all": b"",
    "two blocks of zeros": EMPTY,
    "one block of zeros": EMPTY[:512],
    "padded to a record": bytes(10_240),
    **{f"{name} of nothing": compress(b"") for name, compress in COMPRESSIONS.items()},
    **{f"{name} of zeros": compress(EMPTY) for name, compress in COMPRESSIONS.items()},
}


@pytest.mark.parametrize("case", NOTHING)
def test_an_empty_layer_is_a_pack_of_nothing(tmp_path: Path, case: str) -> None:
    summary = pack(NOTHING[case], tmp_path / "p")
    assert (summary.entries, summary.data_length) == (0, 0)


@pytest.mark.parametrize(
    "name", ["\x1f\udc8b\x08", "BZh91AY&SY", "\udcfd7zXZ", "(\udcb5/\udcfd", "P*M\x18"]
)
def test_a_plain_tar_may_begin_like_anything(tmp_path: Path, name: str) -> None:
    tar = tar_of((name, b"x" * 2000), ("other", b""))
    assert pack(tar, tmp_path / "p", expected=LayerDigests(diff_id=sha256(tar))).entries == 2


SHORT = TAR[:90_000]
REFUSED = {
    "zstd wants 256 MiB": (zstd_raw(SHORT, window_log=28), "window"),
    "zstd wants 1 TiB": (zstd_raw(SHORT, window_log=40), "window"),
    "zstd with a dictionary": (zstd_raw(SHORT, dictionary=7), "dictionary"),
    "xz wants 4 GiB": (xz_with_dictionary(TAR, 40), "[Mm]emory"),
    "zstd is cut": (zstd(TAR)[:-700], "ends in the middle"),
    "zstd has only something to skip, and that is cut": (
        zstd(TAR[:THIRD]) + skippable(TAR)[:50],
        "ends in the middle",
    ),
    "garbage before the tar's end": (gzip.compress(PARTS[0]) + GARBAGE, "ends in the middle"),
    **{
        f"{name} is cut": (compress(TAR)[:-20], "cannot be decompressed")
        for name, compress in COMPRESSIONS.items()
        if name != "zstd"
    },
    **{
        f"{name} is damaged": (compress(TAR)[:5000] + bytes(99) + compress(TAR)[5099:], "a layer's")
        for name, compress in COMPRESSIONS.items()
        if name != "zstd"
    },
    "zstd, then garbage": (zstd(TAR) + GARBAGE, "cannot be decompressed"),
    "a gzip header without an end": (b"\x1f\x8b\x08\x08" + b"n" * (5 << 20), "does not end"),
    "a wrong checksum": (gzip.compress(TAR)[:-8] + bytes(8), "cannot be decompressed"),
    "gzip in gzip": (gzip.compress(gzip.compress(TAR)), "header"),
    "another compression": (b"\x04\x22\x4d\x18" + TAR, "header"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_expanded_is_the_layers_fault(tmp_path: Path, case: str) -> None:
    blob, words = REFUSED[case]
    with pytest.raises(LayerInvalidError, match=words):
        pack(blob, tmp_path / "p", expected=LayerDigests(blob=sha256(blob), size=len(blob)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", REFUSED)
def test_unless_the_transfer_damaged_it(tmp_path: Path, case: str) -> None:
    blob, _ = REFUSED[case]
    with pytest.raises(LayerMismatchError):
        pack(blob, tmp_path / "p", expected=LayerDigests(blob=sha256(TAR), size=len(blob)))


ZEROS = tar_of(("zeros", bytes(12 << 20)))


class Trickle(io.BytesIO):
    """A blob that arrives in pieces of a few bytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, RANDOM.choice((1, 2, 7, 300))))


@pytest.mark.parametrize(
    "case", ["gzip with a name and more in its header", "gzip and zeros between", "xz", "bzip2"]
)
def test_nothing_depends_on_the_pieces_that_arrive(tmp_path: Path, case: str) -> None:
    with Compressors(1) as compressors:
        summary = pack_layer(
            Trickle(SAME[case]),
            expected=LayerDigests(diff_id=sha256(TAR)),
            options=KEEP_ALL,
            out_path=tmp_path / "p",
            compressors=compressors,
            on_progress=lambda _: None,
            cancelled=threading.Event(),
        )
    assert summary.blob == sha256(SAME[case])


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_bombs_come_in_bounded_pieces_and_are_stopped(tmp_path: Path, name: str) -> None:
    class Blob(io.BytesIO):
        def peek(self, size: int) -> bytes:
            return self.getvalue()[:size]

    blob = COMPRESSIONS[name](ZEROS)
    pieces = [len(piece) for piece in expanded(Blob(blob))]
    assert sum(pieces) == len(ZEROS)
    assert max(pieces) <= CHUNK
    with pytest.raises(LayerTooLargeError, match="100 times"):
        pack(blob, tmp_path / "p", limits=Limits(max_ratio=100, ratio_from=1 << 20))
    assert not list(tmp_path.iterdir())


LONG = TAR[:-1024] + tar_of(("noise", RANDOM.randbytes(3 << 20)))


@pytest.mark.parametrize("calls", [1, 3, 6])
@pytest.mark.parametrize("name", COMPRESSIONS)
def test_cancelling_at_any_moment_leaves_nothing(tmp_path: Path, name: str, calls: int) -> None:
    blob = COMPRESSIONS[name](LONG)
    cancelled = threading.Event()
    before = threading.active_count()
    seen = 0

    def count(_: int) -> None:
        nonlocal seen
        seen += 1
        if seen == calls:
            cancelled.set()

    with pytest.raises(WorkCancelledError):
        pack(blob, tmp_path / "p", on_progress=count, cancelled=cancelled)
    assert cancelled.is_set()
    assert threading.active_count() == before
    assert not list(tmp_path.iterdir())


def test_a_full_disk_says_so_and_keeps_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the write fails in the same place."""
    before = threading.active_count()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            pack(TAR + RANDOM.randbytes(1 << 20), tmp_path / "p", options=KEEP_ALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert threading.active_count() == before
    assert not list(tmp_path.iterdir())
