"""Libraries made for tests: an ELF file with nothing in it but what the loader asks first."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

X86_64 = 62
_BASE = 0x10000
_HEADERS = 64 + 2 * 56


def library(
    soname: str = "",
    *,
    needed: Sequence[str] = (),
    offers: Sequence[str] = (),
    asks: Sequence[str] = (),
    machine: int = X86_64,
) -> bytes:
    """As for a little-endian machine of 64 bits; `asks` are versions of libc.so.6."""
    strings = bytearray(b"\0")

    def name(text: str) -> int:
        at = len(strings)
        strings.extend(text.encode() + b"\0")
        return at

    entries = [(1, name(each)) for each in needed]
    if soname:
        entries.append((14, name(soname)))
    defined, wanted = _defined([name(each) for each in offers]), b""
    if asks:
        wanted = _wanted(name("libc.so.6"), [name(each) for each in asks])
    table = _HEADERS
    definitions = table + len(strings)
    needs = definitions + len(defined)
    dynamic = needs + len(wanted)
    entries.append((5, _BASE + table))
    if offers:
        entries += [(0x6FFFFFFC, _BASE + definitions), (0x6FFFFFFD, len(offers))]
    if asks:
        entries += [(0x6FFFFFFE, _BASE + needs), (0x6FFFFFFF, 1)]
    entries.append((0, 0))
    tags = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    length = dynamic + len(tags)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, length, length, 4096)
    head += struct.pack("<IIQQQQQQ", 2, 6, dynamic, _BASE + dynamic, 0, len(tags), len(tags), 8)
    return head + bytes(strings) + defined + wanted + tags


def _defined(names: Sequence[int]) -> bytes:
    pieces = []
    for number, at in enumerate(names, 1):
        following = 28 if number < len(names) else 0
        pieces.append(struct.pack("<HHHHIII", 1, 0, number, 1, 0, 20, following))
        pieces.append(struct.pack("<II", at, 0))
    return b"".join(pieces)


def _wanted(file: int, names: Sequence[int]) -> bytes:
    pieces = [struct.pack("<HHIII", 1, len(names), file, 16, 0)]
    for number, at in enumerate(names, 1):
        following = 16 if number < len(names) else 0
        pieces.append(struct.pack("<IHHII", 0, 0, number, at, following))
    return b"".join(pieces)


def glibc(minor: int = 36) -> bytes:
    return library("libc.so.6", offers=["GLIBC_2.2.5", f"GLIBC_2.{minor}", "GLIBC_PRIVATE"])


def open_mpi(soname: str = "libmpi.so.40", *, asks: Sequence[str] = ("GLIBC_2.14",)) -> bytes:
    return library(soname, needed=["libopen-rte.so.40", "libopen-pal.so.40"], asks=asks)


def mpich(soname: str = "libmpi.so.12", *, asks: Sequence[str] = ("GLIBC_2.14",)) -> bytes:
    return library(soname, needed=["libc.so.6"], asks=asks)


def put(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write them below a directory, which is returned."""
    for name, content in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def ld_cache(*entries: tuple[str, str]) -> bytes:
    """/etc/ld.so.cache as ldconfig writes it, of names and paths."""
    strings, table = bytearray(), b""
    start = 48 + 24 * len(entries)
    for soname, path in entries:
        at = []
        for text in (soname, path):
            at.append(start + len(strings))
            strings.extend(text.encode() + b"\0")
        table += struct.pack("<iIIIQ", 0x303, *at, 0, 0)
    head = b"glibc-ld.so.cache1.1" + struct.pack("<IIB3xI12x", len(entries), len(strings), 2, 0)
    return head + table + bytes(strings)
