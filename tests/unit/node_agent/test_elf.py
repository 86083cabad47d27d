"""What is read of libraries and of the loader's cache, whoever wrote them."""

import os
import platform
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.node_agent.errors import ElfError
from services.node_agent.inside.abi import latest
from services.node_agent.inside.elf import Elf, read_elf
from services.node_agent.inside.ldcache import paths_in
from tests.support.elves import glibc, ld_cache, library, open_mpi


def parsed(content: bytes) -> Elf:
    return read_elf(lambda at, size: content[at : at + size])


def test_what_a_library_says() -> None:
    content = library(
        "liba.so.1",
        needed=["libb.so.2", "libc.so.6"],
        offers=["A_1", "A_2"],
        asks=["GLIBC_2.34", "GLIBC_2.2.5"],
    )
    found = parsed(content)
    assert found == Elf(
        "x86_64", "liba.so.1", ("libb.so.2", "libc.so.6"), ("A_1", "A_2"),
        ("GLIBC_2.34", "GLIBC_2.2.5"),
    )  # fmt: skip
    assert parsed(library(machine=183)).machine == "aarch64"
    assert parsed(library(machine=9999)).machine == "machine 9999"


def test_this_machine_s_own_c_library() -> None:
    name, version = platform.libc_ver()
    if name != "glibc":
        pytest.skip("this machine's C library is not glibc")
    with Path("/proc/self/maps").open() as maps:
        path = next(line.split()[5] for line in maps if "/libc.so.6" in line or "/libc-2" in line)
    fd = os.open(path, os.O_RDONLY)
    try:
        found = read_elf(lambda at, size: os.pread(fd, size, at))
    finally:
        os.close(fd)
    assert found.soname == "libc.so.6"
    assert found.machine == platform.machine()
    assert latest(found.offers) == tuple(map(int, version.split(".")[:2]))


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"#!/bin/sh\n" * 9, b"\x7fELF\x03" + b"\1" * 60]
)
def test_what_is_no_library(content: bytes) -> None:
    with pytest.raises(ElfError):
        parsed(content)


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    for start in (b"", b"\x7fELF\x02\x01", b"\x7fELF\x01\x02"):
        with suppress(ElfError):
            parsed(start + content)


@given(
    st.lists(st.tuples(st.integers(16, 600), st.integers(0, 255)), min_size=1, max_size=12),
    st.integers(0, 700),
)
def test_no_damage_raises_anything_else(damage: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(open_mpi() + glibc()[20:])
    for at, value in damage:
        if at < len(content):
            content[at] = value
    with suppress(ElfError):
        parsed(bytes(content[: len(content) - cut]))


def test_a_list_that_goes_round_for_ever_ends() -> None:
    content = bytearray(glibc())
    reads = 0

    def read(at: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        return bytes(content[at : at + size])

    # Each entry of the dynamic section is the same, and there are as many as a number can say.
    struct.pack_into("<Q", content, 64 + 56 + 32, 1 << 60)
    dynamic = struct.unpack_from("<Q", content, 64 + 56 + 8)[0]
    content[dynamic:] = struct.pack("<qQ", 1, 0) * 100_000
    with pytest.raises(ElfError):
        read_elf(read)
    assert reads < 10_000


def test_where_the_loader_finds_libraries() -> None:
    content = ld_cache(
        ("libmpi.so.40", "/opt/mpi/lib/libmpi.so.40"),
        ("libc.so.6", "/lib/libc.so.6"),
        ("libc.so.6", "relative"),
        ("libx.so", "/lib/libx.so"),
    )
    found = {"libmpi.so.40": ["/opt/mpi/lib/libmpi.so.40"], "libc.so.6": ["/lib/libc.so.6"]}
    wanted = {"libmpi.so.40", "libc.so.6", "liby.so"}
    assert paths_in(content, wanted) == found
    # Systems of old have a table for older loaders before it.
    old = b"ld.so-1.7.0\0" + struct.pack("<I", 3) + b"\0" * 36
    assert paths_in(old.ljust(56, b"\0") + content, wanted) == found


def test_the_cache_of_this_machine() -> None:
    cache = Path("/etc/ld.so.cache")
    if not cache.exists():
        pytest.skip("this machine has no /etc/ld.so.cache")
    paths = paths_in(cache.read_bytes(), {"libc.so.6"})["libc.so.6"]
    assert all(Path(path).exists() for path in paths)


@given(st.binary(max_size=300), st.booleans(), st.integers(0, 2**32 - 1))
def test_no_cache_raises(content: bytes, old: bool, count: int) -> None:
    for start in (b"", b"glibc-ld.so.cache1.1" + struct.pack("<I", count)):
        first = b"ld.so-1.7.0\0" + struct.pack("<I", count % 4) if old else b""
        for names in paths_in(first + start + content, {"libc.so.6", ""}).values():
            assert all(path.startswith("/") for path in names)
