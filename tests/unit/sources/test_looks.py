"""What a tar is, told by its first members, without reading much of it."""

import bz2
import gzip
import lzma
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from services.converter.sources.looks import look_of_tar
from tests.support.packing import directory, member, tar_of

SAME: Callable[[bytes], bytes] = bytes
COMPRESSORS = [SAME, gzip.compress, bz2.compress, lzma.compress, zstandard.compress]


def look(path: Path, content: bytes) -> str | None:
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        return look_of_tar(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("compress", COMPRESSORS)
@pytest.mark.parametrize(
    ("tar", "found"),
    [
        (tar_of(directory("."), directory("./usr"), ("manifest.json", b"")), "root"),
        (tar_of(("bin/sh", b"x" * 5000)), "root"),
        (tar_of(directory("blobs"), ("etc/passwd", b"")), "archive"),
        (tar_of(("ab" * 32 + ".json", b"{}")), "archive"),
        (tar_of(("ab" * 32 + "/layer.tar", b"{}")), "archive"),
        (tar_of(("data/file", b"")), None),
        (tar_of(), None),
        (b"", None),
        (b"no tar at all" * 100, None),
    ],
)
def test_looks(
    tmp_path: Path, compress: Callable[[bytes], bytes], tar: bytes, found: str | None
) -> None:
    assert look(tmp_path / "file", compress(tar)) == found


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstandard.compress])
def test_a_damaged_stream_has_no_look(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    data = bytearray(compress(tar_of(("data/file", os.urandom(5000)), ("usr/x", b""))))
    data[len(data) // 2 :] = b"\xff" * 40
    assert look(tmp_path / "file", bytes(data)) is None


def test_a_bomb_is_not_followed(tmp_path: Path) -> None:
    header = member("data/zeros", size=1 << 40).tobuf()
    zeros = bytes(64 << 20)
    bomb = zstandard.compress(header) + zstandard.compress(zeros) * 2000
    began = time.process_time()
    assert look(tmp_path / "file", bomb) is None
    assert time.process_time() - began < 5
