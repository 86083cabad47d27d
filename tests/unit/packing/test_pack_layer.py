"""From a blob to a pack: digests, limits, policy, determinism, and nothing left on failure."""

import asyncio
import gzip
import hashlib
import io
import os
import random
import socket
import threading
from pathlib import Path

import pytest
import zstandard

from services.converter.packers.piped import PipedBlob
from services.converter.packing import (
    Compressors,
    LayerDigests,
    LayerInvalidError,
    LayerMismatchError,
    LayerTooLargeError,
    Limits,
    pack_layer,
)
from shared.image.errors import PackCorruptError, WorkCancelledError
from shared.image.packs.pack import pack_key, read_index
from shared.image.reading.reader import SquashImage
from shared.image.recipe import Compression
from tests.support.conditions import eventually
from tests.support.packing import KEEP_ALL, build_image, directory, pack, tar_of
from tests.support.rawtar import END, old_sparse_header, padded

RANDOM = random.Random(7)
CONTENT = b"".join(
    RANDOM.choice((bytes(4096), RANDOM.randbytes(4096), b"text " * 800)) for _ in range(600)
)
TAR = tar_of(
    directory("d"),
    ("d/large", CONTENT),
    *[(f"d/small{n}", CONTENT[n * 997 :][: n * 13]) for n in range(400)],
    ("d/zeros", bytes(50_000)),
)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"meta"
HALF = len(TAR) // 2
BLOBS = {
    "plain": TAR,
    "gzip": gzip.compress(TAR, 1),
    "gzip members": gzip.compress(TAR[:HALF], 1) + gzip.compress(TAR[HALF:], 6),
    "gzip and zeros": gzip.compress(TAR, 1) + bytes(512),
    "zstd": zstd(TAR),
    "zstd frames": zstd(TAR[:HALF]) + SKIPPABLE + zstd(TAR[HALF:]),
    "zstd skippable first": SKIPPABLE + zstd(TAR),
}


@pytest.mark.parametrize("kind", BLOBS)
def test_every_compression_gives_the_same_pack(tmp_path: Path, kind: str) -> None:
    blob = BLOBS[kind]
    expected = LayerDigests(blob=sha256(blob), diff_id=sha256(TAR), size=len(blob))
    seen: list[int] = []
    summary = pack(blob, tmp_path / "p", expected=expected, on_progress=seen.append)
    assert (summary.blob, summary.diff_id) == (sha256(blob), sha256(TAR))
    assert (summary.blob_size, summary.tar_size, summary.entries) == (len(blob), len(TAR), 403)
    assert summary.key == pack_key(summary.diff_id, KEEP_ALL)
    assert seen[-1] == len(blob)
    pack(TAR, tmp_path / "q")
    assert (tmp_path / "p").read_bytes() == (tmp_path / "q").read_bytes()


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_the_number_of_threads_changes_no_byte(tmp_path: Path, compression: Compression) -> None:
    options = KEEP_ALL.model_copy(update={"compression": compression})
    images = set()
    for threads in (1, 2, 4):
        place = tmp_path / str(threads)
        place.mkdir()
        images.add(
            build_image(
                [TAR, tar_of(("x", CONTENT))], place, options, threads=threads
            ).content_digest
        )
    assert len(images) == 1


def test_what_follows_the_tars_end_counts_for_the_digests(tmp_path: Path) -> None:
    tar = TAR + b"left over" * 9999
    blob = gzip.compress(tar)
    expected = LayerDigests(blob=sha256(blob), diff_id=sha256(tar), size=len(blob))
    assert pack(blob, tmp_path / "p", expected=expected).tar_size == len(tar)


