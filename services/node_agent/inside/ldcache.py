"""/etc/ld.so.cache of an image: where its loader finds libraries. The image may lie."""

import struct
from collections.abc import Set as AbstractSet
from typing import Final

LARGEST: Final = 16 << 20
_MAGIC: Final = b"glibc-ld.so.cache1.1"
_OLD_MAGIC: Final = b"ld.so-1.7.0\0"
_HEADER: Final = 48
_ENTRY: Final = 24
_OLD_ENTRY: Final = 12
_BIG_ENDIAN: Final = 3
_MOST_ENTRIES: Final = 1 << 16
_LONGEST: Final = 1024


def paths_in(content: bytes, wanted: AbstractSet[str]) -> dict[str, list[str]]:
    """The paths of these libraries, as the loader would try them; of what is no cache none."""
    at = _start(content)
    if at is None or len(content) < at + _HEADER:
        return {}
    order = ">" if content[at + 28] & 3 == _BIG_ENDIAN else "<"
    (count,) = struct.unpack_from(f"{order}I", content, at + 20)
    found: dict[str, list[str]] = {}
    entry = struct.Struct(f"{order}iII")
    names = {name.encode(): name for name in wanted}
    for index in range(min(count, _MOST_ENTRIES)):
        place = at + _HEADER + index * _ENTRY
        if place + _ENTRY > len(content):
            break
        _, key, value = entry.unpack_from(content, place)
        name = names.get(_word(content, at + key))
        path = _word(content, at + value)
        if name is not None and path.startswith(b"/"):
            found.setdefault(name, []).append(path.decode("utf-8", "surrogateescape"))
    return {name: list(dict.fromkeys(paths))[:8] for name, paths in found.items()}


def _start(content: bytes) -> int | None:
    """Systems of old have another table first."""
    if content.startswith(_MAGIC):
        return 0
    if not content.startswith(_OLD_MAGIC) or len(content) < 16:
        return None
    (count,) = struct.unpack_from("<I", content, 12)
    at = -(-(16 + count * _OLD_ENTRY) // 8) * 8
    return at if content[at : at + len(_MAGIC)] == _MAGIC else None


def _word(content: bytes, at: int) -> bytes:
    end = content.find(b"\0", at, at + _LONGEST)
    return content[at:end] if end >= 0 else b""
