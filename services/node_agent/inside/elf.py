"""What an ELF file says of itself to the loader: machine, name, what it needs and what it offers.

The file may be an image's. Each read is of a few bytes at a place that it names, and each list is
bounded; whatever is wrong with it is an ElfError.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from services.node_agent.errors import ElfError

ReadAt = Callable[[int, int], bytes]
"""At most so many bytes, from this offset on."""

MACHINES: Final = {
    3: "i686",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
_PT_LOAD: Final = 1
_PT_DYNAMIC: Final = 2
_DT_NEEDED: Final = 1
_DT_STRTAB: Final = 5
_DT_SONAME: Final = 14
_DT_VERDEF: Final = 0x6FFFFFFC
_DT_VERDEFNUM: Final = 0x6FFFFFFD
_DT_VERNEED: Final = 0x6FFFFFFE
_DT_VERNEEDNUM: Final = 0x6FFFFFFF
_MOST_SEGMENTS: Final = 64
_MOST_DYNAMIC: Final = 2048
_MOST_NEEDED: Final = 256
_MOST_VERSIONS: Final = 512
_LONGEST_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class Elf:
    """One library or program."""

    machine: str
    soname: str = ""
    needed: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()
    """Versions that it defines, such as GLIBC_2.36."""
    asks: tuple[str, ...] = ()
    """Versions that others have to define for it."""


def read_elf(read: ReadAt) -> Elf:
    """Raises ElfError."""
    ident = read(0, 20)
    if len(ident) < 20 or ident[:4] != b"\x7fELF" or ident[4] not in {1, 2}:
        raise ElfError("it is no ELF file")
    if ident[5] not in {1, 2}:
        raise ElfError("it has an unknown byte order")
    file = _File(read, wide=ident[4] == 2, order="<" if ident[5] == 1 else ">")
    (number,) = file.unpack("H", 18)
    machine = MACHINES.get(number, f"machine {number}")
    if machine == "ppc64" and file.order == "<":
        machine = "ppc64le"
    entries = file.dynamic()
    names: Callable[[int], str] = file.names(dict(entries).get(_DT_STRTAB))
    tags = dict(reversed(entries))
    needed = [value for tag, value in entries if tag == _DT_NEEDED][:_MOST_NEEDED]
    return Elf(
        machine=machine,
        soname=names(tags[_DT_SONAME]) if _DT_SONAME in tags else "",
        needed=tuple(names(value) for value in needed),
        offers=tuple(
            names(at) for at in file.offered(tags.get(_DT_VERDEF), tags.get(_DT_VERDEFNUM, 0))
        ),
        asks=tuple(
            names(at) for at in file.asked(tags.get(_DT_VERNEED), tags.get(_DT_VERNEEDNUM, 0))
        ),
    )


class _File:
    def __init__(self, read: ReadAt, *, wide: bool, order: str) -> None:
        self._read = read
        self._wide = wide
        self.order = order
        self._loads: list[tuple[int, int, int]] = []

    def unpack(self, form: str, at: int) -> tuple[int, ...]:
        form = self.order + form
        size = struct.calcsize(form)
        content = self._read(at, size) if 0 <= at < 1 << 62 else b""
        if len(content) < size:
            raise ElfError("it ends too early, or points behind its end")
        return struct.unpack(form, content)

    def dynamic(self) -> list[tuple[int, int]]:
        """Tags and values; nothing of a program that is linked statically."""
        at, size, count = self._segments()
        found: tuple[int, int] | None = None
        for index in range(min(count, _MOST_SEGMENTS)):
            if self._wide:
                kind, _, offset, address, _, length = self.unpack("IIQQQQ", at + index * size)
            else:
                kind, offset, address, _, length = self.unpack("IIIII", at + index * size)
            if kind == _PT_LOAD:
                self._loads.append((address, offset, length))
            elif kind == _PT_DYNAMIC:
                found = offset, length
        return list(self._entries(*found)) if found is not None else []

    def _segments(self) -> tuple[int, int, int]:
        if self._wide:
            (at,) = self.unpack("Q", 32)
            size, count = self.unpack("HH", 54)
        else:
            (at,) = self.unpack("I", 28)
            size, count = self.unpack("HH", 42)
        return at, size, count

    def _entries(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        form, size = ("qQ", 16) if self._wide else ("iI", 8)
        for index in range(min(length // size, _MOST_DYNAMIC)):
            tag, value = self.unpack(form, offset + index * size)
            if tag == 0:
                return
            yield tag, value

    def _offset(self, address: int) -> int:
        for start, offset, length in self._loads:
            if start <= address < start + length:
                return offset + address - start
        raise ElfError("it points to what is not in it")

    def names(self, table: int | None) -> Callable[[int], str]:
        def name(at: int) -> str:
            if table is None:
                raise ElfError("it has no names")
            place = self._offset(table) + at
            content = self._read(place, _LONGEST_NAME + 1) if place < 1 << 62 else b""
            word, end, _ = content.partition(b"\0")
            if not end:
                raise ElfError("it has a name without an end")
            return word.decode("ascii", "replace")

        return name

    def offered(self, address: int | None, count: int) -> Iterator[int]:
        """Where the names of defined versions are."""
        if address is None:
            return
        at = self._offset(address)
        for _ in range(min(count, _MOST_VERSIONS)):
            names, _, first, following = self.unpack("HIII", at + 6)
            if names:
                yield self.unpack("I", at + first)[0]
            if not following:
                return
            at += following

    def asked(self, address: int | None, count: int) -> Iterator[int]:
        """Where the names of needed versions are."""
        if address is None:
            return
        left = _MOST_VERSIONS
        at = self._offset(address)
        for _ in range(min(count, _MOST_VERSIONS)):
            names, _, first, following = self.unpack("HIII", at + 2)
            each = at + first
            for _ in range(min(names, left)):
                left -= 1
                name, next_name = self.unpack("II", each + 8)
                yield name
                if not next_name:
                    break
                each += next_name
            if not following or not left:
                return
            at += following