GZIPPED = BLOBS["gzip"]
DAMAGED = GZIPPED[:5000] + b"\0" * 50 + GZIPPED[5050:]
WRONG = "sha256:" + "0" * 64
MISMATCHES = {
    "blob": (GZIPPED, LayerDigests(blob=WRONG)),
    "diff id": (GZIPPED, LayerDigests(diff_id=WRONG)),
    "too long": (GZIPPED, LayerDigests(size=len(GZIPPED) - 1)),
    "too short": (GZIPPED, LayerDigests(size=len(GZIPPED) + 1)),
    "cut gzip": (GZIPPED[:-100], LayerDigests(blob=sha256(GZIPPED))),
    "cut zstd": (BLOBS["zstd"][:-100], LayerDigests(blob=sha256(BLOBS["zstd"]))),
    "cut tar": (TAR[:9000], LayerDigests(blob=sha256(TAR), size=len(TAR))),
    "damaged gzip": (DAMAGED, LayerDigests(blob=sha256(GZIPPED))),
    "damaged tar": (b"x" + TAR[1:], LayerDigests(blob=sha256(TAR))),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_what_was_not_promised_is_not_published(tmp_path: Path, case: str) -> None:
    blob, expected = MISMATCHES[case]
    with pytest.raises(LayerMismatchError) as caught:
        pack(blob, tmp_path / "p", expected=expected)
    assert caught.value.retryable
    assert not list(tmp_path.iterdir())


INVALID = [
    b"no tar at all" * 99,
    b"longer than what is read ahead of the tar" * (1 << 19),
    DAMAGED,
    GZIPPED[:20] + b"\xff" * (2 << 20),
    GZIPPED[:-100],
    b"\x1f\x8b",
]


@pytest.mark.parametrize("blob", INVALID, ids=range(len(INVALID)))
def test_a_layer_that_really_is_like_that_is_invalid(tmp_path: Path, blob: bytes) -> None:
    with pytest.raises(LayerInvalidError):
        pack(blob, tmp_path / "p", expected=LayerDigests(blob=sha256(blob), size=len(blob)))
    assert not list(tmp_path.iterdir())


ZEROS = tar_of(("zeros", bytes(8 << 20)))
HUGE_HOLE = old_sparse_header(b"f", [(0, 5)], 1 << 32, 5) + padded(b"hello")
TOO_LARGE = {
    "bytes": (gzip.compress(ZEROS), Limits(max_bytes=4 << 20)),
    "ratio": (zstd(ZEROS), Limits(max_ratio=100, ratio_from=1 << 20)),
    "holes": (HUGE_HOLE + END, Limits(max_bytes=1 << 31)),
    "entries": (tar_of(*[directory(f"d{n}") for n in range(9)]), Limits(max_entries=8)),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_bomb_is_stopped(tmp_path: Path, case: str) -> None:
    blob, limits = TOO_LARGE[case]
    with pytest.raises(LayerTooLargeError):
        pack(blob, tmp_path / "p", limits=limits)
    assert not list(tmp_path.iterdir())


def test_cancelling_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    cancelled = threading.Event()
    before = threading.active_count()
    with pytest.raises(WorkCancelledError):
        pack(TAR, tmp_path / "p", cancelled=cancelled, on_progress=lambda _: cancelled.set())
    assert not list(tmp_path.iterdir())
    assert threading.active_count() == before


async def test_cancelling_wakes_a_layer_whose_bytes_stopped_coming(tmp_path: Path) -> None:
    """As a packer's watcher does it: the source is closed while it is being read."""
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    os.write(writing, GZIPPED[:1000])
    blob, cancelled = PipedBlob(reading, theirs), threading.Event()
    packing = asyncio.create_task(
        asyncio.to_thread(pack, blob, tmp_path / "p", cancelled=cancelled)
    )
    await eventually(lambda: list(tmp_path.iterdir()), within=5)
    cancelled.set()
    blob.close()
    with pytest.raises(WorkCancelledError):
        await asyncio.wait_for(packing, 5)
    assert not list(tmp_path.iterdir())
    for end in (reading, writing):
        os.close(end)
    ours.close()
    theirs.close()


def test_a_source_that_breaks_is_not_blamed_on_the_layer(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError("the registry hung up")

    with Compressors(1) as compressors, pytest.raises(ConnectionResetError):
        pack_layer(
            Broken(),
            expected=LayerDigests(blob=sha256(TAR)),
            options=KEEP_ALL,
            out_path=tmp_path / "p",
            compressors=compressors,
            on_progress=lambda _: None,
            cancelled=threading.Event(),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["index", "footer", "end"])
def test_a_damaged_index_is_noticed(tmp_path: Path, place: str) -> None:
    path = tmp_path / "p"
    summary = pack(TAR, path)
    sound = path.read_bytes()
    assert len(read_index(path, summary.key).names) == summary.entries
    at = {"index": summary.data_length + 50, "footer": -115, "end": -1}[place]
    damaged = bytearray(sound)
    damaged[at] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(PackCorruptError):
        read_index(path, summary.key)
    path.write_bytes(sound[:-1])
    with pytest.raises(PackCorruptError):
        read_index(path, summary.key)


def test_a_pack_under_another_name_is_noticed(tmp_path: Path) -> None:
    pack(TAR, tmp_path / "p")
    with pytest.raises(PackCorruptError, match="holds the pack"):
        read_index(tmp_path / "p", "0" * 64)


def test_everything_that_decides_the_bytes_is_in_the_key() -> None:
    changes: list[dict[str, object]] = [
        {"compression": "gzip"},
        {"level": 4},
        {"block_size": 8192},
        {"keep_owners": False},
        {"keep_setuid": False},
        {"keep_devices": False},
        {"xattrs": ()},
    ]
    options = [KEEP_ALL, *[KEEP_ALL.model_copy(update=change) for change in changes]]
    keys = {pack_key(sha256(b"a"), each) for each in options} | {pack_key(sha256(b"b"), KEEP_ALL)}
    assert len(keys) == len(options) + 1


def holes(size: int, regions: list[tuple[int, int]]) -> tuple[bytes, bytes]:
    """A sparse tar and what its file must read as."""
    content = bytearray(size)
    stored = b""
    for number, (offset, length) in enumerate(regions, 1):
        content[offset : offset + length] = bytes([number]) * length
        stored += bytes([number]) * length
    tar = old_sparse_header(b"f", regions, size, len(stored)) + padded(stored) + END
    return tar, bytes(content)


@pytest.mark.parametrize(
    ("size", "regions"),
    [
        (0, []),
        (100, []),
        (4096, []),
        (50_000, []),
        (50_000, [(0, 1)]),
        (50_000, [(49_999, 1)]),
        (8192, [(4096, 4096)]),
        (8192, [(8191, 1)]),
        (50_000, [(4095, 2), (12_288, 4096), (20_000, 9000), (45_000, 10), (49_152, 800)]),
        (12_289, [(100, 5), (200, 5), (5000, 1), (12_288, 1)]),
    ],
)
def test_sparse_files_read_as_they_were(
    tmp_path: Path, size: int, regions: list[tuple[int, int]]
) -> None:
    tar, content = holes(size, regions)
    with SquashImage(build_image([tar], tmp_path).path) as image:
        (_, found) = image.walk()
        assert b"".join(image.content(found.inode)) == content
